"""Messages: the ledger, the evidence of each, and a person's verdict on what is in doubt.

An outcome cannot be edited: to create is to enrol a client, to edit to postpone, to delete to remove what never left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette_admin import IntegerField, StringField, action, link_row_action, row_action
from starlette_admin.actions import ActionSelection
from starlette_admin.exceptions import ActionFailed, FormValidationError
from starlette_admin.fields import BaseField
from starlette_admin.flash import flash
from starlette_admin.helpers import edit_url
from starlette_admin.types import RequestAction

from mailing import campaign_rows, db, enrolment, ledger, listing, messages, poke, verdicts
from mailing.admin.asked import Filter, asked_id
from mailing.admin.common import in_database, operator
from mailing.admin.fields import Moment, shown_moment, typed_id, typed_moment
from mailing.admin.rows import Rows, chosen_ids
from mailing.errors import InvalidInput
from mailing.models import MESSAGE_STATES

VERDICTS = {
    "send_again": "Send again: who got it already gets it twice.",
    "assume_sent": "Assume that it was sent: who did not get it never will.",
    "give_up": "Give up: it counts as failed.",
}

_CHOICES = "".join(
    f'<label class="form-check"><input class="form-check-input" type="radio" name="verdict" value="{name}" required>'
    f'<span class="form-check-label">{text}</span></label>'
    for name, text in VERDICTS.items()
)
SETTLE_FORM = f"""<form>
    <p><strong class="mailing-number" data-mailing-figure="unknown">Some</strong> of the chosen messages are unknown,
       and are settled; all others stay as they are.</p>{_CHOICES}
</form>"""
RESEND_FORM = """<form>
    <p><strong class="mailing-number" data-mailing-figure="failed">Some</strong> of the chosen messages failed, and are
       sent again under the same ids; all others stay as they are.</p>
