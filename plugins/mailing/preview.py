"""What would happen if a campaign were sent: to whom, whom it could never reach, and with which text.

Functions take a connection and never commit. Of a campaign that has opened: of those who are still to be reached.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from mailing import campaigns, db, local_hours
from mailing.errors import NotFound
from mailing.local_hours import LocalHours, ZoneForecast

SQL = db.queries("preview")

SAMPLE = 10
"""Clients of the audience that are shown."""


@dataclass(frozen=True, slots=True)
class SampleClient:
    """One of the audience. `phone_number` is masked; `tags` begin with the operator code."""

    id: int
    phone_number: str
    mobile_operator_code: str
    timezone: str
    tags: list[str]


@dataclass(frozen=True, slots=True)
class Preview:
    """Who would get which text.

    `is_open`: the audience was taken, and these are the ones still to be reached; `audience`: how many; `never`: how
    many of them cannot be reached before the stop; `characters`: of the text, as the gateway counts them.
    """

    is_open: bool
    audience: int
    never: int
    zones: list[ZoneForecast]
    operator_codes: dict[str, int]
    sample: list[SampleClient]
    text: str
    characters: int


def of_campaign(connection: db.Connection, campaign_id: int) -> Preview:
    """What the campaign's row would come to if it were sent as it is now. Raises NotFound."""
    parameters = {"campaign_id": campaign_id, "limit": SAMPLE}
    campaign = db.one(connection, SQL["campaign_to_preview"], parameters)
    if campaign is None:
        raise NotFound(f"campaign {campaign_id}: there is no such campaign")
    counts = connection.execute(SQL["audience"] + SQL["counts"], parameters).fetchall()
    by_zone = {row["timezone"]: row["clients"] for row in counts if row["timezone"] is not None}
    hours = LocalHours(campaign["local_from"], campaign["local_to"]) if campaign["local_from"] is not None else None
    begins = max(campaign["sending_start"], campaign["now"])
    zones = local_hours.forecast(by_zone, hours, begins, campaign["sending_stop"])
    sample = connection.execute(SQL["audience"] + SQL["sample"], parameters)
    return Preview(
        is_open=campaign["is_open"],
        audience=sum(by_zone.values()),
        never=sum(zone.never for zone in zones),
        zones=zones,
        operator_codes={row["mobile_operator_code"]: row["clients"] for row in counts if row["timezone"] is None},
        sample=[SampleClient(**row | {"phone_number": masked(row["phone_number"])}) for row in sample],
        text=campaign["text"],
        characters=len(campaign["text"]),
    )


def of_draft(connection: db.Connection, **values: Any) -> Preview:
    """The same of a campaign that is not there yet: `values` as for `campaigns.create`, whose InvalidInput it raises.

    It is created and rolled back, so that a draft is judged by the very rules of a campaign, most of which are the
    table's: its constraints, its triggers. It takes no id of a campaign's, and no two drafts have the same.
    """
    draft_id = -1 - secrets.randbelow(2**62)
    with connection.transaction(force_rollback=True):
        return of_campaign(connection, campaigns.create(connection, **values, draft_id=draft_id))


def audience_size(connection: db.Connection, tags: Collection[str], operator_codes: Collection[str]) -> int:
    """How many clients match a filter now; a name that is no tag matches nobody."""
    parameters = {"tags": list(tags), "operator_codes": list(operator_codes)}
    row = db.one(connection, SQL["audience_size"], parameters)
    return int(row["clients"]) if row else 0


def masked(phone_number: str) -> str:
    """A phone number that tells the operator and nobody's number: 7900•••••12."""
    return f"{phone_number[:4]}{'•' * len(phone_number[4:-2])}{phone_number[-2:]}"
