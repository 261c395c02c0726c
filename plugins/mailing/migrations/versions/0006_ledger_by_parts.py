"""The ledger in parts that can be dropped at once, and counts that are kept with it.

`messages` and `attempts` are partitioned by ranges of campaigns: docs/decisions/0017-the-ledger-in-parts.md. What was
there becomes the first part, without being copied. Counts: docs/decisions/0018-counts-are-kept-with-the-ledger.md.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

VIEWS = "reporting.message_outcomes, reporting.attempts, reporting.campaign_statistics CASCADE"

# What is in a table becomes the first part of one that is partitioned. The planner is to know nothing of how messages
# are spread over campaigns (STATISTICS 0): a campaign that has just opened is unknown to it, and it would take it for
# empty and read all of it by the wrong index for each claim.
INTO_PARTS = """
    DO $$
    DECLARE
        next_id bigint := coalesce(pg_sequence_last_value(pg_get_serial_sequence('{table}', 'id')::regclass), 0) + 1;
    BEGIN
        ALTER TABLE {table} RENAME TO {table}_1;
        ALTER TABLE {table}_1 ALTER id DROP IDENTITY, ALTER campaign_id SET STATISTICS 0;
        ALTER TABLE {table}_1 DROP CONSTRAINT {table}_pkey;
        CREATE TABLE {table} (LIKE {table}_1 INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (campaign_id);
        ALTER TABLE {table} ALTER campaign_id SET STATISTICS 0;
        EXECUTE format('ALTER TABLE {table} ALTER id ADD GENERATED ALWAYS AS IDENTITY (START %s)', next_id);
    END $$
"""

# One row per part. `ledger_part` makes the one that a campaign's messages go into, if it is not there. A part takes as
# many campaigns as there were in a month, so that there are neither too many of them nor too much in one.
# A campaign whose part was dropped can never get messages again: it is refused, not left without one.
PARTS = """
    CREATE FUNCTION ledger_part(for_campaign bigint) RETURNS void LANGUAGE plpgsql AS $$
    DECLARE
        part ledger_parts;
        first_id bigint;
        end_id bigint;
    BEGIN
        SELECT * INTO part FROM ledger_parts p
        WHERE p.first_campaign_id <= for_campaign AND for_campaign < p.end_campaign_id;
        IF NOT FOUND THEN
            LOCK TABLE ledger_parts IN SHARE ROW EXCLUSIVE MODE;  -- one at a time
            SELECT * INTO part FROM ledger_parts p  -- somebody else may have been faster
            WHERE p.first_campaign_id <= for_campaign AND for_campaign < p.end_campaign_id;
        END IF;
        IF part.dropped_at IS NOT NULL THEN
            RAISE EXCEPTION 'campaign %: its part of the ledger was dropped at %, so it can have no messages',
                for_campaign, part.dropped_at
                USING ERRCODE = 'object_not_in_prerequisite_state';
        ELSIF part.first_campaign_id IS NOT NULL THEN
            RETURN;
        END IF;
        SELECT coalesce(max(end_campaign_id), 1) INTO first_id FROM ledger_parts;
        SELECT greatest(for_campaign + 1, first_id + least(greatest(count(*), 16), 4096)) INTO end_id
        FROM campaigns WHERE created > now() - interval '30 days';
        -- Made aside and attached: that waits for nobody who reads or writes the other parts.
        EXECUTE format('CREATE TABLE messages_%s (LIKE messages INCLUDING DEFAULTS INCLUDING CONSTRAINTS)'
                       ' WITH (fillfactor = 50)', first_id);
        EXECUTE format('CREATE TABLE attempts_%s (LIKE attempts INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', first_id);
        EXECUTE format('ALTER TABLE messages_%s ALTER campaign_id SET STATISTICS 0', first_id);
        EXECUTE format('ALTER TABLE attempts_%s ALTER campaign_id SET STATISTICS 0', first_id);
        EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_%s FOR VALUES FROM (%s) TO (%s)',
                       first_id, first_id, end_id);
        EXECUTE format('ALTER TABLE attempts ATTACH PARTITION attempts_%s FOR VALUES FROM (%s) TO (%s)',
                       first_id, first_id, end_id);
        INSERT INTO ledger_parts (first_campaign_id, end_campaign_id) VALUES (first_id, end_id);
    END $$
