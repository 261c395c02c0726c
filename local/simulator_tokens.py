"""Bearer tokens of the simulated gateway: making them (set-up, tests) and checking them (each request)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from jwt.types import Options

ISSUER = "gateway simulator"
CACHED_TOKENS = 1024  # a gateway has a handful of clients; the bound only keeps a hostile one from filling memory
# The times are tested here, on every request, and not once when the token is decoded.
ONLY_SIGNATURE: Options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}


def make_token(secret: str, expires_in: timedelta, name: str = "mailing-service", now: datetime | None = None) -> str:
    """A signed token (HS256; claims `iat`, `exp`, `iss`, `name`) that expires `expires_in` after `now`.

    `now` is an aware time, default: the present. A negative `expires_in` gives a token that has expired already.
    `iat` keeps its fraction of a second, so that a token renewed right after `token_expired` counts as newer.
    """
    issued = now or datetime.now(UTC)
    claims = {"iat": issued.timestamp(), "exp": (issued + expires_in).timestamp(), "iss": ISSUER, "name": name}
    return jwt.encode(claims, secret, algorithm="HS256")


class TokenCheck:
    """Says why an Authorization header is refused; a signature is verified once, the expiry on every call."""

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._known: dict[bytes, tuple[float, float]] = {}  # header -> (exp, iat), only those rightly signed

    def refusal(self, header: bytes, now: float, expired_since: float | None) -> str | None:
        """Why `header` is refused at `now` (epoch seconds), or None if it is good.

        `expired_since`: tokens issued up to that moment count as expired whatever their `exp` says.
        """
        times = self._known.get(header)
        if times is None:
            decoded = self._decode(header)
            if isinstance(decoded, str):
                return decoded
            if len(self._known) >= CACHED_TOKENS:
                self._known.clear()
            times = self._known[header] = decoded
        expires, issued = times
        if not expires > now or (expired_since is not None and not issued > expired_since):
            return "token expired"
        return None

    def _decode(self, header: bytes) -> tuple[float, float] | str:
        """(exp, iat) of a rightly signed header, or what is wrong with it; no `iat` counts as issued in 1970."""
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer":
            return "no Bearer token"
        try:
            claims = jwt.decode(token.strip(), self._secret, algorithms=["HS256"], options=ONLY_SIGNATURE)
        except jwt.PyJWTError:
            return "token not valid"
        expires: Any = claims.get("exp")
        issued: Any = claims.get("iat", 0)
        if type(expires) in (int, float) and type(issued) in (int, float):
            return expires, issued
        return "token without a numeric exp"
