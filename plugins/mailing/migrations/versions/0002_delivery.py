"""Breaker, throttle, attempts, audit; campaigns that are edited while they run."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

EVIDENCE = ("failed_at", "duration_ms", "status_code", "error", "reply")

# What an edit of a campaign entails, whoever makes it:
# a new filter  → nothing is claimed until the audience followed it (audience_stale), and a run for those who joined;
# a later stop  → the campaign is open again: what had expired may be sent, and a run to send it.
AFTER_AN_EDIT = """
    CREATE FUNCTION campaigns_after_edit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.opened_at IS NULL OR NEW.status NOT IN ('running', 'paused', 'finished') THEN
            RETURN NEW;
        END IF;
        IF NEW.status <> 'finished'
            AND (NEW.filter_tags, NEW.filter_operator_codes)
                IS DISTINCT FROM (OLD.filter_tags, OLD.filter_operator_codes)
        THEN
            NEW.audience_stale := true;
            NEW.wake_at := clock_timestamp();
        END IF;
        IF NEW.sending_stop > clock_timestamp()
            AND (NEW.sending_stop > OLD.sending_stop
                 OR (NEW.local_from, NEW.local_to) IS DISTINCT FROM (OLD.local_from, OLD.local_to))
        THEN
            UPDATE messages SET state = 'pending', reason = NULL
            WHERE campaign_id = NEW.id AND state = 'expired';
            IF FOUND OR (NEW.status = 'finished' AND NEW.audience = 'live') THEN
                NEW.wake_at := clock_timestamp();
                IF NEW.status = 'finished' THEN
                    NEW.status := 'running';
                    NEW.finished_at := NULL;
                END IF;
            END IF;
        END IF;
        RETURN NEW;
    END $$
"""
# After campaigns_before_write, by the alphabet: the filter is in its canonical form then.
ON_AN_EDIT = """
    CREATE TRIGGER campaigns_edited BEFORE UPDATE OF
        filter_tags, filter_operator_codes, sending_stop, local_from, local_to ON campaigns
        FOR EACH ROW EXECUTE FUNCTION campaigns_after_edit()
"""

# A function, so that the audience, an edit of it and its forecast can never disagree. The planner inlines it.
MATCHING = """
    CREATE FUNCTION clients_matching(tag_names text[], operator_codes text[])
    RETURNS TABLE (id bigint, timezone text) LANGUAGE sql STABLE AS $$
        SELECT c.id, c.timezone
        FROM clients c
        WHERE (cardinality(operator_codes) = 0 OR c.mobile_operator_code = ANY (operator_codes))
          AND (cardinality(tag_names) = 0
               OR c.id IN (
                   -- All the tags: as many hits as the filter has names. A name that is no tag (any more) is never hit,
                   -- so such a filter matches nobody rather than everybody.
                   SELECT ct.client_id
                   FROM tags t
                   JOIN client_tags ct ON ct.tag_id = t.id
                   WHERE t.name = ANY (tag_names)
                   GROUP BY ct.client_id
                   HAVING count(*) = cardinality(tag_names)))
    $$
"""


def upgrade() -> None:
    op.execute("DROP VIEW IF EXISTS reporting.message_outcomes")  # made anew after the migrations
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("status_code", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.CheckConstraint("char_length(reply) <= 1024", name=op.f("attempts_reply_length_check")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("attempts_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("attempts_pkey")),
    )
    op.create_index(op.f("attempts_campaign_id_message_id_idx"), "attempts", ["campaign_id", "message_id"])
    op.execute(
        "INSERT INTO attempts (campaign_id, message_id, attempt, state, reason, ended_at, duration_ms, status_code,"
        " error, reply)"
        " SELECT campaign_id, id, attempts, state, coalesce(reason, error, 'unforeseen'), failed_at, duration_ms,"
        " status_code, error, reply FROM messages WHERE failed_at IS NOT NULL"
    )
    op.drop_constraint("messages_reply_length_check", "messages")
    for column in EVIDENCE:
        op.drop_column("messages", column)
    op.create_table(
        "throttles",
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("last_slot_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("share_slot_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hungry_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("throttles_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("throttles_pkey")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=True),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", JSONB(), nullable=True),
        sa.CheckConstraint("char_length(actor) BETWEEN 1 AND 200", name=op.f("audit_log_actor_length_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_log_pkey")),
    )
    op.create_index(op.f("audit_log_campaign_id_message_id_idx"), "audit_log", ["campaign_id", "message_id"])
    op.add_column("batches", sa.Column("is_late", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("campaigns", sa.Column("audience_stale", sa.Boolean(), server_default=sa.false(), nullable=False))
    _extend_gateways()
    op.execute(MATCHING)
    op.execute(AFTER_AN_EDIT)
    op.execute(ON_AN_EDIT)


def _extend_gateways() -> None:
    for column in (
        sa.Column("breaker_reason", sa.Text(), nullable=True),
        sa.Column("breaker_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("breaker_probes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_slot_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token_warning_s", sa.Integer(), server_default="86400", nullable=False),
    ):
        op.add_column("gateways", column)
    op.execute("UPDATE gateways SET breaker_state = 'closed'")  # it had no effect before
    op.create_check_constraint(
        "breaker_has_probe", "gateways", "breaker_state = 'closed' OR breaker_probe_at IS NOT NULL"
    )
    op.create_check_constraint("token_warning_s_range", "gateways", "token_warning_s >= 0")


def downgrade() -> None:
    op.execute("DROP VIEW IF EXISTS reporting.message_outcomes, reporting.attempts")
    op.execute("DROP FUNCTION campaigns_after_edit() CASCADE")
    op.execute("DROP FUNCTION clients_matching(text[], text[])")
    for constraint in ("breaker_has_probe", "token_warning_s_range"):
        op.drop_constraint(op.f(f"gateways_{constraint}_check"), "gateways")
    for column in (
        "breaker_reason", "breaker_failures", "breaker_probes", "last_slot_at", "token_expires_at", "token_warning_s",
    ):  # fmt: skip
        op.drop_column("gateways", column)
    op.drop_column("campaigns", "audience_stale")
    op.drop_column("batches", "is_late")
    op.drop_table("audit_log")
    op.drop_table("throttles")
    op.add_column("messages", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("messages", sa.Column("duration_ms", sa.Integer(), nullable=True))
    op.add_column("messages", sa.Column("status_code", sa.SmallInteger(), nullable=True))
    op.add_column("messages", sa.Column("error", sa.Text(), nullable=True))
    op.add_column("messages", sa.Column("reply", sa.Text(), nullable=True))
    op.create_check_constraint("reply_length", "messages", "char_length(reply) <= 1024")
    op.drop_table("attempts")
