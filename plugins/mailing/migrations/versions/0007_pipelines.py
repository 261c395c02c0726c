"""Triggers from and to other pipelines: campaigns launched by key, and one row per finish of a campaign."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Campaigns that are over already count as announced: an upgrade is not to wake pipelines by what was long ago.
BACKFILL = """
    INSERT INTO finishes (campaign_id, number, finished_at, figures, announced_at, is_confirmed, webhook_state)
    SELECT c.id, 1, c.finished_at,
           jsonb_build_object('event_id', 'campaign-' || c.id || '-finish-1', 'campaign_id', c.id, 'name', c.name,
                              'status', c.status, 'finish', 1, 'revision', c.revision,
                              'sending_start', c.sending_start, 'sending_stop', c.sending_stop)
           || jsonb_build_object('opened_at', c.opened_at, 'finished_at', c.finished_at,
                                 'audience', coalesce(sum(s.count), 0))
           || jsonb_build_object(
                  'pending', coalesce(sum(s.count) FILTER (WHERE s.state = 'pending'), 0),
                  'sending', coalesce(sum(s.count) FILTER (WHERE s.state = 'sending'), 0),
                  'sent', coalesce(sum(s.count) FILTER (WHERE s.state = 'sent'), 0),
                  'failed', coalesce(sum(s.count) FILTER (WHERE s.state = 'failed'), 0),
                  'unknown', coalesce(sum(s.count) FILTER (WHERE s.state = 'unknown'), 0),
                  'expired', coalesce(sum(s.count) FILTER (WHERE s.state = 'expired'), 0),
                  'cancelled', coalesce(sum(s.count) FILTER (WHERE s.state = 'cancelled'), 0),
                  'excluded', coalesce(sum(s.count) FILTER (WHERE s.state = 'excluded'), 0)),
           now(), true, 'off'
    FROM campaigns c
    LEFT JOIN state_counts s ON s.campaign_id = c.id
    WHERE c.status IN ('finished', 'cancelled') AND c.finished_at IS NOT NULL
    GROUP BY c.id
    HAVING coalesce(sum(s.count) FILTER (WHERE s.state IN ('pending', 'sending')), 0) = 0
"""


def upgrade() -> None:
    op.create_table(
        "launches",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("request", JSONB(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("char_length(key) BETWEEN 1 AND 1000", name=op.f("launches_key_length_check")),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("launches_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("launches_pkey")),
    )
    op.create_index(op.f("launches_campaign_id_idx"), "launches", ["campaign_id"])
    op.create_table(
        "finishes",
        sa.Column("campaign_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("figures", JSONB(), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("announced_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_confirmed", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("webhook_state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("webhook_attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("webhook_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("webhook_error", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "webhook_state IN ('pending', 'delivered', 'given_up', 'off')",
            name=op.f("finishes_webhook_state_known_check"),
        ),
        sa.ForeignKeyConstraint(
            ["campaign_id"], ["campaigns.id"], name=op.f("finishes_campaign_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("campaign_id", "number", name=op.f("finishes_pkey")),
        sa.UniqueConstraint("campaign_id", "finished_at", name=op.f("finishes_campaign_id_finished_at_key")),
    )
    unconfirmed, pending = sa.text("NOT is_confirmed"), sa.text("webhook_state = 'pending'")
    op.create_index(op.f("finishes_announced_at_idx"), "finishes", ["announced_at"], postgresql_where=unconfirmed)
    op.create_index(op.f("finishes_webhook_at_idx"), "finishes", ["webhook_at"], postgresql_where=pending)
    op.execute(BACKFILL)


def downgrade() -> None:
    op.drop_table("finishes")
    op.drop_table("launches")
