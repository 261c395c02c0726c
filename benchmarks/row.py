"""What a measurement hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


class BrokenMeasurement(RuntimeError):
    """What was measured is not what was meant (a process failed, messages were left over): there is no figure."""


@dataclass(frozen=True)
class Goal:
    """A limit, and on which side of it a figure should be."""

    sign: Literal["≥", "≤"]
    limit: float

    def is_met(self, measured: float) -> bool:
        """True if the figure is on the right side, or at the limit."""
        return measured >= self.limit if self.sign == "≥" else measured <= self.limit


@dataclass(frozen=True)
class Row:
    """One figure. `measured`, `spread` and the goal have one unit; `form` is how such a number is shown.

    `spread`: the least and the greatest of the repeats. `details`: whatever explains the figure, for latest.json.
    """

    name: str
    what: str
    measured: float
    goal: Goal
    unit: str = ""
    form: str = ",.2f"
    spread: tuple[float, float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool:
        """Whether the figure reaches its goal."""
        return self.goal.is_met(self.measured)

    @property
    def shown(self) -> str:
        """The figure for people, with its spread."""
        spread = f" ({self.spread[0]:{self.form}}–{self.spread[1]:{self.form}})" if self.spread else ""
        return f"{self.measured:{self.form}}{spread}{self.unit and ' ' + self.unit}"

    @property
    def goal_shown(self) -> str:
        """The goal for people."""
        return f"{self.goal.sign} {self.goal.limit:{self.form}}{self.unit and ' ' + self.unit}"

    def as_json(self) -> dict[str, Any]:
        """Everything, for latest.json."""
        return {**asdict(self), "is_met": self.is_met}
