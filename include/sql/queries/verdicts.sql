-- What people say of messages that ended or are in doubt, each statement loaded by its name (plugins/mailing/db.py).
--
-- Rows are locked by id before they are changed, so that two who decide on some of the same do not wait for each other for
-- ever; and only rows that nobody wants who holds their campaign.

-- name: message_for_verdict
SELECT campaign_id, client_id, state FROM messages WHERE id = %(message_id)s FOR UPDATE

-- name: campaigns_of
-- Of messages named by id: the campaigns of those that are in one of these states.
SELECT DISTINCT campaign_id FROM messages WHERE id = ANY (%(ids)s) AND state = ANY (%(states)s) ORDER BY campaign_id

-- name: lock_messages
-- How many messages of a campaign are in one of these states (`reason`: for this one only), or those of them that are named
-- by id.
WITH locked AS MATERIALIZED (
    SELECT id
    FROM messages
    WHERE campaign_id = %(campaign_id)s AND state = ANY (%(states)s)
      AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
      AND (%(reason)s::text IS NULL OR reason = %(reason)s)
    ORDER BY id
    FOR UPDATE
)
SELECT count(*) AS count FROM locked

-- name: apply_verdict
-- How many messages it settled, of those that lock_messages locks. Assumed sent: as of the moment it was claimed, for
-- that is when it may have left.
WITH settled AS (
    UPDATE messages m
    SET state = CASE %(verdict)s WHEN 'send_again' THEN 'pending' WHEN 'assume_sent' THEN 'sent' ELSE 'failed' END,
        reason = CASE %(verdict)s WHEN 'assume_sent' THEN 'assumed_sent' WHEN 'give_up' THEN 'given_up' END,
        sent_at = CASE %(verdict)s WHEN 'assume_sent' THEN coalesce(m.claimed_at, now()) END,
        not_before = NULL
    WHERE m.campaign_id = %(campaign_id)s AND m.state = 'unknown'
      AND (%(ids)s::bigint[] IS NULL OR m.id = ANY (%(ids)s))
      AND (%(reason)s::text IS NULL OR m.reason = %(reason)s)
    RETURNING m.id
), kept AS (
    INSERT INTO audit_log (actor, action, campaign_id, message_id)
    SELECT %(actor)s, %(verdict)s, %(campaign_id)s, id FROM settled
)
SELECT count(*) AS count FROM settled

-- name: resend_messages
-- One row per state that they were in. Their attempts and evidence stay. What an attempt came to that failed for good is
-- known: a task that says it once more (it did not hear that it was written) is not heard. The late word of one that is in
-- doubt still is.
WITH resent AS (
    UPDATE messages m
    SET state = 'pending',
        reason = NULL,
        not_before = NULL,
        token = CASE WHEN was.state = 'failed' AND NOT m.in_doubt THEN NULL ELSE m.token END
    FROM (
        SELECT id, state
        FROM messages
        WHERE campaign_id = %(campaign_id)s AND state = ANY (%(states)s)
          AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s))
    ) AS was
    WHERE m.id = was.id AND m.state = was.state
    RETURNING m.id, was.state
), kept AS (
    INSERT INTO audit_log (actor, action, campaign_id, message_id)
    SELECT %(actor)s, 'resend', %(campaign_id)s, id FROM resent
)
SELECT state, count(*) AS count FROM resent GROUP BY state

-- name: reopen
-- Before messages go back to pending by a person's word: the campaign is to send them, by one more run.
UPDATE campaigns
SET status = CASE status WHEN 'finished' THEN 'running' ELSE status END,
    finished_at = NULL,
    wake_at = clock_timestamp()
WHERE id = %(campaign_id)s
  AND status IN ('running', 'paused', 'finished')
  AND sending_start <= clock_timestamp() AND clock_timestamp() < sending_stop
