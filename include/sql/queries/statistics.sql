-- Figures, each statement loaded by its name (plugins/mailing/db.py). They are counted from the ledger at the moment of
-- asking; nothing keeps counters that could go wrong.

-- name: campaigns_by_status
SELECT status, count(*) AS count FROM campaigns GROUP BY status

-- name: messages_by_state
-- Reads the whole ledger: a second for some ten million messages.
SELECT state, count(*) AS count FROM messages GROUP BY state

-- name: campaign_statistics
-- Of these campaigns, in this order, and of no others: the view counts a campaign only when its row is asked for.
SELECT campaign_id, campaign_name, status, sending_start, sending_stop, revision, audience, pending, sending, sent, failed,
       unknown, expired, cancelled, excluded, first_sent_at, last_sent_at, opened_at, finished_at
FROM reporting.campaign_statistics
WHERE campaign_id = ANY (%(ids)s::bigint[])
ORDER BY array_position(%(ids)s::bigint[], campaign_id)

-- name: running
-- How these campaigns stand, in this order, as campaign_progress says it of one; and, as all their messages are read anyway,
-- how many were sent in the last %(span_s)s seconds, and over how many seconds that is: less, where the first was claimed
-- later.
SELECT c.id, c.name, c.status, c.opened_at, c.finished_at, c.wake_at,
       g.name AS gateway, g.breaker_state, g.breaker_reason, g.breaker_probe_at,
       m.audience, m.pending, m.sending, m.sent, m.failed, m.unknown, m.expired, m.cancelled, m.excluded,
       m.first_claimed_at, m.last_sent_at, m.sent_lately,
       coalesce(least(%(span_s)s, extract(epoch FROM clock_timestamp() - m.first_claimed_at)), %(span_s)s)::float8 AS lately_s
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
CROSS JOIN LATERAL (
    SELECT count(*) AS audience,
           count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'sending') AS sending,
           count(*) FILTER (WHERE state = 'sent') AS sent,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'unknown') AS unknown,
           count(*) FILTER (WHERE state = 'expired') AS expired,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE state = 'excluded') AS excluded,
           count(*) FILTER (WHERE sent_at > clock_timestamp() - make_interval(secs => %(span_s)s)) AS sent_lately,
           min(claimed_at) AS first_claimed_at,
           max(sent_at) AS last_sent_at
    FROM messages
    WHERE messages.campaign_id = c.id
) AS m
WHERE c.id = ANY (%(ids)s::bigint[])
ORDER BY array_position(%(ids)s::bigint[], c.id)
