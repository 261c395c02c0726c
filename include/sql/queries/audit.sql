-- The audit log's statements, each loaded by its name (plugins/mailing/db.py).

-- name: record_action
INSERT INTO audit_log (actor, action, campaign_id, message_id, detail)
VALUES (%(actor)s, %(action)s, %(campaign_id)s, %(message_id)s, NULLIF(%(detail)s::jsonb, 'null'))
