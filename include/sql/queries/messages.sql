-- The ledger's statements, each loaded by its name (plugins/mailing/db.py).
--
-- Each that can names the campaign, and so one partition: without it, all of them are looked through.
--
-- One clock: the database's. Workers hand over durations, never moments of their own.

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
-- And each statement is planned once: in a ledger that has grown, the planner would find a plan for these ids alone a little
-- cheaper, and plan each claim anew (2.5 ms instead of 1.8 for 50 messages).
SELECT set_config('plan_cache_mode', 'force_generic_plan', false),
       set_config('enable_bitmapscan', 'off', false),
       set_config('enable_seqscan', 'off', false),
       set_config('enable_sort', 'off', false),
       set_config('enable_hashjoin', 'off', false),
       set_config('enable_mergejoin', 'off', false)

-- name: take_lease
-- A new fencing token.
INSERT INTO leases (campaign_id, batch, holder, expires_at)
SELECT id, %(batch)s, %(holder)s, clock_timestamp() + %(lease)s FROM campaigns WHERE id = %(campaign_id)s
RETURNING token

-- name: renew_lease
-- One row while the lease is alive, none when it ran out: whoever finds none has lost the right to claim. With it, the
-- terms to send on: the gateway as it is now, and who shares its requests in flight (`campaigns` that hold live leases on
-- it, and `siblings`: the live leases of this campaign, this one included).
WITH renewed AS (
    UPDATE leases SET expires_at = clock_timestamp() + %(lease)s
    WHERE token = %(token)s AND expires_at > clock_timestamp()
    RETURNING token, campaign_id
), sharing AS (
    SELECT l.token, l.campaign_id
    FROM leases l
    JOIN campaigns c ON c.id = l.campaign_id
    WHERE l.expires_at > now()
      AND c.gateway = (SELECT gateway FROM campaigns WHERE id = (SELECT campaign_id FROM renewed))
)
SELECT g.name AS gateway, g.connection_id, g.endpoint, g.requests_in_flight, g.timeout_s::float8, g.repeat_codes,
       g.token_warning_s, g.breaker_state, g.breaker_reason,
       extract(epoch FROM clock_timestamp() - g.breaker_changed_at)::float8 AS breaker_changed_s,
       extract(epoch FROM g.breaker_probe_at - clock_timestamp())::float8 AS breaker_probe_s,
       (g.messages_per_second IS NOT NULL OR c.messages_per_second IS NOT NULL) AS is_paced,
       c.local_from, c.local_to, c.status, c.audience_stale, c.mapped_at,
       (SELECT count(DISTINCT campaign_id) FROM sharing) AS campaigns,
       -- This lease's row in the snapshot is the one from before: counted though it may look expired there.
       (SELECT count(*) FROM sharing WHERE campaign_id = c.id AND token <> renewed.token) + 1 AS siblings
FROM renewed
JOIN campaigns c ON c.id = renewed.campaign_id
JOIN gateways g ON g.name = c.gateway

-- name: release_lease
DELETE FROM leases WHERE token = %(token)s

-- name: end_lease
-- Of a task that cannot say what became of its claims: over, but remembered until somebody has recovered them.
UPDATE leases SET expires_at = clock_timestamp() WHERE token = %(token)s AND expires_at > clock_timestamp()

-- name: return_unposted
-- What the lease holds beyond the messages that its task knows of (%(known)s): the answer to a claim was lost on the way,
-- or the task ended before it posted them, so they go back.
UPDATE messages m
SET state = CASE WHEN c.status <> 'cancelled' THEN 'pending' WHEN m.in_doubt THEN 'unknown' ELSE 'cancelled' END,
    reason = CASE c.status WHEN 'cancelled' THEN 'cancelled' END,
    attempts = m.attempts - 1,
    -- One that was never posted is as it was. Of one that was, before: the claim that is given back stands for it.
    token = CASE WHEN m.attempts > 1 THEN m.token END,
    revision = CASE WHEN m.attempts > 1 THEN m.revision END,
    claimed_at = CASE WHEN m.attempts > 1 THEN m.claimed_at END
FROM campaigns c
WHERE c.id = %(campaign_id)s
  AND m.id BETWEEN %(first_id)s AND %(last_id)s
  AND m.campaign_id = %(campaign_id)s
  AND m.token = %(token)s
  AND m.state = 'sending'
  AND m.id <> ALL (%(known)s::bigint[])

