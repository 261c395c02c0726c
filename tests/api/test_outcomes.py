"""Outcomes of a campaign as a file, by the REST API."""

from __future__ import annotations

import csv
import io
import re
import tracemalloc
from datetime import UTC, datetime
from urllib.parse import urljoin

import httpx
import pyarrow.parquet as pq
import pytest

from mailing import clients, exports, pool
from tests.api.test_busy import served  # noqa: F401 - a fixture
from tests.builders import a_campaign, an_open_campaign, ledger, now, settle
from tests.waiting import wait_until
from tests.web import problem

PATH = "/api/campaigns/{}/outcomes"


@pytest.fixture
def campaign_id(connection):
    """Five messages: sent, failed, unknown, and two that wait; of one of these the client is gone."""
    campaign_id, _ = an_open_campaign(connection, clients=5)
    settle(connection, campaign_id, now(), "sent", "failed", "unknown")
    connection.execute("UPDATE clients SET timezone = 'Europe/Samara'")
    clients.delete(connection, ledger(connection, campaign_id)[4]["client_id"], actor="test")
    return campaign_id


def expected(connection, campaign_id):
    zones = {row["id"]: row["timezone"] for row in connection.execute("SELECT id, timezone FROM clients")}
    rows = ledger(connection, campaign_id)
    told = [
        row | {"message_id": row["id"], "operator_code": "103", "timezone": zones.get(row["client_id"])} for row in rows
    ]
    return [{column: row[column] for column in exports.COLUMNS} for row in sorted(told, key=lambda r: r["client_id"])]


def test_csv_has_a_line_for_each_message_and_times_in_utc(viewer, connection, campaign_id):
    answer = viewer.get(PATH.format(campaign_id))

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="campaign-{campaign_id}-outcomes.csv"'
    found = list(csv.DictReader(io.StringIO(answer.text)))
    wanted = expected(connection, campaign_id)
    assert [row["state"] for row in wanted].count("sent") == 1
    assert [row["timezone"] for row in wanted].count(None) == 1
    said = [{name: shown(value) for name, value in row.items()} for row in wanted]
    assert found == said
    assert found[0]["created"].endswith("+00:00")


def shown(value):
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return "" if value is None else str(value)


def test_parquet_has_the_same_with_types(viewer, connection, campaign_id):
    answer = viewer.get(PATH.format(campaign_id) + "?format=parquet")

    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == f'attachment; filename="campaign-{campaign_id}-outcomes.parquet"'
    table = pq.read_table(io.BytesIO(answer.content))
    assert table.to_pylist() == expected(connection, campaign_id)
    assert str(table.schema.field("sent_at").type) == "timestamp[us, tz=UTC]"
    assert str(table.schema.field("message_id").type) == "int64"


def test_neither_has_phone_numbers_or_texts(viewer, connection, campaign_id):
    phone = connection.execute("SELECT phone_number FROM clients LIMIT 1").fetchone()["phone_number"]
    connection.execute("UPDATE campaigns SET text = 'Secret words'")
    for form in exports.FORMS:
        content = viewer.get(PATH.format(campaign_id) + f"?format={form}").content
        assert phone.encode() not in content
        assert b"Secret words" not in content


def test_what_a_spreadsheet_would_run_is_text(viewer, connection, campaign_id):
    connection.execute("UPDATE messages SET reason = '=HYPERLINK(1)' WHERE state = 'failed'")
    [row] = [
        row
        for row in csv.DictReader(io.StringIO(viewer.get(PATH.format(campaign_id)).text))
        if row["state"] == "failed"
    ]
    assert row["reason"] == "'=HYPERLINK(1)"


def test_a_campaign_without_messages_is_an_empty_file(viewer, connection):
    campaign_id, _ = an_open_campaign(connection, clients=0)
    assert viewer.get(PATH.format(campaign_id)).text == ",".join(exports.COLUMNS) + "\r\n"
    table = pq.read_table(io.BytesIO(viewer.get(PATH.format(campaign_id) + "?format=parquet").content))
    assert (table.num_rows, table.column_names) == (0, list(exports.COLUMNS))


