"""The report as one HTML file that needs nothing beside it, and as the body of a mail."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
import pandas as pd

from mailing.daily_report.charts import COLOURS, Chart
from mailing.daily_report.figures import TEXTS, Figures

SHOWN = 50
"""Lines of a table; the CSV has all."""

TITLES = {
    "campaigns": (
        "Campaigns",
        "Open on this day, ended on it, or with requests in it. What expired, was cancelled or excluded counts on the"
        " day on which the campaign ended. open: neither requested nor given up by the end of the day. audience and"
        " open are empty while a live audience still grows, and of a campaign that was opened again and went on.",
    ),
    "hours": (
        "By hour",
        "A message counts in the hour in which it was sent; one that failed or is in doubt, in"
        " that in which its last request began.",
    ),
    "operator_codes": ("By operator code", "As it was when the client was chosen."),
    "reasons": ("By reason", "Why messages failed, are in doubt or were not sent."),
}
"""Of each table that is shown its title, and a note."""

MOMENTS = ("sending_start", "sending_stop", "ended_at")

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def html(figures: Figures, charts: list[Chart]) -> str:
    """The file: its charts are in it, for light and for dark."""
    return _rendered(figures, [(chart, _data_uri(chart.light), _data_uri(chart.dark)) for chart in charts])


def mail_body(figures: Figures, charts: list[Chart]) -> str:
    """As `html`, with its charts as attachments (`<name>.png`): mail programs show no data URIs."""
    return _rendered(figures, [(chart, f"cid:{chart.name}.png", None) for chart in charts])


def _rendered(figures: Figures, charts: list[tuple[Chart, str, str | None]]) -> str:
    tables = [_table(name, figures) for name in TITLES]
    return _templates.get_template("report.html").render(
        figures=figures,
        colours=COLOURS,
        charts=charts,
        tables=[table for table in tables if table["lines"]],
        as_of=_local(figures.as_of, figures.zone),
    )


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{b64encode(png).decode()}"


def _local(moment: datetime, zone: str) -> str:
    return f"{moment.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def _table(name: str, figures: Figures) -> dict[str, Any]:
    table = figures.tables[name]
    shown = table.head(SHOWN)
    columns = [(column, column.replace("_", " "), column not in {"campaign", *TEXTS}) for column in table.columns]
    lines = [[_cell(str(column), value, figures.zone) for column, value in row.items()] for _, row in shown.iterrows()]
    title, note = TITLES[name]
    return {
        "name": name, "title": title, "note": note, "columns": columns, "lines": lines,
        "others": len(table) - len(shown),
    }  # fmt: skip


def _cell(column: str, value: Any, zone: str) -> str:
    if column in MOMENTS and value:
        return _local(datetime.fromisoformat(value), zone)
    if column in TEXTS:
        return str(value)
    if pd.isna(value):
        return ""
    return str(value) if column == "campaign" else f"{value:,}"
