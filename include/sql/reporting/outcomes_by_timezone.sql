CREATE OR REPLACE VIEW reporting.outcomes_by_timezone AS
-- One row per campaign and time zone that its clients have now; the messages add up to its audience.
SELECT f.campaign_id,
       c.name AS campaign_name,
       f.timezone,
       sum(f.count)::bigint AS messages,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'open'), 0)::bigint AS open,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'sent'), 0)::bigint AS sent,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'failed'), 0)::bigint AS failed,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'unknown'), 0)::bigint AS unknown,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'expired'), 0)::bigint AS expired,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'cancelled'), 0)::bigint AS cancelled,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'excluded'), 0)::bigint AS excluded
FROM (
    SELECT m.campaign_id, cl.timezone, CASE WHEN m.state IN ('pending', 'sending') THEN 'open' ELSE m.state END AS outcome,
           count(*) AS count
    FROM messages m
    LEFT JOIN clients cl ON cl.id = m.client_id
    GROUP BY 1, 2, 3
) AS f
JOIN campaigns c ON c.id = f.campaign_id
GROUP BY f.campaign_id, c.name, f.timezone;

COMMENT ON VIEW reporting.outcomes_by_timezone IS
    'One row per campaign and time zone that its clients have now. All rows of a campaign add up to its audience. Read from the ledger: ask for one campaign, or a few. Campaigns whose messages were dropped have no rows.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.timezone IS 'An IANA name; empty: clients that were deleted.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.messages IS 'All messages counted in this row: the sum of the next seven columns.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.open IS 'Pending, or their request is under way.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.sent IS 'The gateway took them, or a person assumed so of what was in doubt. That is not yet: delivered.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.outcomes_by_timezone.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
