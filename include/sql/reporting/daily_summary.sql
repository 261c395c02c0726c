CREATE OR REPLACE VIEW reporting.daily_summary AS
-- One row per day (of the session's TimeZone) in which messages were sent (or last requested); the messages add up to all audiences.
SELECT d.day,
       count(*) FILTER (WHERE d.messages <> 0) AS campaigns,
       sum(d.messages)::bigint AS messages,
       sum(d.open)::bigint AS open,
       sum(d.sent)::bigint AS sent,
       sum(d.failed)::bigint AS failed,
       sum(d.unknown)::bigint AS unknown,
       sum(d.expired)::bigint AS expired,
       sum(d.cancelled)::bigint AS cancelled,
       sum(d.excluded)::bigint AS excluded
FROM (
    -- Counts by time are never wider than a quarter of an hour, so that the midnights of every zone lie between two of them.
    SELECT CASE WHEN t.since > '-infinity' THEN t.since::date END AS day,
           t.campaign_id,
           sum(t.count)::bigint AS messages,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'open'), 0)::bigint AS open,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'sent'), 0)::bigint AS sent,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'failed'), 0)::bigint AS failed,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'unknown'), 0)::bigint AS unknown,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'expired'), 0)::bigint AS expired,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'cancelled'), 0)::bigint AS cancelled,
           coalesce(sum(t.count) FILTER (WHERE t.outcome = 'excluded'), 0)::bigint AS excluded
    FROM time_counts t
    GROUP BY 1, 2
) AS d
GROUP BY d.day
HAVING sum(d.messages) <> 0;

COMMENT ON VIEW reporting.daily_summary IS
    'One row per day: the messages of all campaigns, each by the day on which each was sent or, of those that failed or are in doubt, its last request began. Days are those of the session''s time zone (SET TimeZone = ''Europe/Moscow''). All rows add up to all audiences. Kept for good, also when the messages are dropped.';
COMMENT ON COLUMN reporting.daily_summary.day IS 'The day, in the session''s time zone. Empty: messages without a request (waiting, expired, cancelled, excluded).';
COMMENT ON COLUMN reporting.daily_summary.campaigns IS 'How many campaigns these messages are of.';
COMMENT ON COLUMN reporting.daily_summary.messages IS 'All messages counted in this row: the sum of the next seven columns.';
COMMENT ON COLUMN reporting.daily_summary.open IS 'Pending, or their request is under way.';
COMMENT ON COLUMN reporting.daily_summary.sent IS 'The gateway took them, or a person assumed so of what was in doubt. That is not yet: delivered.';
COMMENT ON COLUMN reporting.daily_summary.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.daily_summary.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.daily_summary.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.daily_summary.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.daily_summary.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
