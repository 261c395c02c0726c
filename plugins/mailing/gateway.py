"""Speaks HTTP to the service that takes messages: `POST {base}/v1/send/{msgId}` with a bearer token.

Source: docs/gateway.md. One session per sending task, with its own connector: a session per call is five times slower.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import aiohttp
import jwt
import yarl
from airflow.providers.http.hooks.http import HttpAsyncHook
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from mailing import replies
from mailing.errors import InvalidInput
from mailing.messages import Claim, Terms
from mailing.models import MAX_REPLY
from mailing.replies import Judgement, Verdict

CONNECT_SHARE = 0.5
"""The part of a request's time that connecting may take. A connection that never came is safe to repeat, an answer
that never came is not: the two must not run out at the same moment."""

END_OF_CALENDAR = datetime.max.replace(tzinfo=UTC).timestamp()

NEVER_LEFT = (
    aiohttp.ClientConnectorError,  # refused, unreachable, DNS, TLS handshake
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,  # the proxy would not connect us
    aiohttp.ClientSSLError,
    aiohttp.InvalidURL,
)
"""Errors after which the request surely never left."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one request came to: the judgement, and the evidence for it where it is not good. `duration_s`: seconds."""

    judgement: Judgement
    duration_s: float
    status_code: int | None = None
    error: str | None = None
    reply: str | None = None


