"""What BI tools read: every view against a count of the raw tables by hand, and who may read what."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from contextlib import ExitStack
from zoneinfo import ZoneInfo

import pandas as pd
import psycopg
import pytest
from psycopg.rows import dict_row

from local.postgres import let_reader_in, throwaway_server
from mailing import clients, messages, recount, runs
from mailing.migrate import ROLES, migrate
from mailing.models import MESSAGE_STATES, OUTCOMES
from tests.builders import a_campaign, an_open_campaign, claim, outcome_of, some_clients
from tests.conftest import ROOT

DOCUMENT = ROOT / "docs" / "reporting.md"
NOT_A_TABLE = psycopg.errors.ObjectNotInPrerequisiteState  # a view that adds up cannot be written by anybody
SETTLED = ("sent", "failed", "unknown")
PASSWORD = "the password of a reader"  # noqa: S105
LEDGER = """
    UPDATE messages m
    SET state = d.state,
        reason = CASE d.state WHEN 'failed' THEN (ARRAY['code_7', 'http_400', 'given_up'])[d.pick]
                              WHEN 'unknown' THEN (ARRAY['no_answer', 'task_died', 'connection_lost'])[d.pick]
                              WHEN 'expired' THEN (ARRAY['window', 'local_hours', 'window'])[d.pick]
                              WHEN 'excluded' THEN (ARRAY['filter', 'client_deleted', 'filter'])[d.pick]
                              WHEN 'cancelled' THEN 'cancelled' END,
        token = 1, revision = 1, attempts = d.pick,
        claimed_at = CASE WHEN d.state IN ('sending', 'sent', 'failed', 'unknown') AND d.state || d.pick <> 'failed3'
                          THEN d.at END,
        sent_at = CASE WHEN d.state = 'sent' THEN d.at + interval '3 s' END
    FROM (SELECT id, (%s::text[])[1 + floor(random() * 8)::int] AS state, 1 + floor(random() * 3)::int AS pick,
                 '2026-03-01 00:00Z'::timestamptz + random() * interval '50 hours' AS at
          FROM messages) AS d
    WHERE m.id = d.id AND random() < 0.9
"""


def fill(connection, size):
    """So many messages of up to four campaigns, in random states, over two days; some of their clients are gone."""
    campaigns = [a_campaign(connection, name=name) for name in ("one", None, "three", "four", "nobody's")]
    if not size:
        return
    clients = max(1, size // 4)
    some_clients(connection, clients // 2 + 1)
    some_clients(connection, clients // 2 + 1, code="905")
    connection.execute("SELECT setseed(0.25)")
    connection.execute("UPDATE clients SET timezone = (ARRAY['UTC', 'Asia/Omsk', 'Asia/Tokyo'])[1 + id % 3]")
    connection.execute("INSERT INTO tags (name) VALUES ('art'), ('sport'), ('nobody')")
    connection.execute(
        "INSERT INTO client_tags SELECT c.id, t.id FROM clients c, tags t WHERE t.name <> 'nobody' AND random() < 0.4"
    )
    for campaign_id in campaigns[: 4 if size > 1 else 1]:
        connection.execute(
            "INSERT INTO messages (campaign_id, client_id, mobile_operator_code)"
            " SELECT %s, id, nullif(mobile_operator_code, CASE WHEN id %% 7 = 0 THEN '905' END) FROM clients"
            " ORDER BY id LIMIT %s",
            (campaign_id, clients),
        )
    for _ in range(2):
        connection.execute(LEDGER, (list(MESSAGE_STATES),))
    connection.execute("DELETE FROM clients WHERE id % 11 = 0")
    connection.execute("UPDATE campaigns SET status = 'paused' WHERE name = 'one'")
    connection.execute("UPDATE campaigns SET status = 'running', opened_at = now() WHERE name IS NULL")
    connection.execute("UPDATE campaigns SET status = 'finished', finished_at = now() WHERE name = 'four'")
    connection.execute(
        "INSERT INTO attempts (campaign_id, message_id, attempt, state, reason, ended_at)"
        " SELECT campaign_id, id, 1, state, reason, now() FROM messages WHERE state = 'failed' AND id % 5 = 0"
    )


@pytest.fixture(scope="module", params=[0, 1, 100_000])
def filled(request, server, migrated):
    """A connection to a database with so many messages; its tests change no figure."""
    name = f"filled_{request.param}"
    as_superuser(server, "postgres", f"CREATE DATABASE {name} TEMPLATE {migrated} OWNER mailing")
    with psycopg.connect(server.url(name), autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SET TIME ZONE 'UTC'")
        fill(connection, request.param)
        yield connection
    as_superuser(server, "postgres", f"DROP DATABASE {name}")


def raw(connection):
    """The ledger as it lies in its tables, with its clients and campaigns, one row per message."""
    messages = table(connection, "SELECT * FROM messages", "id", "campaign_id", "client_id", "state")
    clients = table(connection, "SELECT id AS client_id, timezone, phone_number FROM clients", "client_id", "timezone")
    campaigns = table(connection, "SELECT id AS campaign_id, name, status, gateway FROM campaigns", "campaign_id")
    whole = messages.merge(clients, how="left", on="client_id").merge(campaigns, how="left", on="campaign_id")
    whole["outcome"] = whole["state"].where(~whole["state"].isin(["pending", "sending"]), "open")
    return whole


def table(connection, statement, *columns):
    """The rows as pandas has them; nothing that is not there becomes NaN."""
    rows = connection.execute(statement).fetchall()
    return pd.DataFrame(rows, columns=None if rows else list(columns), dtype=object)


def nothing(value):
    return None if pd.isna(value) else value


def moment(row):
    """When a message was sent, or its last request began, as views by time have it."""
    if row.state not in SETTLED:
        return None
    return nothing(row.sent_at) or nothing(row.claimed_at)


def by_hand(messages, key):
    """Messages by campaign and whatever `key` says of a row, and by outcome."""
    found = defaultdict(Counter)
    for row in messages.itertuples():
        found[key(row)][row.outcome] += 1
    return dict(found)


def viewed(connection, view, *key):
    """The same from a view; each row's `messages` is the sum of its outcomes."""
    found = {}
    for row in connection.execute(f"SELECT * FROM reporting.{view}"):  # noqa: S608
        counts = {outcome: row[outcome] for outcome in OUTCOMES if row[outcome]}
        assert row["messages"] == sum(counts.values())
        assert tuple(row[name] for name in key) not in found
        found[tuple(row[name] for name in key)] = counts
    return found


