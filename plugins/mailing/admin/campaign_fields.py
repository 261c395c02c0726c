"""A campaign as its form has it: what was typed, what that means, what is wrong with it. Reads no row."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from mailing.campaigns import CampaignDetails
from mailing.errors import InvalidInput
from mailing.models import DEFAULT_GATEWAY

ENDS = ("sending_start", "sending_stop")
PLAIN = ("name", "text", "tags", "codes", "local_from", "local_to", "messages_per_second", "gateway", "audience",
         "on_doubt", "timezone", *ENDS, *(f"{end}_utc" for end in ENDS), "updated", "form_key")  # fmt: skip
EMPTY = dict.fromkeys(PLAIN, "") | {
    "gateway": DEFAULT_GATEWAY, "audience": "snapshot", "on_doubt": "hold", "timezone": "UTC",
}  # fmt: skip

FIELDS = {"filter_tags": "tags", "filter_operator_codes": "codes"}
"""What a column is called in the form, where that is something else."""

MAX_FILTERS = 1_000
LOWEST, HIGHEST = Decimal("0.001"), Decimal(999_999_999)


@dataclass(slots=True)
class Draft:
    """`typed`: by the names of the form; `values`: as `campaigns.create` takes them; `errors`: by field, "" for all."""

    typed: dict[str, str]
    values: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def refuse(self, error: InvalidInput) -> None:
        """What the domain found wrong, beside its field."""
        said = re.sub(r"\b[a-z_]+=", "", str(error).split(": ", 2)[-1]) if error.fields else str(error)
        for name in error.fields or ("",):
            self.errors.setdefault(FIELDS.get(name, name), said)


def typed(form: Mapping[str, Any]) -> dict[str, str]:
    """What the form sent, with line ends as everywhere but in HTML."""
    given = {name: form.get(name) for name in PLAIN}
    return {name: value.replace("\r\n", "\n") if isinstance(value, str) else "" for name, value in given.items()}


def of_campaign(campaign: CampaignDetails) -> dict[str, str]:
    """What the form shows of a campaign that is there."""
    limit = campaign.messages_per_second
    return EMPTY | {
        "name": campaign.name or "", "text": campaign.text, "gateway": campaign.gateway,
        "tags": " ".join(campaign.filter_tags), "codes": " ".join(campaign.filter_operator_codes),
        "local_from": _shown_time(campaign.local_from), "local_to": _shown_time(campaign.local_to),
        "messages_per_second": "" if limit is None else f"{Decimal(str(limit)).normalize():f}",
        "audience": campaign.audience, "on_doubt": campaign.on_doubt, "updated": campaign.updated.isoformat(),
        **{end: _shown(getattr(campaign, end)) for end in ENDS},
        **{f"{end}_utc": _whole(getattr(campaign, end)).isoformat() for end in ENDS},
    }  # fmt: skip


def read(given: dict[str, str]) -> Draft:
    """What was typed, as values; where that cannot be, errors."""
    draft = Draft(given)
    draft.values = {
        "name": given["name"].strip() or None, "text": given["text"], "gateway": given["gateway"],
        "audience": given["audience"], "on_doubt": given["on_doubt"],
        "filter_tags": _names(draft, "tags", r"[\w-]{1,200}", "wanted names of tags"),
        "filter_operator_codes": _names(draft, "codes", "[0-9]{3}", "wanted codes of three digits"),
        "local_from": _time(draft, "local_from"), "local_to": _time(draft, "local_to"),
        "messages_per_second": _limit(draft),
        **{end: _moment(draft, end) for end in ENDS},
    }  # fmt: skip
    if not given["text"].strip():
        draft.errors["text"] = "wanted a text"
    return draft


def changes(draft: Draft, campaign: CampaignDetails) -> dict[str, Any]:
    """The values that are not the campaign's already. A window is shown, and so typed, in whole seconds."""
    changed = {}
    for name, value in draft.values.items():
        there = getattr(campaign, name)
        if value != (_whole(there) if name in ENDS else there):
            changed[name] = value
    return changed


def _names(draft: Draft, name: str, form: str, wanted: str) -> list[str]:
    names = list(dict.fromkeys(re.split(r"[\s,;]+", draft.typed[name].strip(" \t\n,;"))) if draft.typed[name] else [])
    names = [each for each in names if each]
    wrong = [each for each in names if not re.fullmatch(form, each)]
    if wrong or len(names) > MAX_FILTERS:
        draft.errors[name] = f"{wanted}, with spaces between them" + (f"; {wrong[0][:50]!r} is none" if wrong else "")
    return names


def _time(draft: Draft, name: str) -> time | None:
    if not draft.typed[name]:
        return None
    try:
        at = time.fromisoformat(draft.typed[name])
        if at.tzinfo is None:
            return at
    except ValueError:
        pass
    draft.errors[name] = "wanted a time of day such as 09:00"
    return None


def _limit(draft: Draft) -> float | None:
    written = draft.typed["messages_per_second"].strip()
    if not written:
        return None
    try:
        limit = Decimal(written)
        if limit.is_finite() and LOWEST <= limit <= HIGHEST:
            return float(limit)
    except InvalidOperation:
        pass
    draft.errors["messages_per_second"] = "wanted a number from 0.001 to 999999999, or nothing"
    return None


def _moment(draft: Draft, name: str) -> datetime | None:
    """The browser says which moment it takes the typed time for; that it is so is tested here."""
    wall_text, utc_text = draft.typed[name], draft.typed[f"{name}_utc"]
    zone_name = draft.typed["timezone"] or "UTC"
    try:
        wall = datetime.fromisoformat(wall_text)
        if wall.tzinfo is not None:
            raise ValueError
    except ValueError:
        draft.errors[name] = "wanted a date and a time"
        return None
    try:
        zone = zoneinfo.ZoneInfo(zone_name)
        at = datetime.fromisoformat(utc_text) if utc_text else wall.replace(tzinfo=zone)
        if at.astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall:
            draft.typed[f"{name}_utc"] = at.astimezone(UTC).isoformat()
            return at.astimezone(UTC)
        draft.errors[name] = f"there is no {wall:%Y-%m-%d %H:%M} in {zone_name}: its clocks are set forward then"
    except (ValueError, OverflowError, OSError, KeyError):
        draft.errors[name] = f"wanted a moment in a time zone that is known here, got {zone_name[:50]!r}"
    draft.typed[f"{name}_utc"] = ""  # or the page's script would show another time than was typed
    return None


def _whole(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _shown(moment: datetime) -> str:
    """As <input type="datetime-local"> has it, in UTC; the page's script makes it the viewer's."""
    whole = _whole(moment).replace(tzinfo=None)
    return whole.isoformat(timespec="seconds" if whole.second else "minutes")


def _shown_time(at: time | None) -> str:
    if at is None:
        return ""
    return at.isoformat() if at.second or at.microsecond else f"{at:%H:%M}"
