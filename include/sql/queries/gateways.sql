-- What all tasks share of a gateway: its breaker and its throttle. Loaded by name (plugins/mailing/db.py).

-- name: calm_breaker
-- The gateway settled messages: the failures before that do not count. Writes nothing while all is well.
UPDATE gateways SET breaker_failures = 0
WHERE name = %(gateway)s AND breaker_state = 'closed' AND breaker_failures <> 0

-- name: lock_breaker
SELECT breaker_state AS state, breaker_failures AS failures, breaker_probes AS probes, breaker_reason AS reason
FROM gateways
WHERE name = %(gateway)s
FOR NO KEY UPDATE

-- name: save_breaker
UPDATE gateways
SET breaker_state = %(state)s,
    breaker_failures = %(failures)s,
    breaker_probes = %(probes)s,
    breaker_reason = %(reason)s,
    breaker_changed_at = CASE WHEN (breaker_state = 'closed') <> (%(state)s = 'closed') THEN clock_timestamp()
                              ELSE breaker_changed_at END,
    breaker_probe_at = coalesce(clock_timestamp() + make_interval(secs => %(probe_in_s)s), breaker_probe_at)
WHERE name = %(gateway)s

-- name: take_probe
-- The right to probe: one row for the task that gets it, until %(probe)s have passed.
UPDATE gateways
SET breaker_state = 'half_open', breaker_probe_at = clock_timestamp() + %(probe)s
WHERE name = %(gateway)s AND breaker_state <> 'closed' AND breaker_probe_at <= clock_timestamp()
RETURNING name

-- name: return_probe
-- Of a task that has nothing to probe with: anybody else may.
UPDATE gateways
SET breaker_state = 'open', breaker_probe_at = clock_timestamp()
WHERE name = %(gateway)s AND breaker_state = 'half_open'

-- name: lock_gateway_throttle
SELECT FROM gateways WHERE name = %(gateway)s AND messages_per_second IS NOT NULL FOR NO KEY UPDATE

-- name: lock_campaign_throttle
-- The campaign before its throttle, as whoever deletes it has them; one that is deleted meanwhile gets none.
INSERT INTO throttles (campaign_id) SELECT id FROM campaigns WHERE id = %(campaign_id)s FOR KEY SHARE
ON CONFLICT (campaign_id) DO UPDATE SET last_slot_at = throttles.last_slot_at

-- name: schedule
-- One row: where gateway and campaign stand in the queue for slots, as epoch seconds, by a clock that is read after both
-- rows were locked.
SELECT g.messages_per_second::float8 AS gateway_rate,
       c.messages_per_second::float8 AS campaign_rate,
       coalesce(extract(epoch FROM g.last_slot_at), 0)::float8 AS gateway_last,
       coalesce(extract(epoch FROM t.last_slot_at), 0)::float8 AS campaign_last,
       coalesce(extract(epoch FROM t.share_slot_at), 0)::float8 AS share_last,
       (SELECT count(*)
        FROM throttles r
        JOIN campaigns rc ON rc.id = r.campaign_id
        WHERE rc.gateway = g.name AND r.campaign_id <> c.id
          AND r.hungry_at > clock_timestamp() - make_interval(secs => %(hungry_s)s)) AS rivals,
       extract(epoch FROM clock_timestamp())::float8 AS now
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
JOIN throttles t ON t.campaign_id = c.id
WHERE c.id = %(campaign_id)s AND g.name = %(gateway)s

-- name: save_gateway_schedule
UPDATE gateways SET last_slot_at = to_timestamp(%(gateway_last)s)
WHERE name = %(gateway)s AND messages_per_second IS NOT NULL

-- name: save_campaign_schedule
UPDATE throttles
SET last_slot_at = to_timestamp(%(campaign_last)s),
    share_slot_at = to_timestamp(%(share_last)s),
    hungry_at = CASE WHEN %(is_hungry)s THEN clock_timestamp() ELSE hungry_at END
WHERE campaign_id = %(campaign_id)s

-- name: gateways
-- Every gateway (or the one of this name) with its limits, breaker and token, by name.
SELECT name, connection_id, endpoint, messages_per_second::float8, requests_in_flight, timeout_s::float8, repeat_codes,
       breaker_state, breaker_reason, breaker_changed_at, breaker_probe_at, token_expires_at, token_warning_s
FROM gateways
WHERE name = coalesce(%(gateway)s, name)
ORDER BY name

-- name: change_gateway
-- Only the columns that are given (`given`) change.
UPDATE gateways
SET messages_per_second = CASE WHEN 'messages_per_second' = ANY (%(given)s) THEN %(messages_per_second)s
                               ELSE messages_per_second END,
    requests_in_flight = CASE WHEN 'requests_in_flight' = ANY (%(given)s) THEN %(requests_in_flight)s
                              ELSE requests_in_flight END,
    timeout_s = CASE WHEN 'timeout_s' = ANY (%(given)s) THEN %(timeout_s)s ELSE timeout_s END,
    repeat_codes = CASE WHEN 'repeat_codes' = ANY (%(given)s) THEN %(repeat_codes)s ELSE repeat_codes END,
    token_warning_s = CASE WHEN 'token_warning_s' = ANY (%(given)s) THEN %(token_warning_s)s ELSE token_warning_s END
WHERE name = %(gateway)s
RETURNING name

-- name: save_token_expiry
UPDATE gateways SET token_expires_at = to_timestamp(%(expires)s)
WHERE name = %(gateway)s AND token_expires_at IS DISTINCT FROM to_timestamp(%(expires)s)