def test_large_ones_come_in_row_groups(viewer, connection):
    count = exports.ROW_GROUP + 10
    campaign_id, _ = an_open_campaign(connection, clients=count)
    file = pq.ParquetFile(io.BytesIO(viewer.get(PATH.format(campaign_id) + "?format=parquet").content))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [exports.ROW_GROUP, 10]
    ids = file.read(["client_id"]).column(0).to_pylist()
    assert ids == sorted(set(ids))
    assert viewer.get(PATH.format(campaign_id)).text.count("\r\n") == count + 1


def test_what_cannot_be_read_is_told_by_the_status(viewer, connection, campaign_id, monkeypatch):
    problem(viewer.get(PATH.format(10**9)), 404, "there is no such campaign")
    problem(viewer.get(PATH.format(campaign_id) + "?format=xlsx"), 422, "format")
    problem(viewer.get(PATH.format(campaign_id) + "?fields=id"), 422, "fields")
    connection.execute("DELETE FROM messages WHERE campaign_id = %s", (campaign_id,))
    connection.execute("UPDATE campaigns SET archived_at = '2026-01-02 03:04Z' WHERE id = %s", (campaign_id,))
    said = f"campaign {campaign_id}: its messages were dropped at 2026-01-02 03:04 UTC"
    for form in exports.FORMS:
        problem(viewer.get(PATH.format(campaign_id) + f"?format={form}"), 409, said, "/api/statistics/campaigns/")
    monkeypatch.setenv("AIRFLOW_CONN_MAILING_DB", '{"conn_type": "postgres", "host": "127.0.0.1", "port": 1}')
    problem(viewer.get(PATH.format(campaign_id)), 503, "is away")


def test_who_is_not_logged_in_gets_nothing(nobody, campaign_id):
    problem(nobody.get(PATH.format(campaign_id)), 401)


def test_the_campaigns_page_leads_to_it_once_there_is_something(viewer, connection, campaign_id):
    page = f"/admin/campaigns/{campaign_id}"
    [address] = re.findall(r'href="([^"]+/outcomes)"', viewer.get(page).text)
    assert urljoin(page, address) == PATH.format(campaign_id)
    assert "/outcomes" not in viewer.get(f"/admin/campaigns/{a_campaign(connection)}").text


def test_a_third_at_a_time_is_told_to_come_again(viewer, campaign_id):
    with pool.at_length("outcomes"), pool.at_length("outcomes"):
        answer = viewer.get(PATH.format(campaign_id))
    problem(answer, 503, "outcomes: others are at it")
    assert viewer.get(PATH.format(campaign_id)).status_code == 200


@pytest.mark.parametrize("form", sorted(exports.FORMS))
def test_who_goes_away_leaves_no_session_behind(served, tokens, connection, form):  # noqa: F811
    campaign_id, _ = an_open_campaign(connection, clients=exports.ROW_GROUP + 20_000)
    connection.execute("UPDATE messages SET reason = md5(id::text) || md5(client_id::text)")  # that it does not shrink
    headers = {"Authorization": f"Bearer {tokens['viewer']}", "Accept-Encoding": "identity"}
    path = f"{served}{PATH.format(campaign_id)}?format={form}"
    with httpx.Client(timeout=60) as client, client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200
        next(answer.iter_raw())
        wait_until(lambda: sessions(connection) == ["idle in transaction"])
    wait_until(lambda: sessions(connection) == [])


def sessions(connection):
    """The states of the sessions that export."""
    return [
        row["state"]
        for row in connection.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND query LIKE '%%outcomes%%'"
        )
    ]


@pytest.mark.parametrize(("form", "some"), [("csv", 4 * exports.FETCH), ("parquet", 2 * exports.ROW_GROUP)])
def test_memory_does_not_grow_with_the_campaign(connection, form, some):
    """What is held while a file is written, for a campaign three times as large."""
    peaks = []
    for count in (some, 3 * some):
        connection.execute("TRUNCATE clients CASCADE")
        campaign_id, _ = an_open_campaign(connection, clients=count)
        tracemalloc.start()
        with connection.transaction():
            for _ in exports.outcomes(connection, campaign_id, form):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 2**20, peaks