class Gateway:
    """One gateway, for one task: an open session that carries the bearer token, and where to post.

    `token_expires`: epoch seconds, as the token says (its claim `exp`); None: it does not say.
    """

    def __init__(
        self, session: aiohttp.ClientSession, base_url: str, terms: Terms, token_expires: float | None = None
    ) -> None:
        self._session = session
        self._before_id, _, self._after_id = (base_url.rstrip("/") + terms.endpoint).partition("{id}")
        self._repeat_codes = terms.repeat_codes
        self.token_expires = token_expires

    async def post(self, message: Claim, timeout_s: float, begin_s: float | None = None) -> Attempt:
        """Post one message and judge the reply. Never raises for what a gateway or a network can do.

        `timeout_s`: for the whole request; what it leaves unanswered is in doubt. `begin_s`: in how many seconds it has
        to begin: a connection that takes longer is given up, and nothing leaves.
        """
        connect_s = timeout_s * CONNECT_SHARE if begin_s is None else min(timeout_s * CONNECT_SHARE, begin_s)
        url = yarl.URL(f"{self._before_id}{message.id}{self._after_id}", encoded=True)
        body = b'{"id": %d, "phone": %d, "text": %b}' % (message.id, int(message.phone_number), _quoted(message.text))
        began = time.monotonic()
        status = None
        try:
            async with self._session.post(
                url, data=body, timeout=_timeout(timeout_s, connect_s), allow_redirects=False
            ) as response:
                status = response.status
                content = await response.read()
                retry_after = response.headers.get("Retry-After") if status >= 300 else None
        except NEVER_LEFT as error:
            return _attempt(began, Judgement(Verdict.REPEAT, "not_reached"), error=_describe(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = "no_answer" if isinstance(error, TimeoutError) else "connection_lost"
            return _attempt(began, Judgement(Verdict.IN_DOUBT, reason), status, _describe(error))
        judgement = replies.judge(status, content, retry_after, self._repeat_codes)
        if judgement.verdict is Verdict.SENT:
            return _attempt(began, judgement, status)
        reply = content[: MAX_REPLY * 4].decode("utf-8", errors="replace")[:MAX_REPLY]
        return _attempt(began, judgement, status, judgement.reason, reply)

    async def knock(self, timeout_s: float) -> str | None:
        """Ask for something harmless, before a message is risked. Why nobody is in, or None: somebody answered.

        A GET where messages are posted. What it answers (404, 405, …) does not matter, unless it is a proxy's word that
        there is nobody behind it.
        """
        url = yarl.URL(f"{self._before_id}0{self._after_id}", encoded=True)
        try:
            async with self._session.get(
                url, timeout=_timeout(timeout_s, timeout_s * CONNECT_SHARE), allow_redirects=False
            ) as response:
                return f"http_{response.status}" if response.status >= 500 else None
        except NEVER_LEFT:
            return "not_reached"
        except TimeoutError:
            return "no_answer"
        except (aiohttp.ClientError, OSError, ValueError):
            return "connection_lost"


@lru_cache(maxsize=64)
def _quoted(text: str) -> bytes:
    """A text as JSON. A campaign has few, and sends each many times."""
    return json.dumps(text).encode()


@lru_cache(maxsize=64)
def _timeout(timeout_s: float, connect_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=timeout_s,
        connect=connect_s,  # DNS and all addresses together; there is no pool to wait for
        ceil_threshold=timeout_s + 1,  # aiohttp would round long timeouts up to a whole second, past the stop
    )


@asynccontextmanager
async def open_gateway(terms: Terms) -> AsyncIterator[Gateway]:
    """The gateway of the terms, with the connection's host, options and token as they are now.

    Raises InvalidInput for a connection that is not defined, or has no usable address, token, proxy or CA file.
    """
    hook = _GatewayHook(http_conn_id=terms.connection_id)
    try:
        config = await hook.config()
    except AirflowNotFoundException as error:
        raise InvalidInput(f"connection {terms.connection_id}: is not defined; wanted the gateway's") from error
    if (connection := hook.connection) is None:
        raise InvalidInput(f"gateway {terms.gateway}: connection_id: wanted the id of its connection")
    _check_base_url(terms.connection_id, config.base_url)
    _check_headers(terms.connection_id, connection.password, config.headers or {})
    options = config.extra_options or {}
    proxy = _proxy(terms.connection_id, options.get("proxy"), yarl.URL(config.base_url).scheme)
    tls = _ssl(terms.connection_id, options.get("verify_ssl", True))
    async with aiohttp.ClientSession(
        # The sender holds the limit of requests in flight.
        connector=aiohttp.TCPConnector(limit=0, ssl=tls),
        headers={
            **(config.headers or {}),
            "Authorization": f"Bearer {connection.password}",
            "Content-Type": "application/json",
        },
        proxy=proxy,
        trust_env=bool(options.get("trust_env", False)),
    ) as session:
        yield Gateway(session, config.base_url, terms, token_expiry(connection.password))


class _GatewayHook(HttpAsyncHook):
    """Keeps the connection that its configuration was made of: its token, and one question to Airflow less."""

    connection: Connection | None = None

    async def aget_connection(self, conn_id: str) -> Connection:  # type: ignore[override]
        """As `get_async_connection` asks for it, of the hook that it is given."""
        self.connection = await super().aget_connection(conn_id)
        return self.connection


def _check_headers(connection_id: str, token: str | None, headers: Mapping[str, object]) -> None:
    """Refuse what would fail each request, after its message was claimed: a line end that was pasted with the token."""
    if not token:
        raise InvalidInput(f"connection {connection_id}: password: wanted the gateway's bearer token, got none")
    if not re.fullmatch(r"[!-~]+", token):
        raise InvalidInput(
            f"connection {connection_id}: password: wanted the gateway's bearer token, without blanks or line ends"
        )
    for name, value in headers.items():
        if not re.fullmatch(r"[!-~]+", name) or not isinstance(value, str) or not re.fullmatch(r"[ -~\t]*", value):
            raise InvalidInput(f"connection {connection_id}: extra: {name!r}: wanted a header, of printable ASCII")


def token_expiry(token: str | None) -> float | None:
    """When a JWT expires (epoch seconds), as it says itself; None for one that does not say, or is no JWT.

    A moment that no calendar holds (milliseconds instead of seconds, say) says nothing.
    """
    try:
        expires = jwt.decode(token or "", options={"verify_signature": False}).get("exp")
    except jwt.InvalidTokenError:
        return None
    return float(expires) if isinstance(expires, int | float) and 0 <= expires < END_OF_CALENDAR else None


def _check_base_url(connection_id: str, base_url: str) -> None:
    """Refuse here what would otherwise fail at each request, after its message was claimed."""
    try:
        url = yarl.URL(base_url)
    except ValueError as error:
        raise InvalidInput(f"connection {connection_id}: host: {error}; wanted the gateway's address") from error
    if url.scheme not in ("http", "https") or not url.host or url.user is not None:
        raise InvalidInput(
            f"connection {connection_id}: host, schema: wanted http or https and the gateway's host, without a user"
        )


def _proxy(connection_id: str, given: object, scheme: str) -> str | None:
    """The proxy's URL; of a mapping by scheme, as the library requests has it, the one for the gateway's scheme."""
    url = given.get(scheme) if isinstance(given, Mapping) else given
    if not url:
        return None
    try:
        is_good = yarl.URL(str(url)).scheme in ("http", "https") and bool(yarl.URL(str(url)).host)
    except ValueError:
        is_good = False
    if not isinstance(url, str) or not is_good:  # it may hold a password: not to be shown
        raise InvalidInput(
            f"connection {connection_id}: extra: proxy: wanted its http or https address, or one by scheme"
        )
    return url


def _ssl(connection_id: str, verify: object) -> bool | ssl.SSLContext:
    """What aiohttp wants for the connection's `verify`: true, false, or the path of a CA file."""
    if isinstance(verify, bool):
        return verify
    wanted = "wanted true, false, or the path of a file of CA certificates that this worker can read"
    if not isinstance(verify, str):
        raise InvalidInput(f"connection {connection_id}: extra: verify: {verify!r}: {wanted}")
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidInput(
            f"connection {connection_id}: extra: verify: {verify}: {error.strerror}; {wanted}"
        ) from error


def _attempt(
    began: float, judgement: Judgement, status: int | None = None, error: str | None = None, reply: str | None = None
) -> Attempt:
    return Attempt(judgement, time.monotonic() - began, status, error, reply)


def _describe(error: BaseException) -> str:
    """The error's kind and words. Neither holds the body or the token."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
