-- What a campaign's run does with its audience, and what upkeep does for those without one. Loaded by name
-- (plugins/mailing/db.py).

-- name: lock_audience
-- Whoever changes the audience of a campaign, one at a time. Not its row: an operator who pauses it is not to wait.
SELECT pg_advisory_xact_lock(hashtextextended('mailing.audience', %(campaign_id)s))

-- name: campaign_to_run
SELECT id, status, audience, audience_stale, opened_at, sending_start, sending_stop, revision,
       extract(epoch FROM sending_start - clock_timestamp())::float8 AS opens_in_s,
       extract(epoch FROM sending_stop - clock_timestamp())::float8 AS closes_in_s,
       extract(epoch FROM updated)::float8 AS updated,
       clock_timestamp() >= sending_stop AS is_over,
       (SELECT coalesce(sum(count), 0) FROM state_counts
        WHERE campaign_id = campaigns.id AND state = 'sending') AS sending
FROM campaigns
WHERE id = %(campaign_id)s

-- name: make_room
-- The part of the ledger that the campaign's messages go into, if it is not there.
SELECT ledger_part(%(campaign_id)s)

-- name: make_room_ahead
-- One row if the part after the last one was made, for the last one is more than half full: no audience is to wait for it.
WITH last AS (
    SELECT first_campaign_id, end_campaign_id FROM ledger_parts ORDER BY first_campaign_id DESC LIMIT 1
)
SELECT last.end_campaign_id AS first_campaign_id, ledger_part(last.end_campaign_id)
FROM last
WHERE 2 * ((SELECT max(id) FROM campaigns) + 1 - last.first_campaign_id) > last.end_campaign_id - last.first_campaign_id

-- name: enrol_audience
-- Everyone who matches the campaign's filter and has no message yet joins its ledger. Returns one row: how many joined.
-- They are numbered into batches of %(batch_size)s. Where that makes more of them than one for %(batch_in_flight)s requests in
-- flight of the gateway (and than %(fewest_batches)s; %(most_batches)s are too many for any), they are larger, up to
-- %(largest_batch)s; and in any case of as many as keep the campaign within %(max_batches)s batches.
-- Whoever adds messages holds lock_audience, so none comes between: ON CONFLICT would take a fifth of the time for nothing.
-- Latecomers come a few at a time: they join the last batch while that is theirs and small, its ids close together (%(id_span)s),
-- as in enrol_client. A batch for each look would be more of them than a run can map, within a day.
WITH campaign AS (
    -- The gateway by a question of its own: with a join, an edit of either row that comes just now could leave no audience.
    SELECT id, filter_tags, filter_operator_codes,
           least(%(most_batches)s,
                 greatest(%(fewest_batches)s,
                          (SELECT requests_in_flight FROM gateways WHERE name = campaigns.gateway)
                              / %(batch_in_flight)s)) AS batches
    FROM campaigns WHERE id = %(campaign_id)s
    FOR KEY SHARE
), enrolled AS (
    INSERT INTO messages (campaign_id, client_id, mobile_operator_code)
    SELECT campaign.id, c.id, c.mobile_operator_code
    FROM campaign
    CROSS JOIN LATERAL clients_matching(campaign.filter_tags, campaign.filter_operator_codes) AS c
    WHERE NOT EXISTS (SELECT FROM messages o WHERE o.campaign_id = %(campaign_id)s AND o.client_id = c.id)
    ORDER BY c.id
    RETURNING id
), joined AS (
    UPDATE batches b
    SET last_id = late.last_id, size = b.size + late.size
    FROM (SELECT max(id) AS last_id, count(*) AS size FROM enrolled WHERE %(is_late)s) AS late
    WHERE b.campaign_id = %(campaign_id)s
      AND b.number = (SELECT max(number) FROM batches WHERE campaign_id = %(campaign_id)s)
      AND b.is_late
      AND late.size > 0
      AND b.size + late.size <= %(batch_size)s
      AND late.last_id - b.first_id < %(id_span)s
    RETURNING late.size
), numbered AS (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS position, count(*) OVER () AS total FROM enrolled
), batched AS (
    INSERT INTO batches (campaign_id, number, first_id, last_id, size, is_late)
    SELECT %(campaign_id)s,
           (SELECT coalesce(max(number), 0) FROM batches WHERE campaign_id = %(campaign_id)s) + 1
               + position / greatest(%(batch_size)s,
                                     least(ceil(total / campaign.batches::numeric)::bigint, %(largest_batch)s),
                                     ceil(total / %(max_batches)s::numeric)::bigint),
           min(numbered.id), max(numbered.id), count(*), %(is_late)s
    FROM numbered
    CROSS JOIN campaign
    WHERE NOT EXISTS (SELECT FROM joined)
    GROUP BY 2
    RETURNING size
)
SELECT coalesce(sum(size), 0)::bigint AS enrolled FROM (SELECT size FROM batched UNION ALL SELECT size FROM joined) AS added

