"""HTTP/1.1 on an asyncio transport, as fast as Python allows: parsing, keep-alive, replies in order.

Knows nothing about gateways: a `Handler` says what to reply and after how long.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast

import httptools

JSON = "application/json"
LARGEST_BODY = 1 << 20  # bytes; a message is a few hundred


class Reply(NamedTuple):
    """What goes out for one request. `head` lacks its last, empty line; no head at all: the connection just ends."""

    status: int
    head: bytes
    body: bytes
    hang_up: bool = False
    accepted: bool = False


SILENCE = Reply(0, b"", b"", hang_up=True)


def reply(status: int, body: bytes, content_type: str = JSON, **headers: object) -> Reply:
    """A whole reply; `retry_after=3` becomes the header `Retry-After: 3`. Content-Length is that of `body`."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    headers = {"content_length": len(body), **headers}
    lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
    return Reply(status, "".join(f"{line}\r\n" for line in lines).encode("latin-1"), body)


def json_reply(status: int, value: object, **headers: object) -> Reply:
    """A whole reply whose body is `value` as JSON."""
    return reply(status, json.dumps(value).encode(), JSON, **headers)


def refusal(status: int, reason: str, **headers: object) -> Reply:
    """An error with the reason as JSON: `{"code": status, "message": reason}`."""
    return json_reply(status, {"code": status, "message": reason}, **headers)


BAD_HTTP = refusal(400, "not an HTTP/1.1 request")._replace(hang_up=True)
TOO_LARGE = refusal(413, f"body: wanted at most {LARGEST_BODY} bytes")._replace(hang_up=True)


class Request:
    """One request as it comes in; `msg_id`, `kind` and `delay_s` are the handler's notes between its two calls."""

    __slots__ = ("authorization", "body", "delay_s", "kind", "method", "msg_id", "url")

    def __init__(self) -> None:
        self.method = self.url = self.authorization = self.body = b""
        self.msg_id: int | None = None
        self.kind = "ok"
        self.delay_s = 0.0


class Handler(Protocol):
    """The application behind the connections."""

    connections: set[Connection]

    def begin(self, request: Request, connection: Connection) -> bool:
        """The headers are in. False ends the connection at once, before the body is read."""

    def answer(self, request: Request) -> tuple[Reply, float]:
        """The request is whole: its reply, and after how many seconds it goes out."""


class _Slot:
    """A reply that waits for its time, or for those before it."""

    __slots__ = ("due", "keep", "reply")

    def __init__(self, reply: Reply, keep: bool) -> None:
        self.reply, self.keep, self.due = reply, keep, False


class Connection(asyncio.Protocol):
    """One client. Pipelined requests wait out their latencies side by side; replies keep the requests' order."""

    _transport: asyncio.Transport

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler, self._loop = handler, loop
        self._parser = httptools.HttpRequestParser(self)
        self._request = Request()
        self._waiting: deque[_Slot] = deque()
        self._deaf = False  # nothing more is read: a reply that ends the connection is on its way
        self.carried_v1 = False  # an outage cuts those, and leaves the control plane's alone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the handler's connections."""
        self._transport = cast(asyncio.Transport, transport)  # by duck: uvloop's does not inherit from it
        self._handler.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the handler's connections; replies that still wait go nowhere."""
        self._deaf = True
        self._waiting.clear()
        self._handler.connections.discard(self)

    def cut(self) -> None:
        """End the connection now, whatever waits."""
        self._deaf = True
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came; the callbacks below do the rest."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a fault of ours: the loop reports it and ends the connection
        except httptools.HttpParserUpgrade:
            self._hear_no_more()
        except httptools.HttpParserError:
            if not self._deaf:
                self._queue(BAD_HTTP, 0.0, keep=False)

    def eof_received(self) -> bool:
        """Keep the connection while replies wait: a client may close its own half and still read."""
        self._deaf = True
        return bool(self._waiting)

    def on_message_begin(self) -> None:
        """Parser: a request starts."""
        self._request = Request()

    def on_url(self, url: bytes) -> None:
        """Parser: (a part of) the request's target."""
        self._request.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: one header."""
        if len(name) == 13 and name.lower() == b"authorization":
            self._request.authorization = value

    def on_headers_complete(self) -> None:
        """Parser: the body comes next."""
        if self._deaf:
            return
        self._request.method = self._parser.get_method()
        if not self._handler.begin(self._request, self):
            self.cut()

    def on_body(self, body: bytes) -> None:
        """Parser: (a part of) the body."""
        if self._deaf:
            return
        self._request.body += body
        if len(self._request.body) > LARGEST_BODY:
            self._queue(TOO_LARGE, 0.0, keep=False)

    def on_message_complete(self) -> None:
        """Parser: the request is whole."""
        if self._deaf:
            return
        answer, delay_s = self._handler.answer(self._request)
        self._queue(answer, delay_s, keep=self._parser.should_keep_alive())

    def _queue(self, answer: Reply, delay_s: float, keep: bool) -> None:
        keep = keep and not answer.hang_up
        if not keep:
            self._deaf = True  # requests behind this one must not be taken: nobody would answer them
        slot = _Slot(answer, keep)
        self._waiting.append(slot)
        if delay_s > 0:
            self._loop.call_later(delay_s, self._due, slot)
        else:
            self._due(slot)

    def _due(self, slot: _Slot) -> None:
        slot.due = True
        waiting = self._waiting
        while waiting and waiting[0].due:
            self._write(waiting.popleft())
        if self._deaf and not waiting:
            self._transport.close()

    def _write(self, slot: _Slot) -> None:
        answer = slot.reply
        if answer.head and not self._transport.is_closing():
            self._transport.write(answer.head + (b"\r\n" if slot.keep else b"Connection: close\r\n\r\n") + answer.body)

    def _hear_no_more(self) -> None:
        self._deaf = True
        if not self._waiting:
            self._transport.close()
