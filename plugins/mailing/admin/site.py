"""The site: Airflow's login, our look, and the views in the order of the menu."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airflow.api_fastapi.app import get_auth_manager
from airflow.configuration import conf
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette_admin import BaseAdmin, CustomView, DefaultTheme, TablerSettings
from starlette_admin.auth import AdminUser, BaseAuthProvider
from starlette_admin.routing import route
from starlette_admin.views import BaseView

from mailing.admin import errors
from mailing.admin.common import in_database, who
from mailing.admin.links import Relative

PATH = "/admin"
STATIC = Path(__file__).parent / "static"
UNSERVED = "js/vendor/apexcharts.min.js"
"""What comes with starlette-admin, is not open source, and is used by no page of ours."""


class AirflowLogin(BaseAuthProvider):
    """Whoever came through the gate is logged in to Airflow, and so here."""

    async def authenticate(self, request: Request) -> AdminUser | None:
        """The user that the gate knows."""
        return AdminUser(username=who(request).name)


class Home(CustomView):
    """The site's own address leads to the campaigns."""

    path = "/"
    route_name = "index"
    add_to_menu = False

    @route("")
    async def index(self, request: Request) -> Response:
        """Go to the campaigns."""
        return RedirectResponse(str(request.url_for("admin:campaigns")), 303)


class Alive(CustomView):
    """For scripts: whether whoever looks is still logged in, and the database there."""

    path = "/alive"
    route_name = "alive"
    add_to_menu = False

    @route("")
    async def index(self, request: Request) -> Response:
        """204. The gate answers 401, the database's absence 503."""
        await in_database(lambda connection: None)
        return Response(status_code=204)


class Site(BaseAdmin):
    """starlette-admin's site, whose check of forms says by a page what is wrong."""

    def _init_csrf(self) -> None:
        assert self.secret_key is not None  # noqa: S101 - what mount gives it
        self.middlewares.append(Middleware(errors.Forms, secret_key=self.secret_key, site=self))

    def _init_routes(self) -> None:
        self.routes.append(Route(f"/static/{UNSERVED}", _unserved))
        super()._init_routes()


def _unserved(request: Request) -> Response:
    raise HTTPException(404)


def mount(views: Sequence[type[BaseView] | BaseView], app: FastAPI) -> None:
    """Add the site with these views in its menu to the app, at `PATH`."""
    made = Site(
        title="Mailing",
        base_url=PATH,
        templates_dir=str(Path(__file__).parent / "templates"),
        static_dir=str(STATIC),
        index_view=Home(),
        theme=DefaultTheme(TablerSettings(base="slate")),  # as blue as Airflow is, in the dark
        auth_provider=AirflowLogin(),
        secret_key=conf.get("api", "secret_key"),  # so that forms outlive a restart, and any API server takes them
        middlewares=[Middleware(Relative)],
    )
    made.templates.env.globals["login_url"] = lambda: get_auth_manager().get_url_login()
    for view in (*views, Alive):
        made.add_view(view)
    made.mount_to(app)
    errors.install(made)
