CREATE OR REPLACE VIEW reporting.campaign_statistics AS
-- One row per campaign. The eight states always add up to the audience.
SELECT c.id AS campaign_id,
       c.name AS campaign_name,
       c.status,
       c.sending_start,
       c.sending_stop,
       c.revision,
       s.audience,
       s.pending,
       s.sending,
       s.sent,
       s.failed,
       s.unknown,
       s.expired,
       s.cancelled,
       s.excluded,
       s.first_claimed_at,
       s.first_sent_at,
       s.last_sent_at,
       c.opened_at,
       c.finished_at,
       c.archived_at,
       s.assumed_sent
FROM campaigns c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(count), 0)::bigint AS audience,
           coalesce(sum(count) FILTER (WHERE state = 'pending'), 0)::bigint AS pending,
           coalesce(sum(count) FILTER (WHERE state = 'sending'), 0)::bigint AS sending,
           coalesce(sum(count) FILTER (WHERE state = 'sent'), 0)::bigint AS sent,
           coalesce(sum(count) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
           coalesce(sum(count) FILTER (WHERE state = 'unknown'), 0)::bigint AS unknown,
           coalesce(sum(count) FILTER (WHERE state = 'expired'), 0)::bigint AS expired,
           coalesce(sum(count) FILTER (WHERE state = 'cancelled'), 0)::bigint AS cancelled,
           coalesce(sum(count) FILTER (WHERE state = 'excluded'), 0)::bigint AS excluded,
           coalesce(sum(count) FILTER (WHERE state = 'sent' AND reason = 'assumed_sent'), 0)::bigint AS assumed_sent,
           min(first_claimed_at) AS first_claimed_at,
           min(first_sent_at) AS first_sent_at,
           max(last_sent_at) AS last_sent_at
    FROM state_counts
    WHERE state_counts.campaign_id = c.id
) AS s;

COMMENT ON VIEW reporting.campaign_statistics IS
    'One row per campaign: its window, its status, and its messages by state. The eight states add up to the audience, at every moment. Kept for good, also when the messages are dropped.';
COMMENT ON COLUMN reporting.campaign_statistics.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.campaign_statistics.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.campaign_statistics.status IS 'scheduled, running, paused, cancelled or finished.';
COMMENT ON COLUMN reporting.campaign_statistics.sending_start IS 'Nothing leaves before.';
COMMENT ON COLUMN reporting.campaign_statistics.sending_stop IS 'Nothing leaves from then on.';
COMMENT ON COLUMN reporting.campaign_statistics.revision IS 'Counts the changes of its text, filter and window; the first is 1.';
COMMENT ON COLUMN reporting.campaign_statistics.audience IS 'All its messages, one for each client that was chosen. 0 before it opens.';
COMMENT ON COLUMN reporting.campaign_statistics.pending IS 'To be sent.';
COMMENT ON COLUMN reporting.campaign_statistics.sending IS 'Their request is under way.';
COMMENT ON COLUMN reporting.campaign_statistics.sent IS 'The gateway took them, or a person assumed so (assumed_sent). That is not yet: delivered.';
COMMENT ON COLUMN reporting.campaign_statistics.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.campaign_statistics.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.campaign_statistics.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.campaign_statistics.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.campaign_statistics.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
COMMENT ON COLUMN reporting.campaign_statistics.first_claimed_at IS 'When its first message was claimed, just before its request; empty: none so far.';
COMMENT ON COLUMN reporting.campaign_statistics.first_sent_at IS 'When the gateway took the first one (of one that is assumed sent: when its request began); empty: none so far.';
COMMENT ON COLUMN reporting.campaign_statistics.last_sent_at IS 'When the gateway took the last one so far (of one that is assumed sent: when its request began).';
COMMENT ON COLUMN reporting.campaign_statistics.opened_at IS 'When its audience was chosen; empty: not yet.';
COMMENT ON COLUMN reporting.campaign_statistics.finished_at IS 'When it finished or was cancelled.';
COMMENT ON COLUMN reporting.campaign_statistics.archived_at IS 'When its messages were dropped (retention); from then on only its counts are left.';
COMMENT ON COLUMN reporting.campaign_statistics.assumed_sent IS 'Of those that are sent: what was in doubt, and a person assumed to be sent.';
