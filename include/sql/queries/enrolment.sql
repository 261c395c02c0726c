-- What people do to messages by hand, each statement loaded by its name (plugins/mailing/db.py).
--
-- Whoever holds a message's row and waits for its campaign's row may meet somebody who does it the other way round, so:
-- first the campaign, then the message, and of that only what nobody else holds (postpone); or rows that nobody wants who
-- holds the campaign (resend).

-- name: client_to_enrol
-- One row where there is such a client: whether it matches the campaign's filter as it is now.
SELECT EXISTS (
    SELECT
    FROM campaigns c
    CROSS JOIN LATERAL clients_matching(c.filter_tags, c.filter_operator_codes) AS matching
    WHERE c.id = %(campaign_id)s AND matching.id = %(client_id)s) AS matches
FROM clients
WHERE id = %(client_id)s

-- name: enrol_client
-- One row with the id of the new message; none where the client is in the ledger already. It joins the last batch while
-- that is small, its ids close together (a claim reads through all of them, other campaigns' too), and somebody looks at it
-- again: tasks of a live campaign that wait for latecomers look at late batches only.
WITH enrolled AS (
    INSERT INTO messages (campaign_id, client_id, mobile_operator_code)
    SELECT c.id, cl.id, cl.mobile_operator_code
    FROM campaigns c, clients cl
    WHERE c.id = %(campaign_id)s AND cl.id = %(client_id)s
    FOR KEY SHARE OF c
    ON CONFLICT (campaign_id, client_id) DO NOTHING
    RETURNING id
), joined AS (
    UPDATE batches b
    SET last_id = enrolled.id, size = b.size + 1
    FROM enrolled
    WHERE b.campaign_id = %(campaign_id)s
      AND b.number = (SELECT max(number) FROM batches WHERE campaign_id = %(campaign_id)s)
      AND b.size < %(batch_size)s
      AND enrolled.id - b.first_id < %(id_span)s
      AND (b.is_late OR NOT %(is_live)s)
    RETURNING b.number
), begun AS (
    INSERT INTO batches (campaign_id, number, first_id, last_id, size, is_late)
    SELECT %(campaign_id)s,
           (SELECT coalesce(max(number), 0) FROM batches WHERE campaign_id = %(campaign_id)s) + 1,
           id, id, 1, %(is_live)s
    FROM enrolled
    WHERE NOT EXISTS (SELECT FROM joined)
)
SELECT id FROM enrolled

-- name: message_of_client
SELECT id, state FROM messages WHERE campaign_id = %(campaign_id)s AND client_id = %(client_id)s

-- name: campaign_of_message
SELECT campaign_id FROM messages WHERE id = %(message_id)s

-- name: message_to_postpone
-- The message, locked; no row while a task holds it.
SELECT m.state, m.client_id, m.not_before, cl.timezone, c.local_from, c.local_to
FROM messages m
JOIN campaigns c ON c.id = m.campaign_id
LEFT JOIN clients cl ON cl.id = m.client_id
WHERE m.id = %(message_id)s
FOR UPDATE OF m SKIP LOCKED

-- name: postpone_message
-- The reason is not local_hours (any more): follow_local_hours moves what waits for that, and of everything else only what
-- is due before the hours open.
UPDATE messages
SET not_before = %(not_before)s,
    reason = CASE WHEN %(not_before)s::timestamptz IS NOT NULL THEN 'postponed' END
WHERE id = %(message_id)s AND state = 'pending'

-- name: message_to_remove
-- The message as it stands; `tried`: whether an attempt left evidence; `grows`: whoever matches the filter joins by itself.
SELECT m.campaign_id, m.client_id, m.state, m.attempts,
       EXISTS (SELECT FROM attempts a WHERE a.campaign_id = m.campaign_id AND a.message_id = m.id) AS tried,
       c.audience = 'live' AND c.status IN ('running', 'paused') AND clock_timestamp() < c.sending_stop AS grows
FROM messages m
JOIN campaigns c ON c.id = m.campaign_id
WHERE m.id = %(message_id)s

-- name: remove_message
-- One row if the message is removed: it never left, and nothing was ever tried with it.
WITH removed AS (
    DELETE FROM messages m
    WHERE m.id = %(message_id)s
      AND m.state = ANY (%(removable)s)
      AND m.attempts = 0
      AND NOT m.in_doubt
      AND NOT EXISTS (SELECT FROM attempts a WHERE a.campaign_id = m.campaign_id AND a.message_id = m.id)
    RETURNING m.id, m.campaign_id
), shrunk AS (
    UPDATE batches b
    SET size = b.size - 1
    FROM removed
    WHERE b.campaign_id = removed.campaign_id AND removed.id BETWEEN b.first_id AND b.last_id
)
SELECT id FROM removed
