CREATE OR REPLACE VIEW reporting.campaign_finishes AS
-- One row per time that a campaign ended, and whether other pipelines were told.
SELECT f.campaign_id,
       c.name AS campaign_name,
       f.number AS finish,
       f.figures ->> 'status' AS status,
       f.finished_at,
       (f.figures ->> 'audience')::bigint AS audience,
       (f.figures ->> 'sent')::bigint AS sent,
       f.announced_at,
       f.webhook_state,
       f.webhook_attempts,
       f.webhook_at,
       f.webhook_error,
       (f.figures ->> 'assumed_sent')::bigint AS assumed_sent
FROM finishes f
JOIN campaigns c ON c.id = f.campaign_id;

COMMENT ON VIEW reporting.campaign_finishes IS
    'One row per time that a campaign ended (one that is opened again ends again), with the figures of that moment, and whether other pipelines were told: by asset event, by webhook.';
COMMENT ON COLUMN reporting.campaign_finishes.campaign_id IS 'The campaign.';
COMMENT ON COLUMN reporting.campaign_finishes.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.campaign_finishes.finish IS 'Which end of the campaign it is, from 1.';
COMMENT ON COLUMN reporting.campaign_finishes.status IS 'finished or cancelled.';
COMMENT ON COLUMN reporting.campaign_finishes.finished_at IS 'When it ended.';
COMMENT ON COLUMN reporting.campaign_finishes.audience IS 'All its messages at that moment.';
COMMENT ON COLUMN reporting.campaign_finishes.sent IS 'Of these, what the gateway had taken, or a person had assumed so (assumed_sent).';
COMMENT ON COLUMN reporting.campaign_finishes.announced_at IS 'When its asset events were emitted; empty: not yet.';
COMMENT ON COLUMN reporting.campaign_finishes.webhook_state IS 'pending, delivered, given_up (after three days), or off (for three days there was no webhook).';
COMMENT ON COLUMN reporting.campaign_finishes.webhook_attempts IS 'How often it was posted, or tried to be.';
COMMENT ON COLUMN reporting.campaign_finishes.webhook_at IS 'pending: when it is tried next; otherwise when that ended.';
COMMENT ON COLUMN reporting.campaign_finishes.webhook_error IS 'Why the last attempt failed.';
COMMENT ON COLUMN reporting.campaign_finishes.assumed_sent IS 'Of those that were sent: what had been in doubt, and a person had assumed to be sent.';
