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
       a.error,
       a.reply
FROM attempts a;

COMMENT ON VIEW reporting.attempts IS
    'One row per attempt that failed or is in doubt: what the gateway or the network said, when, and how long it took.';
COMMENT ON COLUMN reporting.attempts.state IS 'What the attempt made of the message: pending (again), failed, unknown.';
COMMENT ON COLUMN reporting.attempts.reply IS 'The first 1,024 characters of the reply.';
