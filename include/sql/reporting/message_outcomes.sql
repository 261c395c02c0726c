CREATE OR REPLACE VIEW reporting.message_outcomes AS
-- One row per message, that is per campaign and client of its audience. No phone numbers. The operator code is that of the
-- moment when the client was chosen, as all counts by it have it; its zone is the present one.
SELECT m.id AS message_id,
       m.campaign_id,
       c.name AS campaign_name,
       m.client_id,
       m.mobile_operator_code,
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
COMMENT ON COLUMN reporting.message_outcomes.message_id IS 'The message; also the gateway''s `msgId`.';
COMMENT ON COLUMN reporting.message_outcomes.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.message_outcomes.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.message_outcomes.client_id IS 'The client; `clients.id` of the REST API.';
COMMENT ON COLUMN reporting.message_outcomes.mobile_operator_code IS 'That the client had when it was chosen, three digits; empty: not known (the client was deleted before codes were kept).';
COMMENT ON COLUMN reporting.message_outcomes.timezone IS 'Of the client as it is now, an IANA name; empty: it was deleted.';
COMMENT ON COLUMN reporting.message_outcomes.state IS 'pending, sending, sent, failed, unknown (in doubt), expired, cancelled or excluded.';
COMMENT ON COLUMN reporting.message_outcomes.reason IS 'Why it is in that state, or what it waits for; failure_reasons has the meaning.';
COMMENT ON COLUMN reporting.message_outcomes.attempts IS 'How often it was posted to the gateway, as far as that counts.';
COMMENT ON COLUMN reporting.message_outcomes.revision IS 'Of the campaign, as of the last attempt; empty: it was never claimed.';
COMMENT ON COLUMN reporting.message_outcomes.created IS 'When the client was chosen.';
COMMENT ON COLUMN reporting.message_outcomes.claimed_at IS 'When the last request began; empty: there was none.';
COMMENT ON COLUMN reporting.message_outcomes.sent_at IS 'When the gateway took it (assumed_sent: when the last request began); empty: it did not.';
