-- Figures, each statement loaded by its name (plugins/mailing/db.py). From the counts that are kept with the ledger, unless it
-- says otherwise: what they cost follows the number of campaigns, not that of their messages.

-- name: campaigns_by_status
SELECT status, count(*) AS count FROM campaigns GROUP BY status

-- name: messages_by_state
SELECT state, sum(count)::bigint AS count FROM state_counts GROUP BY state

-- name: campaign_statistics
-- Of these campaigns, in this order.
SELECT campaign_id, campaign_name, status, sending_start, sending_stop, revision, audience, pending, sending, sent, failed,
       unknown, expired, cancelled, excluded, first_claimed_at, first_sent_at, last_sent_at, opened_at, finished_at,
       archived_at, assumed_sent
FROM reporting.campaign_statistics
WHERE campaign_id = ANY (%(ids)s::bigint[])
ORDER BY array_position(%(ids)s::bigint[], campaign_id)

-- name: running
-- How these campaigns stand, in this order, as campaign_progress says it of one; and how fast they are.
SELECT c.id, c.name, c.status, c.opened_at, c.finished_at, c.wake_at,
       g.name AS gateway, g.breaker_state, g.breaker_reason, g.breaker_probe_at,
       s.audience, s.pending, s.sending, s.sent, s.failed, s.unknown, s.expired, s.cancelled, s.excluded,
       s.first_claimed_at, s.last_sent_at, p.messages_per_second::float8
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
JOIN reporting.campaign_statistics s ON s.campaign_id = c.id
JOIN reporting.campaign_progress p ON p.campaign_id = c.id
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
-- Messages of these campaigns by outcome (`open`: pending or sending) and by the number of the day on which the last request
-- began that settled them (0: before the first border; NULL: none did). Borders instead of a time zone: comparing is cheaper
-- than converting, and PostgreSQL need not know the zone. What is counted by quarters of an hour falls on one side of
-- midnight, whatever the zone.
SELECT CASE WHEN since > '-infinity' THEN width_bucket(since, %(borders)s::timestamptz[]) END AS key,
       outcome AS state,
       sum(count)::bigint AS count
FROM time_counts
WHERE campaign_id = ANY (%(ids)s::bigint[])
GROUP BY 1, 2
HAVING sum(count) <> 0

-- name: messages_by_operator_code
-- Messages of these campaigns by outcome and the operator code that their client had when it was chosen ('': not known).
SELECT mobile_operator_code AS key, outcome AS state, sum(count)::bigint AS count
FROM operator_counts
WHERE campaign_id = ANY (%(ids)s::bigint[])
GROUP BY 1, 2
HAVING sum(count) <> 0

-- name: messages_by_tag
-- Messages of these campaigns by outcome and by each tag that their client has now (NULL: it has none). Counted from the
-- ledger: reads those campaigns' part of it by messages_campaign_id_client_id_key, and all of client_tags (a hash) where they are many: 1.1 s for a million messages and 1.5 million
-- tags on clients. Names are looked up once per tag.
SELECT t.name AS key, f.state, f.count
FROM (
    SELECT ct.tag_id, CASE WHEN m.state IN ('pending', 'sending') THEN 'open' ELSE m.state END AS state, count(*) AS count
    FROM messages m
    LEFT JOIN client_tags ct ON ct.client_id = m.client_id
    WHERE m.campaign_id = ANY (%(ids)s::bigint[])
    GROUP BY 1, 2
) AS f
LEFT JOIN tags t ON t.id = f.tag_id
