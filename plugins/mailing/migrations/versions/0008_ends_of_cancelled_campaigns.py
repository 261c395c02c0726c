"""A campaign that is cancelled has an end, whoever cancels it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# Plain SQL that cancels a campaign says no more than that; without the moment its end could not be written down. One
# that goes on again has no end any more, so that the next one is another.
KEEP_END = """
    CREATE FUNCTION campaigns_keep_end() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.status = 'cancelled' THEN
            NEW.finished_at := coalesce(NEW.finished_at, clock_timestamp());
        ELSIF NEW.status <> 'finished' THEN
            NEW.finished_at := NULL;
        END IF;
        RETURN NEW;
    END $$
"""
ON_A_STATUS = """
    CREATE TRIGGER campaigns_ended BEFORE INSERT OR UPDATE OF status ON campaigns
        FOR EACH ROW EXECUTE FUNCTION campaigns_keep_end()
"""

# When a campaign was cancelled by SQL nobody knows: not after its row was last written. Upkeep closes those that have
# messages left, and tells of them.
BACKFILL = """
    UPDATE campaigns
    SET finished_at = CASE status WHEN 'cancelled' THEN updated END
    WHERE (status IN ('cancelled', 'finished')) <> (finished_at IS NOT NULL)
"""


def upgrade() -> None:
    op.execute(BACKFILL)
    op.execute(KEEP_END)
    op.execute(ON_A_STATUS)
    op.drop_constraint(op.f("campaigns_finished_has_time_check"), "campaigns")
    op.create_check_constraint(
        "ended_has_time", "campaigns", "(status IN ('cancelled', 'finished')) = (finished_at IS NOT NULL)"
    )
    op.create_index(
        op.f("campaigns_status_sending_stop_idx"),
        "campaigns",
        ["status", "sending_stop"],
        postgresql_where=sa.text("status <> 'finished'"),
    )


def downgrade() -> None:
    op.drop_index(op.f("campaigns_status_sending_stop_idx"), "campaigns")
    op.drop_constraint(op.f("campaigns_ended_has_time_check"), "campaigns")
    op.create_check_constraint("finished_has_time", "campaigns", "status <> 'finished' OR finished_at IS NOT NULL")
    op.execute("DROP FUNCTION campaigns_keep_end() CASCADE")
