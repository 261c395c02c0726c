"""What people see when a page cannot be shown: a page of the site that says why, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
from airflow.sdk.exceptions import AirflowNotFoundException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette_admin import BaseAdmin

from mailing import gate, problems
from mailing.errors import MailingError

AWAY = Path(__file__).parent / "templates" / "away.html"

TITLES = {
    403: "You may not do this",
    404: "There is no such page, or it is gone",
    409: "This cannot be done as things stand",
    412: "Somebody else was faster",
    422: "A value is not one",
    503: "The database does not answer",
}


def install(site: BaseAdmin) -> None:
    """Have the mounted site answer all errors itself: handlers of the app that it is mounted to never see them."""

    async def answer(request: Request, error: Exception) -> Response:
        found = _found(request, error)
        problem = json.loads(bytes(found.body))
        headers = {name: value for name, value in found.headers.items() if name in ("retry-after", "allow")}
        if gate.is_script(request):
            # `msg`: what starlette-admin's own scripts show.
            said = problem | {"msg": problem["detail"]}
            return JSONResponse(said, found.status_code, headers, problems.MEDIA_TYPE)
        shown = {
            "title": TITLES.get(found.status_code, "This did not work"),
            "status": found.status_code,
            "detail": problem["detail"],
            "reason": problem["title"],  # what a detail says that says nothing
            "is_read": request.method in gate.SAFE_METHODS,
        }
        # Not as other pages are rendered: messages that wait for the next page shall wait on.
        return site.templates.TemplateResponse(request, "error.html", shown, found.status_code, headers)

    for kind in (HTTPException, MailingError, psycopg.Error, AirflowNotFoundException, Exception):
        site.app.add_exception_handler(kind, answer)


def away() -> HTMLResponse:
    """A page that needs nothing else of this server, and loads itself again: for when nobody can be logged in."""
    headers = {"Retry-After": str(problems.RETRY_AFTER_S)}
    return HTMLResponse(AWAY.read_text(encoding="utf-8"), 503, headers)


def _found(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException):
        return problems.response(error.status_code, str(error.detail), headers=error.headers)
    return problems.of(error) or problems.unforeseen(request.url.path, error)
