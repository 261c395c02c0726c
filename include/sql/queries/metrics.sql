-- Figures for monitoring (plugins/mailing/metrics.py), asked for every few seconds: from the counts that are kept with the
-- ledger and from small tables, never from the ledger itself. What they cost follows the number of campaigns.
--
-- A column is a metric of plugins/mailing/metric_list.py without `mailing_`, or one of its labels. NULL: there is none.

-- name: messages
SELECT g.name AS gateway, s.state, coalesce(n.count, 0) AS messages
FROM gateways g
CROSS JOIN unnest(%(states)s::text[]) AS s (state)
LEFT JOIN (
    SELECT c.gateway, sc.state, sum(sc.count)::bigint AS count
    FROM state_counts sc
    JOIN campaigns c ON c.id = sc.campaign_id
    GROUP BY c.gateway, sc.state
) AS n ON n.gateway = g.name AND n.state = s.state

-- name: reasons
-- A reason may hold a gateway's own code: of each gateway and state the %(reasons)s most frequent, the rest as `other`.
SELECT gateway, state, CASE WHEN place <= %(reasons)s THEN reason ELSE 'other' END AS reason,
       sum(count)::bigint AS messages_by_reason
FROM (
    SELECT c.gateway, sc.state, sc.reason, sum(sc.count) AS count,
           row_number() OVER (PARTITION BY c.gateway, sc.state ORDER BY sum(sc.count) DESC, sc.reason) AS place
    FROM state_counts sc
    JOIN campaigns c ON c.id = sc.campaign_id
    WHERE sc.reason <> ''
    GROUP BY c.gateway, sc.state, sc.reason
    HAVING sum(sc.count) > 0
) AS found
GROUP BY 1, 2, 3

-- name: whole
-- One row: what has no label. Not `updated`: upkeep writes it each time it asks for a run.
SELECT (SELECT coalesce(sum(count), 0)::bigint FROM state_counts WHERE state = 'sent') AS messages_sent_total,
       (SELECT count(*) FROM campaigns
        WHERE status IN ('scheduled', 'running', 'paused') AND sending_stop <= clock_timestamp()) AS campaigns_overdue,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - greatest(sending_start, created))), 0) FROM campaigns
        WHERE status = 'scheduled' AND opened_at IS NULL
          AND sending_start <= clock_timestamp() AND clock_timestamp() < sending_stop) AS opening_delay_seconds,
       (SELECT greatest(count(*) - %(campaigns)s, 0) FROM campaigns
        WHERE status IN ('running', 'paused')) AS campaigns_unlisted,
       (SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('leases', 'token')::regclass), 0))
           AS leases_taken_total,
       (SELECT coalesce(sum(count), 0)::bigint FROM lease_returns) AS leases_recovered_total,
       (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - created)), 0) FROM finishes
        WHERE webhook_state = 'pending' AND webhook_attempts > 0) AS webhook_delay_seconds,
       (SELECT count(*) FROM ledger_parts WHERE dropped_at IS NULL) AS ledger_parts

-- name: statuses
SELECT s.status, count(c.id) AS campaigns
FROM unnest(%(statuses)s::text[]) AS s (status)
LEFT JOIN campaigns c ON c.status = s.status
GROUP BY s.status

-- name: webhooks
SELECT s.state, count(f.campaign_id) AS webhooks
FROM unnest(%(webhook_states)s::text[]) AS s (state)
LEFT JOIN finishes f ON f.webhook_state = s.state
GROUP BY s.state

-- name: leases
SELECT s.state, count(l.token) AS leases
FROM unnest(ARRAY['live', 'dead']) AS s (state)
LEFT JOIN leases l ON s.state = CASE WHEN l.expires_at > clock_timestamp() THEN 'live' ELSE 'dead' END
GROUP BY s.state

-- name: breakers
SELECT g.name AS gateway, s.state, (g.breaker_state = s.state)::int AS breaker_state
FROM gateways g
CROSS JOIN unnest(%(breaker_states)s::text[]) AS s (state)

