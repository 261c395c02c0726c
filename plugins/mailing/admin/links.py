"""Links that hold wherever the site is reached from: they name no scheme and no host, and keep a proxy's prefix."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import MutableHeaders, URLPath
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Relative:
    """Hides from the site by which name it was called, so that all its links and redirects begin with a slash.

    Starlette makes absolute ones of the `Host` header and of the connection's scheme. Behind a proxy that ends TLS
    these say http, and a browser refuses to load that into a page that came by https.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, without the host."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        hidden = {**scope, "headers": headers, "server": None, "router": _Paths(scope["router"])}
        await self.app(hidden, receive, _secure(send) if scope.get("scheme") == "https" else send)


class _Paths:
    """A router whose routes do not say by which protocol they want to be called."""

    def __init__(self, router: Any) -> None:
        self._router = router

    def url_path_for(self, name: str, /, **parameters: Any) -> URLPath:
        return URLPath(str(self._router.url_path_for(name, **parameters)))


def _secure(send: Send) -> Send:
    """`send` for a request that came by https: the site itself no longer knows that its cookies may say so."""

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            cookies = headers.getlist("set-cookie")
            del headers["set-cookie"]
            for cookie in cookies:
                headers.append("set-cookie", cookie if "; secure" in cookie.lower() else f"{cookie}; Secure")
        await send(message)

    return secured
