CREATE OR REPLACE VIEW reporting.client_history AS
-- One row per client and campaign that it was chosen for. Clients are as they are now.
SELECT m.client_id,
       reporting.phone(cl.phone_number) AS phone_number,
       m.campaign_id,
       c.name AS campaign_name,
       m.id AS message_id,
       m.state,
       m.reason,
       m.attempts,
       r.text,
       m.created,
       m.claimed_at,
       m.sent_at
FROM messages m
JOIN campaigns c ON c.id = m.campaign_id
LEFT JOIN campaign_revisions r ON r.campaign_id = m.campaign_id AND r.revision = m.revision
LEFT JOIN clients cl ON cl.id = m.client_id;

COMMENT ON VIEW reporting.client_history IS
    'One row per client and campaign that it was chosen for: what it got, when, or why not. Ask for one client, or a few. Campaigns whose messages were dropped have no rows.';
COMMENT ON COLUMN reporting.client_history.client_id IS 'The client; `clients.id` of the REST API.';
COMMENT ON COLUMN reporting.client_history.phone_number IS '7XXX*****XX; whole for members of mailing_reader_pii. Empty: the client was deleted.';
COMMENT ON COLUMN reporting.client_history.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.client_history.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.client_history.message_id IS 'The message; also the gateway''s `msgId`.';
COMMENT ON COLUMN reporting.client_history.state IS 'pending, sending, sent, failed, unknown (in doubt), expired, cancelled or excluded.';
COMMENT ON COLUMN reporting.client_history.reason IS 'Why it is in that state; failure_reasons has the meaning.';
COMMENT ON COLUMN reporting.client_history.attempts IS 'How often it was posted to the gateway, as far as that counts.';
COMMENT ON COLUMN reporting.client_history.text IS 'The text it was last posted with; empty: it never was.';
COMMENT ON COLUMN reporting.client_history.created IS 'When the client was chosen.';
COMMENT ON COLUMN reporting.client_history.claimed_at IS 'When the last request began; empty: there was none.';
COMMENT ON COLUMN reporting.client_history.sent_at IS 'When the gateway took it (assumed_sent: when the last request began); empty: it did not.';
