-- The counts that are kept with the ledger, against the ledger (plugins/mailing/recount.py).

-- name: differences
-- One row per figure of a campaign that is not what its messages add up to; `kept` is the figure, `found` what was counted
-- now. Times are compared by quarters of an hour, the widest span that they are kept in. Campaigns whose messages were
-- dropped are left out. One statement, so as of one moment; it reads the whole ledger, or the part of one campaign.
WITH message AS (
    SELECT campaign_id, state, coalesce(reason, '') AS reason,
           CASE WHEN state IN ('pending', 'sending') THEN 'open' ELSE state END AS outcome,
           CASE WHEN state IN ('sent', 'failed', 'unknown')
                THEN date_bin('15 min', coalesce(sent_at, claimed_at), '2000-01-01 00:00Z') END AS since,
           coalesce(mobile_operator_code, '') AS mobile_operator_code,
           count(*) AS found
    FROM messages
    WHERE %(campaign_id)s::bigint IS NULL OR campaign_id = %(campaign_id)s
    GROUP BY 1, 2, 3, 4, 5, 6
), figure AS (
    SELECT campaign_id, 'state ' || state || rtrim(' ' || reason) AS figure, 0 AS kept, found FROM message
    UNION ALL
    SELECT campaign_id, 'time ' || outcome || coalesce(' ' || since, ''), 0, found FROM message
    UNION ALL
    SELECT campaign_id, 'operator code ' || mobile_operator_code || ' ' || outcome, 0, found FROM message
    UNION ALL
    SELECT campaign_id, 'state ' || state || rtrim(' ' || reason), count, 0 FROM state_counts
    UNION ALL
    SELECT campaign_id,
           'time ' || outcome || coalesce(' ' || nullif(date_bin('15 min', since, '2000-01-01 00:00Z'), '-infinity'), ''),
           count, 0
    FROM time_counts
    UNION ALL
    SELECT campaign_id, 'operator code ' || mobile_operator_code || ' ' || outcome, count, 0 FROM operator_counts
)
SELECT f.campaign_id, f.figure, sum(f.kept)::bigint AS kept, sum(f.found)::bigint AS found
FROM figure f
LEFT JOIN campaigns c ON c.id = f.campaign_id
WHERE c.archived_at IS NULL
  AND (%(campaign_id)s::bigint IS NULL OR f.campaign_id = %(campaign_id)s)
GROUP BY f.campaign_id, f.figure
HAVING sum(f.kept) <> sum(f.found)
ORDER BY f.campaign_id, f.figure

-- name: messages_counted
SELECT coalesce(sum(count), 0)::bigint AS count
FROM state_counts
WHERE %(campaign_id)s::bigint IS NULL OR campaign_id = %(campaign_id)s
