-- A campaign as one watches it (plugins/mailing/watch.py). Asked every few seconds by each open page: from counts, whatever
-- its size.

-- name: campaign_to_watch
SELECT c.id, c.name, c.status, c.sending_start, c.sending_stop, c.opened_at, c.finished_at, c.archived_at, c.audience AS audience_kind,
       c.local_from, c.local_to, c.revision, clock_timestamp() AS now,
       g.name AS gateway, g.breaker_state, g.breaker_reason, g.breaker_changed_at,
       extract(epoch FROM g.breaker_probe_at - clock_timestamp())::float8 AS probe_in_s
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
WHERE c.id = %(campaign_id)s

-- name: counts
-- One row: its messages by state, and how fast it is.
SELECT s.pending, s.sending, s.sent, s.failed, s.unknown, s.expired, s.cancelled, s.excluded,
       coalesce(p.messages_per_second, 0)::float8 AS messages_per_second
FROM reporting.campaign_statistics s
LEFT JOIN reporting.campaign_progress p ON p.campaign_id = s.campaign_id
WHERE s.campaign_id = %(campaign_id)s

-- name: outcomes_by_time
-- One row per outcome of a request and %(width_s)s seconds: since when, and how many.
SELECT outcome, date_bin(make_interval(secs => %(width_s)s), since, '2000-01-01 00:00Z') AS since, sum(count)::bigint AS count
FROM time_counts
WHERE campaign_id = %(campaign_id)s AND since > '-infinity'
GROUP BY 1, 2
HAVING sum(count) <> 0

-- name: last_errors
-- Of the last %(last)s attempts that failed or are in doubt: one row per reason and status, the most frequent first.
SELECT reason, status_code, count(*) AS count, max(ended_at) AS last_at,
       (array_agg(error ORDER BY id DESC) FILTER (WHERE error IS NOT NULL))[1] AS error
FROM (SELECT id, reason, status_code, ended_at, error
      FROM attempts
      WHERE campaign_id = %(campaign_id)s
      ORDER BY id DESC
      LIMIT %(last)s) AS attempt
GROUP BY reason, status_code
ORDER BY count DESC, last_at DESC

-- name: revisions
-- What the campaign was, the newest first.
SELECT revision, text, filter_tags, filter_operator_codes, sending_start, sending_stop, created
FROM campaign_revisions
WHERE campaign_id = %(campaign_id)s
ORDER BY revision DESC
LIMIT %(limit)s

-- name: trail
-- What people decided about it, the newest first. One decision may be about many messages, with an entry for each of them,
-- all of one moment (their transaction's): one row all the same. From moment to moment by the index on (campaign_id, at),
-- so that a decision about a million messages hides none before it.
WITH RECURSIVE moment AS (
    SELECT max(at) AS at, 1 AS number FROM audit_log WHERE campaign_id = %(campaign_id)s
    UNION ALL
    SELECT (SELECT max(at) FROM audit_log WHERE campaign_id = %(campaign_id)s AND at < moment.at), number + 1
    FROM moment
    WHERE at IS NOT NULL AND number < %(limit)s
)
SELECT moment.at, decision.actor, decision.action, decision.detail, decision.messages, decision.message_id
FROM moment
CROSS JOIN LATERAL (
    SELECT actor, action, detail, count(message_id) AS messages, min(message_id) AS message_id, max(id) AS last_id
    FROM audit_log
    WHERE campaign_id = %(campaign_id)s AND at = moment.at
    GROUP BY actor, action, detail
) AS decision
ORDER BY moment.at DESC, decision.last_id DESC
LIMIT %(limit)s

-- name: test_sends
-- The last ones, the newest first. `is_lost`: of a server that died before it could write what became of it, as
-- campaigns.sql: what_left has it.
SELECT created, actor, client_id, state, reason, status_code,
       state = 'sending' AND created <= now() - interval '15 minutes' AS is_lost
FROM test_sends
WHERE campaign_id = %(campaign_id)s
ORDER BY id DESC
LIMIT %(limit)s
