"""The web app that Airflow's API server mounts at /mailing: REST API, documents, pages, a liveness probe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import psycopg
from airflow.sdk.exceptions import AirflowNotFoundException
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse

from mailing import dag_watch, gate, problems, scrape
from mailing.admin.campaign_actions import CampaignActions
from mailing.admin.campaign_form import CampaignForm
from mailing.admin.campaign_page import CampaignPage, OfDag
from mailing.admin.campaigns import CampaignsView
from mailing.admin.client_import import PATH as IMPORT_PAGE
from mailing.admin.client_import import ClientImport
from mailing.admin.clients import ClientsView, FindClient
from mailing.admin.errors import alone
from mailing.admin.gateways import GatewaysView
from mailing.admin.messages import MessagesView
from mailing.admin.site import PATH as PAGES
from mailing.admin.site import mount
from mailing.admin.statistics import StatisticsView
from mailing.admin.tags import TagsView
from mailing.api import campaigns, client_import, clients, gateways, lifecycle, messages, outcomes, statistics, tags
from mailing.errors import MailingError
from mailing.headers import Headers

PREFIX = "/mailing"

ROUTERS = (
    tags.router,
    clients.router,
    client_import.router,
    messages.router,
    statistics.router,
    gateways.router,
    campaigns.router,
    outcomes.router,
    lifecycle.router,
    scrape.router,
)

VIEWS = (
    CampaignsView, CampaignPage, CampaignActions, CampaignForm, OfDag,
    ClientsView, FindClient, ClientImport, TagsView, MessagesView, GatewaysView, StatisticsView)  # fmt: skip
"""The pages, in the order of the menu."""

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
    made = FastAPI(
        title="Mailing Service", version="1", description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=_served
    )
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
    made.add_exception_handler(Exception, _of_the_domain)
    mount(VIEWS, made)
    made.add_middleware(
        gate.Gate,
        open_paths=("/health",),
        pages=("/docs", "/redoc", PAGES),
        max_body={IMPORT_PATH: gate.MAX_IMPORT, f"{PAGES}{IMPORT_PAGE}": gate.MAX_IMPORT},
        forms=(f"{PAGES}{IMPORT_PAGE}",),
        page=alone,
        keys={scrape.PATH: scrape.is_key},
    )
    made.add_middleware(Headers)
    return made


@asynccontextmanager
async def _served(_: FastAPI) -> AsyncIterator[None]:
    """Airflow enters it when everything is imported, before the first request."""
    with dag_watch.running():
        yield


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
    return problems.of(error) or problems.unforeseen(request.url.path, error)
