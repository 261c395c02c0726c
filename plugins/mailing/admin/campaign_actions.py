"""What the buttons of campaigns do. Each is the domain's: its rules, its audit, its poke."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette_admin.flash import flash
from starlette_admin.routing import route

from mailing import campaigns, enrolment, messages, poke, pool, runs, test_send
from mailing.admin.campaign_words import ASSUME_SENT, GIVE_UP, SEND_AGAIN
from mailing.admin.common import Page, operator
from mailing.errors import InvalidInput, MailingError

VERBS: dict[str, Callable[..., None]] = {
    "pause": campaigns.pause, "resume": campaigns.resume, "cancel": campaigns.cancel,
}  # fmt: skip

SAID = {
    "pause": "Paused. What is on its way arrives.",
    "resume": "Resumed.",
    "cancel": "Cancelled. What is on its way arrives.",
}

VERDICTS = {SEND_AGAIN: "to be sent again", ASSUME_SENT: "assumed sent", GIVE_UP: "given up"}


def turn(verb: str, campaign_id: int, actor: str) -> None:
    """Pause, resume or cancel a campaign; of a cancelled one what waits is cancelled at once."""
    with pool.transaction() as connection:
        VERBS[verb](connection, campaign_id, actor=actor)
    poke.campaigns()
    if verb == "cancel":
        # In a transaction of its own: it may wait for a run that takes the audience, and nothing is claimed meanwhile.
        # Where that takes too long, upkeep sweeps up within a minute.
        with suppress(psycopg.OperationalError), pool.transaction() as connection:
            runs.sweep_cancelled(connection, campaign_id)


class CampaignActions(Page):
    """One address per button. Each goes back to the campaign's page, which says what came of it."""

    path = "/campaigns"
    add_to_menu = False

    @route("/{id:int}/turn", methods=["POST"], name="campaign-turn")
    async def turn(self, request: Request) -> Response:
        """Pause, resume or cancel."""
        actor, form = operator(request).name, await request.form()
        verb = _one_of(form, "verb", VERBS)

        def work(campaign_id: int) -> str:
            turn(verb, campaign_id, actor)
            return SAID[verb]

        return await _done(request, work)

    @route("/{id:int}/resend", methods=["POST"], name="campaign-resend")
    async def resend(self, request: Request) -> Response:
        """Send again what failed."""
        actor = operator(request).name

        def work(campaign_id: int) -> str:
            with pool.transaction() as connection:
                counts = enrolment.resend(connection, campaign_id, ["failed"], actor=actor)
            poke.campaigns()
            return f"{counts['failed']:,} failed messages are to be sent again."

        return await _done(request, work)

    @route("/{id:int}/settle", methods=["POST"], name="campaign-settle")
    async def settle(self, request: Request) -> Response:
        """One verdict on all messages that are in doubt."""
        actor, form = operator(request).name, await request.form()
        verdict = _one_of(form, "verdict", VERDICTS)

        def work(campaign_id: int) -> str:
            with pool.transaction() as connection:
                count = messages.settle_all(connection, campaign_id, verdict, actor=actor)
            poke.campaigns()
            return f"{count:,} messages in doubt are {VERDICTS[verdict]}."

        return await _done(request, work)

    @route("/{id:int}/test-send", methods=["POST"], name="campaign-test-send")
    async def test_send(self, request: Request) -> Response:
        """Send the text to a few clients now, outside all statistics."""
        actor, form = operator(request).name, await request.form()

        def work(campaign_id: int) -> str:
            ids = _ids(str(form.get("clients") or ""))
            with pool.transaction() as connection:
                planned = test_send.plan(connection, campaign_id, ids, actor=actor)
            sent = test_send.send(planned, pool.transaction)
            said = (f"client {row.client_id}: {row.state}" + (f" ({row.reason})" if row.reason else "") for row in sent)
            return f"Test send: {', '.join(said)}."

        return await _done(request, work)


def _ids(written: str) -> list[int]:
    parts = written.replace(",", " ").split()
    if not all(re.fullmatch("[0-9]{1,18}", part) for part in parts):
        raise InvalidInput("test send: clients: wanted ids of clients, which are numbers", ["clients"])
    return [int(part) for part in parts]


def _one_of(form: FormData, name: str, known: dict[str, Any]) -> str:
    value = form.get(name)
    if not isinstance(value, str) or value not in known:
        raise HTTPException(422, f"{name}: wanted one of {', '.join(known)}")
    return value


async def _done(request: Request, work: Callable[[int], str]) -> Response:
    """Do it, and say on the campaign's page what came of it."""
    campaign_id = campaign_of(request)
    try:
        flash(request, await run_in_threadpool(work, campaign_id), "success")
    except MailingError as error:
        flash(request, str(error)[:500], "error")
    return RedirectResponse(request.url_for("admin:campaign", id=campaign_id).path, 303)


def campaign_of(request: Request) -> int:
    """The id in the path. 404 for one that no campaign can have."""
    campaign_id: int = request.path_params["id"]
    if not 1 <= campaign_id < 2**63:
        raise HTTPException(404, f"campaign {campaign_id}: there is no such campaign")
    return campaign_id