-- name: exclude_unmatched
-- After an edit of the filter: who does not match any more and was not claimed yet is left out.
WITH matching AS MATERIALIZED (
    SELECT matching.id
    FROM campaigns c
    CROSS JOIN LATERAL clients_matching(c.filter_tags, c.filter_operator_codes) AS matching
    WHERE c.id = %(campaign_id)s
)
UPDATE messages m
SET state = CASE WHEN m.in_doubt THEN 'unknown' ELSE 'excluded' END, reason = 'filter', not_before = NULL
WHERE m.campaign_id = %(campaign_id)s
  AND m.state = 'pending'
  AND NOT EXISTS (SELECT FROM matching WHERE matching.id = m.client_id)

-- name: readmit_matched
-- After an edit of the filter: whom an earlier edit had left out and who matches again comes back.
WITH matching AS MATERIALIZED (
    SELECT matching.id
    FROM campaigns c
    CROSS JOIN LATERAL clients_matching(c.filter_tags, c.filter_operator_codes) AS matching
    WHERE c.id = %(campaign_id)s
)
UPDATE messages m
SET state = 'pending', reason = NULL
WHERE m.campaign_id = %(campaign_id)s
  AND m.state = 'excluded' AND m.reason = 'filter'
  AND EXISTS (SELECT FROM matching WHERE matching.id = m.client_id)

-- name: audience_followed
-- Unless the filter was edited once more meanwhile, or something was claimed at the very moment of the edit and is on its way:
-- where that comes back, it must match, too.
UPDATE campaigns c
SET audience_stale = false
WHERE c.id = %(campaign_id)s
  AND c.revision = %(revision)s
  AND (SELECT coalesce(sum(s.count), 0) FROM state_counts s WHERE s.campaign_id = c.id AND s.state = 'sending') = 0

-- name: start_campaign
-- Its audience is taken; from now on claims are granted, as long as the window is open (and nobody paused it meanwhile).
-- An edit that came while the audience was being taken is followed before the first claim; who joins by it is sent to by
-- one more run.
UPDATE campaigns
SET status = CASE status WHEN 'paused' THEN 'paused' ELSE 'running' END,
    opened_at = coalesce(opened_at, now()),
    audience_stale = audience_stale OR revision <> %(revision)s,
    refiltered = refiltered OR revision <> %(revision)s,
    wake_at = CASE WHEN revision <> %(revision)s THEN clock_timestamp() ELSE wake_at END,
    finished_at = NULL
WHERE id = %(campaign_id)s
  AND status <> 'cancelled'

-- name: unfinished_batches
-- The batches that still have something to send, by number.
SELECT b.number, b.is_late
FROM batches b
WHERE b.campaign_id = %(campaign_id)s
  AND EXISTS (
      SELECT FROM messages m
      WHERE m.id BETWEEN b.first_id AND b.last_id
        AND m.campaign_id = %(campaign_id)s
        AND m.state IN ('pending', 'sending'))
