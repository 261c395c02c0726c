"""What a campaign's pages say, in words. Moments and waits are left as gaps, for only the browser knows its zone."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from mailing.watch import Breaker, Watched

STATES = {
    "sent": "sent",
    "failed": "failed",
    "unknown": "in doubt",
    "expired": "expired",
    "cancelled": "cancelled",
    "excluded": "excluded",
    "sending": "sending",
    "pending": "waiting",
}
"""Of each state its word, in the order of the progress bar. Its colour: static/mailing.css."""

STATUSES = {
    "scheduled": "bg-azure-lt",
    "running": "bg-green-lt",
    "paused": "bg-yellow-lt",
    "cancelled": "bg-secondary-lt",
    "finished": "bg-secondary-lt",
}

REASONS = {
    "not_reached": "it could not be reached",
    "no_answer": "it did not answer in time",
    "connection_lost": "the connection was lost",
    "reply_not_json": "its reply was no JSON",
    "reply_without_code": "its reply had no code",
    "task_died": "the task that sent it died",
    "task_stopped": "the task that sent it was stopped",
    "too_late": "the window closed first",
    "unforeseen": "something unforeseen; see the log",
    "not_tried": "it had not answered the one before",
    "throttle": "its limit left no room in time",
    "connection_unusable": "its connection cannot be used",
}

SEND_AGAIN, ASSUME_SENT, GIVE_UP = "send_again", "assume_sent", "give_up"

ACTIONS = {
    "create": "created it", "edit": "edited it", "pause": "paused it", "resume": "resumed it", "cancel": "cancelled it",
    "enrol": "enrolled a client", "postpone": "postponed a message", "remove": "removed a message",
    "resend": "sent failed or doubtful messages again", "test_send": "sent a test",
    SEND_AGAIN: "settled doubts: send again", ASSUME_SENT: "settled doubts: assume sent",
    GIVE_UP: "settled doubts: give up",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence. `{name}` in it is one of `moments`; `{wait}` is `wait_s`, counted down."""

    text: str
    tone: str = ""  # of Tabler's: success, warning, danger
    moments: dict[str, datetime] = field(default_factory=dict)
    wait_s: float | None = None

    def __str__(self) -> str:
        """The sentence where no script fills it in: with UTC."""
        shown = {name: f"{moment:%Y-%m-%d %H:%M} UTC" for name, moment in self.moments.items()}
        return self.text.format(wait=duration(self.wait_s or 0.0), **shown)

    def as_json(self) -> dict[str, Any]:
        """For the page's script."""
        moments = {name: moment.isoformat() for name, moment in self.moments.items()}
        return {"text": self.text, "tone": self.tone, "moments": moments, "wait_s": self.wait_s, "plain": str(self)}


def reason(name: str | None) -> str:
    """Why an attempt came to nothing."""
    if status := re.fullmatch(r"http_(\d+)", name or ""):
        return f"it answered {status[1]}"
    if code := re.fullmatch(r"code_(-?\d+)", name or ""):
        return f"it refused with code {code[1]}"
    return REASONS.get(name or "", (name or "unknown").replace("_", " ").replace("{", "").replace("}", ""))


def test_send(row: Mapping[str, Any]) -> str:
    """What became of a test send, one of `watch.test_sends`."""
    if row["is_lost"]:
        return "nobody knows: the server that sent it died meanwhile; it may have arrived"
    if row["state"] == "sending":
        return "on its way"
    word = STATES[row["state"]]
    return f"{word}: {reason(row['reason'])}" if row["reason"] else word


def duration(seconds: float) -> str:
    """About how long that is."""
    left = max(0, round(seconds))
    if left < 60:
        return f"{left} s"
    if left < 3_600:
        return f"{left // 60} min {left % 60:02} s" if left < 600 else f"{round(left / 60)} min"
    if left < 172_800:
        return f"{left // 3_600} h {left % 3_600 // 60:02} min"
    return f"{timedelta(seconds=left).days} days"


