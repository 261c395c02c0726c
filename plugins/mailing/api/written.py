"""Answers that are written while they are read, by what holds a transaction open."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from itertools import chain

import anyio
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send


class Written(StreamingResponse):
    """All of it; a reader who goes away ends the transaction at once, and not when Python tidies up.

    Not left to an iterator's own `finally`: who goes away while a part is sent leaves the iterator where it is.
    """

    def __init__(self, written: Generator[bytes], media_type: str, headers: Mapping[str, str] | None = None) -> None:
        begun = next(written)  # connects: what cannot be read at all is told by the status
        super().__init__(chain((begun,), written), media_type=media_type, headers=headers)
        self._written = written

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._written.close)
