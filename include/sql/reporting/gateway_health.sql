CREATE OR REPLACE VIEW reporting.gateway_health AS
-- One row per gateway.
SELECT g.name AS gateway,
       g.breaker_state,
       g.breaker_reason,
       g.breaker_failures,
       g.breaker_changed_at,
       g.breaker_probe_at,
       g.token_expires_at,
       g.messages_per_second AS limit_per_second,
       g.requests_in_flight AS limit_in_flight,
       f.campaigns_running,
       f.pending,
       f.sending,
       f.unknown,
       f.messages_per_second,
       f.last_sent_at,
       clock_timestamp() AS as_of
FROM gateways g
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE s.status = 'running') AS campaigns_running,
           coalesce(sum(s.pending) FILTER (WHERE s.status IN ('running', 'paused')), 0)::bigint AS pending,
           coalesce(sum(s.sending), 0)::bigint AS sending,
           coalesce(sum(s.unknown), 0)::bigint AS unknown,
           coalesce(sum(p.messages_per_second), 0)::numeric AS messages_per_second,
           max(s.last_sent_at) AS last_sent_at
    FROM campaigns c
    JOIN reporting.campaign_statistics s ON s.campaign_id = c.id
    LEFT JOIN reporting.campaign_progress p ON p.campaign_id = c.id
    WHERE c.gateway = g.name
) AS f;

COMMENT ON VIEW reporting.gateway_health IS
    'One row per gateway: whether it answers, its limits, and what waits for it now.';
COMMENT ON COLUMN reporting.gateway_health.gateway IS 'Its name; `gateways.name`.';
COMMENT ON COLUMN reporting.gateway_health.breaker_state IS 'closed: it answers. open, half_open: it is left alone, nothing is sent through it.';
COMMENT ON COLUMN reporting.gateway_health.breaker_reason IS 'What the last failed attempt came to; empty: none since the last good one.';
COMMENT ON COLUMN reporting.gateway_health.breaker_failures IS 'Attempts in a row that settled nothing.';
COMMENT ON COLUMN reporting.gateway_health.breaker_changed_at IS 'Since when the breaker is in this state; empty: ever.';
COMMENT ON COLUMN reporting.gateway_health.breaker_probe_at IS 'When it is tried next; empty while the breaker is closed.';
COMMENT ON COLUMN reporting.gateway_health.token_expires_at IS 'When the token of its connection expires; empty: not known.';
COMMENT ON COLUMN reporting.gateway_health.limit_per_second IS 'At most so many messages a second; empty: no limit.';
COMMENT ON COLUMN reporting.gateway_health.limit_in_flight IS 'At most so many requests at once, of all tasks.';
COMMENT ON COLUMN reporting.gateway_health.campaigns_running IS 'How many campaigns are running through it.';
COMMENT ON COLUMN reporting.gateway_health.pending IS 'Messages that are still to be sent, of campaigns that have opened and are not over.';
COMMENT ON COLUMN reporting.gateway_health.sending IS 'Messages whose request is under way.';
COMMENT ON COLUMN reporting.gateway_health.unknown IS 'Messages in doubt, of all its campaigns.';
COMMENT ON COLUMN reporting.gateway_health.messages_per_second IS 'Sent, over the last 10 to 15 seconds.';
COMMENT ON COLUMN reporting.gateway_health.last_sent_at IS 'When it took the last message, or is assumed to have; empty: none so far.';
COMMENT ON COLUMN reporting.gateway_health.as_of IS 'The database''s clock at the moment of reading.';
