CREATE OR REPLACE VIEW reporting.outcomes_by_operator_code AS
-- One row per campaign and operator code of its clients; the messages add up to its audience.
SELECT o.campaign_id,
       c.name AS campaign_name,
       nullif(o.mobile_operator_code, '') AS mobile_operator_code,
       sum(o.count)::bigint AS messages,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'open'), 0)::bigint AS open,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'sent'), 0)::bigint AS sent,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'failed'), 0)::bigint AS failed,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'unknown'), 0)::bigint AS unknown,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'expired'), 0)::bigint AS expired,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'cancelled'), 0)::bigint AS cancelled,
       coalesce(sum(o.count) FILTER (WHERE o.outcome = 'excluded'), 0)::bigint AS excluded
FROM operator_counts o
JOIN campaigns c ON c.id = o.campaign_id
GROUP BY o.campaign_id, c.name, o.mobile_operator_code
HAVING sum(o.count) <> 0;

COMMENT ON VIEW reporting.outcomes_by_operator_code IS
    'One row per campaign and operator code that its clients had when they were chosen. All rows of a campaign add up to its audience. Kept for good, also when the messages are dropped.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.mobile_operator_code IS 'Three digits; empty: not known (the client was deleted before codes were kept).';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.messages IS 'All messages counted in this row: the sum of the next seven columns.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.open IS 'Pending, or their request is under way.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.sent IS 'The gateway took them, or a person assumed so of what was in doubt. That is not yet: delivered.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.outcomes_by_operator_code.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
