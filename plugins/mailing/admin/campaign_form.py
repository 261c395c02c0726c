"""The form that makes a campaign or changes one, and the preview of whom it would reach."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette_admin.flash import flash
from starlette_admin.routing import route

from mailing import campaigns, db, gateways, idempotency, poke, preview, segments, tags
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
        return await self._shown(request, Draft(fields.EMPTY | {"form_key": uuid.uuid4().hex}))

    @route("/new", methods=["POST"], name="campaign-create")
    async def create(self, request: Request) -> Response:
        """Preview it, or make it and go to its page; a form that is sent twice makes one campaign."""
        actor = operator(request).name
        draft, step = await _read(request)
        if step == "preview" or draft.errors:
            return await self._previewed(request, draft)
        if created := await _tried(draft, lambda connection: _create_once(connection, draft, actor)):
            flash(request, "The campaign is saved. It sends by itself when its window opens.", "success")
            return await _saved(request, created)
        return await self._shown(request, draft, 422)

    @route("/{id:int}/edit", name="campaign-edit")
    async def edit(self, request: Request) -> Response:
        """The form, filled with the campaign."""
        operator(request)
        campaign = await _campaign(request)
        return await self._shown(request, Draft(fields.of_campaign(campaign)), campaign=campaign)

    @route("/{id:int}/edit", methods=["POST"], name="campaign-change")
    async def change(self, request: Request) -> Response:
        """Preview the change, or make it and go to the campaign's page."""
        actor = operator(request).name
        (draft, step), campaign = await _read(request), await _campaign(request)
        if draft.typed["updated"] != campaign.updated.isoformat():
            draft.typed["updated"] = campaign.updated.isoformat()
            draft.errors[""] = "The campaign was written since you opened this form (by somebody, or by its own run)."
            draft.errors[""] += " Nothing is saved so far; save again to have it as it stands here."
        if step == "preview" or draft.errors:
            return await self._previewed(request, draft, campaign)
        changed = fields.changes(draft, campaign)

        def work(connection: db.Connection) -> int:
            campaigns.edit(connection, campaign.id, actor=actor, **changed)
            return campaign.id

        if changed and not await _tried(draft, work):
            return await self._shown(request, draft, 422, campaign)
        flash(request, "The change is saved." if changed else "Nothing was changed.", "success")
        return await _saved(request, campaign.id)

    @route("/preview", methods=["POST"], name="campaign-preview")
    async def preview(self, request: Request) -> Response:
        """What the form's script shows while one types: how many match; with a window, whom it would reach."""
        operator(request)
        draft, _ = await _read(request)
        size = None
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
            gateways=[row.name for row in rows], length=segments.measure(draft.typed["text"]), segments=segments,
            max_text=MAX_TEXT,
        )  # fmt: skip


async def _read(request: Request) -> tuple[Draft, str]:
    """The form's draft, and whether it is to be saved or previewed."""
    form = await request.form()
    step = "preview" if form.get("step") == "preview" else "save"
    return fields.read(fields.typed(form)), step


async def _campaign(request: Request) -> CampaignDetails:
    campaign_id = campaign_of(request)
    return await in_database(lambda connection: campaigns.get(connection, campaign_id))


async def _tried(draft: Draft, work: Callable[[db.Connection], int]) -> int | None:
    """The id that `work` returns; None: the domain refused, and the draft says why."""
    try:
        return await in_database(work)
    except InvalidInput as error:
        draft.refuse(error)
    except (Conflict, NotFound) as error:
        draft.errors[""] = str(error)
    return None


async def _preview(draft: Draft) -> Preview | None:
    try:
        return await in_database(lambda connection: preview.of_draft(connection, **draft.values))
    except InvalidInput as error:
        draft.refuse(error)
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
