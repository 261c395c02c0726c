-- The campaign's statements, each loaded by its name (plugins/mailing/db.py).

-- name: relevant_campaigns
-- The rows that are DAGs now: from %(lead)s before the start to %(trail)s after the stop, found by the index on
-- sending_stop. Only what a DAG shows and its timetable needs: neither text nor filter, which change while it runs.
-- As JSON, so that a value that Python cannot hold (a year 20000) costs its own row and not the whole result, and because
-- the snapshot for the time the database is away is the same text.
SELECT jsonb_build_object('id', id, 'name', name, 'sending_start', sending_start, 'sending_stop', sending_stop,
                          'wake_at', wake_at, 'audience', audience) AS campaign
FROM campaigns
WHERE sending_stop > now() - %(trail)s
  AND sending_start <= now() + %(lead)s
ORDER BY id

-- name: insert_campaign
-- With the next id, unless one is given: a row that is rolled back shall leave no gap in the ids.
INSERT INTO campaigns
    (id, name, text, sending_start, sending_stop, filter_tags, filter_operator_codes, audience, on_doubt, local_from, local_to,
     messages_per_second, gateway)
OVERRIDING SYSTEM VALUE
VALUES
    (coalesce(%(id)s, nextval(pg_get_serial_sequence('campaigns', 'id'))), %(name)s, %(text)s, %(sending_start)s,
     %(sending_stop)s, %(filter_tags)s, %(filter_operator_codes)s, %(audience)s, %(on_doubt)s, %(local_from)s, %(local_to)s, %(messages_per_second)s, %(gateway)s)
RETURNING id, sending_stop <= clock_timestamp() AS is_over

-- name: lock_campaign
-- One campaign, its row locked until the transaction ends. The window is told by the database's clock.
SELECT id, status, audience, audience_stale, opened_at, archived_at, sending_start, sending_stop, revision, updated,
       extract(epoch FROM sending_start - clock_timestamp())::float8 AS opens_in_s,
       extract(epoch FROM sending_stop - clock_timestamp())::float8 AS closes_in_s,
       clock_timestamp() >= sending_stop AS is_over
FROM campaigns
WHERE id = %(campaign_id)s
FOR NO KEY UPDATE

-- name: lock_campaign_wholly
-- So that nobody adds a message to it either: who does holds its key (runs.sql: enrol_audience).
SELECT FROM campaigns WHERE id = %(campaign_id)s FOR UPDATE

-- name: what_left
-- One row: who holds a lease on the campaign (or sends a test of it), and a message of it that was ever claimed; NULL
-- where there is none. A test send that is so old is of a server that died.
SELECT coalesce(
           (SELECT min(holder) FROM leases WHERE campaign_id = %(campaign_id)s),
           (SELECT 'the test send of ' || min(actor)
            FROM test_sends
            WHERE campaign_id = %(campaign_id)s AND state = 'sending' AND created > now() - interval '15 minutes')
       ) AS holder,
       (SELECT id FROM messages
        WHERE campaign_id = %(campaign_id)s
          AND (attempts > 0 OR token IS NOT NULL OR in_doubt OR state = 'unknown')
        LIMIT 1) AS message_id

-- name: delete_messages
DELETE FROM messages WHERE campaign_id = %(campaign_id)s

-- name: delete_campaign
-- Batches, attempts, revisions, counts, test sends go with it.
DELETE FROM campaigns WHERE id = %(campaign_id)s

-- name: campaign
-- The whole row, as `CampaignDetails` has it.
SELECT id, name, text, sending_start, sending_stop, filter_tags, filter_operator_codes, audience, on_doubt, local_from,
       local_to, messages_per_second::float8, gateway, status, revision, wake_at, audience_stale, opened_at, finished_at,
       archived_at, created, updated
FROM campaigns
WHERE id = %(campaign_id)s

-- name: at_one_moment
-- The first statement of a transaction that reads much, and in several statements.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY

-- name: messages_of_campaigns
-- One row per message of these campaigns, in the order of the index on (campaign_id, client_id), so that nothing has to be
-- sorted before the first is there.
SELECT id, campaign_id, client_id, created, state, reason, attempts, revision, not_before, sent_at
FROM messages
WHERE campaign_id = ANY (%(ids)s::bigint[])
ORDER BY campaign_id, client_id

-- name: change_status
-- A transition, guarded: only from one of the states that it may start from.
UPDATE campaigns
SET status = CASE WHEN %(status)s <> 'running' OR opened_at IS NOT NULL THEN %(status)s ELSE 'scheduled' END,
    finished_at = CASE WHEN %(status)s = 'cancelled' THEN clock_timestamp() ELSE finished_at END
WHERE id = %(campaign_id)s AND status = ANY (%(from)s)

-- name: campaign_progress
-- One row: how the campaign stands now.
SELECT c.id, c.name, c.status, c.opened_at, c.finished_at, c.wake_at,
       g.name AS gateway, g.breaker_state, g.breaker_reason, g.breaker_probe_at,
       s.audience, s.pending, s.sending, s.sent, s.failed, s.unknown, s.expired, s.cancelled, s.excluded,
       s.first_claimed_at, s.last_sent_at
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
JOIN reporting.campaign_statistics s ON s.campaign_id = c.id
WHERE c.id = %(campaign_id)s

-- name: campaign_signals
-- What a waiting task watches, of every campaign that may have one waiting: one small query for all of them.
SELECT c.id, c.status,
       EXISTS (SELECT FROM finishes f WHERE f.campaign_id = c.id AND f.finished_at = c.finished_at) AS has_ended,
       extract(epoch FROM c.updated)::float8 AS updated,
       extract(epoch FROM c.sending_stop - clock_timestamp())::float8 AS closes_s,
       g.name AS gateway, g.breaker_state,
       extract(epoch FROM g.breaker_probe_at - clock_timestamp())::float8 AS breaker_probe_s
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
WHERE c.sending_stop > now() - %(trail)s

-- name: archived_at
-- One row (the moment, in UTC) if the messages of the campaign were dropped.
SELECT archived_at AT TIME ZONE 'UTC' AS archived_at FROM campaigns WHERE id = %(campaign_id)s AND archived_at IS NOT NULL