"""

# The ledger has no foreign key to campaigns: checking it took a third of the time it takes to write an audience. This
# holds instead, and whoever adds messages holds the campaign's row (FOR KEY SHARE).
ON_DELETION = """
    CREATE FUNCTION campaigns_before_delete() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF OLD.archived_at IS NOT NULL OR EXISTS (SELECT FROM messages WHERE campaign_id = OLD.id) THEN
            RAISE EXCEPTION 'campaign %: it has (or had) messages, so it cannot be deleted', OLD.id
                USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'messages_campaign_id_fkey';
        END IF;
        DELETE FROM attempts WHERE campaign_id = OLD.id;
        DELETE FROM state_counts WHERE campaign_id = OLD.id;
        DELETE FROM time_counts WHERE campaign_id = OLD.id;
        DELETE FROM operator_counts WHERE campaign_id = OLD.id;
        RETURN OLD;
    END $$;
    CREATE TRIGGER campaigns_before_delete BEFORE DELETE ON campaigns
        FOR EACH ROW EXECUTE FUNCTION campaigns_before_delete();
    CREATE FUNCTION campaigns_are_archived() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'campaign %: its messages were dropped at %, so it can only be read', OLD.id, OLD.archived_at
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END $$;
    CREATE TRIGGER campaigns_are_archived BEFORE UPDATE ON campaigns
        FOR EACH ROW WHEN (OLD.archived_at IS NOT NULL) EXECUTE FUNCTION campaigns_are_archived();
"""

# A writer of counts takes one of 64 shards that no other transaction has, so that nobody waits for anybody's row.
SHARD = """
    CREATE FUNCTION count_shard() RETURNS smallint LANGUAGE plpgsql AS $$
    DECLARE
        usual CONSTANT int := pg_backend_pid() % 64;
    BEGIN
        FOR n IN usual .. usual + 63 LOOP
            IF pg_try_advisory_xact_lock(726246454, n % 64 + 1) THEN
                RETURN n % 64 + 1;
            END IF;
        END LOOP;
        RETURN usual + 1;  -- more than 64 write at this moment: this one waits for another
    END $$
"""

# What each statement changes in `messages` is added to the counts, in its own transaction. A message counts under what
# its row says, so that taking away what it said before and adding what it says now is always right.
COUNT = """
    CREATE FUNCTION messages_count_{event}() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        to_shard CONSTANT smallint := count_shard();
    BEGIN
        WITH change AS MATERIALIZED (
            SELECT m.campaign_id, m.state, coalesce(m.reason, '') AS reason,
                   CASE WHEN m.state IN ('pending', 'sending') THEN 'open' ELSE m.state END AS outcome,
                   CASE WHEN m.state IN ('sent', 'failed', 'unknown')
                        THEN date_bin('5 s', coalesce(m.sent_at, m.claimed_at, '-infinity'), '2000-01-01 00:00Z')
                        ELSE '-infinity' END AS since,
                   coalesce(m.mobile_operator_code, '') AS mobile_operator_code,
                   sum(m.n)::bigint AS n,
                   min(m.claimed_at) FILTER (WHERE m.n > 0) AS first_claimed_at,
                   min(m.sent_at) FILTER (WHERE m.n > 0) AS first_sent_at,
                   max(m.sent_at) FILTER (WHERE m.n > 0) AS last_sent_at
            FROM ({changed}) AS m
            GROUP BY 1, 2, 3, 4, 5, 6
        ), by_state AS (
            INSERT INTO state_counts AS c
                (campaign_id, shard, state, reason, count, first_claimed_at, first_sent_at, last_sent_at)
            SELECT campaign_id, to_shard, state, reason, sum(n), min(first_claimed_at), min(first_sent_at),
                   max(last_sent_at)
            FROM change
            GROUP BY campaign_id, state, reason
            HAVING sum(n) <> 0 OR min(first_claimed_at) IS NOT NULL
            ORDER BY campaign_id, state, reason
            ON CONFLICT (campaign_id, shard, state, reason) DO UPDATE
            SET count = c.count + excluded.count,
                first_claimed_at = least(c.first_claimed_at, excluded.first_claimed_at),
                first_sent_at = least(c.first_sent_at, excluded.first_sent_at),
                last_sent_at = greatest(c.last_sent_at, excluded.last_sent_at)
        ), by_time AS (
            INSERT INTO time_counts AS c (campaign_id, shard, since, outcome, count)
            SELECT campaign_id, to_shard, since, outcome, sum(n)
            FROM change
            GROUP BY campaign_id, since, outcome
            HAVING sum(n) <> 0
            ORDER BY campaign_id, since, outcome
            ON CONFLICT (campaign_id, shard, since, outcome) DO UPDATE SET count = c.count + excluded.count
        )
        INSERT INTO operator_counts AS c (campaign_id, shard, mobile_operator_code, outcome, count)
        SELECT campaign_id, to_shard, mobile_operator_code, outcome, sum(n)
        FROM change
        GROUP BY campaign_id, mobile_operator_code, outcome
        HAVING sum(n) <> 0
        ORDER BY campaign_id, mobile_operator_code, outcome
        ON CONFLICT (campaign_id, shard, mobile_operator_code, outcome) DO UPDATE SET count = c.count + excluded.count;
        RETURN NULL;
    END $$;
    CREATE TRIGGER messages_count_{event} AFTER {event} ON messages REFERENCING {tables}
        FOR EACH STATEMENT EXECUTE FUNCTION messages_count_{event}();
