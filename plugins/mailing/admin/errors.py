"""What people see when a page cannot be shown: a page of the site that says why, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
from airflow.api_fastapi.app import get_auth_manager
from airflow.sdk.exceptions import AirflowNotFoundException
from jinja2 import Environment, FileSystemLoader
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp
from starlette_admin import BaseAdmin
from starlette_admin.security import CSRFMiddleware

from mailing import gate, problems
from mailing.errors import MailingError

TITLES = {
    401: "You are no longer logged in",
    403: "You may not do this",
    404: "There is no such page, or it is gone",
    409: "This cannot be done as things stand",
    412: "Somebody else was faster",
    413: "This is too large",
    422: "A value is not one",
    503: "The database does not answer",
    504: "This takes too long",
}
BUSY = "Others are at it"
FORGED = "This form could not be checked"

_pages = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)


class Forged(HTTPException):
    """A form without the token of our pages, or with that of a session that is over. Nothing of it was done."""

    def __init__(self) -> None:
        super().__init__(403, "the form's token (csrftoken, or the header X-CSRFToken) is not the one of this browser")


class Forms(CSRFMiddleware):
    """starlette-admin's check of that token, which tells a refusal as all others are told."""

    def __init__(self, app: ASGIApp, secret_key: str, site: BaseAdmin) -> None:
        super().__init__(app, secret_key)
        self._site = site

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Hand on, or refuse."""
        answer = await super().dispatch(request, call_next)
        # What comes from further in is streamed: only its own refusal is plain.
        return _answer(self._site, request, Forged()) if isinstance(answer, PlainTextResponse) else answer


def install(site: BaseAdmin) -> None:
    """Have the mounted site answer all errors itself: handlers of the app that it is mounted to never see them."""

    async def answer(request: Request, error: Exception) -> Response:
        return _answer(site, request, error)

    for kind in (HTTPException, MailingError, psycopg.Error, AirflowNotFoundException, Exception):
        site.app.add_exception_handler(kind, answer)


def alone(request: Request, status: int, detail: str) -> HTMLResponse:
    """A page that needs nothing else of this server: for whom the gate does not let in."""
    shown = {
        "title": FORGED if status == 403 else TITLES.get(status, "This did not work"),
        "status": status,
        "detail": detail,
        "is_read": request.method in gate.SAFE_METHODS,
        "login_url": get_auth_manager().get_url_login() if status == 401 else "",
    }
    headers = {"Retry-After": str(problems.RETRY_AFTER_S)} if status == 503 else {}
    return HTMLResponse(_pages.get_template("alone.html").render(shown), status, headers)


def _answer(site: BaseAdmin, request: Request, error: Exception) -> Response:
    found = _found(request, error)
    problem = json.loads(bytes(found.body))
    headers = {name: value for name, value in found.headers.items() if name in ("retry-after", "allow")}
    if gate.is_script(request):
        # `msg`: what starlette-admin's own scripts show.
        said = problem | {"msg": problem["detail"]}
        return JSONResponse(said, found.status_code, headers, problems.MEDIA_TYPE)
    shown = {
        "title": _title(error, found.status_code),
        "status": found.status_code,
        "detail": problem["detail"],
        "reason": problem["title"],  # what a detail says that says nothing
        "is_read": request.method in gate.SAFE_METHODS,
        "is_busy": problems.is_busy(error),
        "is_forged": isinstance(error, Forged),
    }
    # Not as other pages are rendered: messages that wait for the next page shall wait on.
    return site.templates.TemplateResponse(request, "error.html", shown, found.status_code, headers)


def _title(error: Exception, status: int) -> str:
    if isinstance(error, Forged):
        return FORGED
    return BUSY if problems.is_busy(error) else TITLES.get(status, "This did not work")


def _found(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return problems.response(error.status_code, str(error.detail), headers=error.headers)
    return problems.of(error) or problems.unforeseen(request.url.path, error)
