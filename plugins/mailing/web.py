"""The web app that Airflow's API server mounts at /mailing: the REST API, its documents, a liveness probe."""

from __future__ import annotations

from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import structlog
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from mailing import gate, problems
from mailing.api import campaigns, client_import, clients, gateways, lifecycle, messages, statistics, tags
from mailing.errors import MailingError

log = structlog.get_logger(__name__)

PREFIX = "/mailing"

ROUTERS = (
    tags.router,
    clients.router,
    client_import.router,
    messages.router,
    statistics.router,
    gateways.router,
    campaigns.router,
    lifecycle.router,
)

IMPORT_PATH = "/api/clients/import"

DESCRIPTION = """Clients, campaigns, and what became of every message.

Log in with a token of Airflow's (`POST /auth/token`) or in its web UI. Whoever may see DAGs reads; whoever may start
runs writes; an admin deletes, and configures gateways. What cannot be answered is told as a problem (RFC 9457)."""

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
"""What shows the documents: files of the package fastapi-offline, for there may be no internet."""


def app() -> FastAPI:
    """A new app. Wants Airflow's auth manager, which the API server makes before the first request."""
    # For the documents only: who may come in is told by the gate, in front of everything.
    bearer = Depends(HTTPBearer(auto_error=False, description="A token from `POST /auth/token`."))
    made = FastAPI(title="Mailing Service", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None)
    for router in ROUTERS:
        made.include_router(router, dependencies=[bearer])
    made.add_api_route("/health", health, tags=["health"])
    made.add_api_route("/docs", _swagger, include_in_schema=False)
    made.add_api_route("/redoc", _redoc, include_in_schema=False)
    made.add_api_route("/assets/{name}", _asset, include_in_schema=False)
    made.add_exception_handler(RequestValidationError, _invalid)
    made.add_exception_handler(StarletteHTTPException, _refused)
    for error in (MailingError, psycopg.Error, AirflowNotFoundException):
        made.add_exception_handler(error, _of_the_domain)
    made.add_exception_handler(Exception, _failed)
    made.add_middleware(
        gate.Gate, open_paths=("/health",), pages=("/docs", "/redoc"), max_body={IMPORT_PATH: gate.MAX_IMPORT}
    )
    return made


def health() -> dict[str, str]:
    """That this server lives. It says nothing of databases: what is away comes back without a restart."""
    return {"status": "alive"}


# Documents


def _swagger(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "")
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Mailing Service",
        swagger_js_url=f"{root}/assets/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/assets/swagger-ui.css",
        swagger_favicon_url=f"{root}/assets/favicon.png",
    )


def _redoc(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "")
    return get_redoc_html(
        openapi_url=f"{root}/openapi.json",
        title="Mailing Service",
        redoc_js_url=f"{root}/assets/redoc.standalone.js",
        redoc_favicon_url=f"{root}/assets/favicon.png",
        with_google_fonts=False,
    )


def _asset(name: str) -> FileResponse:
    if name not in ASSETS:
        raise HTTPException(404, f"asset {name!r}: there is no such asset")
    folder = Path(str(resources.files("fastapi_offline"))) / "static"
    return FileResponse(folder / name, media_type=ASSETS[name])


# Errors, all in one shape


def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    # Without what was given: it may be a phone number.
    errors = [{"field": ".".join(map(str, each["loc"])), "reason": each["msg"]} for each in error.errors()]
    said = "; ".join(f"{each['field']}: {each['reason']}" for each in errors)
    return problems.response(422, said, errors)


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)  # noqa: S101
    return problems.response(error.status_code, str(error.detail), headers=error.headers)


def _of_the_domain(request: Request, error: Exception) -> JSONResponse:
    return problems.of(error) or _failed(request, error)


def _failed(request: Request, error: Exception) -> JSONResponse:
    """A fault of ours. The log has what it was; whoever asked learns that it was not them."""
    log.error("unforeseen", path=request.url.path, error=_described(error), exc_info=_without_values(error))
    return problems.response(HTTPStatus.INTERNAL_SERVER_ERROR, "this was not foreseen; the server's log says more")


def _described(error: Exception) -> str:
    return type(error).__name__


def _without_values(error: Exception) -> Any:
    """The traceback, unless it may show a row: PostgreSQL's errors do."""
    return None if isinstance(error, psycopg.Error) else error
