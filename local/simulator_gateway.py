"""The rules of the simulated gateway: which request gets which reply, and what is remembered of it.

A request is taken, remembered and judged the moment it is whole; the latency comes after that. So a message counts
as accepted even if its reply is lost, to an outage or to a client that has gone: as with a real gateway.
"""

from __future__ import annotations

import asyncio
import errno
import json
import re
import sys
import time
from pathlib import Path
from typing import Self

from local.simulator_behaviour import INT64, STATUSES, Behaviour, Chooser, is_int
from local.simulator_control import PREFIX, control
from local.simulator_http import SILENCE, Connection, Reply, Request, refusal, reply
from local.simulator_memory import CannotStart, Journal, RequestLog
from local.simulator_tokens import TokenCheck

BACKLOG = 2048  # connections that may wait to be accepted: a sender opens hundreds at once
PHONES = range(70_000_000_000, 80_000_000_000)
OK_BODY = b'{"code": 0, "message": "OK"}'
SEND = re.compile(rb"/v1/send/([^/?]+)(?:\?.*)?", re.DOTALL)
INTEGER = re.compile(rb"-?[0-9]{1,19}")


def replies_of(behaviour: Behaviour) -> dict[str, Reply]:
    """The reply to each kind of request; `Reply.accepted` says whether the gateway took the message."""
    ok = reply(200, OK_BODY)._replace(accepted=True)
    replies = {kind: refusal(int(kind), "simulated") for kind in STATUSES}
    if behaviour.retry_after is not None:
        for kind in ("429", "503"):
            replies[kind] = refusal(int(kind), "simulated", retry_after=behaviour.retry_after)
    for kind in ("502", "504"):
        replies[kind] = replies[kind]._replace(accepted=behaviour.proxy_errors_accepted)
    nonzero = json.dumps({"code": behaviour.nonzero_code, "message": "not sent"}).encode()
    return {
        **replies,
        "ok": ok,
        "code_nonzero": reply(200, nonzero),
        "not_json": reply(200, b"<html><body>OK</body></html>", "text/html")._replace(accepted=True),
        "empty": reply(200, b"")._replace(accepted=True),
        "truncated": ok._replace(body=OK_BODY[: len(OK_BODY) // 2], hang_up=True),
        "wrong_content_type": reply(200, OK_BODY, "text/json")._replace(accepted=True),
        "drop_after_read": SILENCE._replace(accepted=True),
    }


def wrong_with(body: bytes, msg_id: int) -> str | None:
    """What is wrong with a request's body, or None. Never repeats the phone or the text: clients keep replies."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return "body: wanted JSON"
    if not isinstance(message, dict):
        return "body: wanted a JSON object"
    if not is_int(message.get("id")):
        return "id: wanted a 64-bit integer"
    if message["id"] != msg_id:
        return f"id: wanted {msg_id} as in the path, got {message['id']}"
    if not is_int(message.get("phone"), PHONES):
        return "phone: wanted an integer of 11 digits that starts with 7"
    text = message.get("text")
    return None if isinstance(text, str) and text else "text: wanted a string that is not empty"


class Simulator:
    """The gateway on an event loop: `async with Simulator(secret) as sim: ...`, or `start` and `stop`.

    Its methods belong to the loop's thread; `running_simulator` wraps them for other threads.
    Raises CannotStart for a journal it cannot use, BadSetting for a wrong setting.
    """

    def __init__(self, secret: str, *, journal: Path | None = None, **settings: object) -> None:
        self._check = TokenCheck(secret)
        self._expired_since: float | None = None
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        self.failed = asyncio.Event()  # the journal cannot be written: going on would forget requests
        self.reset(**settings)
        self.log = RequestLog(Journal(journal) if journal else None)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one, `url` tells which. CannotStart if the port is busy."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Connection(self, loop), host, port, backlog=BACKLOG)
        except OSError as error:
            reason = "in use by another process" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            raise CannotStart(f"port {port} on {host}: {reason}") from error
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def stop(self) -> None:
        """Stop listening, cut every connection, let go of the journal. What is remembered can still be asked."""
        if self._server:
            self._server.close()
        for connection in list(self.connections):
            connection.cut()
        if self._server:
            await self._server.wait_closed()
        self.log.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def set(self, **changes: object) -> Behaviour:
        """Replace the named settings, from now on. BadSetting: nothing was changed."""
        return self._behave(self.behaviour.changed(changes), "token_expired" in changes)

    def reset(self, **settings: object) -> Behaviour:
        """The named settings, and the defaults for all others. BadSetting: nothing was changed."""
        return self._behave(Behaviour().changed(settings), True)

    def _behave(self, behaviour: Behaviour, expiry_named: bool) -> Behaviour:
        self.behaviour = behaviour
        self._chooser, self._replies = Chooser(behaviour), replies_of(behaviour)
        if expiry_named:
            self._expired_since = time.time() if behaviour.token_expired else None
        if behaviour.outage:
            for connection in list(self.connections):
                if connection.carried_v1:
                    connection.cut()
        return behaviour

    def begin(self, request: Request, connection: Connection) -> bool:
        """Headers are in: choose the request's fate. False: the connection ends before the body is read."""
        if not request.url.startswith(b"/v1/"):
            return True
        connection.carried_v1 = True
        if self.behaviour.outage:
            self.log.not_taken["outage"] += 1
            return False
        match = SEND.fullmatch(request.url)
        if match is None or not INTEGER.fullmatch(match[1]) or int(match[1]) not in INT64:
            return True
        request.msg_id = msg_id = int(match[1])
        if self.behaviour.fixed_reply:
            request.delay_s = self._chooser.latency_s()
            return True
        request.kind, request.delay_s = self._chooser.choose(msg_id, self.log.attempts(msg_id))
        if request.kind == "drop_before_read":
            self.log.miss(msg_id)
            return False
        return True

    def answer(self, request: Request) -> tuple[Reply, float]:
        """The request is whole: its reply and the latency in seconds. What was taken is remembered first."""
        if request.url.startswith(PREFIX):
            return control(self, request), 0.0
        if request.msg_id is None:
            return self._elsewhere(request), request.delay_s
        now = time.time()
        answer = None if self.behaviour.fixed_reply else self._refusal(request, request.msg_id, now)
        answer = answer or self._replies[request.kind]
        try:
            self.log.take(request.msg_id, now, answer.status, answer.accepted)
        except OSError as error:
            print(f"simulator: journal: {error.strerror or error}; stopping", file=sys.stderr)
            self.failed.set()
            return SILENCE, 0.0
        return answer, request.delay_s

    def _refusal(self, request: Request, msg_id: int, now: float) -> Reply | None:
        if request.method != b"POST":
            return refusal(405, "wanted POST", allow="POST")
        if reason := self._check.refusal(request.authorization, now, self._expired_since):
            return refusal(401, reason, www_authenticate="Bearer")
        if reason := wrong_with(request.body, msg_id):
            return refusal(400, reason)
        return None

    def _elsewhere(self, request: Request) -> Reply:
        if SEND.fullmatch(request.url):
            self.log.not_taken["no_msg_id"] += 1
            return refusal(400, "msgId: wanted a 64-bit integer in the path")
        return refusal(404, "no such page")
