"""The report's charts, as PNG: once for a light page and once for a dark one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from mailing.daily_report.figures import REQUESTED, Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 12
"""Bars of a chart that has one for each campaign, operator code or reason; the tables have all."""

COLOURS = {
    "sent": "#2fb344", "failed": "#d63939", "unknown": "#f76707", "expired": "#ae3ec9", "cancelled": "#868e96",
    "excluded": "#4dabf7",
}  # fmt: skip
"""Of each outcome, as the Mailing pages have it."""


@dataclass(frozen=True, slots=True)
class Look:
    """Colours of one look. `suffix`: of the files' names."""

    suffix: str
    paper: str
    ink: str
    line: str


LIGHT = Look("", "#ffffff", "#1f2937", "#d9dee5")
DARK = Look("-dark", "#1b2230", "#dce3ee", "#3a4456")


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the report. `name`: of its file; `says`: what it shows, for who cannot see it."""

    name: str
    title: str
    says: str
    light: bytes
    dark: bytes


def of(figures: Figures) -> list[Chart]:
    """A chart for each table that has something to show. None, where nothing happened."""
    charts = []
    hours = figures.tables["hours"].set_index("hour")[list(REQUESTED)]
    if hours.to_numpy().any():
        charts.append(_chart("hours", "Requests by hour", hours, is_upright=True))
    campaigns = figures.tables["campaigns"]
    parts = campaigns.assign(label="#" + campaigns["campaign"].astype(str)).set_index("label")
    parts = parts[[*REQUESTED, "expired", "cancelled", "excluded"]]
    parts = _largest_first(parts[parts.sum(axis=1) > 0])
    if len(parts):
        charts.append(_chart("campaigns", _title("By campaign", parts), parts))
    codes = figures.tables["operator_codes"].set_index("operator_code")[list(REQUESTED)]
    if len(codes):
        charts.append(_chart("operator_codes", _title("Requests by operator code", codes), codes))
    reasons = figures.tables["reasons"].pivot_table(
        index="reason", columns="outcome", values="messages", aggfunc="sum", fill_value=0, sort=False
    )
    if len(reasons):
        title = _title("Why messages failed, are in doubt or were not sent", reasons)
        charts.append(_chart("reasons", title, _largest_first(reasons)))
    return charts


def _largest_first(table: pd.DataFrame) -> pd.DataFrame:
    return table.loc[table.sum(axis=1).sort_values(ascending=False, kind="stable").index]


def _title(what: str, table: pd.DataFrame) -> str:
    return what if len(table) <= SHOWN else f"{what}: the first {SHOWN} of {len(table):,}"


def _chart(name: str, title: str, table: pd.DataFrame, *, is_upright: bool = False) -> Chart:
    shown = table if is_upright else table.head(SHOWN)
    shown = shown.loc[:, shown.sum() > 0].astype("int64")
    sums = ", ".join(f"{count:,} {outcome}" for outcome, count in shown.sum().items())
    light, dark = (_drawn(shown, look, is_upright) for look in (LIGHT, DARK))
    return Chart(name, title, f"{title}: {sums}", light, dark)


def _drawn(table: pd.DataFrame, look: Look, is_upright: bool) -> bytes:
    """Bars, stacked, one for each row. Without pyplot, which would keep every figure in memory."""
    from matplotlib.figure import Figure  # it takes half a second, which a DAG file that is parsed does not have

    height = 3.0 if is_upright else 1.0 + 0.32 * len(table)
    figure = Figure(figsize=(9, height), dpi=144, facecolor=look.paper, layout="constrained")
    axes = figure.add_subplot()
    if is_upright:
        _columns(axes, table)
    else:
        _bars(axes, table)
    _dress(figure, axes, look, is_upright)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})  # the same figures, the same bytes
    return out.getvalue()


def _columns(axes: Axes, table: pd.DataFrame) -> None:
    places, bottom = range(len(table)), table.iloc[:, 0] * 0
    for outcome in table.columns:
        axes.bar(places, table[outcome], 0.8, list(bottom), color=COLOURS[outcome], label=outcome)
        bottom = bottom + table[outcome]
    step = max(1, len(table) // 8)
    axes.set_xticks(list(places)[::step], [str(label) for label in table.index[::step]], parse_math=False)
    axes.set_xlim(-0.6, len(table) - 0.4)


def _bars(axes: Axes, table: pd.DataFrame) -> None:
    places, left = range(len(table)), table.iloc[:, 0] * 0
    for outcome in table.columns:
        axes.barh(places, table[outcome], 0.7, list(left), color=COLOURS[outcome], label=outcome)
        left = left + table[outcome]
    axes.set_yticks(list(places), [str(label)[:40] for label in table.index], parse_math=False)
    axes.set_ylim(len(table) - 0.4, -0.6)  # the first is on top


def _dress(figure: Figure, axes: Axes, look: Look, is_upright: bool) -> None:
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    axes.set_facecolor(look.paper)
    axes.tick_params(colors=look.ink, labelsize=9, length=0)
    axes.spines[:].set_visible(False)
    counted = axes.yaxis if is_upright else axes.xaxis
    counted.set_major_locator(MaxNLocator(6, integer=True))
    counted.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y" if is_upright else "x", color=look.line, linewidth=0.8)
    axes.set_axisbelow(True)
    figure.legend(
        loc="outside upper left",
        ncols=6,
        frameon=False,
        labelcolor=look.ink,
        fontsize=9,
        handlelength=1,
        handleheight=1,
    )
