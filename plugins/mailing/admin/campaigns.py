"""The list of campaigns: filter, sort, pages, what is done to several at once, and the list as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette_admin.export.helpers import escape_formula
from starlette_admin.flash import flash
from starlette_admin.routing import route

from mailing import campaigns, db, listing, pool, statistics
from mailing.admin import campaign_words
from mailing.admin.campaign_actions import VERBS, VERBS_OF_ADMINS, turn
from mailing.admin.common import Page, admin, in_database, operator, reader, who
from mailing.campaign_rows import Choice
from mailing.errors import MailingError
from mailing.models import CAMPAIGN_STATUSES, MESSAGE_STATES

PAGE_SIZE = 20
"""Campaigns of a page."""

PATIENCE_S = 5.0
"""How long that may take: then the page is shown without."""

MAX_SELECTED = 100
PAST = {"pause": "paused", "resume": "resumed", "cancel": "cancelled", "delete": "deleted"}
COLUMNS = ("campaign_id", "campaign_name", "status", "sending_start", "sending_stop", "audience", *MESSAGE_STATES)


class CampaignsView(Page):
    """The list of campaigns."""

    menu_label = "Campaigns"
    icon = "fa-solid fa-paper-plane"
    path = "/campaigns"
    route_name = "campaigns"

    def is_active(self, request: Request) -> bool:
        """Also on a campaign's own pages."""
        here = str(request.scope["path"]).removeprefix(request.scope["root_path"])
        return here == self.path or here.startswith(f"{self.path}/")

    @route("")
    async def index(self, request: Request) -> Response:
        """A page of the campaigns, the newest first unless it is sorted."""
        reader(request)
        choice, sort = _choice(request), _sort(request)
        cursor = request.query_params.get("cursor") or None
        rows, next_cursor = await in_database(lambda connection: _page(connection, choice, sort, cursor))
        return self.render(
            request, "campaigns.html", campaigns=rows, next_cursor=next_cursor, is_first=cursor is None,
            choice=choice, sort=sort, is_filtered=choice != Choice(), words=campaign_words,
            statuses=CAMPAIGN_STATUSES, verbs=_verbs(request),
        )  # fmt: skip

    @route("/export", name="campaigns-export")
    async def export(self, request: Request) -> Response:
        """All campaigns that the filter lets through, as CSV."""
        reader(request)
        written = _csv(_choice(request), _sort(request))
        begun = await run_in_threadpool(next, written)  # what cannot be read at all is told by the status
        headers = {"Content-Disposition": 'attachment; filename="campaigns.csv"'}
        return StreamingResponse(chain([begun], written), media_type="text/csv; charset=utf-8", headers=headers)

    @route("/bulk", methods=["POST"], name="campaigns-bulk")
    async def bulk(self, request: Request) -> Response:
        """Turn or delete the selected campaigns, each by itself: one that refuses keeps no other back."""
        user = operator(request)
        form = await request.form()
        verb, given = str(form.get("verb")), [str(each) for each in form.getlist("id")]
        are_ids = len(given) <= MAX_SELECTED and all(re.fullmatch("[0-9]{1,18}", each) for each in given)
        if verb in VERBS_OF_ADMINS:
            admin(request)
        if verb not in (known := _verbs(request)) or not are_ids:
            raise HTTPException(422, f"wanted one of {', '.join(known)}, and ids of at most {MAX_SELECTED} campaigns")
        done, refused = await run_in_threadpool(_each, verb, [int(each) for each in given], user.name)
        if done or not refused:
            flash(request, f"{done:,} of {len(given):,} campaigns {PAST[verb]}.", "success" if done else "info")
        for said in refused[:5]:
            flash(request, said[:300], "error")
        if len(refused) > 5:
            flash(request, f"{len(refused) - 5} more refused likewise.", "error")
        return RedirectResponse(request.url_for("admin:campaigns").path, 303)


def _verbs(request: Request) -> list[str]:
    """What whoever looks may do to several campaigns, if they may do anything."""
    return [*VERBS, *(VERBS_OF_ADMINS if who(request).is_admin else ())]


def _each(verb: str, ids: list[int], actor: str) -> tuple[int, list[str]]:
    """How many campaigns went along, and what the others said."""
    refused = []
    for campaign_id in dict.fromkeys(ids):
        try:
            turn(verb, campaign_id, actor)
        except MailingError as error:
            refused.append(str(error))
    return len(dict.fromkeys(ids)) - len(refused), refused


def _choice(request: Request) -> Choice:
    query = request.query_params
    statuses = tuple(status for status in query.getlist("status") if status)
    name = query.get("name", "").strip()
    if set(statuses) - set(CAMPAIGN_STATUSES) or len(name) > 200 or "\x00" in name:
        raise HTTPException(422, f"wanted a status of {', '.join(CAMPAIGN_STATUSES)}, and how a name begins")
    return Choice(statuses=statuses, name_prefix=name or None)


def _sort(request: Request) -> str:
    return request.query_params.get("sort") or "-id"


def _rows(
    connection: db.Connection, choice: Choice, sort: str, cursor: str | None, limit: int
) -> tuple[list[dict[str, Any]], str | None]:
    """Some campaigns with their figures."""
    found = campaigns.page(connection, choice, sort=sort, cursor=cursor, limit=limit)
    figures = statistics.of_campaigns(connection, [row["id"] for row in found.items])
    kept = ("gateway", "filter_tags", "filter_operator_codes")
    rows = [figure | {name: row[name] for name in kept} for row, figure in zip(found.items, figures, strict=True)]
    return rows, found.next_cursor


def _page(
    connection: db.Connection, choice: Choice, sort: str, cursor: str | None
) -> tuple[list[dict[str, Any]], str | None]:
    """As `_rows`, for people: where counting takes too long, `audience` is None, and of no state there is any."""
    with_figures = listing.counted(connection, PATIENCE_S, lambda: _rows(connection, choice, sort, cursor, PAGE_SIZE))
    if with_figures:
        return with_figures
    found = campaigns.page(connection, choice, sort=sort, cursor=cursor, limit=PAGE_SIZE)
    none = {"audience": None} | dict.fromkeys(MESSAGE_STATES, 0)
    rows = [row | none | {"campaign_id": row["id"], "campaign_name": row["name"]} for row in found.items]
    return rows, found.next_cursor


def _csv(choice: Choice, sort: str) -> Iterator[bytes]:
    cursor, heading = None, [COLUMNS]
    while True:
        with pool.transaction() as connection:  # one for each page: who reads slowly keeps no connection
            rows, cursor = _rows(connection, choice, sort, cursor, listing.DEFAULT_LIMIT)
        yield _written([*heading, *([row[name] for name in COLUMNS] for row in rows)])
        heading = []
        if cursor is None:
            return


def _written(rows: list[Any]) -> bytes:
    cells: Callable[[Any], Any] = lambda value: escape_formula(value) if isinstance(value, str) else value  # noqa: E731
    written = io.StringIO()
    csv.writer(written).writerows([cells(value) for value in row] for row in rows)
    return written.getvalue().encode()
