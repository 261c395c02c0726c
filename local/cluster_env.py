"""`make env`: a .env for docker-compose.yaml with random secrets.

    python3 -m local.cluster_env [FILE]

It needs nothing but Python, so a clean clone is enough. In a file that is there, only what is empty or missing is
filled in: what is set is in the databases by now.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from datetime import timedelta
from pathlib import Path

from local.settings import ROOT, Secrets, write_private

TOKEN_LIFE = timedelta(days=365)

_LINE = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)


def values() -> dict[str, str]:
    """A value for each variable of .env.example that must be set."""
    found = Secrets()
    return {
        "POSTGRES_PASSWORD": found.postgres,
        "AIRFLOW_DB_PASSWORD": found.airflow,
        "MAILING_DB_PASSWORD": found.mailing,
        "REDIS_PASSWORD": Secrets().postgres,
        "FERNET_KEY": found.fernet,
        "JWT_SECRET": found.jwt,
        "API_SECRET_KEY": found.api,
        "ADMIN_PASSWORD": found.admin,
        "OPERATOR_PASSWORD": found.operator,
        "VIEWER_PASSWORD": found.viewer,
        "GATEWAY_TOKEN": simulator_token(found.gateway),
        "GATEWAY_SECRET": found.gateway,
    }


def simulator_token(secret: str, now: float | None = None) -> str:
    """What `simulator_tokens.make_token` makes, without PyJWT. `now` is in seconds since 1970, default: the present."""
    issued = time.time() if now is None else now
    claims = {"iat": issued, "exp": issued + TOKEN_LIFE.total_seconds(), "name": "mailing-service"}
    signed = ".".join(_base64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return f"{signed}.{_base64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))}"


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def filled(text: str) -> tuple[str, list[str]]:
    """A .env in which no secret is empty or missing, and which were filled in. What is set stays, to the byte."""
    known = values()
    found = {match[1]: match[2] for match in _LINE.finditer(text)}
    if secret := _bare(found.get("GATEWAY_SECRET", "")):  # the simulator must know the token
        known["GATEWAY_TOKEN"] = simulator_token(secret)
    names = [name for name in known if not _bare(found.get(name, ""))]

    def line(match: re.Match[str]) -> str:
        return f"{match[1]}={known[match[1]]}" if match[1] in names else match[0]

    lines = _LINE.sub(line, text).splitlines()
    lines += [f"{name}={known[name]}" for name in names if name not in found]
    return "\n".join(lines) + "\n", names


def _bare(value: str) -> str:
    return value.strip().strip("\"'")


def main(argv: list[str] | None = None) -> int:
    """Write the file, or what it lacks."""
    file = Path((argv or [str(ROOT / ".env")])[0]).resolve()
    is_new = not file.exists()
    text, names = filled((ROOT / ".env.example" if is_new else file).read_text(encoding="utf-8"))
    if not names:
        print(f"{file}: nothing is empty, and it stays as it is")
        return 0
    write_private(file, text)
    if is_new:
        print(f"{file}: random passwords and keys; for a gateway of your own, change what begins with GATEWAY_")
    else:
        print(f"{file}: what was empty is filled in at random ({', '.join(names)}); the rest stays as it is")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
