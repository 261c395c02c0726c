"""`make env`: a .env for docker-compose.yaml with random secrets.

    python3 -m local.cluster_env [FILE]

It needs nothing but Python, so a clean clone is enough. In a file that is there it fills in what is empty, and changes
nothing else: its passwords are in the databases by now.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from datetime import timedelta
from pathlib import Path

from local.settings import ROOT, Secrets, write_private

TOKEN_LIFE = timedelta(days=365)


def values(gateway_secret: str = "") -> dict[str, str]:
    """A value for each variable of .env.example that must be set; the token is of this secret, or of a random one."""
    found = Secrets(gateway=gateway_secret) if gateway_secret else Secrets()
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


def text(given: str) -> str:
    """These lines of a .env with each empty value that must be set filled in."""
    secret = next((line.partition("=")[2] for line in given.splitlines() if line.startswith("GATEWAY_SECRET=")), "")
    known = values(secret.strip())
    lines = [_filled(line.rstrip(), known) for line in given.splitlines()]
    return "\n".join(lines) + "\n"


def _filled(line: str, known: dict[str, str]) -> str:
    """A line `NAME=` with the value of that name, if one is known; any other as it is."""
    return line + known.get(line[:-1], "") if line.endswith("=") else line


def main(argv: list[str] | None = None) -> int:
    """Write the file, or fill in what is empty in it."""
    file = Path((argv or [str(ROOT / ".env")])[0])
    is_there = file.exists()
    given = (file if is_there else ROOT / ".env.example").read_text(encoding="utf-8")
    filled = text(given)
    if is_there and filled == given:
        print(f"{file} has all that it needs, and stays as it is")
        return 0
    write_private(file, filled)
    print(f"{file}: random passwords and keys where there were none; your own gateway is what begins with GATEWAY_")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
