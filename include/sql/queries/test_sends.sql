-- Test sends, each statement loaded by its name (plugins/mailing/test_send.py). Nothing here touches the ledger.

-- name: terms
-- One row: what the campaign would send now, and on which terms (as messages.sql: renew_lease tells them to a task).
SELECT c.text, c.status, c.audience_stale, c.mapped_at, c.local_from, c.local_to,
       g.name AS gateway, g.connection_id, g.endpoint, g.requests_in_flight, g.timeout_s::float8, g.repeat_codes,
       g.token_warning_s, g.breaker_state, g.breaker_reason,
       extract(epoch FROM clock_timestamp() - g.breaker_changed_at)::float8 AS breaker_changed_s,
       extract(epoch FROM g.breaker_probe_at - clock_timestamp())::float8 AS breaker_probe_s,
       (g.messages_per_second IS NOT NULL OR c.messages_per_second IS NOT NULL) AS is_paced,
       1 AS campaigns, 1 AS siblings
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
WHERE c.id = %(campaign_id)s

-- name: recipients
SELECT id, phone_number FROM clients WHERE id = ANY (%(client_ids)s::bigint[])

-- name: begin_test_send
-- Committed before any byte leaves, unless the campaign was cancelled or deleted meanwhile. Its id is one that no message
-- has, or will have.
INSERT INTO test_sends (id, campaign_id, client_id, actor)
SELECT nextval(pg_get_serial_sequence('messages', 'id')), id, %(client_id)s, %(actor)s
FROM campaigns
WHERE id = %(campaign_id)s AND status <> 'cancelled'
RETURNING id

-- name: settle_test_send
UPDATE test_sends
SET state = %(state)s, reason = %(reason)s, status_code = %(status_code)s, error = %(error)s, reply = %(reply)s
WHERE id = %(id)s
RETURNING id, client_id, state, reason, status_code, error, reply
