-- The client import's statements, each loaded by its name (plugins/mailing/db.py).
--
-- The whole file is staged before the first client is written: only then is it known which row of a repeated phone number
-- comes last, and an import that is run again finds nothing to write. What is staged lies in PostgreSQL's temporary
-- files, so that neither side's memory grows with the file.

-- name: zone_names
SELECT name FROM timezones

-- name: create_staging
-- One row per good row of the file. The key serves write_slice; lines come in ascending order, so it costs little.
CREATE TEMPORARY TABLE staged_clients (
    line_number bigint PRIMARY KEY,
    phone_number text NOT NULL,
    timezone text NOT NULL,
    tags text NOT NULL  -- sorted, joined by ';'
) ON COMMIT DROP

-- name: copy_staging
COPY pg_temp.staged_clients (line_number, phone_number, timezone, tags) FROM STDIN

-- name: lock_import
-- One import writes at a time, until its transaction ends: two files with the same clients in another order would wait for
-- each other's rows for ever. Staging needs no lock, so it comes before.
SELECT pg_advisory_xact_lock(%(lock)s)

-- name: drop_repeated
-- A later row for the same phone number wins.
DELETE FROM pg_temp.staged_clients s
USING (
    SELECT phone_number, max(line_number) AS last_line
    FROM pg_temp.staged_clients
    GROUP BY phone_number
    HAVING count(*) > 1
) AS repeated
WHERE s.phone_number = repeated.phone_number
  AND s.line_number < repeated.last_line

-- name: analyze_staging
-- Nobody else does it for a temporary table, and without figures the planner takes it for a few rows.
ANALYZE pg_temp.staged_clients

-- name: insert_tags
-- The tags that nobody had so far; sorted, so that two who bring the same ones wait in one direction only.
INSERT INTO tags (name)
SELECT new.name
FROM (
    SELECT DISTINCT unnest(string_to_array(lists.tags, ';')) AS name
    FROM (SELECT DISTINCT tags FROM pg_temp.staged_clients) AS lists
) AS new
WHERE NOT EXISTS (SELECT FROM tags t WHERE t.name = new.name)
ORDER BY new.name
ON CONFLICT (name) DO NOTHING

-- name: write_slice
-- The staged clients of the lines above %(after)s up to %(last)s, written where they differ from what is there: a row that
-- is the same gets no new version. Returns one row: how many were new, and how many differed.
--
-- A slice at a time, because PostgreSQL keeps the foreign-key checks of one statement in memory until it ends.
WITH tag_lists AS MATERIALIZED (
    SELECT lists.tags,
           ARRAY(SELECT t.id FROM tags t WHERE t.name = ANY (string_to_array(lists.tags, ';')) ORDER BY t.id) AS tag_ids
    FROM (
        SELECT DISTINCT tags FROM pg_temp.staged_clients WHERE line_number > %(after)s AND line_number <= %(last)s
    ) AS lists
), changed AS MATERIALIZED (
    SELECT c.id AS client_id, s.phone_number, s.timezone, l.tag_ids,
           c.timezone IS DISTINCT FROM s.timezone AS upsert  -- also where there is no such client
    FROM pg_temp.staged_clients s
    JOIN tag_lists l ON l.tags = s.tags
    LEFT JOIN clients c ON c.phone_number = s.phone_number
    WHERE s.line_number > %(after)s AND s.line_number <= %(last)s
      AND (c.timezone IS DISTINCT FROM s.timezone
           OR ARRAY(SELECT ct.tag_id FROM client_tags ct WHERE ct.client_id = c.id ORDER BY ct.tag_id) <> l.tag_ids)
), upserted AS (
    INSERT INTO clients (phone_number, timezone)
    SELECT phone_number, timezone FROM changed WHERE upsert ORDER BY phone_number
    ON CONFLICT (phone_number) DO UPDATE SET timezone = excluded.timezone
    RETURNING id, phone_number
), untagged AS (
    DELETE FROM client_tags ct
    USING changed
    WHERE ct.client_id = changed.client_id AND ct.tag_id <> ALL (changed.tag_ids)
), tagged AS (
    INSERT INTO client_tags (client_id, tag_id)
    SELECT coalesce(changed.client_id, upserted.id), unnest(changed.tag_ids)
    FROM changed
    LEFT JOIN upserted ON upserted.phone_number = changed.phone_number
    ON CONFLICT DO NOTHING
)
SELECT count(*) FILTER (WHERE client_id IS NULL) AS inserted,
       count(*) FILTER (WHERE client_id IS NOT NULL) AS updated
FROM changed

-- name: drop_staging
-- So that one transaction can import two files.
DROP TABLE pg_temp.staged_clients
