"""A campaign's decisions are found by their moments, however many messages each of them was about."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("audit_log_campaign_id_at_idx"), "audit_log", ["campaign_id", "at"])


def downgrade() -> None:
    op.drop_index(op.f("audit_log_campaign_id_at_idx"), "audit_log")
