"""A part of the ledger that was dropped stays dropped.

`ledger_part` refuses a campaign whose part is gone, instead of leaving it without one.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# As in 0006 but for the refusal: a campaign whose part was dropped can never get messages again.
PARTS = """
    CREATE OR REPLACE FUNCTION ledger_part(for_campaign bigint) RETURNS void LANGUAGE plpgsql AS $$
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


def upgrade() -> None:
    op.execute(PARTS)


def downgrade() -> None:
    # The views read the tables that earlier migrations take back; they are made anew after an upgrade.
    op.execute("DROP SCHEMA IF EXISTS reporting CASCADE")
