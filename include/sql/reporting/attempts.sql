CREATE OR REPLACE VIEW reporting.attempts AS
-- One row per attempt that failed or is in doubt, with its evidence. An attempt that went well leaves none.
SELECT a.campaign_id,
       a.message_id,
       a.attempt,
       a.state,
       a.reason,
       a.ended_at,
       a.duration_ms,
       a.status_code,
       reporting.words(a.error) AS error,
       reporting.words(a.reply) AS reply
FROM attempts a;

COMMENT ON VIEW reporting.attempts IS
    'One row per attempt that failed or is in doubt: what the gateway or the network said, when, and how long it took.';
COMMENT ON COLUMN reporting.attempts.state IS 'What the attempt made of the message: pending (again), failed, unknown.';
COMMENT ON COLUMN reporting.attempts.reply IS 'The first 1,024 characters of the reply. What may be a phone number in it is masked (7XXX*****XX) but for members of mailing_reader_pii.';
COMMENT ON COLUMN reporting.attempts.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.attempts.message_id IS 'The message; also the gateway''s `msgId`.';
COMMENT ON COLUMN reporting.attempts.attempt IS 'From 1; the same again where it did not count (the token was refused).';
COMMENT ON COLUMN reporting.attempts.reason IS 'Why, in one word; failure_reasons has the meaning.';
COMMENT ON COLUMN reporting.attempts.ended_at IS 'When the attempt ended.';
COMMENT ON COLUMN reporting.attempts.duration_ms IS 'How long it took, in milliseconds; empty: nobody knows, its task died.';
COMMENT ON COLUMN reporting.attempts.status_code IS 'The HTTP status of the reply; empty: there was none.';
COMMENT ON COLUMN reporting.attempts.error IS 'What the network or the reply did wrong; masked as the reply is.';
