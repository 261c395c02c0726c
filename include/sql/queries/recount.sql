-- The counts that are kept with the ledger, against the ledger (plugins/mailing/recount.py).

-- name: differences
-- One row per figure of a campaign that is not what its messages add up to; `kept` is the figure, `found` what was counted
-- now. Counts by time are compared by quarters of an hour, the widest span that they are kept in. First and last moments
-- (`kept_at`, `found_at`) are those of all that ever was: a claim that was given back has left them earlier than any message says
-- now, but never later. Campaigns whose messages were dropped are left out. One statement, so as of one moment; it reads the
-- whole ledger, or the part of one campaign.
WITH message AS (
    SELECT campaign_id, state, coalesce(reason, '') AS reason,
           CASE WHEN state IN ('pending', 'sending') THEN 'open' ELSE state END AS outcome,
           CASE WHEN state IN ('sent', 'failed', 'unknown')
                THEN date_bin('15 min', coalesce(sent_at, claimed_at), '2000-01-01 00:00Z') END AS since,
           coalesce(mobile_operator_code, '') AS mobile_operator_code,
           count(*) AS found, min(claimed_at) AS first_claimed_at, min(sent_at) AS first_sent_at,
           max(sent_at) AS last_sent_at
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
), found_moment AS (
    SELECT campaign_id, min(first_claimed_at) AS first_claimed_at, min(first_sent_at) AS first_sent_at,
           max(last_sent_at) AS last_sent_at
    FROM message
    GROUP BY campaign_id
), kept_moment AS (
    SELECT campaign_id, min(first_claimed_at) AS first_claimed_at, min(first_sent_at) AS first_sent_at,
           max(last_sent_at) AS last_sent_at
    FROM state_counts
    GROUP BY campaign_id
), difference AS (
    SELECT campaign_id, figure, sum(kept)::bigint AS kept, sum(found)::bigint AS found,
           NULL::timestamptz AS kept_at, NULL::timestamptz AS found_at
    FROM figure
    GROUP BY campaign_id, figure
    HAVING sum(kept) <> sum(found)
    UNION ALL
    SELECT f.campaign_id, m.figure, NULL, NULL, m.kept_at, m.found_at
    FROM found_moment f
    LEFT JOIN kept_moment k ON k.campaign_id = f.campaign_id
    CROSS JOIN LATERAL (
        VALUES ('first claim', k.first_claimed_at, f.first_claimed_at, k.first_claimed_at <= f.first_claimed_at),
               ('first sent', k.first_sent_at, f.first_sent_at, k.first_sent_at <= f.first_sent_at),
               ('last sent', k.last_sent_at, f.last_sent_at, k.last_sent_at >= f.last_sent_at)
    ) AS m (figure, kept_at, found_at, is_right)
    WHERE m.found_at IS NOT NULL AND m.is_right IS NOT TRUE
)
SELECT d.campaign_id, d.figure, d.kept, d.found, d.kept_at, d.found_at
FROM difference d
LEFT JOIN campaigns c ON c.id = d.campaign_id
WHERE c.archived_at IS NULL
  AND (%(campaign_id)s::bigint IS NULL OR d.campaign_id = %(campaign_id)s)
ORDER BY d.campaign_id, d.figure

-- name: messages_counted
-- Of the campaigns that `differences` looks at.
SELECT coalesce(sum(s.count), 0)::bigint AS count
FROM state_counts s
LEFT JOIN campaigns c ON c.id = s.campaign_id
WHERE c.archived_at IS NULL
  AND (%(campaign_id)s::bigint IS NULL OR s.campaign_id = %(campaign_id)s)
