-- Campaigns that pipelines launch by key. Loaded by name (plugins/mailing/db.py).

-- name: lock_launch
-- Whoever launches under one key, one at a time.
SELECT pg_advisory_xact_lock(hashtextextended('mailing.launch.' || %(key)s, 0))

-- name: launch
SELECT campaign_id, request FROM launches WHERE key = %(key)s

-- name: now
SELECT clock_timestamp() AS now

-- name: insert_launch
INSERT INTO launches (key, campaign_id, request) VALUES (%(key)s, %(campaign_id)s, %(request)s)
