"""When a gateway is to be left alone, and how it is tried again: one breaker per gateway, shared by all tasks.

Source of the rules: docs/delivery.md, **Breaker**. Pure: nothing here reads a clock, a socket or a row.

closed ── too many failures in a row, or a refused token ──▶ open ── the time to probe ──▶ half_open (one task probes)
  ▲                                                            ▲                               │
  └──────────── the probe was settled (sent or refused) ───────┼───────────────────────────────┤
                                                               └───────── it was not ──────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TOLERANCE = 10
"""Failures in a row, of all tasks together, that open the breaker. A gateway that fails every second message has such
a row once in a thousand messages; one that is gone has it at once, and each more may leave a message in doubt."""

FIRST_WAIT_S = 5.0
MAX_WAIT_S = 60.0
"""Until the first probe, and at most between two: each wait is twice the one before."""

MEND_S = 15.0
"""Between two probes while the gateway refuses the token: a person mends that, and a refusal costs nothing."""

PROBE_S = 30.0
"""How long a task has for its probe: then another may."""

RAMP_DOUBLES_S = 1.0
"""After the breaker has closed, the requests in flight double in this time: a gateway that has just come back is not to
be knocked over again."""

RAMP_FROM = 4


@dataclass(frozen=True, slots=True)
class Breaker:
    """`state`: closed, open, half_open; `failures`: in a row; `probes`: that failed since it opened; `reason`: why."""

    state: str = "closed"
    failures: int = 0
    probes: int = 0
    reason: str | None = None


@dataclass(slots=True)
class Report:
    """What a task met since it last reported, in the order it met it.

    `is_well`: the gateway settled a message (took it, or refused it for good); `failures`: how many attempts in a row
    came to nothing after that; `reason`: of the last of them; `is_refused`: the token was; `wait_s`: what the gateway
    asked for (Retry-After).
    """

    is_well: bool = False
    failures: int = 0
    reason: str | None = None
    is_refused: bool = False
    wait_s: float = 0.0

    def settled(self) -> None:
        """The gateway sent or refused a message."""
        self.is_well, self.failures, self.reason, self.is_refused, self.wait_s = True, 0, None, False, 0.0

    def failed(self, reason: str | None, wait_s: float | None, is_refused: bool = False) -> None:
        """An attempt came to nothing."""
        self.failures += 1
        self.reason = reason
        self.is_refused = self.is_refused or is_refused
        self.wait_s = max(self.wait_s, wait_s or 0.0)


def after(breaker: Breaker, report: Report, is_probe: bool) -> tuple[Breaker, float | None]:
    """The breaker after a report, and in how many seconds it is to be probed (None: as it was).

    `is_probe`: the report is of the task that holds the right to probe. Others' words count only while it is closed:
    what was on its way when it opened says nothing of how the gateway is now.
    """
    if breaker.state == "closed":
        failures = report.failures if report.is_well else breaker.failures + report.failures
        if failures >= TOLERANCE or report.is_refused:
            opened = Breaker("open", failures, 0, report.reason)
            return opened, _wait_s(opened, report)
        return replace(breaker, failures=failures, reason=report.reason or breaker.reason), None
    if breaker.state == "half_open" and is_probe:
        if report.failures:
            opened = Breaker("open", breaker.failures + report.failures, breaker.probes + 1, report.reason)
            return opened, _wait_s(opened, report)
        if report.is_well:
            return Breaker(), None
    return breaker, None


def _wait_s(breaker: Breaker, report: Report) -> float:
    if report.is_refused:
        return MEND_S
    return max(report.wait_s, min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(breaker.probes, 16)))


def ramp(requests_in_flight: int, closed_for_s: float | None) -> int:
    """How many requests may be in flight so long after the breaker has closed (None: it never was open)."""
    if closed_for_s is None or closed_for_s >= RAMP_DOUBLES_S * 32:
        return requests_in_flight
    return min(requests_in_flight, int(RAMP_FROM * 2.0 ** (max(closed_for_s, 0.0) / RAMP_DOUBLES_S)))