-- name: claim_messages
-- Up to %(limit)s due messages of one batch, from pending to sending, for the holder of a live lease, inside the window,
-- by the database's clock: this is where a message is kept from leaving before the start, after the stop, outside its
-- client's local hours, while the campaign is not running or the breaker is open. Committed before any byte leaves.
--
-- Fail closed: what the task believes (the gateway, that no limit applies, the local hours) must be so in the rows.
-- `zones`: of each time zone the span of local hours that holds now or comes next; NULL for a campaign without.
-- `left_s`: seconds until the stop; `begin_s`: until the request must have begun.
-- A killed task's claims may have left, all of them: it claims hardly more than it can post at once.
WITH zone AS (
    SELECT *
    FROM unnest(%(zones)s::text[], %(opens_at)s::timestamptz[], %(closes_at)s::timestamptz[])
        AS z (name, opens_at, closes_at)
), campaign AS (
    SELECT c.id, c.text, c.revision, c.local_from IS NOT NULL AS has_local_hours,
           clock_timestamp() AS at, c.sending_stop, make_interval(secs => %(last_call_s)s) AS last_call
    FROM campaigns c
    JOIN leases l ON l.campaign_id = c.id
    JOIN gateways g ON g.name = c.gateway
    WHERE c.id = %(campaign_id)s
      AND c.status = 'running'
      AND NOT c.audience_stale
      AND c.sending_start <= clock_timestamp()
      AND clock_timestamp() < c.sending_stop - make_interval(secs => %(last_call_s)s)
      AND c.local_from IS NOT DISTINCT FROM %(local_from)s::time
      AND c.local_to IS NOT DISTINCT FROM %(local_to)s::time
      AND l.token = %(token)s AND l.expires_at > clock_timestamp()
      AND g.name = %(gateway)s
      AND (g.breaker_state = 'closed' OR (%(is_probe)s AND g.breaker_state = 'half_open'))
      AND (%(is_paced)s OR (g.messages_per_second IS NULL AND c.messages_per_second IS NULL))
), due AS (
    SELECT m.id, cl.id AS client_id, cl.phone_number, z.closes_at
    FROM messages m
    CROSS JOIN campaign
    LEFT JOIN clients cl ON cl.id = m.client_id
    LEFT JOIN zone z ON z.name = cl.timezone
    WHERE m.id BETWEEN %(from_id)s AND %(last_id)s
      AND m.campaign_id = %(campaign_id)s
      AND m.state = 'pending'
      AND (m.not_before IS NULL OR m.not_before <= campaign.at)
      AND (NOT campaign.has_local_hours OR cl.id IS NULL
           OR (z.opens_at <= campaign.at AND campaign.at < z.closes_at - campaign.last_call))
    ORDER BY m.id
    LIMIT %(limit)s
    FOR UPDATE OF m SKIP LOCKED
), claimed AS (
    UPDATE messages m
    SET state = CASE WHEN due.client_id IS NOT NULL THEN 'sending' WHEN m.in_doubt THEN 'unknown' ELSE 'excluded' END,
        reason = CASE WHEN due.client_id IS NULL THEN 'client_deleted' END,
        token = CASE WHEN due.client_id IS NULL THEN m.token ELSE %(token)s END,
        attempts = CASE WHEN due.client_id IS NULL THEN m.attempts ELSE m.attempts + 1 END,
        revision = CASE WHEN due.client_id IS NULL THEN m.revision ELSE campaign.revision END,
        claimed_at = CASE WHEN due.client_id IS NULL THEN m.claimed_at ELSE campaign.at END,
        not_before = NULL
    FROM due
    CROSS JOIN campaign
    WHERE m.id = due.id AND m.campaign_id = %(campaign_id)s
    RETURNING m.id, m.client_id, m.state, m.attempts, due.phone_number, due.closes_at
)
SELECT claimed.id, claimed.client_id, claimed.attempts, claimed.phone_number, campaign.text,
       extract(epoch FROM campaign.sending_stop - campaign.at)::float8 AS left_s,
       extract(epoch FROM least(campaign.sending_stop, claimed.closes_at) - campaign.at)::float8 AS begin_s
FROM claimed, campaign
WHERE claimed.state = 'sending'
ORDER BY claimed.id

-- name: record_sent
-- Attempts that went well, by (id, attempt), as in record_outcomes: this is what nearly all of them are.
UPDATE messages m
SET state = 'sent', reason = NULL, in_doubt = false, not_before = NULL,
    sent_at = clock_timestamp() - make_interval(secs => o.age_s)
FROM unnest(%(id)s::bigint[], %(attempt)s::smallint[], %(age_s)s::float8[]) AS o (id, attempt, age_s)
WHERE m.id = o.id
  AND m.campaign_id = %(campaign_id)s
  AND m.token = %(token)s
  AND m.attempts = o.attempt
  AND m.state IN ('sending', 'unknown', 'pending')