"""
OLD, NEW = "SELECT b.*, -1 AS n FROM before b", "SELECT a.*, 1 AS n FROM after a"
COUNTED = {
    "insert": (NEW, "NEW TABLE AS after"),
    "update": (f"{OLD} UNION ALL {NEW}", "OLD TABLE AS before NEW TABLE AS after"),
    "delete": (OLD, "OLD TABLE AS before"),
}

FOLDING = """
    CREATE FUNCTION fold_counts(of_campaign bigint, width interval) RETURNS void LANGUAGE sql AS $$
        WITH free AS MATERIALIZED (
            SELECT shard, state, reason FROM state_counts
            WHERE campaign_id = of_campaign AND shard > 0
            ORDER BY shard, state, reason
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM state_counts c USING free f
            WHERE c.campaign_id = of_campaign AND (c.shard, c.state, c.reason) = (f.shard, f.state, f.reason)
            RETURNING c.*
        )
        INSERT INTO state_counts AS c
            (campaign_id, shard, state, reason, count, first_claimed_at, first_sent_at, last_sent_at)
        SELECT of_campaign, 0, state, reason, sum(count), min(first_claimed_at), min(first_sent_at), max(last_sent_at)
        FROM taken
        GROUP BY state, reason
        ORDER BY state, reason
        ON CONFLICT (campaign_id, shard, state, reason) DO UPDATE
        SET count = c.count + excluded.count,
            first_claimed_at = least(c.first_claimed_at, excluded.first_claimed_at),
            first_sent_at = least(c.first_sent_at, excluded.first_sent_at),
            last_sent_at = greatest(c.last_sent_at, excluded.last_sent_at);

        WITH free AS MATERIALIZED (
            SELECT shard, since, outcome FROM time_counts
            WHERE campaign_id = of_campaign
              AND (shard > 0 OR since <> date_bin(width, since, '2000-01-01 00:00Z'))
              AND since < now() - interval '2 minutes'  -- what is newer tells how fast it is
            ORDER BY shard, since, outcome
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM time_counts c USING free f
            WHERE c.campaign_id = of_campaign AND (c.shard, c.since, c.outcome) = (f.shard, f.since, f.outcome)
            RETURNING c.*
        )
        INSERT INTO time_counts AS c (campaign_id, shard, since, outcome, count)
        SELECT of_campaign, 0, date_bin(width, since, '2000-01-01 00:00Z'), outcome, sum(count)
        FROM taken
        GROUP BY 3, outcome
        ORDER BY 3, outcome
        ON CONFLICT (campaign_id, shard, since, outcome) DO UPDATE SET count = c.count + excluded.count;

        WITH free AS MATERIALIZED (
            SELECT shard, mobile_operator_code, outcome FROM operator_counts
            WHERE campaign_id = of_campaign AND shard > 0
            ORDER BY shard, mobile_operator_code, outcome
            FOR UPDATE SKIP LOCKED
        ), taken AS (
            DELETE FROM operator_counts c USING free f
            WHERE c.campaign_id = of_campaign
              AND (c.shard, c.mobile_operator_code, c.outcome) = (f.shard, f.mobile_operator_code, f.outcome)
            RETURNING c.*
        )
        INSERT INTO operator_counts AS c (campaign_id, shard, mobile_operator_code, outcome, count)
        SELECT of_campaign, 0, mobile_operator_code, outcome, sum(count)
        FROM taken
        GROUP BY mobile_operator_code, outcome
        ORDER BY mobile_operator_code, outcome
        ON CONFLICT (campaign_id, shard, mobile_operator_code, outcome) DO UPDATE SET count = c.count + excluded.count;
    $$
