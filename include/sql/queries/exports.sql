-- Outcomes of a campaign for files, each statement loaded by its name (plugins/mailing/db.py).

-- name: outcomes
-- One row per message of the campaign, in the order of messages_campaign_id_client_id_key, so that nothing has to be sorted before the
-- first is there. The operator code is as it was when the client was chosen, the time zone as it is now (empty: the client was
-- deleted). Neither phone numbers nor texts.
SELECT m.id AS message_id, m.campaign_id, m.client_id, m.mobile_operator_code AS operator_code, c.timezone, m.state, m.reason,
       m.attempts, m.revision, m.created, m.claimed_at, m.sent_at, m.not_before
FROM messages m
LEFT JOIN clients c ON c.id = m.client_id
WHERE m.campaign_id = %(campaign_id)s
ORDER BY m.client_id
