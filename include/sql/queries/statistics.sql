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

-- name: one_moment
-- Everything that this transaction counts is as of one moment.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: as_of
-- That moment; and no statement of this transaction may take longer than %(patience)s.
SELECT clock_timestamp() AS as_of, set_config('statement_timeout', %(patience)s, true)

-- name: campaigns_of_span
-- Those whose window meets the span, the newest first; %(since)s NULL: from the beginning. Where the span is recent,
-- campaigns_sending_stop_idx finds them.
SELECT id, status
FROM campaigns
WHERE sending_start < %(until)s
  AND sending_stop > coalesce(%(since)s::timestamptz, '-infinity')
  AND (%(campaign_id)s::bigint IS NULL OR id = %(campaign_id)s::bigint)
ORDER BY sending_start DESC, id DESC

-- name: messages_by_day
-- Messages of these campaigns by state and by the number of the day on which the last request began that settled them
-- (0: before the first border; NULL: none did). Borders instead of a time zone: comparing is cheaper than converting, and
-- PostgreSQL need not know the zone. Reads those campaigns' part of the ledger by messages_campaign_id_client_id_key, or
-- all of it where they are most of it: 0.6 s for a million.
SELECT CASE WHEN state IN ('sent', 'failed', 'unknown')
            THEN width_bucket(coalesce(sent_at, claimed_at), %(borders)s::timestamptz[]) END AS key,
       state,
       count(*) AS count
FROM messages
WHERE campaign_id = ANY (%(ids)s::bigint[])
GROUP BY 1, 2

-- name: messages_by_operator_code
-- Messages of these campaigns by state and the operator code that their client has now (NULL: it was deleted). Reads what
-- messages_by_day reads, and all clients (a hash) where they are many: 0.8 s for a million of each.
SELECT c.mobile_operator_code AS key, m.state, count(*) AS count
FROM messages m
LEFT JOIN clients c ON c.id = m.client_id
WHERE m.campaign_id = ANY (%(ids)s::bigint[])
GROUP BY 1, 2

-- name: messages_by_tag
-- Messages of these campaigns by state and by each tag that their client has now (NULL: it has none). Reads what
-- messages_by_day reads, and all of client_tags (a hash) where they are many: 1.1 s for a million messages and 1.5 million
-- tags on clients. Names are looked up once per tag.
SELECT t.name AS key, f.state, f.count
FROM (
    SELECT ct.tag_id, m.state, count(*) AS count
    FROM messages m
    LEFT JOIN client_tags ct ON ct.client_id = m.client_id
    WHERE m.campaign_id = ANY (%(ids)s::bigint[])
    GROUP BY ct.tag_id, m.state
) AS f
LEFT JOIN tags t ON t.id = f.tag_id