-- name: record_outcomes
-- What became of attempts that did not go well, by (id, attempt), written only where the token still matches: a task that
-- was presumed dead cannot undo a newer attempt. Its late word settles the very attempt it is about, if nobody has claimed
-- the row since (then token and attempt still match). An outcome in doubt is the campaign's policy to resolve; that it
-- was in doubt is remembered until an attempt is known to be taken. What would wait in a cancelled campaign is cancelled.
-- The evidence of each attempt is kept.
WITH outcome AS (
    SELECT *
    FROM unnest(%(id)s::bigint[], %(attempt)s::smallint[], %(state)s::text[], %(reason)s::text[], %(age_s)s::float8[],
                %(wait_s)s::float8[], %(burn)s::boolean[], %(duration_ms)s::int[], %(status_code)s::smallint[],
                %(error)s::text[], %(reply)s::text[])
        AS o (id, attempt, state, reason, age_s, wait_s, burn, duration_ms, status_code, error, reply)
), resolved AS (
    SELECT o.*, c.id AS campaign_id, c.status,
           CASE WHEN o.state <> 'unknown' OR c.on_doubt <> 'resend' OR c.status = 'cancelled' THEN o.state
                ELSE 'pending' END AS new_state
    FROM outcome o, campaigns c
    WHERE c.id = %(campaign_id)s
), updated AS (
    UPDATE messages m
    SET state = CASE WHEN r.new_state <> 'pending' OR r.status <> 'cancelled' THEN r.new_state
                     WHEN m.in_doubt THEN 'unknown' ELSE 'cancelled' END,
        reason = CASE WHEN r.new_state = 'pending' AND r.status = 'cancelled' THEN 'cancelled' ELSE r.reason END,
        in_doubt = r.state = 'unknown' OR m.in_doubt,
        attempts = CASE WHEN r.burn THEN m.attempts ELSE m.attempts - 1 END,
        not_before = CASE WHEN r.new_state = 'pending' AND r.status <> 'cancelled'
                          THEN clock_timestamp() + make_interval(secs => r.wait_s) END
    FROM resolved r
    WHERE m.id = r.id
      AND m.campaign_id = %(campaign_id)s
      AND m.token = %(token)s
      AND m.attempts = r.attempt
      AND (m.state = 'sending' OR (m.state IN ('unknown', 'pending') AND r.new_state = 'failed'))
    RETURNING m.id, m.state
)
INSERT INTO attempts
    (campaign_id, message_id, attempt, state, reason, ended_at, duration_ms, status_code, error, reply)
SELECT r.campaign_id, r.id, r.attempt, updated.state, r.reason, clock_timestamp() - make_interval(secs => r.age_s),
       r.duration_ms, r.status_code, r.error, r.reply
FROM updated
JOIN resolved r ON r.id = updated.id

-- name: recover_claims
-- What tasks without a live lease had claimed, in a range of ids: every one of them may have left, so it becomes unknown,
-- or pending where the campaign's policy is `resend`. A lease that ran out cannot be renewed, so this is final; the
-- late word of such a task is still heard (record_outcomes). Locked by id, in which order such a task speaks, too.
WITH dead AS MATERIALIZED (
    SELECT m.id
    FROM messages m
    WHERE m.campaign_id = %(campaign_id)s
      AND m.id BETWEEN %(first_id)s AND %(last_id)s
      AND m.state = 'sending'
      AND NOT EXISTS (SELECT FROM leases l WHERE l.token = m.token AND l.expires_at > clock_timestamp())
    ORDER BY m.id
    FOR UPDATE
), recovered AS (
    UPDATE messages m
    SET state = CASE WHEN c.on_doubt = 'resend' AND c.status <> 'cancelled' THEN 'pending' ELSE 'unknown' END,
        reason = 'task_died',
        in_doubt = true
    FROM campaigns c, dead
    WHERE c.id = %(campaign_id)s
      AND m.id = dead.id
      AND m.campaign_id = %(campaign_id)s
    RETURNING m.id, m.campaign_id, m.client_id, m.attempts, m.state
), evidence AS (
    INSERT INTO attempts (campaign_id, message_id, attempt, state, reason, ended_at, error)
    SELECT campaign_id, id, attempts, state, 'task_died', now(),
           'the task that posted it died before the reply was recorded'
    FROM recovered
)
SELECT id AS message_id, client_id, attempts AS attempt, state FROM recovered