</form>"""


class MessagesView(Rows):
    """One for each client of a campaign."""

    key = "messages"
    table = "messages"
    menu_label = "Messages"
    display_name = "message"
    icon = "fa-solid fa-message"
    pk_attr = "id"
    form_field = "client_id"
    empty = "There is no message yet: a campaign writes one for each of its clients when it opens."
    detail_template = "message.html"
    fields: tuple[BaseField, ...] = (
        IntegerField("id", label="Id"),
        StringField("campaign_id", label="Campaign", exclude_from_edit=True, required=True, maxlength=19,
                    list_template="fields/campaign.html", detail_template="fields/campaign.html",
                    help_text="The id of a campaign that has opened."),
        StringField("client_id", label="Client", exclude_from_edit=True, required=True, maxlength=19,
                    list_template="fields/client.html", detail_template="fields/client.html",
                    help_text="The id of a client that matches its filter."),
        StringField("state", label="State", exclude_from_create=True, exclude_from_edit=True,
                    list_template="fields/state.html", detail_template="fields/state.html"),
        StringField("reason", label="Reason", exclude_from_create=True, exclude_from_edit=True,
                    null_template="fields/none.html"),
        IntegerField("attempts", label="Attempts", exclude_from_create=True, exclude_from_edit=True),
        Moment("sent_at", label="Sent", exclude_from_create=True, exclude_from_edit=True),
        Moment("not_before", label="Not before", exclude_from_create=True,
               help_text="In your time zone; empty: as soon as may be."),
        Moment("created", label="Created", exclude_from_create=True, exclude_from_edit=True, exclude_from_list=True),
        IntegerField("revision", label="Revision of its campaign", exclude_from_create=True, exclude_from_edit=True,
                     exclude_from_list=True, null_template="fields/none.html"),
    )  # fmt: skip
    sortable_fields = ("id",)
    fields_default_sort = (("id", True),)
    filters = (
        Filter("campaign", "Campaign", is_number=True, max_length=19),
        Filter("client", "Client", is_number=True, max_length=19),
        Filter("state", "State", choices=MESSAGE_STATES),
        Filter("reason", "Reason"),
    )
    row_actions = ("view", "edit", "send_again", "assume_sent", "give_up", "delete")
    actions = ("settle", "resend", "delete", "export")

    def page(
        self, connection: db.Connection, asked: Mapping[str, str], sort: str, cursor: str | None, limit: int
    ) -> listing.Page:
        """Those of the campaign, to the client, in the state, for the reason."""
        state = asked.get("state")
        if state and state not in MESSAGE_STATES:
            raise InvalidInput(f"state: wanted one of {', '.join(MESSAGE_STATES)}", ["state"])
        wanted = ledger.Wanted(
            campaign_id=asked_id(asked, "campaign", "campaign"), client_id=asked_id(asked, "client", "client"),
            states=[state] if state else (), reason=asked.get("reason"),
        )  # fmt: skip
        if wanted.campaign_id is not None:
            campaign_rows.check_kept(connection, wanted.campaign_id)
        return ledger.page(connection, wanted, sort=sort, cursor=cursor, limit=limit)

    def row(self, item: dict[str, Any]) -> ledger.MessageRow:
        """A message."""
        return ledger.MessageRow(**item)

    def one(self, connection: db.Connection, pk: str) -> ledger.MessageRow:
        """A message."""
        return ledger.get(connection, typed_id(pk))

    async def find_by_pk(self, request: Request, pk: Any) -> Any:
        """A message; for its own page, its attempts too."""
        found = await super().find_by_pk(request, pk)
        if found is not None and request.state.action == RequestAction.DETAIL:
            attempts = await in_database(lambda connection: messages.attempts(connection, found.id))
            request.state.attempts = [(each, shown_moment(each.ended_at)) for each in attempts]
        return found

    async def is_row_action_allowed_for_obj(self, request: Request, name: str, obj: Any) -> bool:
        """A verdict is for what is unknown; only what is pending is postponed; only what never left is removed."""
        if name in VERDICTS:
            return bool(obj.state == "unknown")
        if name == "edit":
            return bool(obj.state == "pending")
        return name != "delete" or (obj.state in enrolment.REMOVABLE and not obj.attempts)

    async def _changed(self, request: Request, work: Callable[[db.Connection], Any]) -> Any:
        """What `work` returns; whoever watches campaigns is told."""
        done = await self.write(request, work)
        await run_in_threadpool(poke.campaigns)
        return done

    # One

    async def create(self, request: Request, data: dict[str, Any]) -> ledger.MessageRow:
        """Enrol a client into a campaign that has opened."""
        actor = operator(request).name
        campaign_id, client_id = _typed(data, "campaign_id", "client_id")

        def enrol(connection: db.Connection) -> ledger.MessageRow:
            return ledger.get(connection, enrolment.enrol(connection, campaign_id, client_id, actor=actor))

        made: ledger.MessageRow = await self._changed(request, enrol)
        return made

    async def edit(self, request: Request, pk: Any, data: dict[str, Any]) -> ledger.MessageRow:
        """Postpone the message."""
        actor, message_id = operator(request).name, typed_id(pk)
        try:
            not_before = typed_moment(data["not_before"])
        except ValueError as error:
            raise FormValidationError({"not_before": str(error)}) from error

        def postpone(connection: db.Connection) -> ledger.MessageRow:
            enrolment.postpone(connection, message_id, not_before, actor=actor)
            return ledger.get(connection, message_id)

        moved: ledger.MessageRow = await self._changed(request, postpone)
        return moved

    def remove(self, connection: db.Connection, row_id: int, actor: str) -> None:
        """The campaign's audience is one less."""
        enrolment.remove(connection, row_id, actor=actor)

    @link_row_action("edit", "Postpone", icon_class="fa-solid fa-clock", action_btn_class="btn")
    def row_action_2_edit(self, request: Request, pk: Any) -> str:
        """To the form that postpones it."""
        return edit_url(request, self.key, pk)

    @row_action("send_again", "Send again", VERDICTS["send_again"], "Send this message again?",
                submit_btn_text="Send it again", action_btn_class="btn", exclude_from_list=True)  # fmt: skip
    async def send_again(self, request: Request, pk: Any) -> None:
        """A verdict."""
        await self._settle(request, chosen_ids([pk]), "send_again")

    @row_action("assume_sent", "Assume sent", VERDICTS["assume_sent"], "Assume that this message was sent?",
                submit_btn_text="Assume it", action_btn_class="btn", exclude_from_list=True)  # fmt: skip
    async def assume_sent(self, request: Request, pk: Any) -> None:
        """A verdict."""
        await self._settle(request, chosen_ids([pk]), "assume_sent")

    @row_action("give_up", "Give up", VERDICTS["give_up"], "Give this message up?",
                submit_btn_text="Give it up", action_btn_class="btn", exclude_from_list=True)  # fmt: skip
    async def give_up(self, request: Request, pk: Any) -> None:
        """A verdict."""
        await self._settle(request, chosen_ids([pk]), "give_up")

    # Many

    @action("settle", "Settle unknown", "What may have been taken, and was not answered.", "Settle unknown messages",
            form=SETTLE_FORM, submit_btn_text="Settle them", modal_size="md")  # fmt: skip
    async def settle_action(self, request: Request, selection: ActionSelection) -> None:
        """One verdict on the chosen messages that are unknown."""
        verdict = str((await request.form()).get("verdict", ""))
        if verdict not in VERDICTS:
            raise ActionFailed("Choose what is to become of them.")
        await self._settle(request, chosen_ids(await selection.pks()), verdict)

    @action("resend", "Send failed again", "Their campaigns' windows must be open.", "Send failed messages again",
            form=RESEND_FORM, submit_btn_text="Send them again", modal_size="md")  # fmt: skip
    async def resend_action(self, request: Request, selection: ActionSelection) -> None:
        """The chosen messages that failed are sent once more."""
        actor, ids = operator(request).name, chosen_ids(await selection.pks())
        count = await self._changed(request, lambda connection: verdicts.resend_chosen(connection, ids, actor=actor))
        _tell(request, count, ids, "failed", "sent again")

    async def _settle(self, request: Request, ids: list[int], verdict: str) -> None:
        actor = operator(request).name
        count = await self._changed(
            request, lambda connection: verdicts.settle_chosen(connection, ids, verdict, actor=actor)
        )
        done = {"send_again": "sent again", "assume_sent": "taken for sent", "give_up": "given up"}[verdict]
        _tell(request, count, ids, "unknown", done)


def _tell(request: Request, count: int, ids: list[int], state: str, done: str) -> None:
    if not count:
        raise ActionFailed(f"None of the {len(ids):,} chosen is {state}: all stay as they are.")
    rest = len(ids) - count
    others = f" {rest:,} {'is' if rest == 1 else 'are'} not {state} and stay as they are." if rest else ""
    flash(request, f"{count:,} {'message is' if count == 1 else 'messages are'} {done}.{others}", "success")


def _typed(data: dict[str, Any], *names: str) -> list[int]:
    """The ids that were typed. Raises FormValidationError, of all that are none."""
    ids, wrong = [], {}
    for name in names:
        try:
            ids.append(typed_id(data[name]))
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        raise FormValidationError(wrong)  # type: ignore[arg-type]
    return ids
