"""Ends of campaigns say how many of their sent messages a person had assumed to be sent."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0007"
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


def upgrade() -> None:
    op.execute(ASSUMED_SENT)


def downgrade() -> None:
    pass  # one figure more hurts nobody