-- name: follow_local_hours
-- A batch's pending messages wait for the next opening of their clients' local hours; where that lies past the stop, they
-- expire. What waits for an opening that is no longer the next one (the hours were changed) waits for the next one.
-- `zones` as for claim_messages; NULL: the campaign has no local hours (any more). Fail closed: hours that were changed
-- since the task learnt of them change nothing.
WITH zone AS (
    SELECT *
    FROM unnest(%(zones)s::text[], %(opens_at)s::timestamptz[], %(closes_at)s::timestamptz[])
        AS z (name, opens_at, closes_at)
), campaign AS (
    -- Locked: an edit that comes meanwhile waits, and finds what has expired here (campaigns_after_edit). Not shared: tasks
    -- that share the lock take turns at it for as long as they like, and the edit would have to wait for all of them.
    SELECT id, sending_stop
    FROM campaigns
    WHERE id = %(campaign_id)s
      AND local_from IS NOT DISTINCT FROM %(local_from)s::time
      AND local_to IS NOT DISTINCT FROM %(local_to)s::time
    FOR NO KEY UPDATE
), waiting AS (
    -- Only those to be told anything, and of these only whom nobody else holds: one who brings the audience after an edited
    -- filter holds messages and waits for the campaign. Whoever is passed over is told at the next look.
    SELECT m.id, w.opens_at, c.sending_stop
    FROM messages m
    CROSS JOIN campaign c
    JOIN clients cl ON cl.id = m.client_id
    LEFT JOIN zone z ON z.name = cl.timezone
    CROSS JOIN LATERAL (SELECT CASE WHEN z.opens_at > clock_timestamp() THEN z.opens_at END) AS w (opens_at)
    WHERE m.id BETWEEN %(first_id)s AND %(last_id)s
      AND m.campaign_id = %(campaign_id)s
      AND m.state = 'pending'
      AND (coalesce(m.not_before, '-infinity') < w.opens_at
           OR (m.reason = 'local_hours' AND m.not_before > clock_timestamp()
               AND m.not_before IS DISTINCT FROM w.opens_at))
    FOR UPDATE OF m SKIP LOCKED
)
UPDATE messages m
SET state = CASE WHEN w.opens_at IS NULL OR w.opens_at < w.sending_stop THEN 'pending'
                 WHEN m.in_doubt THEN 'unknown' ELSE 'expired' END,
    reason = CASE WHEN w.opens_at IS NOT NULL THEN 'local_hours' END,
    not_before = CASE WHEN w.opens_at < w.sending_stop THEN w.opens_at END
FROM waiting w
WHERE m.id = w.id
  AND m.campaign_id = %(campaign_id)s

-- name: batch_outlook
-- One row: why a claim of this batch came back empty. `due_s`: seconds until its next pending message is due, or until the
-- window opens, if that is later (0 or less: now). `lease_s`: seconds until the last lease that others hold on it runs
-- out, NULL where there is none; `closes_s`: seconds until nothing may be claimed any more.
SELECT c.status, c.audience_stale, g.breaker_state, g.breaker_reason,
       extract(epoch FROM g.breaker_probe_at - clock_timestamp())::float8 AS breaker_probe_s,
       extract(epoch FROM c.sending_stop - clock_timestamp())::float8 - %(last_call_s)s AS closes_s,
       extract(epoch FROM c.updated)::float8 AS updated,
       work.pending, work.sending,
       greatest(work.due_s, extract(epoch FROM c.sending_start - clock_timestamp())::float8) AS due_s,
       (SELECT extract(epoch FROM max(l.expires_at) - clock_timestamp())::float8
        FROM leases l
        WHERE l.campaign_id = c.id AND l.batch = %(batch)s AND l.token <> %(token)s) AS lease_s
FROM campaigns c
JOIN gateways g ON g.name = c.gateway
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE m.state = 'pending') AS pending,
           count(*) FILTER (WHERE m.state = 'sending') AS sending,
           greatest(0, extract(epoch FROM min(coalesce(m.not_before, '-infinity'))
                                   FILTER (WHERE m.state = 'pending') - clock_timestamp()))::float8 AS due_s
    FROM messages m
    WHERE m.id BETWEEN %(first_id)s AND %(last_id)s
      AND m.campaign_id = %(campaign_id)s
      AND m.state IN ('pending', 'sending')
) AS work
WHERE c.id = %(campaign_id)s

-- name: attempts_of_message
-- Every attempt at one message that failed or is in doubt, by time.
SELECT a.attempt, a.state, a.reason, a.ended_at, a.duration_ms, a.status_code, a.error, a.reply
FROM attempts a
JOIN messages m ON m.campaign_id = a.campaign_id AND m.id = a.message_id
WHERE m.id = %(message_id)s
ORDER BY a.id

-- name: zones_of_batch
-- One row: the database's clock, and the time zones of the clients whom a batch has still to reach.
SELECT clock_timestamp() AS now,
       ARRAY(SELECT DISTINCT cl.timezone
             FROM messages m
             JOIN clients cl ON cl.id = m.client_id
             WHERE m.id BETWEEN %(first_id)s AND %(last_id)s
               AND m.campaign_id = %(campaign_id)s
               AND m.state = 'pending') AS zones
