"""Speaks HTTP to the service that takes messages: `POST {base}/v1/send/{msgId}` with a bearer token.

Source: docs/gateway.md. One session per sending task, with its own connector: a session per call is five times slower.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import yarl
from airflow.providers.http.hooks.http import HttpAsyncHook
from airflow.sdk.exceptions import AirflowNotFoundException

from mailing import replies
from mailing.errors import InvalidInput
from mailing.messages import Claim, Lease
from mailing.models import MAX_REPLY
from mailing.replies import Judgement, Verdict

CONNECT_SHARE = 0.5
"""The part of a request's time that connecting may take. A connection that never came is safe to repeat, an answer
that never came is not: the two must not run out at the same moment."""

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
    """One gateway, for one task: an open session that carries the bearer token, and where to post."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, lease: Lease) -> None:
        self._session = session
        self._url = base_url.rstrip("/") + lease.endpoint
        self._repeat_codes = lease.repeat_codes

    async def post(self, message: Claim, timeout_s: float) -> Attempt:
        """Post one message and judge the reply. Never raises for what a gateway or a network can do.

        `timeout_s`: for the whole request; what it leaves unanswered is in doubt.
        """
        body = {"id": message.id, "phone": int(message.phone_number), "text": message.text}
        timeout = aiohttp.ClientTimeout(
            total=timeout_s,
            connect=timeout_s * CONNECT_SHARE,  # DNS and all addresses together; there is no pool to wait for
            ceil_threshold=timeout_s + 1,  # aiohttp would round long timeouts up to a whole second, past the stop
        )
        began = time.monotonic()
        status = None
        try:
            async with self._session.post(
                self._url.replace("{id}", str(message.id)), json=body, timeout=timeout, allow_redirects=False
            ) as response:
                status = response.status
                content = await response.read()
                retry_after = response.headers.get("Retry-After")
        except NEVER_LEFT as error:
            return _attempt(began, Judgement(Verdict.REPEAT, "not_reached"), error=_describe(error))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            reason = "no_answer" if isinstance(error, TimeoutError) else "connection_lost"
            return _attempt(began, Judgement(Verdict.IN_DOUBT, reason), status, _describe(error))
        judgement = replies.judge(status, content, retry_after, datetime.now(UTC), self._repeat_codes)
        if judgement.verdict is Verdict.SENT:
            return _attempt(began, judgement, status)
        reply = content[: MAX_REPLY * 4].decode("utf-8", errors="replace")[:MAX_REPLY]
        return _attempt(began, judgement, status, judgement.reason, reply)


@asynccontextmanager
async def open_gateway(lease: Lease) -> AsyncIterator[Gateway]:
    """The gateway of a lease, with the connection's host, options and token as they are now.

    Raises InvalidInput for a connection that is not defined, or has no usable address or no token.
    """
    hook = HttpAsyncHook(http_conn_id=lease.connection_id)
    try:
        config = await hook.config()
        connection = await hook.aget_connection(lease.connection_id)
    except AirflowNotFoundException as error:
        raise InvalidInput(f"connection {lease.connection_id}: is not defined; wanted the gateway's") from error
    _check_base_url(lease.connection_id, config.base_url)
    if not connection.password:
        raise InvalidInput(f"connection {lease.connection_id}: password: wanted the gateway's bearer token, got none")
    options = config.extra_options or {}
    async with aiohttp.ClientSession(
        # The sender holds the limit of requests in flight.
        connector=aiohttp.TCPConnector(limit=0, ssl=_ssl(options.get("verify_ssl", True))),
        headers={**(config.headers or {}), "Authorization": f"Bearer {connection.password}"},
        proxy=options.get("proxy"),
        trust_env=bool(options.get("trust_env", False)),
    ) as session:
        yield Gateway(session, config.base_url, lease)


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


def _ssl(verify: bool | str) -> bool | ssl.SSLContext:
    """What aiohttp wants for the connection's `verify`: true, false, or the path of a CA file."""
    return ssl.create_default_context(cafile=verify) if isinstance(verify, str) else verify


def _attempt(
    began: float, judgement: Judgement, status: int | None = None, error: str | None = None, reply: str | None = None
) -> Attempt:
    return Attempt(judgement, time.monotonic() - began, status, error, reply)


def _describe(error: BaseException) -> str:
    """The error's kind and words. Neither holds the body or the token."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
