"""The whole API against its own OpenAPI document: whatever is sent, the answer is a documented one, never a fault.

`MAILING_CONTRACT_EXAMPLES=500 pytest tests/api/test_contract.py` looks longer.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from urllib.parse import quote

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.builders import a_campaign, an_open_campaign, claim, outcome_of

EXAMPLES = int(os.environ.get("MAILING_CONTRACT_EXAMPLES", "12"))


@schemathesis.serializer("text/csv")
def csv_as_it_is(ctx, value):
    """A client file: what was generated, which is hardly ever one."""
    return {"data": value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")}


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
"""Not that valid data are accepted: a value may break rules that no schema can say (an unknown tag, a taken number)."""


@pytest.fixture
def contract(airflow_app, app_database, connection, gateway, tokens):
    """The document of an API that has some of everything, so that ids and names are met."""
    from mailing import messages

    connection.execute("INSERT INTO tags (name) VALUES ('art'), ('sport')")
    connection.execute("UPDATE gateways SET timeout_s = 2")
    campaign_id, _ = an_open_campaign(connection, clients=12)
    a_campaign(connection, filter_tags=["art"], audience="live")
    token = messages.take_lease(connection, campaign_id, 1, "test")
    said = ("sent", "unknown", "failed", "pending")
    claims = claim(connection, campaign_id, token, limit=len(said))
    outcomes = [outcome_of(each, word) for each, word in zip(claims, said, strict=True)]
    messages.record(connection, campaign_id, token, outcomes)
    messages.release_lease(connection, token)
    headers = {"Authorization": f"Bearer {tokens['admin']}"}
    return schemathesis.openapi.from_asgi("/mailing/openapi.json", airflow_app, headers=headers)


def test_every_answer_is_a_documented_one(contract, tokens):
    headers = {"Authorization": f"Bearer {tokens['admin']}"}
    operations = [result.ok() for result in contract.get_all_operations()]
    assert len(operations) > 40
    for operation in operations:
        for mode in GenerationMode:

            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def call(case):
                # Starlette hands no path with a line end in it to a mounted app: Airflow answers.
                assume(not re.search("%0[AD]", quote(case.formatted_path, safe="%/")))
                case.call_and_validate(headers=headers, checks=CHECKS)

            with suppress(Unsatisfiable):  # nothing can be wrong with a call that takes nothing
                call()
