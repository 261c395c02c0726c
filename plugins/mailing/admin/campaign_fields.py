"""A campaign as its form has it: what was typed, what that means, what is wrong with it. Reads no row."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from mailing.admin import wall_clock
from mailing.campaigns import CampaignDetails
from mailing.errors import InvalidInput
from mailing.models import DEFAULT_GATEWAY

ENDS = ("sending_start", "sending_stop")
LABELS = {
    "name": "name", "text": "text", "tags": "tags", "codes": "operator codes", "sending_start": "opening",
    "sending_stop": "closing", "local_from": "local hours from", "local_to": "local hours until",
    "messages_per_second": "own limit", "gateway": "gateway", "audience": "audience",
    "on_doubt": "what becomes of doubts",
}  # fmt: skip
"""What an edit can change, by the names of the form."""

PLAIN = (*LABELS, "timezone", *(f"{end}_fold" for end in ENDS), "shown", "form_key")
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
    return {name: _lines(value) if isinstance(value, str) else "" for name, value in given.items()}


def of_campaign(campaign: CampaignDetails, zone_name: str) -> dict[str, str]:
    """What the form shows of a campaign that is there, its window by the clocks of the zone."""
    limit = campaign.messages_per_second
    form = EMPTY | {
        "name": _one_line(campaign.name or ""), "text": _lines(campaign.text), "gateway": campaign.gateway,
        "tags": " ".join(campaign.filter_tags), "codes": " ".join(campaign.filter_operator_codes),
        "local_from": _shown_time(campaign.local_from), "local_to": _shown_time(campaign.local_to),
        "messages_per_second": "" if limit is None else f"{Decimal(str(limit)).normalize():f}",
        "audience": campaign.audience, "on_doubt": campaign.on_doubt, "timezone": zone_name,
    }  # fmt: skip
    for end in ENDS:
        form[end], form[f"{end}_fold"] = wall_clock.shown(getattr(campaign, end), zone_name)
    return form | {"shown": json.dumps({name: part(form, name) for name in LABELS})}


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


def possible(form: Mapping[str, str]) -> dict[str, list[datetime]]:
    """Which moments the window's ends can mean, in UTC: of one that clocks show twice, two."""
    return {end: wall_clock.possible(form[end], form["timezone"] or "UTC") for end in ENDS}


def part(form: Mapping[str, str], name: str) -> list[str]:
    """What the form says of a field. A list, as JSON has it."""
    return [form[name], form[f"{name}_fold"]] if name in ENDS else [form[name]]


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
    form = draft.typed
    try:
        return wall_clock.meant(form[name], form[f"{name}_fold"], form["timezone"] or "UTC")
    except ValueError as error:
        draft.errors[name] = str(error)
        return None


def _lines(text: str) -> str:
    """With the line ends that a browser sends back as they are."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _one_line(text: str) -> str:
    """As <input> shows it."""
    return text.replace("\r", "").replace("\n", "")


def _shown_time(at: time | None) -> str:
    if at is None:
        return ""
    return at.isoformat() if at.second or at.microsecond else f"{at:%H:%M}"
