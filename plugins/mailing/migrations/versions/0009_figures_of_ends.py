"""Ends of campaigns say what was assumed sent, and why others were not sent; recovered leases are counted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Of the ends that were before: such a verdict is final, and is kept with its moment.
ASSUMED_SENT = """
    UPDATE finishes f
    SET figures = figures || jsonb_build_object('assumed_sent', (
        SELECT count(*) FROM audit_log a
        WHERE a.campaign_id = f.campaign_id AND a.action = 'assume_sent' AND a.at <= f.finished_at))
    WHERE NOT figures ? 'assumed_sent'
"""

# Of the ends that were before, by the reasons that there are now: the most frequent first, as many as there were at
# that end. That is right unless the campaign was opened again since.
NOT_REQUESTED = """
    UPDATE finishes f
    SET not_requested = coalesce((
        SELECT jsonb_object_agg(state || ' ' || reason, least(count, wanted - before))
        FROM (
            SELECT state, reason, count, (f.figures ->> state)::bigint AS wanted,
                   sum(count) OVER (PARTITION BY state
                                    ORDER BY reason = 'not_known', count DESC, reason) - count AS before
            FROM (
                SELECT state, reason, sum(count) AS count
                FROM state_counts
                WHERE campaign_id = f.campaign_id AND state IN ('expired', 'cancelled', 'excluded')
                GROUP BY state, reason
                UNION ALL
                SELECT state, 'not_known', (f.figures ->> state)::bigint
                FROM unnest(ARRAY['expired', 'cancelled', 'excluded']) AS state
            ) AS counted
            WHERE count > 0
        ) AS placed
        WHERE before < wanted), '{}')
"""


def upgrade() -> None:
    op.execute(ASSUMED_SENT)
    op.add_column("finishes", sa.Column("not_requested", JSONB(), server_default=sa.text("'{}'"), nullable=False))
    op.execute(NOT_REQUESTED)
    op.create_table(
        "lease_returns",
        sa.Column("shard", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("shard", name=op.f("lease_returns_pkey")),
    )


def downgrade() -> None:
    op.drop_table("lease_returns")
    op.drop_column("finishes", "not_requested")  # assumed_sent stays: one figure more hurts nobody
