-- Clients, each statement loaded by its name (plugins/mailing/db.py). The list of them, with its filters, is built in
-- plugins/mailing/clients.py.

-- name: client
-- The operator code counts as a tag. Names by code point, as Python sorts them.
SELECT c.id, c.phone_number, c.mobile_operator_code, c.timezone, c.created,
       array_prepend(c.mobile_operator_code, ARRAY(
           SELECT t.name FROM client_tags ct JOIN tags t ON t.id = ct.tag_id
           WHERE ct.client_id = c.id ORDER BY t.name COLLATE "C")) AS tags
FROM clients c
WHERE c.id = %(client_id)s

-- name: id_of_phone
SELECT id FROM clients WHERE phone_number = %(phone_number)s

-- name: id_of_tag
SELECT id FROM tags WHERE name = %(name)s

-- name: lock_tags
-- Those of these tags that there are; nobody renames or deletes one before this transaction ends.
SELECT name FROM tags WHERE name = ANY (%(names)s) FOR KEY SHARE

-- name: insert_client
INSERT INTO clients (phone_number, timezone) VALUES (%(phone_number)s, %(timezone)s) RETURNING id

-- name: lock_client
-- FOR UPDATE, which who adds tags to the client waits for: of two edits, or an edit and an import, the later one sees what
-- the earlier one wrote, and replaces all of it.
SELECT id FROM clients WHERE id = %(client_id)s FOR UPDATE

-- name: update_client
-- NULL: stays. A row that is the same gets no new version.
UPDATE clients
SET phone_number = coalesce(%(phone_number)s, phone_number), timezone = coalesce(%(timezone)s, timezone)
WHERE id = %(client_id)s
  AND (phone_number <> %(phone_number)s OR timezone <> %(timezone)s)

-- name: set_tags
WITH wanted AS MATERIALIZED (
    SELECT id FROM tags WHERE name = ANY (%(names)s)
), untagged AS (
    DELETE FROM client_tags WHERE client_id = %(client_id)s AND tag_id NOT IN (SELECT id FROM wanted)
)
INSERT INTO client_tags (client_id, tag_id)
SELECT %(client_id)s, id FROM wanted
ON CONFLICT DO NOTHING

-- name: lock_clients
-- Those of these clients that there are, as lock_client does; by id, so that two who lock several do not wait for each other.
SELECT id FROM clients WHERE id = ANY (%(client_ids)s) ORDER BY id FOR UPDATE

-- name: tag_clients
-- How many of these clients got a tag that they had not.
WITH tagged AS (
    INSERT INTO client_tags (client_id, tag_id)
    SELECT c.id, t.id FROM clients c, tags t WHERE c.id = ANY (%(client_ids)s) AND t.name = ANY (%(names)s)
    ON CONFLICT DO NOTHING
    RETURNING client_id
)
SELECT count(DISTINCT client_id) AS count FROM tagged

-- name: untag_clients
-- How many of these clients lost a tag.
WITH untagged AS (
    DELETE FROM client_tags ct
    USING tags t
    WHERE t.id = ct.tag_id AND ct.client_id = ANY (%(client_ids)s) AND t.name = ANY (%(names)s)
    RETURNING ct.client_id
)
SELECT count(DISTINCT client_id) AS count FROM untagged

-- name: delete_client
-- Its tags go with it.
DELETE FROM clients WHERE id = %(client_id)s
