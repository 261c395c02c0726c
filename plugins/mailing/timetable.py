"""The schedule of one campaign's DAG: a run for its start, one more for each time it is woken, none after its stop."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk.exceptions import AirflowTimetableInvalid
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

from mailing.window import Window, next_run


class CampaignTimetable(Timetable):
    """Runs at `start`, at once if that is past but `stop` is not; again at `wake_at`, if that is later. All aware.

    The plugin registers it, so that the scheduler and the API server can read it back from the serialized DAG.
    """

    periodic = False
    can_be_scheduled = True
    run_ordering = ("logical_date",)

    def __init__(
        self, start: pendulum.DateTime, stop: pendulum.DateTime, wake_at: pendulum.DateTime | None = None
    ) -> None:
        self.start, self.stop, self.wake_at = start, stop, wake_at
        self.description = f"Once, from {start:%Y-%m-%d %H:%M:%S} until {stop:%Y-%m-%d %H:%M:%S} UTC"

    @classmethod
    def of(cls, window: Window, wake_at: Any = None) -> CampaignTimetable:
        """The timetable of a campaign's window."""
        start, stop = pendulum.instance(window.start).in_tz("UTC"), pendulum.instance(window.stop).in_tz("UTC")
        return cls(start, stop, pendulum.instance(wake_at).in_tz("UTC") if wake_at else None)

    @property
    def summary(self) -> str:
        """For the list of DAGs."""
        return f"{self.start:%Y-%m-%d %H:%M} – {self.stop:%Y-%m-%d %H:%M} UTC"

    def serialize(self) -> dict[str, Any]:
        """As JSON, for the metadata database."""
        return {
            "start": self.start.isoformat(),
            "stop": self.stop.isoformat(),
            "wake_at": self.wake_at.isoformat() if self.wake_at else None,
        }

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> CampaignTimetable:
        """Back from `serialize`."""
        start, stop, wake_at = (_moment(data[name]) for name in ("start", "stop", "wake_at"))
        if start is None or stop is None:
            raise AirflowTimetableInvalid(f"campaign timetable: wanted start and stop, got {data}")
        return cls(start, stop, wake_at)

    def validate(self) -> None:
        """Refuse a window that never opens."""
        if self.stop <= self.start:
            raise AirflowTimetableInvalid(f"sending_stop: wanted a moment after {self.start}, got {self.stop}")

    def infer_manual_data_interval(self, *, run_after: pendulum.DateTime) -> DataInterval:
        """A run that a person or another pipeline triggered stands for its own moment."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The next run, or None. `restriction` is not heeded: the window is the only one there is."""
        last_run = last_automated_data_interval.end if last_automated_data_interval else None
        window = Window(self.start, self.stop)
        at = next_run(window, self.wake_at, last_run, pendulum.now("UTC"))
        return DagRunInfo.exact(pendulum.instance(at)) if at else None


def _moment(written: str | None) -> pendulum.DateTime | None:
    return pendulum.instance(pendulum.DateTime.fromisoformat(written)) if written else None
