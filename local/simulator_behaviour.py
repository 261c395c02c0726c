"""How the simulated gateway behaves: the settings, their validation, and the choice made for each request.

Every setting is validated in one place (`Behaviour`), whether it comes from Python, PUT or PATCH, so a wrong one
changes nothing. What each kind of reply means for the message:

==================  =========================================================  ========
kind                what the client sees                                       accepted
==================  =========================================================  ========
ok                  200 `{"code": 0, "message": "OK"}`                         yes
400 … 504           that status and a JSON reason                              no [1]_
code_nonzero        200 and a whole object whose code is `nonzero_code`        no
not_json            200 and an HTML page                                       yes
empty               200 and no body                                            yes
truncated           200, half of the body it promised, end of connection       yes
wrong_content_type  200 and the right body, called `text/json`                 yes
drop_before_read    the connection ends once the headers are in: the request   not even
                    is not taken and not remembered                            taken
drop_after_read     the connection ends after the latency, without a reply     yes
==================  =========================================================  ========

.. [1] 502 and 504 come from a proxy, which cannot know: `proxy_errors_accepted` makes them count as accepted, so
   that a client which repeats them shows up in `accepted_more_than_once`.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from hashlib import blake2b
from itertools import accumulate
from statistics import NormalDist
from struct import Struct
from typing import Any

STATUSES = ("400", "401", "403", "404", "408", "425", "429", "500", "502", "503", "504")
GARBAGE = ("code_nonzero", "not_json", "empty", "truncated", "wrong_content_type")
DROPS = ("drop_before_read", "drop_after_read")
KINDS = STATUSES + GARBAGE + DROPS

LATENCY_NUMBERS = {"fixed": ("seconds",), "uniform": ("low", "high"), "lognormal": ("median", "sigma")}
LONGEST_S = 3600.0  # no latency is longer, so that the tail of a lognormal cannot hold a connection for days
INT64 = range(-(2**63), 2**63)


class BadSetting(ValueError):
    """A setting or a query parameter is not what was wanted; nothing was changed."""

    def __init__(self, field: str, value: object, wanted: str) -> None:
        super().__init__(f"{field}: got {value!r}, wanted {wanted}")
        self.field, self.value, self.wanted = field, value, wanted


def is_int(value: object, allowed: range = INT64) -> bool:
    """Whether this is an integer of that range; a bool is not one, although Python says so."""
    return isinstance(value, int) and not isinstance(value, bool) and value in allowed


def _number(name: str, value: object, high: float) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= high:
        return float(value)
    raise BadSetting(name, value, f"a number from 0 to {high:g}")


def _latency(name: str, value: object) -> dict[str, Any]:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    numbers = LATENCY_NUMBERS.get(kind) if isinstance(kind, str) else None
    if not isinstance(value, Mapping) or numbers is None or set(value) != {"kind", *numbers}:
        shapes = "; ".join(f"kind {kind} with {' and '.join(names)}" for kind, names in LATENCY_NUMBERS.items())
        raise BadSetting(name, value, f"an object: {shapes}")
    latency = {n: _number(f"{name}.{n}", value[n], 10 if n == "sigma" else LONGEST_S) for n in numbers}
    if kind == "uniform" and latency["low"] > latency["high"]:
        raise BadSetting(f"{name}.low", value["low"], f"no more than {name}.high, which is {value['high']!r}")
    return {"kind": kind, **latency}


def _shares(name: str, value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise BadSetting(name, value, "an object of shares by kind of reply")
    for kind in value:
        if str(kind) not in KINDS:
            raise BadSetting(f"{name}.{kind}", value[kind], f"one of these kinds: {', '.join(KINDS)}")
    shares = {str(kind): _number(f"{name}.{kind}", share, 1) for kind, share in value.items()}
    if sum(shares.values()) > 1 + 1e-9:  # ten times 0.1 is a little more than 1
        raise BadSetting(name, dict(value), "shares that add up to 1 at most")
    return shares


def _retry_after(name: str, value: object) -> int | str | None:
    if value is None or is_int(value, range(86_401)):
        return value  # type: ignore[return-value]  # is_int has just told
    try:
        date = parsedate_to_datetime(value if isinstance(value, str) else "")
        return format_datetime(date.astimezone(UTC), usegmt=True)  # anew: the parser lets junk follow the date
    except (ValueError, OverflowError):
        raise BadSetting(name, value, "null, whole seconds from 0 to 86400, or an HTTP date") from None


def _nonzero_code(name: str, value: object) -> int:
    if is_int(value) and value != 0:
        return value  # type: ignore[return-value]  # is_int has just told
    raise BadSetting(name, value, "an integer other than 0")


def _seed(name: str, value: object) -> int | None:
    if value is None or is_int(value):
        return value  # type: ignore[return-value]  # is_int has just told
    raise BadSetting(name, value, "null or a 64-bit integer")


def _flag(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise BadSetting(name, value, "true or false")


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "latency": _latency,
    "shares": _shares,
    "retry_after": _retry_after,
    "nonzero_code": _nonzero_code,
    "proxy_errors_accepted": _flag,
    "outage": _flag,
    "token_expired": _flag,
    "fixed_reply": _flag,
    "seed": _seed,
}


@dataclass(frozen=True)
class Behaviour:
    """A valid set of settings; making one with a wrong value raises `BadSetting`.

    - latency: seconds between the whole request and its reply: `{"kind": "fixed", "seconds": 0.05}`,
      `{"kind": "uniform", "low": 0.25, "high": 0.75}` or `{"kind": "lognormal", "median": 0.4, "sigma": 0.5}`.
    - shares: which part (0..1) of the otherwise right requests gets which kind of reply (`KINDS`); the rest is ok.
    - retry_after: the `Retry-After` of 429 and 503: whole seconds, an HTTP date, or None for no such header.
    - nonzero_code: the code in a `code_nonzero` reply.
    - proxy_errors_accepted: 502 and 504 count as accepted.
    - outage: every `/v1` request ends its connection without a reply, and connections that carried one are cut.
    - token_expired: 401 for every token whose `iat` is not later than the moment this was (last) set to true.
    - fixed_reply: token, body and shares are left out; every request is ok after the latency. For benchmarks.
    - seed: the choice for a request then depends only on the seed, its msgId and how often that msgId came before.
    """

    latency: Mapping[str, Any] = field(default_factory=lambda: {"kind": "fixed", "seconds": 0.05})
    shares: Mapping[str, float] = field(default_factory=dict)
    retry_after: int | str | None = None
    nonzero_code: int = 1
    proxy_errors_accepted: bool = False
    outage: bool = False
    token_expired: bool = False
    fixed_reply: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))  # frozen for everybody else

    def changed(self, changes: Mapping[str, object]) -> Behaviour:
        """A copy in which each setting named in `changes` is replaced as a whole (shares are not merged)."""
        for name in changes:
            if name not in _CHECKS:
                raise BadSetting(name, changes[name], f"one of these settings: {', '.join(_CHECKS)}")
        return replace(self, **dict(changes))  # type: ignore[arg-type]  # __post_init__ checks each value

    def as_json(self) -> dict[str, Any]:
        """The settings as the control plane shows and takes them."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Chooser:
    """Picks the kind of reply and the latency of each request, as one behaviour says."""

    _key = Struct("<qqq")
    _pair = Struct("<QQ")

    def __init__(self, behaviour: Behaviour) -> None:
        self._seed = behaviour.seed
        self._kinds = (*behaviour.shares, "ok")
        self._bounds = tuple(accumulate(behaviour.shares.values()))
        self._delay = _delay_of(behaviour.latency)
        self._no_dice = not any(behaviour.shares.values()) and behaviour.latency["kind"] == "fixed"

    def choose(self, msg_id: int, attempt: int) -> tuple[str, float]:
        """(kind, latency in seconds) for a request; `attempt` counts the earlier ones for the same msgId."""
        if self._no_dice:
            return "ok", self._delay(0.5)
        which, how_long = self._dice(msg_id, attempt)
        return self._kinds[bisect_right(self._bounds, which)], self._delay(how_long)

    def latency_s(self) -> float:
        """A latency in seconds, for a request about which there is nothing to choose."""
        return self._delay(0.5 if self._no_dice else random.random())  # noqa: S311  # no secret hangs on it

    def _dice(self, msg_id: int, attempt: int) -> tuple[float, float]:
        if self._seed is None:
            return random.random(), random.random()  # noqa: S311  # no secret hangs on it
        # A hash and not a seeded generator: concurrent requests arrive in another order on each run.
        digest = blake2b(self._key.pack(self._seed, msg_id, attempt), digest_size=16).digest()
        first, second = self._pair.unpack(digest)
        return (first >> 11) / 2**53, (second >> 11) / 2**53


def _delay_of(latency: Mapping[str, Any]) -> Callable[[float], float]:
    """The inverse of the distribution: an even number of [0, 1) in, seconds out."""
    if latency["kind"] == "fixed":
        seconds: float = latency["seconds"]
        return lambda _: seconds
    if latency["kind"] == "uniform":
        low, span = latency["low"], latency["high"] - latency["low"]
        return lambda u: low + span * u
    median, sigma, normal = latency["median"], latency["sigma"], NormalDist()
    # 1e-12: the inverse of 0 would be minus infinity
    return lambda u: min(LONGEST_S, median * math.exp(sigma * normal.inv_cdf(max(u, 1e-12))))
