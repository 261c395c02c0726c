"""The tables as migrated: what cannot be written, whoever writes."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command

from mailing.migrate import alembic_config, migrate
from tests.builders import a_campaign, some_clients


def sqlalchemy_url(database):
    return database.replace("postgresql://", "postgresql+psycopg://")


def test_models_and_migrations_agree(database):
    engine = sa.create_engine(sqlalchemy_url(database))
    with engine.begin() as connection:
        command.check(alembic_config(connection))
    engine.dispose()


def test_migrating_again_changes_nothing(database, connection):
    some_clients(connection, 3)
    migrate(sqlalchemy_url(database))
    assert connection.execute("SELECT count(*) AS n FROM clients").fetchone()["n"] == 3


def test_a_migration_can_be_taken_back(database):
    engine = sa.create_engine(sqlalchemy_url(database))
    with engine.begin() as connection:
        connection.execute(sa.text("DROP SCHEMA reporting CASCADE"))
        command.downgrade(alembic_config(connection), "base")
        assert sa.inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_the_operator_code_is_computed_and_cannot_be_written(connection):
    connection.execute("INSERT INTO clients (phone_number) VALUES ('71030000001')")
    assert connection.execute("SELECT mobile_operator_code AS code FROM clients").fetchone()["code"] == "103"
    with pytest.raises(psycopg.errors.GeneratedAlways):
        connection.execute("INSERT INTO clients (phone_number, mobile_operator_code) VALUES ('71030000002', '999')")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO clients (phone_number) VALUES ('89000000000')",
        "INSERT INTO clients (phone_number) VALUES ('7900000000')",
        "INSERT INTO clients (phone_number) VALUES ('7900000000x')",
        "INSERT INTO clients (phone_number) VALUES ('71030000001'), ('71030000001')",
        "INSERT INTO clients (phone_number, timezone) VALUES ('71030000001', 'Mars/Olympus')",
        "INSERT INTO clients (phone_number, timezone) VALUES ('71030000001', 'europe/moscow')",
        "INSERT INTO tags (name) VALUES ('')",
        "INSERT INTO tags (name) VALUES ('two words')",
        "INSERT INTO tags (name) VALUES ('semi;colon')",
        "INSERT INTO tags (name) VALUES (repeat('x', 201))",
        "INSERT INTO tags (name) VALUES ('103')",
        "INSERT INTO tags (name) VALUES ('art'), ('art')",
        "INSERT INTO gateways (name, endpoint) VALUES ('g', '/v1/send')",
        "INSERT INTO gateways (name, messages_per_second) VALUES ('g', 0)",
        "INSERT INTO gateways (name, requests_in_flight) VALUES ('g', 0)",
        "INSERT INTO gateways (name, timeout_s) VALUES ('g', 0)",
    ],
)
def test_bad_rows_are_refused(connection, statement):
    with pytest.raises(psycopg.errors.IntegrityError):
        connection.execute(statement)


@pytest.mark.parametrize("name", ["art", "Искусство", "region_77", "new-client", "7", "1033"])
def test_a_tag_is_letters_of_any_script_digits_dash_and_underscore(connection, name):
    connection.execute("INSERT INTO tags (name) VALUES (%s)", (name,))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", ""),
        ("text", "x" * 256),
        ("name", ""),
        ("sending_stop", "2000-01-01T00:00Z"),
        ("sending_stop", "infinity"),
        ("filter_operator_codes", ["10"]),
        ("filter_operator_codes", ["103", None]),
        ("filter_tags", ["nobody-has-it"]),
        ("filter_tags", [None]),
        ("audience", "some"),
        ("on_doubt", "guess"),
        ("local_from", "10:00"),
        ("messages_per_second", 0),
        ("gateway", "nowhere"),
        ("status", "lost"),
        ("status", "finished"),
        ("finished_at", "2030-01-01T00:00Z"),
    ],
)
def test_a_bad_campaign_cannot_be_written_by_sql_either(connection, column, value):
    campaign_id = a_campaign(connection)
    with pytest.raises(psycopg.errors.IntegrityError):
        connection.execute(f"UPDATE campaigns SET {column} = %s WHERE id = %s", (value, campaign_id))  # noqa: S608


def test_one_message_per_client_and_campaign(connection):
    campaign_id = a_campaign(connection)
    connection.execute("INSERT INTO messages (campaign_id, client_id) VALUES (%s, 1)", (campaign_id,))
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("INSERT INTO messages (campaign_id, client_id) VALUES (%s, 1)", (campaign_id,))


@pytest.mark.parametrize(
    "change",
    ["state = 'sent'", "state = 'sending'", "state = 'failed'", "state = 'lost'", "sent_at = now()"],
)  # fmt: skip
def test_the_ledger_refuses_states_that_make_no_sense(connection, change):
    campaign_id = a_campaign(connection)
    connection.execute("INSERT INTO messages (campaign_id, client_id) VALUES (%s, 1)", (campaign_id,))
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE messages SET {change}")  # noqa: S608


def test_a_revision_is_kept_for_each_text_filter_and_window(connection):
    connection.execute("INSERT INTO tags (name) VALUES ('art')")
    campaign_id = a_campaign(connection, text="One")
    connection.execute("UPDATE campaigns SET text = 'Two'")
    connection.execute("UPDATE campaigns SET filter_tags = '{art}'")
    connection.execute("UPDATE campaigns SET status = 'running'")
    connection.execute("UPDATE campaigns SET sending_stop = sending_stop + interval '1 hour'")

    rows = connection.execute("SELECT * FROM campaign_revisions ORDER BY revision").fetchall()
    assert [(row["revision"], row["text"], row["filter_tags"]) for row in rows] == [
        (1, "One", []), (2, "Two", []), (3, "Two", ["art"]), (4, "Two", ["art"])
    ]  # fmt: skip
    assert {row["campaign_id"] for row in rows} == {campaign_id}
    assert rows[3]["sending_stop"] > rows[2]["sending_stop"]


@pytest.mark.parametrize("change", ["DELETE FROM tags", "UPDATE tags SET name = 'arts'"])
def test_a_tag_that_a_live_filter_names_cannot_go(connection, change):
    connection.execute("INSERT INTO tags (name) VALUES ('art')")
    campaign_id = a_campaign(connection, filter_tags=["art"])
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match=f"tag art: the filter of campaign {campaign_id}"):
        connection.execute(change)
    connection.execute("UPDATE campaigns SET status = 'cancelled'")
    connection.execute(change)


def test_every_zone_is_known_to_python_and_postgresql(connection):
    zones = {row["name"] for row in connection.execute("SELECT name FROM timezones")}
    assert {"UTC", "Europe/Moscow", "Asia/Kathmandu", "Pacific/Apia"} <= zones
    assert not {zone for zone in zones if zone.startswith(("posix", "right")) or zone == "localtime"}


def test_the_reader_sees_the_reports_and_nothing_else(server, database, connection):
    a_campaign(connection)
    name = database.rsplit("/", 1)[1]
    with psycopg.connect(server.url("postgres").rsplit("/", 1)[0] + f"/{name}", autocommit=True) as reader:
        reader.execute("SET ROLE mailing_reader")
        assert reader.execute("SELECT audience FROM reporting.campaign_statistics").fetchall() == [(0,)]
        assert reader.execute("SELECT * FROM reporting.message_outcomes").fetchall() == []
        for statement in ("SELECT * FROM messages", "SELECT * FROM clients", "DELETE FROM campaigns"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(statement)
