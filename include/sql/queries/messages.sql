-- The ledger's statements, each loaded by its name (plugins/mailing/db.py).
--
-- One clock: the database's. Workers hand over durations, never moments.

-- name: batch
-- One batch, with where it stands among the campaign's messages (from 1).
SELECT b.first_id, b.last_id, b.size,
       1 + coalesce((SELECT sum(o.size) FROM batches o
                     WHERE o.campaign_id = b.campaign_id AND o.number < b.number), 0)::bigint AS first_position
FROM batches b
WHERE b.campaign_id = %(campaign_id)s AND b.number = %(number)s

-- name: plan_for_sending
-- For the sender's own session: ids by the primary key, in order. A campaign that has just opened is unknown to the
-- planner's statistics; left to them it sorts the whole batch for each claim (60 ms instead of 1 for 30,000 messages).
SELECT set_config('enable_bitmapscan', 'off', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_sort', 'off', false)

-- name: take_lease
-- A new fencing token, and the gateway to send through.
WITH lease AS (
    INSERT INTO leases (campaign_id, batch, holder, expires_at)
    SELECT id, %(batch)s, %(holder)s, clock_timestamp() + %(lease)s FROM campaigns WHERE id = %(campaign_id)s
    RETURNING token, campaign_id
)
SELECT lease.token, g.name AS gateway, g.connection_id, g.endpoint, g.requests_in_flight, g.timeout_s::float8,
       g.repeat_codes
FROM lease
JOIN campaigns c ON c.id = lease.campaign_id
JOIN gateways g ON g.name = c.gateway

-- name: renew_lease
-- One row while the lease is alive, none when it ran out: whoever finds none has lost the right to claim. `sharers`
-- counts the live leases on the same gateway, this one included: they share its requests in flight.
WITH renewed AS (
    UPDATE leases SET expires_at = clock_timestamp() + %(lease)s
    WHERE token = %(token)s AND expires_at > clock_timestamp()
    RETURNING campaign_id
)
SELECT (SELECT count(*)
        FROM leases o
        JOIN campaigns oc ON oc.id = o.campaign_id
        WHERE oc.gateway = c.gateway AND o.expires_at > now()) AS sharers
FROM renewed
JOIN campaigns c ON c.id = renewed.campaign_id

-- name: return_unposted
-- What the lease holds beyond the messages that its task knows of (%(known)s): the answer to a claim was lost on the way,
-- so they were never posted and go back.
UPDATE messages m
SET state = 'pending', attempts = m.attempts - 1
WHERE m.id BETWEEN %(first_id)s AND %(last_id)s
  AND m.campaign_id + 0 = %(campaign_id)s
  AND m.token = %(token)s
  AND m.state = 'sending'
  AND m.id <> ALL (%(known)s::bigint[])

-- name: release_lease
DELETE FROM leases WHERE token = %(token)s

-- name: claim_messages
-- Up to %(limit)s due messages of one batch, from pending to sending, for the holder of a live lease, inside the window,
-- by the database's clock: this is where a message is kept from leaving before the start, after the stop, or while
-- the campaign is not running. Committed before any byte leaves. `left_s`: seconds until the stop.
--
-- Every row is posted as soon as it is claimed: a killed task's claims may have left, all of them, and no others.
-- `campaign_id + 0` keeps the planner from the unique index, which would make it read the whole campaign for each claim.
WITH campaign AS (
    SELECT c.id, c.text, c.revision, extract(epoch FROM c.sending_stop - clock_timestamp())::float8 AS left_s
    FROM campaigns c
    JOIN leases l ON l.campaign_id = c.id
    WHERE c.id = %(campaign_id)s
      AND c.status = 'running'
      AND c.sending_start <= clock_timestamp()
      AND clock_timestamp() < c.sending_stop - make_interval(secs => %(last_call_s)s)
      AND l.token = %(token)s AND l.expires_at > clock_timestamp()
), due AS (
    SELECT m.id, m.client_id
    FROM messages m
    CROSS JOIN campaign
    WHERE m.id BETWEEN %(from_id)s AND %(last_id)s
      AND m.campaign_id + 0 = campaign.id
      AND m.state = 'pending'
      AND (m.not_before IS NULL OR m.not_before <= now())
    ORDER BY m.id
    LIMIT %(limit)s
    FOR UPDATE OF m SKIP LOCKED
), claimed AS (
    UPDATE messages m
    SET state = CASE WHEN cl.id IS NOT NULL THEN 'sending' WHEN m.in_doubt THEN 'unknown' ELSE 'excluded' END,
        reason = CASE WHEN cl.id IS NULL THEN 'client_deleted' END,
        token = CASE WHEN cl.id IS NULL THEN m.token ELSE %(token)s END,
        attempts = CASE WHEN cl.id IS NULL THEN m.attempts ELSE m.attempts + 1 END,
        revision = CASE WHEN cl.id IS NULL THEN m.revision ELSE campaign.revision END,
        claimed_at = CASE WHEN cl.id IS NULL THEN m.claimed_at ELSE now() END,
        not_before = NULL
    FROM due
    CROSS JOIN campaign
    LEFT JOIN clients cl ON cl.id = due.client_id
    WHERE m.id = due.id
    RETURNING m.id, m.state, m.attempts, cl.phone_number
)
SELECT claimed.id, claimed.attempts, claimed.phone_number, campaign.text, campaign.left_s
FROM claimed, campaign
WHERE claimed.state = 'sending'
ORDER BY claimed.id

-- name: record_outcomes
-- What became of attempts, by (id, attempt), written only where the token still matches: a task that was presumed dead
-- cannot undo a newer attempt. Its late word settles the very attempt it is about, if nobody has claimed the row since
-- (then token and attempt still match). An outcome in doubt is the campaign's policy to resolve; that it was in doubt is
-- remembered until an attempt is known to be taken.
WITH outcome AS (
    SELECT *
    FROM unnest(%(id)s::bigint[], %(attempt)s::smallint[], %(state)s::text[], %(reason)s::text[], %(age_s)s::float8[],
                %(wait_s)s::float8[], %(burn)s::boolean[], %(duration_ms)s::int[], %(status_code)s::smallint[],
                %(error)s::text[], %(reply)s::text[])
        AS o (id, attempt, state, reason, age_s, wait_s, burn, duration_ms, status_code, error, reply)
), policy AS (
    SELECT id AS campaign_id, on_doubt FROM campaigns WHERE id = %(campaign_id)s
), resolved AS (
    SELECT o.*,
           CASE WHEN o.state = 'unknown' AND p.on_doubt = 'resend' THEN 'pending' ELSE o.state END AS new_state
    FROM outcome o, policy p
)
UPDATE messages m
SET state = r.new_state,
    reason = r.reason,
    in_doubt = r.state = 'unknown' OR (m.in_doubt AND r.state <> 'sent'),
    attempts = CASE WHEN r.burn THEN m.attempts ELSE m.attempts - 1 END,
    sent_at = CASE WHEN r.new_state = 'sent' THEN now() - make_interval(secs => r.age_s) END,
    not_before = CASE WHEN r.new_state = 'pending' THEN now() + make_interval(secs => r.wait_s) END,
    -- The evidence of the last bad attempt outlives the good one after it.
    failed_at = CASE WHEN r.state = 'sent' THEN m.failed_at ELSE now() - make_interval(secs => r.age_s) END,
    duration_ms = CASE WHEN r.state = 'sent' THEN m.duration_ms ELSE r.duration_ms END,
    status_code = CASE WHEN r.state = 'sent' THEN m.status_code ELSE r.status_code END,
    error = CASE WHEN r.state = 'sent' THEN m.error ELSE r.error END,
    reply = CASE WHEN r.state = 'sent' THEN m.reply ELSE r.reply END
FROM resolved r
WHERE m.id = r.id
  AND m.token = %(token)s
  AND m.attempts = r.attempt
  AND (m.state = 'sending' OR (m.state IN ('unknown', 'pending') AND r.new_state IN ('sent', 'failed')))

-- name: recover_claims
-- What tasks without a live lease had claimed, in a range of ids: every one of them may have left, so it becomes unknown,
-- or pending where the campaign's policy is `resend`. A lease that ran out cannot be renewed, so this is final; the
-- late word of such a task is still heard (record_outcomes).
UPDATE messages m
SET state = CASE c.on_doubt WHEN 'resend' THEN 'pending' ELSE 'unknown' END,
    reason = 'task_died',
    in_doubt = true,
    failed_at = now(),
    duration_ms = NULL,
    status_code = NULL,
    error = 'the task that posted it died before the reply was recorded',
    reply = NULL
FROM campaigns c
WHERE c.id = %(campaign_id)s
  AND m.id BETWEEN %(first_id)s AND %(last_id)s
  AND m.campaign_id + 0 = %(campaign_id)s
  AND m.state = 'sending'
  AND NOT EXISTS (SELECT FROM leases l WHERE l.token = m.token AND l.expires_at > clock_timestamp())

-- name: batch_outlook
-- One row: why a claim of this batch came back empty. `due_s`: seconds until its next pending message is due, or until the
-- window opens, if that is later (0 or less: now). `lease_s`: seconds until the last lease that others hold on it runs
-- out, NULL where there is none; `closes_s`: seconds until nothing may be claimed any more.
SELECT c.status,
       extract(epoch FROM c.sending_stop - clock_timestamp())::float8 - %(last_call_s)s AS closes_s,
       clock_timestamp() >= c.sending_stop - make_interval(secs => %(last_call_s)s) AS is_over,
       work.pending, work.sending,
       greatest(work.due_s, extract(epoch FROM c.sending_start - clock_timestamp())::float8) AS due_s,
       (SELECT extract(epoch FROM max(l.expires_at) - clock_timestamp())::float8
        FROM leases l
        WHERE l.campaign_id = c.id AND l.batch = %(batch)s AND l.token <> %(token)s) AS lease_s
FROM campaigns c
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.state = 'pending') AS pending,
           count(*) FILTER (WHERE m.state = 'sending') AS sending,
           greatest(0, extract(epoch FROM min(coalesce(m.not_before, '-infinity'))
                                   FILTER (WHERE m.state = 'pending') - clock_timestamp()))::float8 AS due_s
    FROM messages m
    WHERE m.id BETWEEN %(first_id)s AND %(last_id)s
      AND m.campaign_id + 0 = %(campaign_id)s
      AND m.state IN ('pending', 'sending')
) AS work
WHERE c.id = %(campaign_id)s
