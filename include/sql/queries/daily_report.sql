-- The daily report's statements, each loaded by its name (plugins/mailing/db.py). A message counts on the day (%(since)s to
-- %(until)s) in which it was sent or, if it failed or is in doubt, its last request began, as time_counts has it: by spans that
-- end at every zone's midnight.

-- name: as_of
SELECT clock_timestamp() AS as_of

-- name: campaigns_of_day
-- One row per campaign that was open on the day, ended on it or asked the gateway for something in it. `elsewhere`: its messages whose
-- request was not on this day.
--
-- How it stood when the day was over is told by its ends, which do not change: `is_over`, the last one (before %(until)s) still
-- stood then, for no more was requested up to %(until)s than up to that end. `told` are the figures as of it; else as of the next
-- end, or of now. `is_open_ended`: what its audience was then nobody knows any more. What expired, was cancelled or excluded has
-- no time of its own and counts on the day on which its campaign ended: `not_requested` is what there was at its last end,
-- and `not_requested_before` at its last one before the day.
SELECT c.id AS campaign, coalesce(c.name, '') AS name, c.archived_at IS NOT NULL AS is_archived,
       coalesce((told.figures ->> 'sending_start')::timestamptz, c.sending_start) AS sending_start,
       coalesce((told.figures ->> 'sending_stop')::timestamptz, c.sending_stop) AS sending_stop,
       CASE WHEN o.is_over OR last.finished_at >= %(since)s THEN last.finished_at END AS ended_at,
       o.is_over, NOT o.is_over AND (c.audience = 'live' OR e.last IS NOT NULL) AS is_open_ended,
       coalesce((told.figures ->> 'audience')::bigint, s.audience) AS audience, t.earlier, t.elsewhere,
       t.sent, t.failed, t.unknown, last.not_requested, before.not_requested AS not_requested_before
FROM campaigns c
CROSS JOIN LATERAL (SELECT coalesce(sum(count), 0)::bigint AS audience FROM state_counts WHERE campaign_id = c.id) AS s
CROSS JOIN LATERAL (
    SELECT coalesce(sum(count) FILTER (WHERE outcome = 'sent' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS sent,
           coalesce(sum(count) FILTER (WHERE outcome = 'failed' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS failed,
           coalesce(sum(count) FILTER (WHERE outcome = 'unknown' AND since >= %(since)s AND since < %(until)s), 0)::bigint AS unknown,
           coalesce(sum(count) FILTER (WHERE since < %(since)s), 0)::bigint AS earlier,
           coalesce(sum(count) FILTER (WHERE since < %(since)s OR since >= %(until)s), 0)::bigint AS elsewhere
    FROM time_counts
    WHERE campaign_id = c.id AND outcome IN ('sent', 'failed', 'unknown')
) AS t
CROSS JOIN LATERAL (
    SELECT max(number) FILTER (WHERE finished_at < %(since)s) AS before,
           max(number) FILTER (WHERE finished_at < %(until)s) AS last,
           min(number) FILTER (WHERE finished_at >= %(until)s) AS next
    FROM finishes
    WHERE campaign_id = c.id
) AS e
LEFT JOIN finishes before ON before.campaign_id = c.id AND before.number = e.before
LEFT JOIN finishes last ON last.campaign_id = c.id AND last.number = e.last
CROSS JOIN LATERAL (
    SELECT coalesce(t.earlier + t.sent + t.failed + t.unknown
                    <= (last.figures ->> 'sent')::bigint + (last.figures ->> 'failed')::bigint
                       + (last.figures ->> 'unknown')::bigint, false) AS is_over
) AS o
LEFT JOIN finishes told ON told.campaign_id = c.id AND told.number = CASE WHEN o.is_over THEN e.last ELSE e.next END
-- A request in flight when its campaign ended may be told a little later. Whatever ended before has nothing on this day.
WHERE (c.finished_at IS NULL OR c.finished_at > %(since)s - interval '1 day')
  AND (last.finished_at >= %(since)s
       OR t.sent + t.failed + t.unknown > 0
       OR NOT o.is_over
          AND coalesce((told.figures ->> 'sending_start')::timestamptz, c.sending_start) < %(until)s
          AND coalesce((told.figures ->> 'sending_stop')::timestamptz, c.sending_stop) > %(since)s)
ORDER BY 4, c.id

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
-- Why messages failed or are in doubt, as requests_by_operator_code.
SELECT state AS outcome, reason, sum(count)::bigint AS messages
FROM (
    SELECT state, reason, count
    FROM state_counts
    WHERE campaign_id = ANY (%(whole)s::bigint[]) AND state IN ('failed', 'unknown')
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