ORDER BY b.number

-- name: sweep_pending
-- What is left when a campaign closes: expired by its window, or cancelled with it. Where an earlier attempt may have been
-- taken (policy `resend`), the doubt stays.
UPDATE messages m
SET state = CASE WHEN m.in_doubt THEN 'unknown' WHEN c.status = 'cancelled' THEN 'cancelled' ELSE 'expired' END,
    reason = CASE WHEN c.status = 'cancelled' THEN 'cancelled'
                  WHEN m.reason = 'local_hours' AND m.not_before >= c.sending_stop THEN 'local_hours' ELSE 'window' END,
    not_before = NULL
FROM campaigns c
WHERE c.id = %(campaign_id)s AND m.campaign_id = %(campaign_id)s AND m.state = 'pending'

-- name: finish_campaign
-- Only if its audience was taken and nothing is left to do, which is tested here and not before: that is what "finished"
-- promises.
UPDATE campaigns c
SET status = 'finished', finished_at = now()
WHERE c.id = %(campaign_id)s
  AND (c.status = 'running' OR (c.status = 'paused' AND c.sending_stop <= clock_timestamp()))
  AND c.opened_at IS NOT NULL
  AND (c.audience = 'snapshot' OR c.sending_stop <= clock_timestamp())
  AND (NOT c.audience_stale OR c.sending_stop <= clock_timestamp())
  AND NOT EXISTS (
      SELECT FROM messages m
      WHERE m.campaign_id = %(campaign_id)s AND m.state IN ('pending', 'sending'))

-- name: forget_throttle
DELETE FROM throttles WHERE campaign_id = %(campaign_id)s

-- name: has_messages_left
-- A row if any of its messages is pending or sending, by the counts that are kept with them.
SELECT true AS has_any
FROM state_counts
WHERE campaign_id = %(campaign_id)s AND state IN ('pending', 'sending')
HAVING sum(count) > 0

-- name: message_range
-- The ids between which all messages of the campaign lie.
SELECT min(first_id) AS first_id, max(last_id) AS last_id FROM batches WHERE campaign_id = %(campaign_id)s

-- name: forget_dead_leases
-- Once their claims are settled. They are counted, by shards as all counts are, so that nobody waits for anybody.
WITH gone AS (
    DELETE FROM leases
    WHERE campaign_id = %(campaign_id)s AND (%(batch)s::int IS NULL OR batch = %(batch)s) AND expires_at <= now()
    RETURNING token
)
INSERT INTO lease_returns AS r (shard, count)
SELECT count_shard(), count(*) FROM gone HAVING count(*) > 0
ON CONFLICT (shard) DO UPDATE SET count = r.count + excluded.count

-- name: dead_leases
-- The batches whose tasks died and that nobody has recovered since.
SELECT DISTINCT campaign_id, batch FROM leases WHERE expires_at <= now() ORDER BY campaign_id, batch

-- name: overdue_campaigns
-- Campaigns to be closed that nobody closed: their window is over (Airflow was down, or a run was deleted), or they were
-- cancelled and nobody wrote down how they ended, or have messages left, however long ago: somebody may wait for it.
-- It runs each minute. As subqueries of one value the two conditions are looked up by index, per cancelled campaign; EXISTS
-- would become a hash of all ends, and of the whole ledger.
SELECT id
FROM campaigns
WHERE status IN ('scheduled', 'running', 'paused') AND sending_stop <= now()
UNION ALL
SELECT c.id
FROM campaigns c
WHERE c.status = 'cancelled' AND c.archived_at IS NULL AND (
    (SELECT min(f.number) FROM finishes f WHERE f.campaign_id = c.id AND f.finished_at = c.finished_at) IS NULL
    OR (SELECT sum(s.count) FROM state_counts s
        WHERE s.campaign_id = c.id AND s.state IN ('pending', 'sending')) > 0)
ORDER BY id

