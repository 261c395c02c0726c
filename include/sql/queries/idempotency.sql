-- Idempotency keys, each statement loaded by its name (plugins/mailing/db.py).

-- name: take_key
-- One row for the transaction that is to do the work; others wait here until it ends.
INSERT INTO idempotency_keys (actor, route, key, fingerprint)
VALUES (%(actor)s, %(route)s, %(key)s, %(fingerprint)s)
ON CONFLICT (actor, route, key) DO NOTHING
RETURNING key

-- name: key
SELECT status, response, fingerprint = %(fingerprint)s AS is_same
FROM idempotency_keys
WHERE actor = %(actor)s AND route = %(route)s AND key = %(key)s

-- name: keep_answer
UPDATE idempotency_keys SET status = %(status)s, response = %(response)s
WHERE actor = %(actor)s AND route = %(route)s AND key = %(key)s

-- name: forget_keys
-- A few of those that are too old, with each new one: so the table stays small, and nobody has to tidy it.
DELETE FROM idempotency_keys
WHERE (actor, route, key) IN (
    SELECT actor, route, key
    FROM idempotency_keys
    WHERE created < now() - %(kept)s
    ORDER BY created
    LIMIT 10
    FOR UPDATE SKIP LOCKED)
