-- Whom a campaign would reach. Loaded by name (plugins/mailing/preview.py).

-- name: campaign_to_preview
SELECT text, sending_start, sending_stop, local_from, local_to, opened_at IS NOT NULL AS is_open,
       clock_timestamp() AS now
FROM campaigns
WHERE id = %(campaign_id)s

-- name: audience
-- How the two statements below begin. The same people as runs.sql: audience_by_zone counts: those who are still to be
-- reached; before the campaign opens, those who match its filter.
WITH audience AS (
    SELECT matching.id
    FROM campaigns c
    CROSS JOIN LATERAL clients_matching(c.filter_tags, c.filter_operator_codes) AS matching
    WHERE c.id = %(campaign_id)s AND c.opened_at IS NULL
    UNION ALL
    SELECT m.client_id
    FROM campaigns c
    JOIN messages m ON m.campaign_id = c.id
    WHERE c.id = %(campaign_id)s AND c.opened_at IS NOT NULL AND m.state = 'pending'
)

-- name: counts
-- One row per time zone, then one per operator code; the other of the two is NULL.
SELECT cl.timezone, cl.mobile_operator_code, count(*) AS clients
FROM audience
JOIN clients cl ON cl.id = audience.id
GROUP BY GROUPING SETS (cl.timezone, cl.mobile_operator_code)
ORDER BY cl.timezone, cl.mobile_operator_code

-- name: sample
-- The first of them by id: the same ones each time, and found without reading all.
SELECT cl.id, cl.phone_number, cl.mobile_operator_code, cl.timezone,
       ARRAY[cl.mobile_operator_code] || ARRAY(
           SELECT t.name FROM client_tags ct JOIN tags t ON t.id = ct.tag_id
           WHERE ct.client_id = cl.id
           ORDER BY t.name COLLATE "C") AS tags
FROM audience
JOIN clients cl ON cl.id = audience.id
ORDER BY cl.id
LIMIT %(limit)s

-- name: audience_size
-- How many match a filter that is no campaign's so far.
SELECT count(*) AS clients FROM clients_matching(%(tags)s::text[], %(operator_codes)s::text[])
