CREATE OR REPLACE VIEW reporting.message_outcomes AS
-- One row per message, that is per campaign and client of its audience. No phone numbers; the client's columns are
-- empty once the client is deleted.
SELECT m.id AS message_id,
       m.campaign_id,
       c.name AS campaign_name,
       m.client_id,
       cl.mobile_operator_code,
       cl.timezone,
       m.state,
       m.reason,
       m.attempts,
       m.revision,
       r.text,
       m.created,
       m.claimed_at,
       m.sent_at,
       m.not_before
FROM messages m
JOIN campaigns c ON c.id = m.campaign_id
LEFT JOIN campaign_revisions r ON r.campaign_id = m.campaign_id AND r.revision = m.revision
LEFT JOIN clients cl ON cl.id = m.client_id;

COMMENT ON VIEW reporting.message_outcomes IS
    'One row per message (per campaign and client): its state, why, and the text it was sent with.';
COMMENT ON COLUMN reporting.message_outcomes.text IS
    'The text of the revision that the message was last claimed with; empty while it was never claimed.';
COMMENT ON COLUMN reporting.message_outcomes.not_before IS
    'While it is pending: when it is due (a retry, the next opening of its client''s local hours); empty: now.';
