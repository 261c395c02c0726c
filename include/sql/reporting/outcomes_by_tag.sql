CREATE OR REPLACE VIEW reporting.outcomes_by_tag AS
-- One row per campaign and tag that its clients have now. A client counts under each of its tags: do not add rows up.
SELECT f.campaign_id,
       c.name AS campaign_name,
       t.name AS tag,
       sum(f.count)::bigint AS messages,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'open'), 0)::bigint AS open,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'sent'), 0)::bigint AS sent,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'failed'), 0)::bigint AS failed,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'unknown'), 0)::bigint AS unknown,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'expired'), 0)::bigint AS expired,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'cancelled'), 0)::bigint AS cancelled,
       coalesce(sum(f.count) FILTER (WHERE f.outcome = 'excluded'), 0)::bigint AS excluded
FROM (
    SELECT m.campaign_id, ct.tag_id, CASE WHEN m.state IN ('pending', 'sending') THEN 'open' ELSE m.state END AS outcome,
           count(*) AS count
    FROM messages m
    LEFT JOIN client_tags ct ON ct.client_id = m.client_id
    GROUP BY 1, 2, 3
) AS f
JOIN campaigns c ON c.id = f.campaign_id
LEFT JOIN tags t ON t.id = f.tag_id
GROUP BY f.campaign_id, c.name, t.name;

COMMENT ON VIEW reporting.outcomes_by_tag IS
    'One row per campaign and tag that its clients have now. A client counts under each of its tags, so do not add rows up; the audience is in campaign_statistics. Read from the ledger: ask for one campaign, or a few. Campaigns whose messages were dropped have no rows.';
COMMENT ON COLUMN reporting.outcomes_by_tag.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.outcomes_by_tag.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.outcomes_by_tag.tag IS 'The tag''s name; empty: clients that have none, or were deleted.';
COMMENT ON COLUMN reporting.outcomes_by_tag.messages IS 'All messages counted in this row: the sum of the next seven columns.';
COMMENT ON COLUMN reporting.outcomes_by_tag.open IS 'Pending, or their request is under way.';
COMMENT ON COLUMN reporting.outcomes_by_tag.sent IS 'The gateway took them, or a person assumed so of what was in doubt. That is not yet: delivered.';
COMMENT ON COLUMN reporting.outcomes_by_tag.failed IS 'The gateway refused them for good, or an operator gave them up.';
COMMENT ON COLUMN reporting.outcomes_by_tag.unknown IS 'In doubt: the request may have been taken and was not answered.';
COMMENT ON COLUMN reporting.outcomes_by_tag.expired IS 'Not sent: the window (or the client''s local hours) closed first.';
COMMENT ON COLUMN reporting.outcomes_by_tag.cancelled IS 'Not sent: the campaign was cancelled.';
COMMENT ON COLUMN reporting.outcomes_by_tag.excluded IS 'Not sent: the client was deleted, or does not match the filter any more.';