-- name: gateways
SELECT g.name AS gateway,
       g.messages_per_second AS throttle_limit_messages_per_second,
       g.requests_in_flight AS gateway_requests_in_flight_limit,
       (SELECT count(*)
        FROM throttles t
        JOIN campaigns c ON c.id = t.campaign_id
        WHERE c.gateway = g.name
          AND t.hungry_at > clock_timestamp() - make_interval(secs => %(hungry_s)s)) AS throttle_hungry_campaigns,
       (g.breaker_state <> 'closed'
        AND g.breaker_reason IN ('http_401', 'http_403', 'connection_unusable'))::int AS token_refused,
       extract(epoch FROM g.token_expires_at - clock_timestamp()) AS token_expires_in_seconds
FROM gateways g

-- name: progress
-- How fast it goes, of each gateway and of the %(campaigns)s campaigns that are to stop first. Counts by time are exact to 5 s for
-- two minutes (time_counts). `due`: what may leave now, that is without what waits for local hours. `decided_at`: the last
-- decision of a person (resumed, say), by the index on (campaign_id, at); not `updated`, which upkeep writes as well.
WITH span AS (
    SELECT clock_timestamp() AS now,
           date_bin('5 s', clock_timestamp() - interval '10 s', '2000-01-01 00:00Z') AS moment,
           date_bin('5 s', clock_timestamp() - interval '1 min', '2000-01-01 00:00Z') AS minute
), live AS MATERIALIZED (
    SELECT c.id, c.gateway, c.status, c.sending_stop,
           c.status = 'running' AND c.sending_start <= span.now AND span.now < c.sending_stop AND s.due > 0 AS is_due,
           s.due,
           extract(epoch FROM c.sending_stop - span.now) AS left_s,
           t.of_moment / extract(epoch FROM span.now - span.moment) AS per_second,
           t.of_minute / greatest(1, extract(epoch FROM span.now - greatest(span.minute, s.first_claimed_at)))
               AS per_second_of_minute,
           greatest(0, extract(epoch FROM span.now - greatest(
               c.opened_at, s.last_sent_at, t.last_since + interval '5 s', a.decided_at))) AS idle_s
    FROM campaigns c
    CROSS JOIN span
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(count) FILTER (WHERE state IN ('pending', 'sending') AND reason <> 'local_hours'), 0) AS due,
               min(first_claimed_at) AS first_claimed_at,
               max(last_sent_at) AS last_sent_at
        FROM state_counts
        WHERE campaign_id = c.id
    ) AS s
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(count) FILTER (WHERE outcome = 'sent' AND since >= span.moment), 0) AS of_moment,
               coalesce(sum(count) FILTER (WHERE outcome = 'sent' AND since >= span.minute), 0) AS of_minute,
               max(since) FILTER (WHERE since > '-infinity') AS last_since
        FROM time_counts
        WHERE campaign_id = c.id
    ) AS t
    CROSS JOIN LATERAL (SELECT max(at) AS decided_at FROM audit_log WHERE campaign_id = c.id) AS a
    WHERE c.status IN ('running', 'paused') OR c.finished_at > span.now - interval '1 min'
)
SELECT g.name AS gateway, NULL::bigint AS campaign,
       coalesce(sum(live.per_second), 0) AS sent_per_second,
       coalesce(max(live.idle_s) FILTER (WHERE live.is_due), 0) AS queue_age_seconds,
       NULL::numeric AS campaign_sent_per_second,
       NULL::numeric AS campaign_idle_seconds,
       NULL::numeric AS forecast_lag_seconds
FROM gateways g
LEFT JOIN live ON live.gateway = g.name
GROUP BY g.name
UNION ALL
SELECT NULL, id, NULL, NULL, per_second, CASE WHEN is_due THEN idle_s ELSE 0 END,
       CASE WHEN status <> 'running' THEN NULL
            WHEN due = 0 THEN least(-left_s, 0)
            WHEN per_second_of_minute = 0 THEN 'Infinity'
            ELSE due / per_second_of_minute - left_s END
FROM (SELECT * FROM live WHERE status IN ('running', 'paused') ORDER BY sending_stop, id LIMIT %(campaigns)s) AS listed

-- name: campaigns
-- The messages of the %(campaigns)s campaigns that are to stop first.
SELECT c.id AS campaign, s.state, coalesce(sum(n.count), 0)::bigint AS campaign_messages
FROM (SELECT id FROM campaigns WHERE status IN ('running', 'paused') ORDER BY sending_stop, id LIMIT %(campaigns)s) AS c
CROSS JOIN unnest(%(states)s::text[]) AS s (state)
LEFT JOIN state_counts n ON n.campaign_id = c.id AND n.state = s.state
GROUP BY c.id, s.state
