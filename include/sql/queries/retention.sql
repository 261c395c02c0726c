-- What keeps the ledger from growing for ever (plugins/mailing/retention.py). Each statement is loaded by its name.

-- name: parts
-- One row per part of the ledger that is there, the oldest first: how much lies in it, and what keeps it from going after
-- %(days)s days. `in_doubt`: its campaigns with messages that nobody has settled. From counts and catalogue: no message is
-- read.
SELECT p.first_campaign_id,
       p.end_campaign_id,
       coalesce(f.campaigns, '{}') AS campaigns,
       coalesce(f.messages, 0)::bigint AS messages,
       (pg_total_relation_size(format('messages_%%s', p.first_campaign_id)::regclass)
        + pg_total_relation_size(format('attempts_%%s', p.first_campaign_id)::regclass))::bigint AS bytes,
       CASE WHEN n.is_full THEN '{}' ELSE ARRAY['new campaigns still go into it'] END
           || coalesce(f.kept_by, '{}') AS kept_by,
       coalesce(f.in_doubt, '{}') AS in_doubt
FROM ledger_parts p
CROSS JOIN LATERAL (
    -- A campaign that was created with an id of this part may not be committed yet. One whose id is above all of them is an
    -- hour old, so such a transaction would have to be, too; ledger_part refuses what comes later still.
    SELECT EXISTS (SELECT FROM campaigns c WHERE c.id >= p.end_campaign_id AND c.created < now() - interval '1 hour')
       AND EXISTS (SELECT FROM ledger_parts s WHERE s.first_campaign_id >= p.end_campaign_id) AS is_full
) AS n
CROSS JOIN LATERAL (
    SELECT array_agg(c.id ORDER BY c.id) AS campaigns,
           sum(s.audience) AS messages,
           array_agg(k.kept_by ORDER BY c.id) FILTER (WHERE k.kept_by IS NOT NULL) AS kept_by,
           array_agg(format('campaign %%s: messages in doubt: %%s', c.id, s.unknown) ORDER BY c.id)
               FILTER (WHERE s.unknown > 0) AS in_doubt
    FROM campaigns c
    JOIN reporting.campaign_statistics s ON s.campaign_id = c.id
    CROSS JOIN LATERAL (
        SELECT CASE
                   WHEN c.status NOT IN ('finished', 'cancelled') THEN format('campaign %%s is %%s', c.id, c.status)
                   WHEN s.pending + s.sending > 0 THEN
                       format('campaign %%s: messages that are pending or sending: %%s', c.id, s.pending + s.sending)
                   WHEN NOT EXISTS (
                       SELECT FROM finishes e WHERE e.campaign_id = c.id AND e.finished_at = c.finished_at) THEN
                       format('nobody wrote down how campaign %%s ended: upkeep does', c.id)
                   WHEN c.sending_stop >= now() - make_interval(days => %(days)s) THEN
                       format('the window of campaign %%s closes at %%s', c.id, c.sending_stop)
                   WHEN c.updated >= now() - make_interval(days => %(days)s) THEN
                       format('campaign %%s was changed at %%s', c.id, c.updated)
               END AS kept_by
    ) AS k
    WHERE c.id >= p.first_campaign_id AND c.id < p.end_campaign_id
) AS f
WHERE p.dropped_at IS NULL
  AND (%(first_campaign_id)s::bigint IS NULL OR p.first_campaign_id = %(first_campaign_id)s)
ORDER BY p.first_campaign_id

-- name: be_polite
-- Dropping a part needs the ledger for itself for a moment. Who waits for that keeps all others waiting behind it, senders
-- too: no longer than this.
SELECT set_config('lock_timeout', %(patience)s, true)

-- name: hold_campaigns
-- Of a part: nobody changes them meanwhile.
SELECT id FROM campaigns
WHERE id >= %(first_campaign_id)s AND id < %(end_campaign_id)s
ORDER BY id
FOR UPDATE

-- name: archive_campaigns
UPDATE campaigns SET archived_at = now() WHERE id >= %(first_campaign_id)s AND id < %(end_campaign_id)s

-- name: note_dropped
UPDATE ledger_parts SET dropped_at = now() WHERE first_campaign_id = %(first_campaign_id)s

-- name: forget_batches
DELETE FROM batches WHERE campaign_id >= %(first_campaign_id)s AND campaign_id < %(end_campaign_id)s

-- name: forget_leases
DELETE FROM leases WHERE campaign_id >= %(first_campaign_id)s AND campaign_id < %(end_campaign_id)s

-- name: forget_throttles
DELETE FROM throttles WHERE campaign_id >= %(first_campaign_id)s AND campaign_id < %(end_campaign_id)s
