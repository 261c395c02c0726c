-- The ledger as people read it; its pages are built in plugins/mailing/ledger.py.

-- name: id_spans
-- Where the messages of a campaign lie: spans of ids, in order. Its batches are in the order of their ids, and mostly side by
-- side; where more than %(gap)s ids of others lie between two of them (latecomers), a new span begins, at the widest gaps
-- only, so that there are at most %(max_spans)s.
WITH batch AS (
    SELECT number, first_id, last_id, first_id - lag(last_id) OVER (ORDER BY number) AS gap
    FROM batches
    WHERE campaign_id = %(campaign_id)s
), ranked AS (
    SELECT number, first_id, last_id, gap, row_number() OVER (ORDER BY gap DESC NULLS LAST) AS rank
    FROM batch
), numbered AS (
    SELECT first_id, last_id,
           count(*) FILTER (WHERE gap > %(gap)s AND rank < %(max_spans)s) OVER (ORDER BY number) AS span
    FROM ranked
)
SELECT min(first_id) AS first_id, max(last_id) AS last_id
FROM numbered
GROUP BY span
ORDER BY span

-- name: plan_by_id
-- Until the transaction ends or `plan_as_usual`: ids by the primary key, in order, and no further than the page. What the
-- planner knows of a ledger that is being filled is old; left to it, it reads and sorts the whole campaign for each page.
SELECT set_config(name, 'off', true)
FROM unnest(ARRAY['enable_bitmapscan', 'enable_seqscan', 'enable_sort', 'enable_gathermerge']) AS name

-- name: plan_as_usual
SELECT set_config(name, 'on', true)
FROM unnest(ARRAY['enable_bitmapscan', 'enable_seqscan', 'enable_sort', 'enable_gathermerge']) AS name