-- name: unattended_campaigns
-- Campaigns that should be sending and for which no task holds a lease: their tasks wait, or there are none.
SELECT c.id
FROM campaigns c
WHERE c.status IN ('scheduled', 'running')
  AND c.sending_start <= now() - %(patience)s AND now() < c.sending_stop
  AND coalesce(c.wake_at, '-infinity') <= now() - %(patience)s
  AND coalesce(c.updated, '-infinity') <= now() - %(patience)s
  AND NOT EXISTS (SELECT FROM leases l WHERE l.campaign_id = c.id AND l.expires_at > now())
ORDER BY c.id

-- name: wake_campaign
UPDATE campaigns SET wake_at = clock_timestamp() + make_interval(secs => %(in_s)s)
WHERE id = %(campaign_id)s AND status IN ('scheduled', 'running') AND clock_timestamp() < sending_stop

-- name: audience_by_zone
-- One row per time zone: how many are still to be reached (before the campaign opens: how many match its filter).
SELECT x.timezone, count(*) AS clients
FROM campaigns c
CROSS JOIN LATERAL (
    SELECT matching.timezone
    FROM clients_matching(c.filter_tags, c.filter_operator_codes) AS matching
    WHERE c.opened_at IS NULL
    UNION ALL
    SELECT cl.timezone
    FROM messages m
    JOIN clients cl ON cl.id = m.client_id
    WHERE c.opened_at IS NOT NULL AND m.campaign_id = c.id AND m.state = 'pending'
) AS x
WHERE c.id = %(campaign_id)s
GROUP BY x.timezone
ORDER BY x.timezone

-- name: campaign_to_forecast
SELECT sending_start, sending_stop, local_from, local_to, clock_timestamp() AS now
FROM campaigns
WHERE id = %(campaign_id)s

-- name: campaign_updated
SELECT extract(epoch FROM updated)::float8 AS updated FROM campaigns WHERE id = %(campaign_id)s

-- name: is_further_run_due
-- Whether a run was asked for after the one that stands for %(run_after)s.
SELECT wake_at > %(run_after)s AND wake_at < sending_stop AS is_due FROM campaigns WHERE id = %(campaign_id)s

-- name: note_mapped
-- The scheduled run that stands for %(run_after)s has named what is to be sent, be it nothing.
UPDATE campaigns SET mapped_at = greatest(mapped_at, %(run_after)s)
WHERE id = %(campaign_id)s AND status = 'running'

-- name: wake_for_followers
-- For those who are to be sent to by an edited filter, and whom none that has mapped knows of: unless a run is to come anyway.
UPDATE campaigns SET wake_at = clock_timestamp()
WHERE id = %(campaign_id)s AND status = 'running' AND clock_timestamp() < sending_stop
  AND coalesce(wake_at <= mapped_at, true)

-- name: campaign_mapped_at
-- The moment of the latest scheduled run that has named what is to be sent.
SELECT mapped_at FROM campaigns WHERE id = %(campaign_id)s

-- name: fold_counts
-- Put a campaign's counts together in shard 0; those by time in the narrowest of the spans %(widths_s)s of which it takes no
-- more than %(columns)s, or the widest. What a writer has in hand, or is newer than two minutes, is left for the next time.
WITH spread AS (
    SELECT coalesce(extract(epoch FROM max(since) - min(since)), 0) AS s
    FROM time_counts
    WHERE campaign_id = %(campaign_id)s AND since > '-infinity'
)
SELECT fold_counts(%(campaign_id)s, make_interval(secs => (
    SELECT coalesce(min(width_s) FILTER (WHERE width_s * %(columns)s >= spread.s), max(width_s))
    FROM unnest(%(widths_s)s::int[]) AS width_s, spread)))

-- name: campaigns_to_fold
SELECT campaign_id FROM state_counts WHERE shard > 0
UNION
SELECT campaign_id FROM time_counts WHERE shard > 0 AND since < now() - interval '2 minutes'
ORDER BY campaign_id