"""

MATCHING = """
    DROP FUNCTION clients_matching(text[], text[]);
    CREATE FUNCTION clients_matching(tag_names text[], operator_codes text[])
    RETURNS TABLE (id bigint, timezone text, mobile_operator_code text) LANGUAGE sql STABLE AS $$
        SELECT c.id, c.timezone, c.mobile_operator_code
        FROM clients c
        WHERE cardinality(tag_names) = 0
          AND (cardinality(operator_codes) = 0 OR c.mobile_operator_code = ANY (operator_codes))
        UNION ALL
        SELECT c.id, c.timezone, c.mobile_operator_code
        FROM (
            -- All the tags: as many hits as the filter has names. A name that is no tag (any more) is never hit,
            -- so such a filter matches nobody rather than everybody.
            -- (More hits than names there cannot be; but `=` would have the planner expect one client in 200, and look
            -- a million of them up one by one.)
            SELECT ct.client_id
            FROM tags t
            JOIN client_tags ct ON ct.tag_id = t.id
            WHERE t.name = ANY (tag_names)
            GROUP BY ct.client_id
            HAVING count(*) >= cardinality(tag_names)
        ) AS tagged
        JOIN clients c ON c.id = tagged.client_id
        WHERE cardinality(tag_names) > 0
          AND (cardinality(operator_codes) = 0 OR c.mobile_operator_code = ANY (operator_codes))
    $$;
