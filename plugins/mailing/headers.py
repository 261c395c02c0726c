"""What every answer tells browsers: load nothing from elsewhere, be framed by nobody else, keep no page."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'self'",
        # 'unsafe-inline': starlette-admin's base, list and detail pages hold scripts, styles and an `onclick`,
        # FastAPI's documents a script. That all text is escaped keeps foreign scripts out.
        "script-src 'self' 'unsafe-inline'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",  # Tabler's icons inside its style sheet
        "font-src 'self' data:",
        "worker-src 'self' blob:",  # ReDoc's search
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",  # Airflow's own page frames ours
    )
)

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # the gate may need it of our own pages
    "Content-Security-Policy": POLICY,
}

UNKEPT = "private, no-cache"
"""For what says of itself nothing about caches and has no validator, as files have. Not `no-store`: a browser that goes
back would have lost what was typed."""


class Headers:
    """Adds them to every response, refusals and errors among them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and add."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if "etag" not in headers:
                    headers.setdefault("Cache-Control", UNKEPT)
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