def standing(campaign: Watched) -> Words:
    """What the campaign does at this moment."""
    opens, closes = {"at": campaign.sending_start}, {"at": campaign.sending_stop}
    if campaign.archived_at is not None:
        said = f"Archived, {campaign.status}: its messages were dropped at {{at}}; its figures stay."
        return Words(said, moments={"at": campaign.archived_at})
    if campaign.status == "cancelled":
        return Words("Cancelled: nothing more leaves.")
    if campaign.status == "finished":
        return Words("Finished at {at}.", moments={"at": campaign.finished_at or campaign.sending_stop})
    if campaign.now >= campaign.sending_stop:
        return Words("Its window closed at {at}; it is about to be closed.", "warning", closes)
    if campaign.status == "paused":
        return Words("Paused: nothing leaves until it is resumed. Its window closes at {at}.", "warning", closes)
    if campaign.now < campaign.sending_start:
        wait_s = (campaign.sending_start - campaign.now).total_seconds()
        return Words("Its window opens at {at}, in {wait}.", "", opens, wait_s)
    if campaign.opened_at is None:
        return Words("Its window is open; Airflow is about to take its audience.")
    return _of_running(campaign)


def _of_running(campaign: Watched) -> Words:
    closes = {"at": campaign.sending_stop}
    if campaign.breaker.state != "closed":
        return Words("It waits for its gateway. Its window closes at {at}.", "warning", closes)
    if not campaign.left:
        kept = "; its audience may still grow" if campaign.audience_kind == "live" else ""
        return Words("Nothing is left to send" + kept + ". Its window closes at {at}.", "success", closes)
    if campaign.messages_per_second:
        return Words("It is sending. Its window closes at {at}.", "success", closes)
    return Words("Nothing leaves at this moment. Its window closes at {at}.", "", closes)


def eta(campaign: Watched) -> Words:
    """When nothing will be left, if it goes on like this. Local hours that are yet to open allow no better promise."""
    if not campaign.left:
        return Words("nothing is left" if campaign.opened_at else "not begun")
    if campaign.may_leave and campaign.waiting:
        return Words("not before {at}", moments={"at": campaign.waiting[-1].opens_at or campaign.now})
    if campaign.eta_s is None or not campaign.may_leave:
        return Words("stands still")
    if not campaign.due or campaign.eta_s > (campaign.sending_stop - campaign.now).total_seconds():
        return Words("more than its window")
    if _outlasts_hours(campaign):
        return Words("more than local hours")
    return Words(f"about {duration(campaign.eta_s)}")


def eta_note(campaign: Watched) -> Words:
    """What local hours do to the time that is left; of a campaign to which they do nothing, no words."""
    if not campaign.left:
        return Words("")
    said: list[str] = []
    moments: dict[str, datetime] = {}
    if campaign.waiting and campaign.due:
        lasts = f": about {duration(campaign.eta_s)}" if campaign.eta_s is not None else ""
        said.append(f"{campaign.due:,} {'is' if campaign.due == 1 else 'are'} due now{lasts}.")
    if _outlasts_hours(campaign) and campaign.hours_close_at:
        said.append("The local hours of some close first, at {close}.")
        moments["close"] = campaign.hours_close_at
    if campaign.waiting:
        last = campaign.waiting[-1]
        moments["opens"] = last.opens_at or campaign.now
        there = f"{moments['opens'].astimezone(zoneinfo.ZoneInfo(last.timezone)):%H:%M} in {last.timezone}"
        count = sum(zone.clients for zone in campaign.waiting)
        waits = "waits" if count == 1 else "wait"
        said.append(f"{count:,} {waits} for local hours, the last until {{opens}} ({there}).")
    if campaign.never:
        said.append(f"{campaign.never:,} cannot be reached before the stop.")
    return Words(" ".join(said), moments=moments)


def _outlasts_hours(campaign: Watched) -> bool:
    """Whether it will take longer than the first of the local hours that are open."""
    if campaign.eta_s is None or campaign.hours_close_at is None:
        return False
    return campaign.eta_s > (campaign.hours_close_at - campaign.now).total_seconds()


def gateway(breaker: Breaker) -> Words:
    """How the campaign's gateway is."""
    name = breaker.gateway.replace("{", "{{").replace("}", "}}")
    if breaker.state == "closed":
        return Words(f"Gateway {name} takes messages.", "success")
    since = {"since": breaker.changed_at} if breaker.changed_at else {}
    when = " since {since}" if since else ""
    if breaker.reason in ("http_401", "http_403"):
        said = f"Gateway {name} refuses the token of its connection{when}: an admin must renew it"
    else:
        said = f"Waiting for the gateway {name}{when} ({reason(breaker.reason)})"
    if breaker.state == "half_open":
        return Words(f"{said}; a probe is on its way.", "warning", since)
    if breaker.probe_in_s is None or breaker.probe_in_s <= 0:
        return Words(f"{said}; the next probe is due.", "danger", since)
    return Words(said + "; next probe in {wait}.", "danger", since, breaker.probe_in_s)
