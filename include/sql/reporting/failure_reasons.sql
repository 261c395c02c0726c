CREATE OR REPLACE VIEW reporting.failure_reasons AS
-- One row per campaign, state and reason of messages that were not sent, or are in doubt.
SELECT s.campaign_id,
       c.name AS campaign_name,
       s.state,
       nullif(s.reason, '') AS reason,
       CASE s.reason
           WHEN 'window' THEN 'the window closed before it was its turn'
           WHEN 'local_hours' THEN 'the client''s local hours do not open before the window closes'
           WHEN 'cancelled' THEN 'the campaign was cancelled'
           WHEN 'filter' THEN 'the client does not match the edited filter'
           WHEN 'client_deleted' THEN 'the client was deleted before it was its turn'
           WHEN 'given_up' THEN 'an operator gave it up'
           WHEN 'not_reached' THEN 'the gateway could not be reached'
           WHEN 'no_answer' THEN 'the gateway did not answer in time'
           WHEN 'connection_lost' THEN 'the connection was lost before the answer'
           WHEN 'reply_not_json' THEN 'the gateway''s reply was no JSON object'
           WHEN 'reply_without_code' THEN 'the gateway''s reply had no code'
           WHEN 'task_died' THEN 'the task that sent it died before the answer'
           WHEN 'task_stopped' THEN 'the task that sent it was stopped before the answer'
           WHEN 'too_late' THEN 'the window closed first'
           WHEN 'unforeseen' THEN 'something unforeseen; the log of the task says what'
           ELSE CASE WHEN s.reason ~ '^http_[0-9]+$' THEN 'the gateway answered with HTTP status ' || substr(s.reason, 6)
                     WHEN s.reason ~ '^code_-?[0-9]+$' THEN 'the gateway refused it with code ' || substr(s.reason, 6)
                     ELSE replace(s.reason, '_', ' ') END
       END AS meaning,
       sum(s.count)::bigint AS messages
FROM state_counts s
JOIN campaigns c ON c.id = s.campaign_id
WHERE s.state IN ('failed', 'unknown', 'expired', 'cancelled', 'excluded')
GROUP BY s.campaign_id, c.name, s.state, s.reason
HAVING sum(s.count) <> 0;

COMMENT ON VIEW reporting.failure_reasons IS
    'One row per campaign, state and reason of messages that were not sent or are in doubt. The rows of a state add up to its column in campaign_statistics. Kept for good, also when the messages are dropped.';
COMMENT ON COLUMN reporting.failure_reasons.campaign_id IS 'The campaign; `campaigns.id` of the REST API.';
COMMENT ON COLUMN reporting.failure_reasons.campaign_name IS 'Its name; empty where it has none.';
COMMENT ON COLUMN reporting.failure_reasons.state IS 'failed, unknown (in doubt), expired, cancelled or excluded.';
COMMENT ON COLUMN reporting.failure_reasons.reason IS 'Why, in one word, as the API has it. http_<n>: the gateway''s status; code_<n>: the code in its reply.';
COMMENT ON COLUMN reporting.failure_reasons.meaning IS 'The same in plain words.';
COMMENT ON COLUMN reporting.failure_reasons.messages IS 'How many messages ended so.';
