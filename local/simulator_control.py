"""The control plane under `/_simulator/`: JSON in, JSON out, 422 with field, value and what was wanted.

====================  =======================  ==============================================================
call                  parameters               reply
====================  =======================  ==============================================================
GET health                                     `{"status": "ok"}`
GET behaviour                                  every setting of `Behaviour`
PUT behaviour         settings as JSON         the same; settings left out go back to their defaults
PATCH behaviour       settings as JSON         the same; settings left out stay; a named one is replaced whole
GET stats                                      sums, see `RequestLog.stats`
GET requests          ids=1,2 or first=, last=  `{"7": {"received", "accepted", "arrivals", "statuses"}}`
GET counts            first=, last=            `{"7": 1}`: msgIds accepted at least once
GET arrivals          since= (epoch seconds)   list of epoch seconds
DELETE requests                                forgets; the stats, all zero
====================  =======================  ==============================================================

`first` and `last` are included in their range and may be left out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl

from local.simulator_behaviour import INT64, BadSetting, Behaviour
from local.simulator_http import Reply, Request, json_reply
from local.simulator_memory import RequestLog

PREFIX = b"/_simulator/"


class Controlled(Protocol):
    """What the control plane needs of a simulator."""

    behaviour: Behaviour
    log: RequestLog

    def set(self, **changes: object) -> Behaviour:
        """Change the named settings."""

    def reset(self, **settings: object) -> Behaviour:
        """Change the named settings, the others back to their defaults."""


Params = dict[str, str]
Call = Callable[[Controlled, Params, bytes], object]


def control(simulator: Controlled, request: Request) -> Reply:
    """The reply to a request whose target starts with `PREFIX`: 200, 404, 405 or 422, always JSON."""
    path, _, query = request.url.removeprefix(PREFIX).decode("latin-1").partition("?")
    calls = CALLS.get(path)
    if calls is None:
        return json_reply(404, {"message": f"{path}: no such call, wanted one of {', '.join(CALLS)}"})
    call = calls.get(request.method.decode("latin-1"))
    if call is None:
        allowed = ", ".join(calls)
        return json_reply(405, {"message": f"{path}: wanted {allowed}"}, allow=allowed)
    try:
        return json_reply(200, call(simulator, _params(query, path), request.body))
    except BadSetting as error:
        what = {"field": error.field, "value": _shown(error.value), "wanted": error.wanted}
        return json_reply(422, {"message": str(error), **what})


def _shown(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):  # Python reads NaN and 1e999, but no other JSON parser would take them back
        return repr(value)
    return value


PARAMS: Mapping[str, tuple[str, ...]] = {
    "requests": ("ids", "first", "last"),
    "counts": ("first", "last"),
    "arrivals": ("since",),
}


def _params(query: str, path: str) -> Params:
    params = dict(parse_qsl(query, keep_blank_values=True))
    known = PARAMS.get(path, ())
    for name, value in params.items():
        if name not in known:  # a misspelt filter must not silently ask for everything
            raise BadSetting(name, value, f"one of these parameters: {', '.join(known) or 'none'}")
    return params


def _int(name: str, text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = INT64.stop
    if number not in INT64:
        raise BadSetting(name, text, "a 64-bit integer")
    return number


def _range(params: Params) -> dict[str, int]:
    ends: dict[str, int] = {name: _int(name, params[name]) for name in ("first", "last") if name in params}
    if len(ends) == 2 and ends["first"] > ends["last"]:
        raise BadSetting("first", ends["first"], f"no more than last, which is {ends['last']}")
    return ends


def _settings(body: bytes) -> dict[str, Any]:
    try:
        settings = json.loads(body)
    except (ValueError, RecursionError):
        raise BadSetting("body", f"{len(body)} bytes", "a JSON object of settings") from None
    if not isinstance(settings, dict):
        raise BadSetting("body", settings, "a JSON object of settings")
    return settings


def _requests(simulator: Controlled, params: Params, _: bytes) -> object:
    if "ids" not in params:
        return simulator.log.requests(None, **_range(params))
    if len(params) > 1:
        raise BadSetting("ids", params["ids"], "either ids or first and last")
    return simulator.log.requests([_int("ids", text) for text in params["ids"].split(",")])


def _arrivals(simulator: Controlled, params: Params, _: bytes) -> object:
    text = params.get("since", "0")
    try:
        since = float(text)
    except ValueError:
        since = math.nan
    if not math.isfinite(since):
        raise BadSetting("since", text, "epoch seconds")
    return simulator.log.arrivals(since)


def _forget(simulator: Controlled, _: Params, __: bytes) -> object:
    simulator.log.forget()
    return simulator.log.stats()


CALLS: Mapping[str, Mapping[str, Call]] = {
    "health": {"GET": lambda *_: {"status": "ok"}},
    "behaviour": {
        "GET": lambda simulator, *_: simulator.behaviour.as_json(),
        "PUT": lambda simulator, _, body: simulator.reset(**_settings(body)).as_json(),
        "PATCH": lambda simulator, _, body: simulator.set(**_settings(body)).as_json(),
    },
    "stats": {"GET": lambda simulator, *_: simulator.log.stats()},
    "requests": {"GET": _requests, "DELETE": _forget},
    "counts": {"GET": lambda simulator, params, _: simulator.log.counts(**_range(params))},
    "arrivals": {"GET": _arrivals},
}
