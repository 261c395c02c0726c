-- Tags, each statement loaded by its name (plugins/mailing/db.py). What they may be called is said by constraints.

-- name: tag
SELECT id, name FROM tags WHERE id = %(tag_id)s

-- name: insert_tag
INSERT INTO tags (name) VALUES (%(name)s) RETURNING id, name

-- name: ensure_tag
-- An identity value is not drawn for a tag that is there already.
INSERT INTO tags (name)
SELECT %(name)s WHERE NOT EXISTS (SELECT FROM tags WHERE name = %(name)s)
ON CONFLICT (name) DO NOTHING

-- name: rename_tag
UPDATE tags SET name = %(name)s WHERE id = %(tag_id)s RETURNING id, name

-- name: delete_tag
DELETE FROM tags WHERE id = %(tag_id)s

-- name: tags_containing
-- For whoever types a part of a name; there are hundreds of tags, not millions.
SELECT name
FROM tags
WHERE strpos(lower(name), lower(%(part)s)) > 0
ORDER BY strpos(lower(name), lower(%(part)s)) > 1, name COLLATE "C"
LIMIT %(limit)s
