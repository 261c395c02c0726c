"""The form that makes a campaign or changes one, and the preview of whom it would reach."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette_admin.flash import flash
from starlette_admin.i18n import get_timezone
from starlette_admin.routing import route

from mailing import campaigns, db, gateways, idempotency, poke, preview, segments, tags
from mailing.admin import campaign_edit
from mailing.admin import campaign_fields as fields
from mailing.admin.campaign_actions import campaign_of
from mailing.admin.campaign_fields import Draft
from mailing.admin.common import Page, in_database, operator
from mailing.campaigns import CampaignDetails
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.models import MAX_TEXT
from mailing.preview import Preview


class CampaignForm(Page):
    """New campaign, and Edit."""

    path = "/campaigns"
    add_to_menu = False

    @route("/new", name="campaign-new")
    async def new(self, request: Request) -> Response:
        """An empty form."""
        operator(request)
        return await self._shown(
            request, Draft(fields.EMPTY | {"form_key": uuid.uuid4().hex, "timezone": get_timezone()})
        )

    @route("/new", methods=["POST"], name="campaign-create")
    async def create(self, request: Request) -> Response:
        """Preview it, or make it and go to its page; a form that is sent twice makes one campaign."""
        actor = operator(request).name
        given, step = await _given(request)
        draft = fields.read(given)
        if step == "preview" or draft.errors:
            return await self._previewed(request, draft)
        created = 0
        with _refusals(draft):
            created = await in_database(lambda connection: _create_once(connection, draft, actor))
        if created:
            flash(request, "The campaign is saved. It sends by itself when its window opens.", "success")
            return await _saved(request, created)
        return await self._shown(request, draft, 422)

    @route("/{id:int}/edit", name="campaign-edit")
    async def edit(self, request: Request) -> Response:
        """The form, filled with the campaign."""
        operator(request)
        campaign_id = campaign_of(request)
        campaign = await in_database(lambda connection: campaigns.get(connection, campaign_id))
        return await self._shown(request, Draft(fields.of_campaign(campaign, get_timezone())), campaign=campaign)

    @route("/{id:int}/edit", methods=["POST"], name="campaign-change")
    async def change(self, request: Request) -> Response:
        """Preview the change, or make it and go to the campaign's page."""
        actor, campaign_id = operator(request).name, campaign_of(request)
        given, step = await _given(request)

        def work(connection: db.Connection) -> tuple[Draft, CampaignDetails, dict[str, Any]]:
            if step == "save":
                campaigns.lock(connection, campaign_id)  # nobody writes between what is compared here and what is saved
            campaign = campaigns.get(connection, campaign_id)
            draft = campaign_edit.upon(given, campaign)
            changed = {} if step == "preview" or draft.errors else campaign_edit.changes(draft, campaign)
            with _refusals(draft):
                campaigns.edit(connection, campaign_id, actor=actor, **changed)
            return draft, campaign, changed

        draft, campaign, changed = await in_database(work)
        if step == "preview" or draft.errors:
            return await self._previewed(request, draft, campaign)
        flash(request, "The change is saved." if changed else "Nothing was changed.", "success")
        return await _saved(request, campaign_id)

    @route("/preview", methods=["POST"], name="campaign-preview")
    async def preview(self, request: Request) -> Response:
        """What the form's script shows while one types: how many match; with a window, whom it would reach."""
        operator(request)
        given, _ = await _given(request)
        draft, size = fields.read(given), None
        if not {"tags", "codes"} & set(draft.errors):
            values = draft.values
            size = await in_database(
                lambda connection: preview.audience_size(
                    connection, values["filter_tags"], values["filter_operator_codes"]
                )
            )
        draft.values |= {"text": "?", "name": None}  # neither changes who is reached
        draft.errors.pop("text", None)
        found = None if draft.errors else await _preview(draft)
        told = as_json(found) if found else None
        return JSONResponse({"audience": size, "preview": told, "errors": draft.errors})

    @route("/tags", name="campaign-tags")
    async def tags(self, request: Request) -> Response:
        """Names of tags that have a part, for the picker."""
        operator(request)
        part = request.query_params.get("q", "")[:200].replace("\x00", "")
        return JSONResponse(await in_database(lambda connection: tags.containing(connection, part)))

    async def _previewed(self, request: Request, draft: Draft, campaign: CampaignDetails | None = None) -> Response:
        found = None if set(draft.errors) - {""} else await _preview(draft)
        return await self._shown(request, draft, 422 if draft.errors else 200, campaign, found)

    async def _shown(
        self,
        request: Request,
        draft: Draft,
        status_code: int = 200,
        campaign: CampaignDetails | None = None,
        found: Preview | None = None,
    ) -> Response:
        rows = await in_database(gateways.all_gateways)
        return self.render(
            request, "campaign_form.html", status_code, title=f"Edit campaign {campaign.id}" if campaign else
            "New campaign", typed=draft.typed, errors=draft.errors, campaign=campaign, preview=found,
            possible=fields.possible(draft.typed),
            gateways=[row.name for row in rows], length=segments.measure(draft.typed["text"]), segments=segments,
            max_text=MAX_TEXT,
        )  # fmt: skip


async def _given(request: Request) -> tuple[dict[str, str], str]:
    """What the form sent, and whether it is to be saved or previewed."""
    form = await request.form()
    return fields.typed(form), "preview" if form.get("step") == "preview" else "save"


@contextmanager
def _refusals(draft: Draft) -> Iterator[None]:
    """What the domain refuses, the draft says; the domain wrote nothing then."""
    try:
        yield
    except InvalidInput as error:
        draft.refuse(error)
    except (Conflict, NotFound) as error:
        draft.errors[""] = str(error)


async def _preview(draft: Draft) -> Preview | None:
    with _refusals(draft):
        return await in_database(lambda connection: preview.of_draft(connection, **draft.values))
    return None


def _create_once(connection: db.Connection, draft: Draft, actor: str) -> int:
    body = json.dumps(draft.values, sort_keys=True, default=str).encode()
    # The form's key and what was typed: whoever goes back and changes it wants another campaign.
    name = f"{draft.typed['form_key'][:64]}:{uuid.uuid5(uuid.NAMESPACE_OID, body.hex())}"
    key = idempotency.Key(actor, "POST /admin/campaigns/new", name.replace("\x00", ""), body)
    if answer := idempotency.recall(connection, key):
        return int(answer.body["id"])
    created = campaigns.create(connection, **draft.values, actor=actor)
    idempotency.keep(connection, key, idempotency.Answer(201, {"id": created}))
    return created


async def _saved(request: Request, campaign_id: int) -> Response:
    await run_in_threadpool(poke.campaigns)
    return RedirectResponse(request.url_for("admin:campaign", id=campaign_id).path, 303)


def as_json(found: Preview) -> dict[str, Any]:
    """A preview for the form's script."""
    zones = [asdict(zone) | {"opens_at": zone.opens_at and zone.opens_at.isoformat()} for zone in found.zones]
    sample = [asdict(each) for each in found.sample]
    return {"audience": found.audience, "never": found.never, "zones": zones, "sample": sample}
