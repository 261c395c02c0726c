-- How campaigns ended, and what is still to be told of it. Loaded by name (plugins/mailing/db.py).

-- name: record_finish
-- The end that the campaign has come to, unless it is known: with the figures as they are now. Its row is locked by who
-- calls, so that the numbers are counted by one at a time.
INSERT INTO finishes (campaign_id, number, finished_at, figures, not_requested)
SELECT s.campaign_id, n.number, s.finished_at,
       jsonb_build_object('event_id', 'campaign-' || s.campaign_id || '-finish-' || n.number,
                          'campaign_id', s.campaign_id, 'name', s.campaign_name, 'status', s.status,
                          'finish', n.number, 'revision', s.revision,
                          'sending_start', s.sending_start, 'sending_stop', s.sending_stop,
                          'opened_at', s.opened_at, 'finished_at', s.finished_at,
                          'audience', s.audience, 'pending', s.pending, 'sending', s.sending, 'sent', s.sent,
                          'assumed_sent', s.assumed_sent,
                          'failed', s.failed, 'unknown', s.unknown, 'expired', s.expired,
                          'cancelled', s.cancelled, 'excluded', s.excluded),
       coalesce((SELECT jsonb_object_agg(r.state || ' ' || r.reason, r.count)
                 FROM (SELECT state, reason, sum(count)::bigint AS count
                       FROM state_counts
                       WHERE campaign_id = s.campaign_id AND state IN ('expired', 'cancelled', 'excluded')
                       GROUP BY state, reason
                       HAVING sum(count) > 0) AS r), '{}')
FROM reporting.campaign_statistics s
CROSS JOIN LATERAL (
    SELECT coalesce(max(f.number), 0) + 1 AS number FROM finishes f WHERE f.campaign_id = s.campaign_id
) AS n
WHERE s.campaign_id = %(campaign_id)s AND s.status IN ('finished', 'cancelled')
ON CONFLICT (campaign_id, finished_at) DO NOTHING

-- name: standing_finish
-- How the campaign ended; no row while it goes on (or again).
SELECT f.figures
FROM finishes f
JOIN campaigns c ON c.id = f.campaign_id AND c.finished_at = f.finished_at
WHERE c.id = %(campaign_id)s AND c.status IN ('finished', 'cancelled')

-- name: take_unannounced
-- What no task has taken upon itself to announce; it is this task's from here on.
UPDATE finishes
SET announced_at = clock_timestamp()
WHERE announced_at IS NULL AND NOT is_confirmed
  AND (%(campaign_id)s::bigint IS NULL OR campaign_id = %(campaign_id)s)
RETURNING figures

-- name: finishes_to_confirm
-- What was taken so long ago that the task that took it has told Airflow, or died before it could.
SELECT campaign_id, number, announced_at, figures
FROM finishes
WHERE announced_at <= clock_timestamp() - %(patience)s AND NOT is_confirmed
ORDER BY announced_at
LIMIT %(limit)s

-- name: confirm_finish
UPDATE finishes SET is_confirmed = true WHERE campaign_id = %(campaign_id)s AND number = %(number)s

-- name: take_again
-- Unless somebody else has taken it meanwhile.
UPDATE finishes SET announced_at = clock_timestamp()
WHERE campaign_id = %(campaign_id)s AND number = %(number)s AND announced_at = %(announced_at)s AND NOT is_confirmed

-- name: take_webhook
-- The next that is due. It counts as an attempt, and is due again later: who dies over it, or is slow, has
-- it tried again, and by nobody else meanwhile.
UPDATE finishes f
SET webhook_attempts = webhook_attempts + 1,
    webhook_at = clock_timestamp()
        + least(%(first_wait)s * power(2, least(webhook_attempts, 20)), %(longest_wait)s::interval)
FROM (
    SELECT campaign_id, number
    FROM finishes
    WHERE webhook_state = 'pending' AND webhook_at <= clock_timestamp()
      AND (%(campaign_id)s::bigint IS NULL OR campaign_id = %(campaign_id)s)
    ORDER BY webhook_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
) AS due
WHERE f.campaign_id = due.campaign_id AND f.number = due.number
RETURNING f.campaign_id, f.number, f.webhook_attempts, f.figures,
          f.created <= clock_timestamp() - %(given_up_after)s AS is_last

-- name: settle_webhook
UPDATE finishes
SET webhook_state = %(state)s, webhook_error = %(error)s,
    webhook_at = CASE %(state)s WHEN 'pending' THEN webhook_at ELSE clock_timestamp() END
WHERE campaign_id = %(campaign_id)s AND number = %(number)s AND webhook_state = 'pending'

-- name: forgo_webhooks
-- No connection is found. Airflow says the same of a store of connections that is away for a moment: so nothing that was
-- ever tried is forgone (there is a webhook), nor what would still be tried if there were one.
UPDATE finishes SET webhook_state = 'off', webhook_at = clock_timestamp()
WHERE webhook_state = 'pending' AND webhook_attempts = 0 AND created <= clock_timestamp() - %(patience)s
RETURNING campaign_id, number
