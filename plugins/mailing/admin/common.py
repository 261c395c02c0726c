"""What all views of the site share: who looks, a page of our own, and the database from inside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette_admin import CustomView

from mailing import db, pool
from mailing.gate import User

T = TypeVar("T")


class Page(CustomView):
    """A page of our own, inside the site's frame."""

    # starlette-admin's empty one would take the name of the site's home: a view has an index only where it says so.
    index = None

    def render(self, request: Request, template: str, status_code: int = 200, **context: Any) -> Response:
        """The template as a response; `user` is who looks."""
        assert self._admin is not None  # noqa: S101 - what add_view makes so
        shown = {"title": self.menu_label, "user": who(request)} | context
        return self._admin._template_response(request, template, shown, status_code)


async def in_database(work: Callable[[db.Connection], T]) -> T:
    """What `work` returns, in a transaction of its own, in a thread."""

    def run() -> T:
        with pool.transaction() as connection:
            return work(connection)

    return await run_in_threadpool(run)


def who(request: Request) -> User:
    """Who looks at the page; the gate let them in."""
    user: User = request.scope["state"]["mailing_user"]
    return user


def reader(request: Request) -> User:
    """Who looks; 403 unless they may read."""
    return _allowed(request, who(request).may_read)


def operator(request: Request) -> User:
    """Who acts; 403 unless they may write. Hiding a button is not enough."""
    return _allowed(request, who(request).may_write)


def admin(request: Request) -> User:
    """Who acts; 403 unless they administer."""
    return _allowed(request, who(request).is_admin)


def _allowed(request: Request, may: bool) -> User:
    user = who(request)
    if not may:
        raise HTTPException(403, f"user {user.name} may not do this")
    return user
