"""How a browser sends the forms of starlette-admin: with the token of its cookie."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlencode

import httpx

from tests.web import Caller

COOKIE = "starlette_admin_csrftoken"


def token(caller: Caller) -> dict[str, str]:
    """The header that says that a page of ours asks."""
    caller.get("/admin/tags/list")
    return {"X-CSRFToken": caller._client.cookies[COOKIE]}


def send(caller: Caller, path: str, form: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
    """A form, posted; where it leads is not followed."""
    return caller.post(path, data=form or {}, headers=token(caller), follow_redirects=False, **more)


def act(caller: Caller, key: str, name: str, ids: list[Any], query: str = "", **form: Any) -> httpx.Response:
    """A bulk action on the rows with these ids."""
    asked = urlencode([("name", name), ("_list_query", query), *(("pks", each) for each in ids)])
    return send(caller, f"/admin/_api/{key}/action?{asked}", form)


def act_on(caller: Caller, key: str, name: str, pk: Any) -> httpx.Response:
    """A row's own action."""
    return send(caller, f"/admin/_api/{key}/row-action?{urlencode({'name': name, 'pk': pk})}")


def text_of(answer: httpx.Response) -> str:
    """What a person reads of a page: no tags, one blank between two words."""
    body = re.sub(r"<(script|style|template)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def links(answer: httpx.Response, text: str) -> list[str]:
    """Where the links with this text lead, counted from /mailing."""
    found = re.findall(r'<a [^>]*href="([^"]*)"[^>]*>(.*?)</a>', answer.text, flags=re.DOTALL)
    named = [html.unescape(href) for href, inner in found if " ".join(re.sub(r"<[^>]*>", " ", inner).split()) == text]
    return [href.partition("/mailing")[2] for href in named]
