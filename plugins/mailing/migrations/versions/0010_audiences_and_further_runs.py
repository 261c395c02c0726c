"""What comes back must match an edited filter; a task lets go only of what a later run has named."""

from __future__ import annotations

import importlib

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Of the campaigns that are there: the filter was another one since they opened. Nobody "writes" them by this: by that
# moment (`updated`) retention goes.
REFILTERED = """
    ALTER TABLE campaigns DISABLE TRIGGER campaigns_before_write;
    UPDATE campaigns c
    SET refiltered = true
    WHERE c.opened_at IS NOT NULL AND c.archived_at IS NULL AND c.status <> 'cancelled' AND EXISTS (
        SELECT FROM campaign_revisions r
        WHERE r.campaign_id = c.id
          AND r.revision >= (SELECT max(o.revision) FROM campaign_revisions o
                             WHERE o.campaign_id = c.id AND o.created <= c.opened_at)
          AND (r.filter_tags, r.filter_operator_codes) IS DISTINCT FROM (c.filter_tags, c.filter_operator_codes));
    ALTER TABLE campaigns ENABLE TRIGGER campaigns_before_write;
"""

# What an edit of a campaign entails, whoever makes it:
# a later stop  → the campaign is open again: what had expired may be sent, and a run to send it (also where nothing has
#                 expired so far: tasks end a moment before the stop, and nobody swept up behind them yet). Where the
#                 filter was edited since the campaign opened, only what matches: what had expired did not follow it.
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
        NEW.refiltered := NEW.refiltered OR is_filter_new;
        IF NEW.sending_stop > clock_timestamp()
            AND (NEW.sending_stop > OLD.sending_stop
                 OR (NEW.local_from, NEW.local_to) IS DISTINCT FROM (OLD.local_from, OLD.local_to))
        THEN
            IF NEW.refiltered AND NOT is_filter_new THEN
                UPDATE messages m SET state = 'excluded', reason = 'filter'
                WHERE m.campaign_id = NEW.id AND m.state = 'expired' AND NOT EXISTS (
                    SELECT FROM clients_matching(NEW.filter_tags, NEW.filter_operator_codes) AS matching
                    WHERE matching.id = m.client_id);
            END IF;
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


def upgrade() -> None:
    op.add_column("campaigns", sa.Column("refiltered", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("campaigns", sa.Column("mapped_at", sa.DateTime(timezone=True), nullable=True))
    op.execute(REFILTERED)
    op.execute(AFTER_AN_EDIT)


def downgrade() -> None:
    before = importlib.import_module("mailing.migrations.versions.0003_limits_and_reopening")
    op.execute(before.AFTER_AN_EDIT)
    op.drop_column("campaigns", "mapped_at")
    op.drop_column("campaigns", "refiltered")
