-- The daily report's statements, each loaded by its name (plugins/mailing/db.py). A message counts on the day (%(since)s to
-- %(until)s) in which the last request for it began, as time_counts has it: by spans that end at every zone's midnight.

-- name: as_of
SELECT clock_timestamp() AS as_of

-- name: campaigns_of_day
-- One row per campaign that was open on the day, ended on it or asked the gateway for something in it. `elsewhere`: its messages whose
-- request was not on this day; `is_growing`: its audience was still to grow after it. What expired, was cancelled or
-- excluded has no time of its own: it counts on the day on which its campaign ended (`ended_at`).
SELECT c.id AS campaign, coalesce(c.name, '') AS name, c.sending_start, c.sending_stop, c.archived_at IS NOT NULL AS is_archived,
       e.ended_at, c.audience = 'live' AND e.ended_at IS NULL AS is_growing, s.audience, t.earlier, t.elsewhere,
       t.sent, t.failed, t.unknown, s.expired, s.cancelled, s.excluded
FROM campaigns c
CROSS JOIN LATERAL (SELECT CASE WHEN c.finished_at < %(until)s THEN c.finished_at END AS ended_at) AS e
CROSS JOIN LATERAL (
    SELECT coalesce(sum(count), 0)::bigint AS audience,
           coalesce(sum(count) FILTER (WHERE state = 'expired'), 0)::bigint AS expired,
           coalesce(sum(count) FILTER (WHERE state = 'cancelled'), 0)::bigint AS cancelled,
           coalesce(sum(count) FILTER (WHERE state = 'excluded'), 0)::bigint AS excluded
    FROM state_counts
    WHERE campaign_id = c.id
) AS s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(count) FILTER (WHERE outcome = 'sent' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS sent,
           coalesce(sum(count) FILTER (WHERE outcome = 'failed' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS failed,
           coalesce(sum(count) FILTER (WHERE outcome = 'unknown' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS unknown,
           coalesce(sum(count) FILTER (WHERE since < %(since)s), 0)::bigint AS earlier,
           coalesce(sum(count) FILTER (WHERE since < %(since)s OR since >= %(until)s), 0)::bigint AS elsewhere
    FROM time_counts
    WHERE campaign_id = c.id AND outcome IN ('sent', 'failed', 'unknown')
) AS t
-- A request in flight when its campaign ended may be told a little later.
WHERE (c.finished_at IS NULL OR c.finished_at > %(since)s - interval '1 day')
  AND (c.sending_start < %(until)s AND c.sending_stop > %(since)s AND (c.finished_at IS NULL OR c.finished_at >= %(since)s)
       OR c.finished_at >= %(since)s AND c.finished_at < %(until)s
       OR t.sent + t.failed + t.unknown > 0)
ORDER BY c.sending_start, c.id

-- name: requests_by_hour
-- Messages of these campaigns by outcome and by the number of the hour (from 1); `borders` are the beginnings of the hours
-- and the end of the last.
SELECT width_bucket(since, %(borders)s::timestamptz[]) AS hour, outcome, sum(count)::bigint AS count
FROM time_counts
WHERE campaign_id = ANY (%(ids)s::bigint[])
  AND outcome IN ('sent', 'failed', 'unknown')
  AND since >= %(since)s
  AND since < %(until)s
GROUP BY 1, 2
HAVING sum(count) <> 0

-- name: requests_by_operator_code
-- By outcome and the operator code that the client had when it was chosen ('': not known). Of campaigns that had all their
-- requests on this day (`whole`) from the kept counts, which know no time; of others (`split`) counted from the ledger: reads
-- their part of it by messages_campaign_id_client_id_key.
SELECT mobile_operator_code AS operator_code, outcome, sum(count)::bigint AS count
FROM (
    SELECT mobile_operator_code, outcome, count
    FROM operator_counts
    WHERE campaign_id = ANY (%(whole)s::bigint[]) AND outcome IN ('sent', 'failed', 'unknown')
    UNION ALL
    SELECT coalesce(mobile_operator_code, ''), state, count(*)
    FROM messages
    WHERE campaign_id = ANY (%(split)s::bigint[])
      AND state IN ('sent', 'failed', 'unknown')
      AND coalesce(sent_at, claimed_at) >= %(since)s
      AND coalesce(sent_at, claimed_at) < %(until)s
    GROUP BY 1, 2
) AS counted
GROUP BY 1, 2
HAVING sum(count) <> 0

-- name: reasons
-- Why messages failed or are in doubt (as requests_by_operator_code), and why messages of the campaigns that ended on this
-- day (`ended`) were not sent at all.
SELECT state AS outcome, reason, sum(count)::bigint AS messages
FROM (
    SELECT state, reason, count
    FROM state_counts
    WHERE campaign_id = ANY (%(whole)s::bigint[]) AND state IN ('failed', 'unknown')
       OR campaign_id = ANY (%(ended)s::bigint[]) AND state IN ('expired', 'cancelled', 'excluded')
    UNION ALL
    SELECT state, coalesce(reason, ''), count(*)
    FROM messages
    WHERE campaign_id = ANY (%(split)s::bigint[])
      AND state IN ('failed', 'unknown')
      AND claimed_at >= %(since)s
      AND claimed_at < %(until)s
    GROUP BY 1, 2
) AS counted
GROUP BY 1, 2
HAVING sum(count) <> 0
ORDER BY messages DESC, outcome, reason