"""


def upgrade() -> None:
    op.execute(f"DROP VIEW IF EXISTS {VIEWS}")  # made anew after the migrations
    op.add_column("messages", sa.Column("mobile_operator_code", sa.Text(), nullable=True))
    op.execute(
        "UPDATE messages m SET mobile_operator_code = c.mobile_operator_code FROM clients c WHERE c.id = m.client_id"
    )
    op.add_column("campaigns", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(MATCHING)
    _into_parts()
    _add_counts()
    op.execute(ON_DELETION)
    op.execute("SELECT ledger_part(1)")


def _into_parts() -> None:
    op.drop_constraint("messages_campaign_id_fkey", "messages")
    op.drop_constraint("attempts_campaign_id_fkey", "attempts")
    op.execute("ALTER INDEX messages_campaign_id_client_id_key RENAME TO messages_1_campaign_id_client_id_key")
    op.execute("ALTER INDEX attempts_campaign_id_message_id_idx RENAME TO attempts_1_campaign_id_message_id_idx")
    for table in ("messages", "attempts"):
        op.execute(INTO_PARTS.format(table=table))
        op.create_primary_key(op.f(f"{table}_pkey"), table, ["id", "campaign_id"])
    op.create_unique_constraint(op.f("messages_campaign_id_client_id_key"), "messages", ["campaign_id", "client_id"])
    op.create_index(op.f("attempts_campaign_id_message_id_idx"), "attempts", ["campaign_id", "message_id"])
    op.create_table(
        "ledger_parts",
        sa.Column("first_campaign_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("end_campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("dropped_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("first_campaign_id < end_campaign_id", name=op.f("ledger_parts_range_order_check")),
        sa.PrimaryKeyConstraint("first_campaign_id", name=op.f("ledger_parts_pkey")),
    )
    op.execute("""
        DO $$
        DECLARE
            end_id bigint := (SELECT greatest(max(campaign_id), 16) + 1 FROM messages_1);
        BEGIN
            EXECUTE format('ALTER TABLE messages ATTACH PARTITION messages_1 FOR VALUES FROM (1) TO (%s)', end_id);
            EXECUTE format('ALTER TABLE attempts ATTACH PARTITION attempts_1 FOR VALUES FROM (1) TO (%s)', end_id);
            INSERT INTO ledger_parts (first_campaign_id, end_campaign_id) VALUES (1, end_id);
        END $$
    """)
    op.execute(PARTS)


def _add_counts() -> None:
    for table, key in (
        ("state_counts", ("state", "reason")),
        ("time_counts", ("since", "outcome")),
        ("operator_counts", ("mobile_operator_code", "outcome")),
    ):
        times = ("first_claimed_at", "first_sent_at", "last_sent_at") if table == "state_counts" else ()
        op.create_table(
            table,
            sa.Column("campaign_id", sa.BigInteger(), nullable=False),
            sa.Column("shard", sa.SmallInteger(), nullable=False),
            *(
                sa.Column(name, sa.DateTime(timezone=True) if name == "since" else sa.Text(), nullable=False)
                for name in key
            ),
            sa.Column("count", sa.BigInteger(), nullable=False),
            *(sa.Column(name, sa.DateTime(timezone=True), nullable=True) for name in times),
            sa.PrimaryKeyConstraint("campaign_id", "shard", *key, name=op.f(f"{table}_pkey")),
            postgresql_with={"fillfactor": 50},
        )
    op.create_index(
        op.f("time_counts_campaign_id_idx"), "time_counts", ["campaign_id"], postgresql_where=sa.text("shard > 0")
    )
    for statement in (SHARD, FOLDING):
        op.execute(statement)
    for event, (changed, tables) in COUNTED.items():
        op.execute(COUNT.format(event=event, changed=changed, tables=tables))
    op.execute("""
        INSERT INTO state_counts
            (campaign_id, shard, state, reason, count, first_claimed_at, first_sent_at, last_sent_at)
        SELECT campaign_id, 0, state, coalesce(reason, ''), count(*), min(claimed_at), min(sent_at), max(sent_at)
        FROM messages GROUP BY campaign_id, state, reason
    """)
    op.execute("""
        INSERT INTO time_counts (campaign_id, shard, since, outcome, count)
        SELECT campaign_id, 0,
               CASE WHEN state IN ('sent', 'failed', 'unknown')
                    THEN date_bin('15 min', coalesce(sent_at, claimed_at, '-infinity'), '2000-01-01 00:00Z')
                    ELSE '-infinity' END,
               CASE WHEN state IN ('pending', 'sending') THEN 'open' ELSE state END, count(*)
        FROM messages GROUP BY 1, 3, 4
    """)
    op.execute("""
        INSERT INTO operator_counts (campaign_id, shard, mobile_operator_code, outcome, count)
        SELECT campaign_id, 0, coalesce(mobile_operator_code, ''),
               CASE WHEN state IN ('pending', 'sending') THEN 'open' ELSE state END, count(*)
        FROM messages GROUP BY 1, 3, 4
    """)


def downgrade() -> None:
    # The views read the tables that go here and before; they are made anew after an upgrade.
    op.execute("DROP SCHEMA IF EXISTS reporting CASCADE")
    op.execute("DROP FUNCTION campaigns_before_delete() CASCADE")
    op.execute("DROP FUNCTION campaigns_are_archived() CASCADE")
    for event in COUNTED:
        op.execute(f"DROP FUNCTION messages_count_{event}() CASCADE")
    op.execute("DROP FUNCTION count_shard()")
    op.execute("DROP FUNCTION fold_counts(bigint, interval)")
    op.execute("DROP FUNCTION ledger_part(bigint)")
    for table in ("state_counts", "time_counts", "operator_counts", "ledger_parts"):
        op.drop_table(table)
    for table, columns in WHOLE.items():
        op.execute(OUT_OF_PARTS.format(table=table, columns=columns))
    op.execute("CREATE INDEX attempts_campaign_id_message_id_idx ON attempts (campaign_id, message_id)")
    op.create_unique_constraint(op.f("messages_campaign_id_client_id_key"), "messages", ["campaign_id", "client_id"])
    op.create_foreign_key(op.f("messages_campaign_id_fkey"), "messages", "campaigns", ["campaign_id"], ["id"])
    op.create_foreign_key(
        op.f("attempts_campaign_id_fkey"), "attempts", "campaigns", ["campaign_id"], ["id"], ondelete="CASCADE"
    )
    op.execute("ALTER TABLE messages SET (fillfactor = 50)")
    op.drop_column("campaigns", "archived_at")
    op.drop_column("messages", "mobile_operator_code")


# Copied: parts cannot be put together otherwise.
OUT_OF_PARTS = """
    DO $$
    DECLARE
        next_id bigint := coalesce(pg_sequence_last_value(pg_get_serial_sequence('{table}', 'id')::regclass), 0) + 1;
    BEGIN
        ALTER TABLE {table} RENAME TO {table}_in_parts;
        ALTER TABLE {table}_in_parts DROP CONSTRAINT {table}_pkey;
        ALTER TABLE {table}_in_parts ALTER id DROP IDENTITY;
        CREATE TABLE {table} (LIKE {table}_in_parts INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
        INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}_in_parts;
        DROP TABLE {table}_in_parts;
        ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY (id);
        EXECUTE format('ALTER TABLE {table} ALTER id ADD GENERATED ALWAYS AS IDENTITY (START %s)', next_id);
    END $$
"""
WHOLE = {
    "messages": "id, campaign_id, client_id, created, attempts, state, reason, token, revision, in_doubt, claimed_at,"
    " not_before, sent_at, mobile_operator_code",
    "attempts": "id, campaign_id, message_id, attempt, state, reason, ended_at, duration_ms, status_code, error, reply",
}
