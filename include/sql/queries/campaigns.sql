-- The campaign's statements, each loaded by its name (plugins/mailing/db.py).

-- name: relevant_campaigns
-- The rows that are DAGs now: from %(lead)s before the start to %(trail)s after the stop, found by the index on
-- sending_stop. Only what a DAG shows and its timetable needs: neither text nor filter, which change while it runs.
-- As JSON, so that a value that Python cannot hold (a year 20000) costs its own row and not the whole result, and because
-- the snapshot for the time the database is away is the same text.
SELECT jsonb_build_object('id', id, 'name', name, 'sending_start', sending_start, 'sending_stop', sending_stop,
                          'wake_at', wake_at) AS campaign
FROM campaigns
WHERE sending_stop > now() - %(trail)s
  AND sending_start <= now() + %(lead)s
ORDER BY id

-- name: campaign_for_dag
-- The one row a task process needs to build its own DAG.
SELECT jsonb_build_object('id', id, 'name', name, 'sending_start', sending_start, 'sending_stop', sending_stop,
                          'wake_at', wake_at) AS campaign
FROM campaigns
WHERE id = %(campaign_id)s

-- name: insert_campaign
INSERT INTO campaigns
    (name, text, sending_start, sending_stop, filter_tags, filter_operator_codes, audience, on_doubt, gateway)
VALUES
    (%(name)s, %(text)s, %(sending_start)s, %(sending_stop)s, %(filter_tags)s, %(filter_operator_codes)s,
     %(audience)s, %(on_doubt)s, %(gateway)s)
RETURNING id

-- name: lock_campaign
-- One campaign, locked until the transaction ends: two runs that open or close it wait for each other. The window is
-- told by the database's clock, read after the lock was had.
SELECT id, status, audience, opened_at, sending_start, sending_stop,
       extract(epoch FROM sending_start - clock_timestamp())::float8 AS opens_in_s,
       extract(epoch FROM sending_stop - clock_timestamp())::float8 AS closes_in_s,
       clock_timestamp() >= sending_stop AS is_over
FROM campaigns
WHERE id = %(campaign_id)s
FOR NO KEY UPDATE

-- name: start_campaign
-- Its audience is taken; from now on claims are granted, as long as the window is open (and the campaign is not paused).
UPDATE campaigns
SET status = CASE status WHEN 'paused' THEN 'paused' ELSE 'running' END,
    opened_at = coalesce(opened_at, now()),
    finished_at = NULL
WHERE id = %(campaign_id)s
  AND status <> 'cancelled'

-- name: finish_campaign
-- Only if its audience was taken and nothing is left to do, which is tested here and not before: that is what "finished"
-- promises.
UPDATE campaigns c
SET status = 'finished', finished_at = now()
WHERE c.id = %(campaign_id)s
  AND (c.status = 'running' OR (c.status = 'paused' AND c.sending_stop <= clock_timestamp()))
  AND c.opened_at IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM messages m
      WHERE m.campaign_id = c.id AND m.state IN ('pending', 'sending'))

-- name: overdue_campaigns
-- Campaigns whose window closed without anyone closing them (Airflow was down, or a run was deleted).
SELECT id
FROM campaigns
WHERE sending_stop <= now()
  AND status IN ('scheduled', 'running', 'paused')
ORDER BY id

-- name: campaign_progress
-- One row: how the campaign stands now. Counts every message of it, so it is for one campaign at a time.
SELECT c.id, c.name, c.status, c.opened_at, c.finished_at,
       count(m.id) AS audience,
       count(m.id) FILTER (WHERE m.state = 'pending') AS pending,
       count(m.id) FILTER (WHERE m.state = 'sending') AS sending,
       count(m.id) FILTER (WHERE m.state = 'sent') AS sent,
       count(m.id) FILTER (WHERE m.state = 'failed') AS failed,
       count(m.id) FILTER (WHERE m.state = 'unknown') AS unknown,
       count(m.id) FILTER (WHERE m.state = 'expired') AS expired,
       count(m.id) FILTER (WHERE m.state = 'cancelled') AS cancelled,
       count(m.id) FILTER (WHERE m.state = 'excluded') AS excluded,
       min(m.claimed_at) AS first_claimed_at,
       max(m.sent_at) AS last_sent_at
FROM campaigns c
LEFT JOIN messages m ON m.campaign_id = c.id
WHERE c.id = %(campaign_id)s
GROUP BY c.id

-- name: enrol_audience
-- Everyone who matches the campaign's filter joins its ledger, once: whoever has a message already keeps it. Returns one
-- row: how many joined. They are numbered into batches of %(batch_size)s, or of as many as keep the campaign within
-- %(max_batches)s batches.
WITH campaign AS (
    SELECT id, filter_tags, filter_operator_codes FROM campaigns WHERE id = %(campaign_id)s
), matching AS (
    SELECT c.id
    FROM clients c, campaign
    WHERE (cardinality(campaign.filter_operator_codes) = 0
           OR c.mobile_operator_code = ANY (campaign.filter_operator_codes))
      AND (cardinality(campaign.filter_tags) = 0
           OR c.id IN (
               -- All the tags: as many hits as the filter has names. A name that is no tag (any more) is never hit, so
               -- such a filter matches nobody rather than everybody.
               SELECT ct.client_id
               FROM campaign f
               JOIN tags t ON t.name = ANY (f.filter_tags)
               JOIN client_tags ct ON ct.tag_id = t.id
               GROUP BY ct.client_id, f.filter_tags
               HAVING count(*) = cardinality(f.filter_tags)))
), enrolled AS (
    INSERT INTO messages (campaign_id, client_id)
    SELECT %(campaign_id)s, id FROM matching ORDER BY id
    ON CONFLICT (campaign_id, client_id) DO NOTHING
    RETURNING id
), numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS position, count(*) OVER () AS total FROM enrolled
), batched AS (
    INSERT INTO batches (campaign_id, number, first_id, last_id, size)
    SELECT %(campaign_id)s,
           (SELECT coalesce(max(number), 0) FROM batches WHERE campaign_id = %(campaign_id)s) + 1
               + position / greatest(%(batch_size)s, ceil(total / %(max_batches)s::numeric)::bigint),
           min(id), max(id), count(*)
    FROM numbered
    GROUP BY 2
    RETURNING size
)
SELECT coalesce(sum(size), 0)::bigint AS enrolled FROM batched

-- name: unfinished_batches
-- The batches that still have something to send, by number.
SELECT b.number
FROM batches b
WHERE b.campaign_id = %(campaign_id)s
  AND EXISTS (
      SELECT FROM messages m
      WHERE m.id BETWEEN b.first_id AND b.last_id
        AND m.campaign_id = b.campaign_id
        AND m.state IN ('pending', 'sending'))
ORDER BY b.number

-- name: expire_leftovers
-- What the window closed on. Where an earlier attempt may have been taken (policy `resend`), the doubt stays.
UPDATE messages
SET state = CASE WHEN in_doubt THEN 'unknown' ELSE 'expired' END,
    reason = 'window',
    not_before = NULL
WHERE campaign_id = %(campaign_id)s AND state = 'pending'

-- name: message_range
-- The ids between which all messages of the campaign lie.
SELECT min(first_id) AS first_id, max(last_id) AS last_id FROM batches WHERE campaign_id = %(campaign_id)s

-- name: forget_dead_leases
DELETE FROM leases WHERE campaign_id = %(campaign_id)s AND expires_at <= now()
