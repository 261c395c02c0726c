"""Who may come in to the web server's pages and API, and what they may do there: Airflow's login, Airflow's roles.

Three roles, told by what Airflow lets its user do: who may see DAGs reads; who may start runs (an *operator*) writes;
an *admin* also deletes and configures gateways.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mailing import problems
from mailing.environment import number

MAX_BODY = int(number("MAILING_MAX_BODY", 4 << 20, "bytes"))
"""Bytes of a request's body; `MAILING_MAX_IMPORT` is for files of clients."""

MAX_IMPORT = int(number("MAILING_MAX_IMPORT", 1 << 30, "bytes"))

ADMIN_ROLES = ("admin",)

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_bearer = HTTPBearer(auto_error=False)


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `name`: as it is kept in the audit log."""

    name: str
    may_read: bool
    may_write: bool
    is_admin: bool


KEY_HOLDER = User("the holder of a key", may_read=True, may_write=False, is_admin=False)


class Gate:
    """Lets nobody in who is not logged in, no write that another site made a browser send, and no body too large.

    In front of everything, so that whoever is not logged in learns nothing, not even what exists. `open_paths` need no
    login; at the paths of `keys` a bearer token that its function knows will do, to read; a page (`pages`: their
    prefixes) sends people to the login instead of telling them off, and shows them any other refusal as `page` makes
    one of its status and words. `max_body`: bytes by path, where it is not `MAX_BODY`; of `forms` among these only with
    the CSRF token in a header: one in a field is found only by reading the whole body.
    """

    def __init__(
        self,
        app: ASGIApp,
        open_paths: tuple[str, ...] = (),
        pages: tuple[str, ...] = (),
        max_body: Mapping[str, int] | None = None,
        forms: tuple[str, ...] = (),
        page: Callable[[Request, int, str], Response] | None = None,
        keys: Mapping[str, Callable[[str], bool]] | None = None,
    ) -> None:
        self.app, self.open_paths, self.pages, self.page = app, open_paths, pages, page
        self.max_body, self.forms, self.keys = max_body or {}, forms, keys or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_small = path in self.forms and b"x-csrftoken" not in dict(scope["headers"])
        limit = MAX_BODY if is_small else self.max_body.get(path, MAX_BODY)
        refusal = _refuse_length(scope, limit)
        if refusal is None and path not in self.open_paths:
            refusal = await self._refuse(Request(scope), path)
        if refusal is not None:
            await self._shown(Request(scope), path, refusal)(scope, receive, send)
        else:
            await self.app(scope, _limited(receive, limit), send)

    async def _refuse(self, request: Request, path: str) -> JSONResponse | None:
        """Why the request is not let in. Who is let in is kept in its scope."""
        credentials = await _bearer(request)
        try:
            user = await self._with_key(path, credentials)
            user = user or await run_in_threadpool(_known, await get_user(request, None, credentials))
        except HTTPException as error:
            return problems.response(401, f"{error.detail}", headers={"WWW-Authenticate": "Bearer"})
        except SQLAlchemyError:
            return problems.away("Airflow's database")
        if credentials is None and not _is_from_here(request):
            return problems.response(
                403, "a write by cookie was not sent from a page of this site: wanted its Origin, or a bearer token"
            )
        request.scope.setdefault("state", {})["mailing_user"] = user
        return None

    async def _with_key(self, path: str, credentials: HTTPAuthorizationCredentials | None) -> User | None:
        is_key = self.keys.get(path)
        if is_key is None or credentials is None:
            return None
        return KEY_HOLDER if await run_in_threadpool(is_key, credentials.credentials) else None

    def _shown(self, request: Request, path: str, refusal: JSONResponse) -> Response:
        """The refusal as whoever asked can read it."""
        is_read = request.method == "GET"
        # What a browser sends for a person it says that it wants as a page; who only opens an address need not say it.
        wants_page = is_read or "text/html" in request.headers.get("accept", "")
        if not path.startswith(self.pages) or is_script(request) or not wants_page:
            return refusal
        if is_read and refusal.status_code == 401:
            return RedirectResponse(get_auth_manager().get_url_login(next_url=_path_of(request)), 303)
        if self.page is None:
            return refusal
        return self.page(request, refusal.status_code, json.loads(bytes(refusal.body))["detail"])


def is_script(request: Request) -> bool:
    """Whether a page's script asks, and not a person who opens a page: it wants an error as data.

    Browsers say so themselves only where they trust the connection (https, localhost); our scripts and jQuery say so
    always.
    """
    return "x-requested-with" in request.headers or request.headers.get("sec-fetch-dest") == "empty"


def _path_of(request: Request) -> str:
    """Where the request went, without the host: behind a proxy the server may not know how it was reached."""
    query = request.url.query
    return f"{request.url.path}?{query}" if query else request.url.path


def _is_from_here(request: Request) -> bool:
    """Whether a request that carries a cookie was made by one of our own pages, as far as the browser tells.

    Browsers add the cookie to what other sites make them send; they do not let those sites choose these headers.
    """
    if request.method in SAFE_METHODS:
        return True
    if site := request.headers.get("sec-fetch-site"):
        return site == "same-origin"
    origin = request.headers.get("origin") or request.headers.get("referer")
    ours = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="")).netloc} - {None, ""}
    return bool(origin) and urlsplit(origin).netloc in ours


def _refuse_length(scope: Scope, limit: int) -> JSONResponse | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            return problems.response(413, f"the body has {int(value)} bytes: wanted at most {limit}")
    return None


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` for a body whose length nobody told."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body") or b"")
        if seen > limit:
            raise HTTPException(413, f"the body has more than {limit} bytes: wanted at most {limit}")
        return message

    return limited


def _known(user: Any) -> User:
    may = get_auth_manager().is_authorized_dag
    may_write = may(method="POST", access_entity=DagAccessEntity.RUN, user=user)
    return User(
        name=str(user.get_name() or user.get_id())[:200],
        may_read=may(method="GET", user=user),
        may_write=may_write,
        is_admin=may_write and _is_admin(user),
    )


def _is_admin(user: Any) -> bool:
    """By the name of its role, as SimpleAuthManager and FAB have it; elsewhere who may delete connections."""
    names = [user.role] if hasattr(user, "role") else [role.name for role in getattr(user, "roles", None) or ()]
    if names:
        return any(str(name).lower() in ADMIN_ROLES for name in names)
    return bool(get_auth_manager().is_authorized_connection(method="DELETE", user=user))


def reader(request: Request) -> User:
    """Who asks; 403 for who may not even see DAGs."""
    user: User = request.scope["state"]["mailing_user"]
    return _allow(user, user.may_read, "see DAGs")


def operator(request: Request) -> User:
    """Who asks; 403 unless it may start runs of DAGs."""
    user = reader(request)
    return _allow(user, user.may_write, "start runs of DAGs (an operator's)")


def admin(request: Request) -> User:
    """Who asks; 403 unless it is an admin."""
    user = operator(request)
    return _allow(user, user.is_admin, "administer (an admin's)")


def _allow(user: User, may: bool, what: str) -> User:
    if not may:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"user {user.name}: wanted the right to {what}")
    return user


Reader = Annotated[User, Depends(reader)]
Operator = Annotated[User, Depends(operator)]
Admin = Annotated[User, Depends(admin)]
