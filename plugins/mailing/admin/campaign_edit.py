"""An edit of a campaign that others may edit meanwhile: only what the editor changed is written."""

from __future__ import annotations

import json
from typing import Any

from mailing.admin import campaign_fields as fields
from mailing.admin.campaign_fields import LABELS, Draft, part
from mailing.campaigns import CampaignDetails

COLUMNS = {name: name for name in LABELS} | {name: column for column, name in fields.FIELDS.items()}
MAX_TOLD = 200


def upon(given: dict[str, str], campaign: CampaignDetails) -> Draft:
    """What an editor typed, upon the campaign as it stands.

    A field that they did not touch is as it is now. Where somebody else changed something meanwhile, that is an error:
    it may change what the editor wants.
    """
    before = _before(given["shown"])
    try:
        now = fields.of_campaign(campaign, given["timezone"] or "UTC")
    except ValueError:  # a zone that is none: told beside the window
        return fields.read(given)
    theirs = [name for name in LABELS if part(now, name) not in (before.get(name), part(given, name))]
    untouched = [name for name in LABELS if part(given, name) == before.get(name)]
    kept = {key: now[key] for name in untouched for key in (name, f"{name}_fold") if key in now}
    draft = fields.read(given | kept | {"shown": now["shown"]})
    if theirs:
        _tell(draft, now, theirs)
    return draft


def changes(draft: Draft, campaign: CampaignDetails) -> dict[str, Any]:
    """The values that the editor changed. What they left alone is not written: a window moves by no microsecond."""
    now = fields.of_campaign(campaign, draft.typed["timezone"] or "UTC")
    touched = [COLUMNS[name] for name in LABELS if part(draft.typed, name) != part(now, name)]
    return {name: draft.values[name] for name in touched if draft.values[name] != getattr(campaign, name)}


def _tell(draft: Draft, now: dict[str, str], theirs: list[str]) -> None:
    """What others changed: all of it above the form; beside a field, what the editor changed, too."""
    changed = ", ".join(LABELS[name] for name in theirs)
    draft.errors[""] = (
        f"Somebody else changed this campaign since you opened the form: {changed}. Nothing is saved so far. "
        "What you did not touch is shown as it is now; save again to have it as it stands here."
    )
    for name in theirs:
        if part(draft.typed, name) != part(now, name):
            told = now[name][:MAX_TOLD] or "nothing"
            draft.errors.setdefault(name, f"somebody else changed this to “{told}”; what you typed is not saved so far")


def _before(shown: str) -> dict[str, Any]:
    """What the form showed when it was opened; of a form that does not say so, nothing."""
    try:
        found = json.loads(shown)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
