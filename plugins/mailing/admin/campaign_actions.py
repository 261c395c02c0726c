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

from mailing import campaigns, poke, pool, runs, test_send, verdicts
from mailing.admin import pressed
from mailing.admin.campaign_words import ASSUME_SENT, GIVE_UP, SEND_AGAIN
from mailing.admin.common import Page, admin, operator
from mailing.errors import InvalidInput, MailingError, NotFound

VERBS: dict[str, Callable[..., None]] = {
    "pause": campaigns.pause, "resume": campaigns.resume, "cancel": campaigns.cancel,
}  # fmt: skip

VERBS_OF_ADMINS: dict[str, Callable[..., None]] = {"delete": campaigns.delete}

SAID = {
    "pause": "Paused. What is on its way arrives.",
    "resume": "Resumed.",
    "cancel": "Cancelled. What is on its way arrives.",
}

VERDICTS = {SEND_AGAIN: "to be sent again", ASSUME_SENT: "assumed sent", GIVE_UP: "given up"}


def turn(verb: str, campaign_id: int, actor: str) -> None:
    """Pause, resume, cancel or delete a campaign; of a cancelled one what waits is cancelled at once."""
    with pool.transaction() as connection:
        (VERBS | VERBS_OF_ADMINS)[verb](connection, campaign_id, actor=actor)
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
        actor, form = operator(request).name, await request.form()
        key, expected = pressed.key_of(request, form), _expected(form)

        def work(campaign_id: int) -> str:
            def resend() -> str:
                counts = verdicts.resend(connection, campaign_id, ["failed"], expected=expected, actor=actor)
                return f"{counts['failed']:,} failed messages are to be sent again."

            with pool.transaction() as connection:
                said = pressed.once(connection, key, resend)
            poke.campaigns()
            return said

        return await _done(request, work)

    @route("/{id:int}/settle", methods=["POST"], name="campaign-settle")
    async def settle(self, request: Request) -> Response:
        """One verdict on all messages that are in doubt."""
        actor, form = operator(request).name, await request.form()
        key, expected = pressed.key_of(request, form), _expected(form)
        verdict = _one_of(form, "verdict", VERDICTS)

        def work(campaign_id: int) -> str:
            def settle() -> str:
                count = verdicts.settle_all(connection, campaign_id, verdict, expected=expected, actor=actor)
                return f"{count:,} messages in doubt are {VERDICTS[verdict]}."

            with pool.transaction() as connection:
                said = pressed.once(connection, key, settle)
            poke.campaigns()
            return said

        return await _done(request, work)

    @route("/{id:int}/delete", methods=["POST"], name="campaign-delete")
    async def delete(self, request: Request) -> Response:
        """Forget the campaign, if nothing of it ever left; then back to the list."""
        actor = admin(request).name

        def work(campaign_id: int) -> str:
            turn("delete", campaign_id, actor)
            return f"Campaign {campaign_id} is deleted."

        return await _done(request, work, then=request.url_for("admin:campaigns").path)

    @route("/{id:int}/test-send", methods=["POST"], name="campaign-test-send")
    async def test_send(self, request: Request) -> Response:
        """Send the text to a few clients now, outside all statistics."""
        actor, form = operator(request).name, await request.form()
        key = pressed.key_of(request, form)

        def work(campaign_id: int) -> str:
            ids = _ids(str(form.get("clients") or ""))
            with pool.transaction() as connection:
                # The key is kept before the first request leaves: whoever presses again meanwhile sends nothing.
                pressed.check(connection, key)
                planned = test_send.plan(connection, campaign_id, ids, actor=actor)
            sent = test_send.send(planned, pool.transaction)
            said = ", ".join(_of_one(row) for row in sent)
            with pool.transaction() as connection:
                pressed.keep(connection, key, f"Test send: {said}.")
            return f"Test send: {said}."

        return await _done(request, work)


def _of_one(sent: test_send.TestSendRow) -> str:
    return f"client {sent.client_id}: {sent.state}" + (f" ({sent.reason})" if sent.reason else "")


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


def _expected(form: FormData) -> int:
    """How many messages the confirmation named."""
    value = form.get("expected")
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,18}", value):
        raise HTTPException(422, "expected: wanted the number of messages that was confirmed")
    return int(value)


async def _done(request: Request, work: Callable[[int], str], then: str | None = None) -> Response:
    """Do it, and say what came of it: on the campaign's page, or `then`; on the list where it is gone meanwhile."""
    campaign_id = campaign_of(request)
    page = request.url_for("admin:campaign", id=campaign_id).path
    try:
        flash(request, await run_in_threadpool(work, campaign_id), "success")
        page = then or page
    except pressed.PressedBefore as said:
        flash(request, str(said)[:500], "info")
    except MailingError as error:
        flash(request, str(error)[:500], "error")
        if isinstance(error, NotFound):
            page = request.url_for("admin:campaigns").path
    return RedirectResponse(page, 303)


def campaign_of(request: Request) -> int:
    """The id in the path. 404 for one that no campaign can have."""
    campaign_id: int = request.path_params["id"]
    if not 1 <= campaign_id < 2**63:
        raise HTTPException(404, f"campaign {campaign_id}: there is no such campaign")
    return campaign_id
