"""Limits are numbers, a day ends before 24:00; an edit that opens a campaign again forgets nothing; filters by tags."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

LIMITED = ("gateways", "campaigns")

# What an edit of a campaign entails, whoever makes it:
# a later stop  → the campaign is open again: what had expired may be sent, and a run to send it (also where nothing has
#                 expired so far: tasks end a moment before the stop, and nobody swept up behind them yet);
# a new filter  → nothing is claimed until the audience followed it (audience_stale), and a run for those who joined.
# In this order: one edit may do both to a campaign that is finished.
AFTER_AN_EDIT = """
    CREATE OR REPLACE FUNCTION campaigns_after_edit() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        is_filter_new boolean := (NEW.filter_tags, NEW.filter_operator_codes)
            IS DISTINCT FROM (OLD.filter_tags, OLD.filter_operator_codes);
        soon CONSTANT interval := '1 minute';
    BEGIN
        IF NEW.opened_at IS NULL OR NEW.status NOT IN ('running', 'paused', 'finished') THEN
            RETURN NEW;
        END IF;
        IF NEW.sending_stop > clock_timestamp()
            AND (NEW.sending_stop > OLD.sending_stop
                 OR (NEW.local_from, NEW.local_to) IS DISTINCT FROM (OLD.local_from, OLD.local_to))
        THEN
            UPDATE messages SET state = 'pending', reason = NULL
            WHERE campaign_id = NEW.id AND state = 'expired';
            IF FOUND
                OR (NEW.status = 'finished' AND (NEW.audience = 'live' OR is_filter_new))
                OR (NEW.status <> 'finished' AND OLD.sending_stop < least(NEW.sending_stop, clock_timestamp() + soon))
            THEN
                NEW.wake_at := clock_timestamp();
                IF NEW.status = 'finished' THEN
                    NEW.status := 'running';
                    NEW.finished_at := NULL;
                END IF;
            END IF;
        END IF;
        IF NEW.status <> 'finished' AND is_filter_new THEN
            NEW.audience_stale := true;
            NEW.wake_at := clock_timestamp();
        END IF;
        RETURN NEW;
    END $$
"""

# The tags are counted once for a filter. As a condition on each client (`… = 0 OR c.id IN (…)`), with the filter coming
# from the campaign's row, they were counted once for each client: a minute for 20,000.
MATCHING = """
    CREATE OR REPLACE FUNCTION clients_matching(tag_names text[], operator_codes text[])
    RETURNS TABLE (id bigint, timezone text) LANGUAGE sql STABLE AS $$
        SELECT c.id, c.timezone
        FROM clients c
        WHERE cardinality(tag_names) = 0
          AND (cardinality(operator_codes) = 0 OR c.mobile_operator_code = ANY (operator_codes))
        UNION ALL
        SELECT c.id, c.timezone
        FROM (
            -- All the tags: as many hits as the filter has names. A name that is no tag (any more) is never hit,
            -- so such a filter matches nobody rather than everybody.
            SELECT ct.client_id
            FROM tags t
            JOIN client_tags ct ON ct.tag_id = t.id
            WHERE t.name = ANY (tag_names)
            GROUP BY ct.client_id
            HAVING count(*) = cardinality(tag_names)
        ) AS tagged
        JOIN clients c ON c.id = tagged.client_id
        WHERE cardinality(tag_names) > 0
          AND (cardinality(operator_codes) = 0 OR c.mobile_operator_code = ANY (operator_codes))
    $$
"""


def upgrade() -> None:
    op.execute(MATCHING)
    op.execute(AFTER_AN_EDIT)
    # PostgreSQL's time holds 24:00, Python's does not: midnight is 00:00.
    op.execute("UPDATE campaigns SET local_from = '00:00' WHERE local_from = '24:00' AND local_to <> '00:00'")
    op.execute("UPDATE campaigns SET local_to = '00:00' WHERE local_to = '24:00' AND local_from <> '00:00'")
    op.execute("UPDATE campaigns SET local_from = NULL, local_to = NULL WHERE '24:00' IN (local_from, local_to)")
    op.create_check_constraint("local_hours_in_a_day", "campaigns", "local_from < '24:00' AND local_to < '24:00'")
    for table in LIMITED:
        # NaN is above every number to PostgreSQL, and no limit to anybody.
        op.execute(f"UPDATE {table} SET messages_per_second = NULL WHERE messages_per_second = 'NaN'")  # noqa: S608
        op.drop_constraint(op.f(f"{table}_messages_per_second_positive_check"), table)
        op.create_check_constraint(
            "messages_per_second_positive", table, "messages_per_second > 0 AND messages_per_second < 'NaN'"
        )


def downgrade() -> None:
    op.drop_constraint(op.f("campaigns_local_hours_in_a_day_check"), "campaigns")
    # The functions stay as they are: what they do better is right for the tables of 0002, too.
    for table in LIMITED:
        op.drop_constraint(op.f(f"{table}_messages_per_second_positive_check"), table)
        op.create_check_constraint("messages_per_second_positive", table, "messages_per_second > 0")