def audiences(connection):
    """What every breakdown adds up to, by campaign."""
    rows = connection.execute("SELECT campaign_id, audience FROM reporting.campaign_statistics WHERE audience > 0")
    return {row["campaign_id"]: row["audience"] for row in rows}


def added_up(breakdown):
    sums = Counter()
    for (campaign_id, *_), counts in breakdown.items():
        sums[campaign_id] += sum(counts.values())
    return dict(sums)


# The contract


def in_document():
    """Each view of the document: its sentence, and its columns with type and meaning."""
    parts = re.split(r"^### (\w+)\n", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    views = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        columns = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (.+) \|$", text, flags=re.MULTILINE)
        views[name] = (text.strip().splitlines()[0], columns)
    return views


def in_database(connection):
    rows = connection.execute("""
        SELECT c.relname, obj_description(c.oid, 'pg_class') AS said, a.attname,
               format_type(a.atttypid, a.atttypmod) AS type, col_description(c.oid, a.attnum) AS meaning
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
        WHERE c.relnamespace = 'reporting'::regnamespace AND c.relkind = 'v'
        ORDER BY c.relname, a.attnum
    """)
    views = {}
    for row in rows:
        views.setdefault(row["relname"], (row["said"], []))[1].append((row["attname"], row["type"], row["meaning"]))
    return views


def test_names_types_and_meanings_of_all_columns_are_as_documented(connection):
    assert in_database(connection) == in_document()


def test_every_view_says_what_a_row_is_in_its_file_too(connection):
    files = {file.stem.lstrip("0123456789_"): file for file in (ROOT / "include/sql/reporting").glob("*.sql")}
    assert set(files) - {"phone"} == set(in_database(connection))
    for view, (said, _) in in_database(connection).items():
        assert said.startswith("One row per ")
        assert files[view].read_text(encoding="utf-8").splitlines()[1].startswith("-- One row per ")


# Figures


def test_statistics_and_breakdowns_are_what_a_count_by_hand_finds(filled):
    messages = raw(filled)
    hours = by_hand(messages, lambda row: (row.campaign_id, whole_hour(row)))
    operators = by_hand(messages, lambda row: (row.campaign_id, nothing(row.mobile_operator_code)))
    zones = by_hand(messages, lambda row: (row.campaign_id, nothing(row.timezone)))

    def check():
        assert viewed(filled, "outcomes_by_hour", "campaign_id", "hour") == hours
        assert viewed(filled, "outcomes_by_operator_code", "campaign_id", "mobile_operator_code") == operators
        assert viewed(filled, "outcomes_by_timezone", "campaign_id", "timezone") == zones
        assert added_up(hours) == added_up(operators) == added_up(zones) == audiences(filled)

    check()
    for campaign_id in audiences(filled):
        runs.fold_counts(filled, campaign_id)
    check()
    assert recount.differences(filled) == []


def whole_hour(row):
    at = moment(row)
    return at and at.replace(minute=0, second=0, microsecond=0)


def test_a_client_counts_under_each_of_its_tags(filled):
    messages = raw(filled)
    tags = defaultdict(list)
    for row in filled.execute("SELECT client_id, name FROM client_tags JOIN tags ON tags.id = tag_id"):
        tags[row["client_id"]].append(row["name"])
    found = defaultdict(Counter)
    for row in messages.itertuples():
        for tag in tags[row.client_id] or [None]:
            found[row.campaign_id, tag][row.outcome] += 1
    assert viewed(filled, "outcomes_by_tag", "campaign_id", "tag") == dict(found)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/St_Johns"])
def test_days_are_those_of_the_sessions_time_zone(filled, zone):
    by_day = by_hand(raw(filled), lambda row: ((at := moment(row)) and at.astimezone(ZoneInfo(zone)).date(),))
    for campaign_id in audiences(filled):
        runs.fold_counts(filled, campaign_id)
    with filled.transaction():
        filled.execute("SELECT set_config('TimeZone', %s, true)", (zone,))
        assert viewed(filled, "daily_summary", "day") == by_day
    assert sum(sum(counts.values()) for counts in by_day.values()) == sum(audiences(filled).values())


def test_states_and_times_of_each_campaign_are_right(filled):
    messages = raw(filled)
    for row in filled.execute("SELECT * FROM reporting.campaign_statistics"):
        of_campaign = messages[messages["campaign_id"] == row["campaign_id"]]
        states = Counter(of_campaign["state"])
        assert {state: row[state] for state in MESSAGE_STATES} == {state: states[state] for state in MESSAGE_STATES}
        assert row["audience"] == len(of_campaign)
        if states["sent"]:
            # Of all that ever counted: a message that was sent earlier may say something else by now.
            assert row["first_sent_at"] <= of_campaign["sent_at"].dropna().min()
            assert row["last_sent_at"] >= of_campaign["sent_at"].dropna().max()


def test_progress_has_the_campaigns_that_are_not_over(filled):
    messages = raw(filled)
    live = {row["id"] for row in filled.execute("SELECT id FROM campaigns WHERE status <> 'finished'")}
    found = {row["campaign_id"]: row for row in filled.execute("SELECT * FROM reporting.campaign_progress")}
    assert set(found) == live
    for campaign_id, row in found.items():
        outcomes = Counter(messages[messages["campaign_id"] == campaign_id]["outcome"])
        assert (row["done"], row["pending"] + row["sending"]) == (outcomes.total() - outcomes["open"], outcomes["open"])
        assert row["share_done"] is None or float(row["share_done"]) == pytest.approx(
            row["done"] / outcomes.total(), abs=1e-4
        )


def test_reasons_add_up_to_their_states_and_are_told_in_plain_words(filled):
    wanted = Counter(
        (row.campaign_id, row.state, row.reason)
        for row in raw(filled).itertuples()
        if row.state not in ("pending", "sending", "sent")
    )
    rows = filled.execute("SELECT * FROM reporting.failure_reasons").fetchall()
    assert {(row["campaign_id"], row["state"], row["reason"]): row["messages"] for row in rows} == wanted
    assert all(row["meaning"] and "_" not in row["meaning"] and row["meaning"] != row["reason"] for row in rows)


def test_every_message_is_told_to_those_who_look_for_it_or_for_its_client(filled):
    rows = raw(filled)
    names = ("id", "campaign_id", "client_id", "state", "reason", "attempts", "claimed_at", "sent_at")
    wanted = {tuple(nothing(getattr(row, name)) for name in names) for row in rows.itertuples()} if len(rows) else set()
    for view in ("message_outcomes", "client_history"):
        columns = ", ".join(names).replace("id", "message_id", 1)
        found = filled.execute(f"SELECT {columns} FROM reporting.{view}").fetchall()  # noqa: S608
        assert len(found) == len(rows)
        assert {tuple(row.values()) for row in found} == wanted
    attempts = filled.execute("SELECT count(*) AS n FROM attempts").fetchone()
    assert filled.execute("SELECT count(*) AS n FROM reporting.attempts").fetchone() == attempts


def test_an_operator_code_is_the_same_in_every_view_also_when_the_client_got_another_or_is_gone(connection):
    campaign_id, _ = an_open_campaign(connection, clients=3)
    first, second, _ = connection.execute("SELECT id FROM clients ORDER BY id").fetchall()
    clients.edit(connection, first["id"], phone_number="79050000001", actor="anna")
    clients.delete(connection, second["id"], actor="anna")
    told = connection.execute("SELECT mobile_operator_code, state FROM reporting.message_outcomes").fetchall()
    assert told == [{"mobile_operator_code": "103", "state": "pending"}] * 3
    assert viewed(connection, "outcomes_by_operator_code", "campaign_id", "mobile_operator_code") == {
        (campaign_id, "103"): {"open": 3}
    }


def test_the_health_of_a_gateway_says_what_waits_for_it(filled):
    messages = raw(filled)
    waits = messages[messages["status"].isin(["running", "paused"]) & (messages["state"] == "pending")]
    row = filled.execute("SELECT * FROM reporting.gateway_health").fetchone()
    states = Counter(messages["state"])
    assert (row["gateway"], row["breaker_state"], row["campaigns_running"]) == ("default", "closed", 1 if states else 0)
    assert (row["pending"], row["sending"], row["unknown"]) == (len(waits), states["sending"], states["unknown"])


# While it goes on


BREAKDOWNS = ("outcomes_by_hour", "outcomes_by_operator_code", "outcomes_by_timezone")


def all_sums(connection):
    return [
        {
            row["campaign_id"]: row["n"]
            for row in connection.execute(
                f"SELECT campaign_id, sum(messages)::bigint AS n FROM reporting.{view} GROUP BY 1"  # noqa: S608
            )
        }
        for view in BREAKDOWNS
    ] + [audiences(connection)]


@pytest.fixture
def other(database):
    """Somebody who sends meanwhile."""
    with psycopg.connect(database, row_factory=dict_row) as connection:
        yield connection


def test_sums_hold_while_a_sender_is_in_the_middle_of_it(connection, other):
    fill(connection, 1_000)
    before = all_sums(connection)
    assert before == [before[0]] * 4
    for _ in range(3):
        other.execute(LEDGER, (list(MESSAGE_STATES),))
        other.execute("DELETE FROM messages WHERE state = 'excluded' AND id % 2 = 0")
        assert all_sums(connection) == before
        other.commit()
        before = all_sums(connection)
        assert before == [before[0]] * 4


def test_two_views_of_one_transaction_agree(connection, other):
    fill(connection, 1_000)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        sent = connection.execute("SELECT sum(sent) AS n FROM reporting.campaign_statistics").fetchone()
        other.execute("UPDATE messages SET state = 'failed', reason = 'code_7', sent_at = NULL WHERE state = 'sent'")
        other.commit()
        for view in (*BREAKDOWNS, "daily_summary"):
            assert connection.execute(f"SELECT sum(sent) AS n FROM reporting.{view}").fetchone() == sent  # noqa: S608
    assert connection.execute("SELECT sum(sent) AS n FROM reporting.campaign_statistics").fetchone() != sent


# Who may read what


def as_superuser(server, database, *statements):
    with psycopg.connect(server.url("postgres"), dbname=database.rpartition("/")[2], autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def login(database, role, password=PASSWORD):
    return psycopg.connect(database, user=role, password=password, autocommit=True, row_factory=dict_row)


@pytest.fixture
def reader(server, database):
    let_reader_in(server.secrets, server.port)
    with login(database, "mailing_reader", server.secrets.mailing_reader) as connection:
        yield connection


def examples():
    """The document's SQL, statement by statement, without what psql alone knows; with each the answer that it shows."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for sql, answer in re.findall(r"^```sql\n(.*?)^```\n(?:```\n(.*?)^```\n)?", text, flags=re.MULTILINE | re.DOTALL):
        statements = re.findall(r"[^;]+(?=;)", re.sub(r"--.*", "", sql)) if not sql.startswith("\\") else []
        for statement in statements:
            yield statement.strip(), answer


OUTCOMES_OF_THE_EXAMPLE = """
    UPDATE messages m
    SET token = 1, revision = 1, attempts = 1, claimed_at = now(), sent_at = CASE WHEN o.state = 'sent' THEN now() END,
        state = o.state, reason = o.reason
    FROM (SELECT id, campaign_id, row_number() OVER (PARTITION BY campaign_id ORDER BY id) AS nth FROM messages) AS n
    JOIN (VALUES (1, 1, 189, 'sent', NULL), (2, 1, 1095, 'sent', NULL), (2, 1096, 1135, 'failed', 'code_7'),
                 (2, 1136, 1147, 'unknown', 'no_answer'), (2, 1148, 1152, 'expired', 'window')
         ) AS o (campaign_id, first, last, state, reason)
      ON o.campaign_id = n.campaign_id AND n.nth BETWEEN o.first AND o.last
    WHERE m.campaign_id = n.campaign_id AND m.id = n.id
"""


def fill_as_in_the_document(connection):
    """The campaigns of the demo, the second of which did not go as well as there."""
    for name, code, count in (("Demo: operator 103, art", "103", 189), ("Demo: sport and music", "905", 1_152)):
        some_clients(connection, count, code=code)
        campaign_id = a_campaign(connection, name=name, filter_operator_codes=[code])
        with connection.transaction():
            runs.select_audience(connection, campaign_id)
    connection.execute(OUTCOMES_OF_THE_EXAMPLE)


def test_the_examples_of_the_document_answer_as_it_shows(connection, reader):
    fill_as_in_the_document(connection)
    reader.autocommit, shown = True, 0
    for statement, answer in examples():
        cursor = reader.execute(statement)
        if answer:
            header, _, *rows = [[cell.strip() for cell in line.split("|")] for line in answer.splitlines()]
            assert header == [column.name for column in cursor.description]
            assert rows == [[str(value) for value in row.values()] for row in cursor]
            shown += 1
    assert shown == 2


def test_the_reader_reads_every_view_and_no_table(connection, reader):
    fill(connection, 100)
    for view in in_document():
        reader.execute(f"SELECT * FROM reporting.{view}")  # noqa: S608
    tables = [
        row["tablename"] for row in connection.execute("SELECT tablename FROM pg_tables WHERE tableowner = 'mailing'")
    ]
    assert {"messages", "messages_1", "clients", "campaigns", "state_counts", "audit_log"} <= set(tables)
    for table in tables:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(f"SELECT FROM public.{table}")  # noqa: S608


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM public.messages", "UPDATE public.campaigns SET text = 'x'", "CREATE TABLE public.t ()",
        "CREATE TABLE reporting.t ()", "SELECT public.ledger_part(1000)", "DELETE FROM reporting.attempts",
        "UPDATE reporting.campaign_statistics SET sent = 0", "SELECT public.clients_matching('{}', '{}')",
    ],
)  # fmt: skip
def test_the_reader_writes_nothing_even_if_it_insists(connection, reader, statement):
    fill(connection, 10)
    for read_only in ("on", "off"):
        reader.execute(f"SET default_transaction_read_only = {read_only}")
        reader.execute("SET search_path = public")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction, NOT_A_TABLE)):
            reader.execute(statement)


def test_phone_numbers_are_masked_but_for_those_who_were_granted_them(server, database, connection, reader):
    some_clients(connection, 1)
    campaign_id = a_campaign(connection)
    connection.execute("INSERT INTO messages (campaign_id, client_id) SELECT %s, id FROM clients", (campaign_id,))
    phones = "SELECT phone_number FROM reporting.client_history"
    assert reader.execute(phones).fetchall() == [{"phone_number": "7103*****01"}]
    as_superuser(server, database, f"CREATE ROLE an_analyst LOGIN PASSWORD '{PASSWORD}'")
    try:
        as_superuser(server, database, "GRANT mailing_reader TO an_analyst")
        with login(database, "an_analyst") as analyst:
            assert analyst.execute(phones).fetchall() == [{"phone_number": "7103*****01"}]
            as_superuser(server, database, "GRANT mailing_reader_pii TO an_analyst")
            assert analyst.execute(phones).fetchall() == [{"phone_number": "71030000001"}]
    finally:
        as_superuser(server, database, "DROP ROLE an_analyst")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('{"code": 7, "message": "not known: 71030000001"}', '{"code": 7, "message": "not known: 7103*****01"}'),
        ("to +71030000001,1030000001:81030000001", "to +7103*****01,103*****01:8103*****01"),
        ("8 (103) 000-00-01 or 7 103 000 00 01 or +7-103-000-0001", "8 (103*****01 or 7 103*****01 or +7-103*****01"),
        ("\u00ab71030000001\u00bb%2B71030000001\n7103000000171030000002", None),
        ("code_7, http_400, message 123456789 at 2026-06-10 12:00:01.123456+00:00", ...),
        (None, ...),
    ],
)
def test_a_number_that_a_gateway_repeats_is_masked_too(server, database, connection, reader, said, shown):
    campaign_id, _ = an_open_campaign(connection, clients=1)
    token = messages.take_lease(connection, campaign_id, 1, "test")
    told = [outcome_of(each, "failed", error=said, reply=said) for each in claim(connection, campaign_id, token)]
    messages.record(connection, campaign_id, token, told)
    row = reader.execute("SELECT error, reply FROM reporting.attempts").fetchone()
    assert row["reply"] == row["error"]
    if shown is None:
        assert not re.search(r"\d{8}", row["reply"])
    else:
        assert row["reply"] == (said if shown is ... else shown)
    as_superuser(server, database, f"CREATE ROLE an_analyst LOGIN PASSWORD '{PASSWORD}'")
    try:
        as_superuser(server, database, "GRANT mailing_reader, mailing_reader_pii TO an_analyst")
        with login(database, "an_analyst") as analyst:
            assert analyst.execute("SELECT reply FROM reporting.attempts").fetchone() == {"reply": said}
    finally:
        as_superuser(server, database, "DROP ROLE an_analyst")


def test_what_the_reader_may_take_is_limited_and_an_administrators_limits_stay(server, database, reader):
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout", "transaction_timeout")
    shown = [reader.execute(f"SHOW {name}").fetchone()[name] for name in (*names, "default_transaction_read_only")]
    assert shown == ["1min", "1min", "5s", "10min", "on"]
    try:
        as_superuser(server, database, "ALTER ROLE mailing_reader SET statement_timeout = '100ms'")
        migrate(database.replace("postgresql://", "postgresql+psycopg://"))
        password = server.secrets.mailing_reader
        with login(database, "mailing_reader", password) as hasty, pytest.raises(psycopg.errors.QueryCanceled):
            hasty.execute("SELECT pg_sleep(30)")
    finally:
        as_superuser(server, database, "ALTER ROLE mailing_reader SET statement_timeout = '60s'")


def test_a_reader_can_undo_its_timeouts_and_neither_its_number_of_connections_nor_a_superusers_limit(
    server, database, reader
):
    """As docs/reporting.md says."""
    reader.execute("SET default_transaction_read_only = off")
    reader.execute("SET statement_timeout = 0")
    assert reader.execute("SHOW statement_timeout").fetchone() == {"statement_timeout": "0"}
    reader.execute("ALTER ROLE mailing_reader SET statement_timeout = 0")
    as_superuser(server, database, "ALTER ROLE mailing_reader SET statement_timeout = '60s'")
    for statement in ("SET temp_file_limit = -1", "ALTER ROLE mailing_reader CONNECTION LIMIT -1"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(statement)
    with ExitStack() as stack:
        for _ in range(19):
            stack.enter_context(login(database, "mailing_reader", server.secrets.mailing_reader))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            login(database, "mailing_reader", server.secrets.mailing_reader)


def test_where_roles_may_not_be_made_all_else_is_and_an_administrator_makes_them(capsys):
    with throwaway_server() as server:
        administrator = psycopg.connect(server.url("postgres"), autocommit=True)
        administrator.execute("ALTER ROLE mailing NOCREATEROLE")
        url = server.url("mailing", scheme="postgresql+psycopg")
        migrate(url)
        assert "include/sql/roles.sql" in capsys.readouterr().out
        administrator.execute(ROLES.read_text(encoding="utf-8"))
        administrator.execute(f"ALTER ROLE mailing_reader PASSWORD '{PASSWORD}'")
        migrate(url)
        assert "include/sql/roles.sql" not in capsys.readouterr().out
        with login(server.url("mailing"), "mailing_reader") as reader:
            assert reader.execute("SELECT * FROM reporting.daily_summary").fetchall() == []
        administrator.close()
