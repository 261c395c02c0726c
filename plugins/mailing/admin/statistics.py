"""Statistics: how many campaigns and messages there are, by day, campaign, operator code and tag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette_admin.i18n import get_timezone, get_tzinfo
from starlette_admin.routing import route

from mailing import db, spans, statistics
from mailing.admin import figures
from mailing.admin.common import Page, in_database, reader
from mailing.errors import InvalidInput

BREAKDOWNS = {"day": "All together, and by day", "campaign": "Campaigns", "operator": "Operator codes", "tag": "Tags"}
DEFAULT_DAYS = 30
MAX_DAYS = 92
"""Days that a chart and its table show, of a longer span the last; all before them is one line."""

PAGE = 20
"""Campaigns of a page."""

YEARS = range(2000, 9999)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be counted: `first` and `last` are days in the viewer's zone (`first` None: from the beginning)."""

    by: str
    first: date | None
    last: date
    campaign_id: int | None
    page: int
    zone: str

    @property
    def days(self) -> list[date]:
        """The days that are shown one by one."""
        at_most = (self.last - self.first).days + 1 if self.first else DEFAULT_DAYS
        count = min(at_most, MAX_DAYS)
        return [self.last - timedelta(days=n) for n in reversed(range(count))]

    def choose(self, connection: db.Connection) -> spans.Chosen:
        """The campaigns that are asked for."""
        since = spans.midnights(self.first, self.first, self.zone)[0] if self.first else None
        until = spans.midnights(self.last, self.last, self.zone)[1]
        return spans.choose(connection, since, until, self.campaign_id)

    def table(self, connection: db.Connection, chosen: spans.Chosen, ids: list[int]) -> figures.Table:
        """Their figures; by campaign: those of `ids`."""
        match self.by:
            case "campaign":
                with spans.in_time(chosen):
                    return figures.of_campaigns(statistics.of_campaigns(connection, ids))
            case "operator":
                return figures.of_operator_codes(spans.by_operator_code(connection, chosen))
            case "tag":
                return figures.of_tags(spans.by_tag(connection, chosen))
        days = self.days
        borders = spans.midnights(days[0], days[-1], self.zone)
        return figures.of_days(spans.by_day(connection, chosen, borders), days)


class StatisticsView(Page):
    """Figures of a span of time, as charts and as tables; each page counts only what it shows."""

    menu_label = "Statistics"
    icon = "fa-solid fa-chart-column"
    path = "/statistics"
    route_name = "statistics"

    @route("")
    async def index(self, request: Request) -> Response:
        """One breakdown."""
        reader(request)
        query = request.query_params
        today = datetime.now(get_tzinfo()).date()
        shown: dict[str, Any] = {
            "breakdowns": BREAKDOWNS,
            "typed": _typed(query, today),
            "today": today,
            "one_day": timedelta(days=1),
            "zone": get_timezone(),
            "tz": get_tzinfo(),
        }
        try:
            asked = _read(query, today)
            found = await in_database(lambda connection: _page(connection, asked))
        except InvalidInput as error:
            shown |= {"by": "day", "errors": dict.fromkeys(error.fields, str(error))}
            return self.render(request, "statistics.html", 422, **shown)
        return self.render(request, "statistics.html", asked=asked, by=asked.by, **shown, **found)

    @route("/csv", name="statistics-csv")
    async def csv(self, request: Request) -> Response:
        """The breakdown as a file, all lines of it."""
        reader(request)
        asked = _read(request.query_params, datetime.now(get_tzinfo()).date())

        def work(connection: db.Connection) -> str:
            chosen = asked.choose(connection)
            return asked.table(connection, chosen, chosen.ids).csv()

        name = f"mailing-by-{asked.by}-{asked.last.isoformat()}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(await in_database(work), headers=headers, media_type="text/csv")


def _page(connection: db.Connection, asked: Asked) -> dict[str, Any]:
    """What the page shows, counted at one moment."""
    chosen = asked.choose(connection)
    start = (asked.page - 1) * PAGE
    table = asked.table(connection, chosen, chosen.ids[start : start + PAGE])
    is_last = asked.by != "campaign" or start + PAGE >= len(chosen.ids)
    # A table of days has at most two lines more than there are days, and is shown whole.
    shown = table if asked.by == "day" else table.shortened()
    return {"chosen": chosen, "table": shown, "chart": shown.chart(), "is_last": is_last}


def _typed(query: Mapping[str, str], today: date) -> dict[str, str]:
    """The form as it was sent, or as it is at first: the last thirty days."""
    first = "" if "to" in query else (today - timedelta(days=DEFAULT_DAYS - 1)).isoformat()
    return {
        "from": query.get("from", first),
        "to": query.get("to") or today.isoformat(),
        "campaign": query.get("campaign", ""),
    }


def _read(query: Mapping[str, str], today: date) -> Asked:
    """What is asked for. Raises InvalidInput, whose `fields` are those of the form."""
    typed = _typed(query, today)
    first = _day(typed["from"], "from") if typed["from"].strip() else None
    last = _day(typed["to"], "to")
    if first and first > last:
        raise InvalidInput(f"wanted a day that is not before {first}", ["to"])
    by = query.get("by", "day")
    return Asked(
        by=by if by in BREAKDOWNS else "day",
        first=first,
        last=last,
        campaign_id=_number(typed["campaign"], "campaign") if typed["campaign"].strip() else None,
        page=_number(query.get("page", "1"), "page"),
        zone=get_timezone(),
    )


def _day(typed: str, name: str) -> date:
    try:
        day = date.fromisoformat(typed.strip())
    except ValueError:
        raise InvalidInput("wanted a day, as 2026-12-31", [name]) from None
    if day.year not in YEARS:
        raise InvalidInput(f"wanted a day of the years {YEARS.start} to {YEARS.stop - 1}", [name])
    return day


def _number(typed: str, name: str) -> int:
    typed = typed.strip().removeprefix("#")
    if not typed.isascii() or not typed.isdigit() or len(typed) > 18 or int(typed) == 0:
        raise InvalidInput("wanted a number, as 17", [name])
    return int(typed)
