CREATE OR REPLACE VIEW reporting.outcomes_by_hour AS
-- One row per campaign and hour in which its messages were sent (or last requested); the messages add up to its audience.
SELECT t.campaign_id,
       c.name AS campaign_name,
       -- By whole hours of UTC, whatever the session's zone; what had no request is counted at -infinity.
       CASE WHEN t.since > '-infinity' THEN date_trunc('hour', t.since, 'UTC') END AS hour,
       sum(t.count)::bigint AS messages,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'open'), 0)::bigint AS open,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'sent'), 0)::bigint AS sent,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'failed'), 0)::bigint AS failed,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'unknown'), 0)::bigint AS unknown,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'expired'), 0)::bigint AS expired,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'cancelled'), 0)::bigint AS cancelled,
       coalesce(sum(t.count) FILTER (WHERE t.outcome = 'excluded'), 0)::bigint AS excluded
FROM time_counts t
JOIN campaigns c ON c.id = t.campaign_id
GROUP BY t.campaign_id, c.name, 3
HAVING sum(t.count) <> 0;

COMMENT ON VIEW reporting.outcomes_by_hour IS
    'One row per campaign and hour: its messages, each by the hour (of UTC) in which it was sent or, of those that failed or are in doubt, its last request began. All rows of a campaign add up to its audience. Kept for good, also when the messages are dropped.';
COMMENT ON COLUMN reporting.outcomes_by_hour.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.outcomes_by_hour.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.outcomes_by_hour.hour IS 'When the hour begins: a whole hour of UTC. Empty: messages without a request (waiting, expired, cancelled, excluded).';
COMMENT ON COLUMN reporting.outcomes_by_hour.messages IS 'All messages counted in this row: the sum of the next seven columns.';
COMMENT ON COLUMN reporting.outcomes_by_hour.open IS 'Pending, or their request is under way.';
COMMENT ON COLUMN reporting.outcomes_by_hour.sent IS 'The gateway took them, or a person assumed so of what was in doubt. That is not yet: delivered.';
COMMENT ON COLUMN reporting.outcomes_by_hour.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.outcomes_by_hour.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.outcomes_by_hour.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.outcomes_by_hour.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.outcomes_by_hour.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
