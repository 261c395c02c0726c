"""The README's lines, run as they are written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from tests.builders import some_clients, states
from tests.conftest import ROOT
from tests.stack.steps import finished, wait_until

pytestmark = pytest.mark.stack


def block(heading):
    """The first shell block below a heading."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(rf"^{heading}\n.*?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[1]


def test_a_campaign_is_sent_with_four_curl_lines(settings, connection):
    connection.execute("INSERT INTO tags (name) VALUES ('art') ON CONFLICT DO NOTHING")
    ids = some_clients(connection, 7, code="103")
    connection.execute(
        "INSERT INTO client_tags SELECT c, t.id FROM unnest(%s::bigint[]) c, tags t WHERE t.name = 'art'", (ids,)
    )
    lines = block("## Send a campaign").splitlines()
    assert [line.count("curl ") for line in lines] == [1, 1, 1, 1]
    env = [sys.executable, "-m", "local", "env"]
    known = subprocess.run(env, env=os.environ | settings.environment(), capture_output=True, text=True, check=True)
    script = [known.stdout, *lines[:3], 'echo; echo "$ID"', *lines[3:]]
    ran = subprocess.run(["bash", "-eu", "-c", "\n".join(script)], capture_output=True, text=True, check=True, cwd=ROOT)

    detail, campaign_id, statistics = ran.stdout.strip().splitlines()
    assert json.loads(detail)["filters"] == ["103", "art"]
    wait_until(finished(connection, int(campaign_id)), "it is sent", 90)
    assert states(connection, int(campaign_id)) == {"sent": 7}
    assert json.loads(statistics)["audience"] in (0, 7)
