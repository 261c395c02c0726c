import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from mailing.environment import number
from tests.conftest import ROOT

NAME = "MAILING_TURN_S"


@pytest.mark.parametrize(
    ("given", "meant"), [(None, 120), ("", 120), ("0", 0), ("5", 5), (" 0.5 ", 0.5), ("1e3", 1000)]
)
def test_a_number_is_what_the_variable_says_or_the_default(monkeypatch, given, meant):
    monkeypatch.delenv(NAME, raising=False)
    if given is not None:
        monkeypatch.setenv(NAME, given)
    with capture_logs() as logs:
        assert number(NAME, 120, "seconds") == meant
    assert not logs


@pytest.mark.parametrize("given", ["2m", "-1", "nan", "inf", "two"])
def test_what_is_no_number_is_named_and_the_default_taken(monkeypatch, given):
    monkeypatch.setenv(NAME, given)
    with capture_logs() as logs:
        assert number(NAME, 1 << 30, "bytes") == 1 << 30
    assert [line["event"] for line in logs] == [
        f"MAILING_TURN_S={given}: wanted a number of bytes; it is taken for 1073741824"
    ]


def test_a_size_as_people_write_it_keeps_no_api_server_from_starting(monkeypatch):
    """Airflow imports the module while its API server starts."""
    monkeypatch.setenv("MAILING_MAX_BODY", "8MiB")
    monkeypatch.setenv("MAILING_MAX_IMPORT", "2097152")
    done = subprocess.run(
        [sys.executable, "-c", "from mailing import gate; print(gate.MAX_BODY, gate.MAX_IMPORT)"],
        cwd=ROOT / "plugins", capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "MAILING_MAX_BODY=8MiB: wanted a number of bytes; it is taken for 4194304" in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "4194304 2097152"
