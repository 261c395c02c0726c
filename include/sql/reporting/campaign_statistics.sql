CREATE OR REPLACE VIEW reporting.campaign_statistics AS
-- One row per campaign. The eight states always add up to the audience.
SELECT c.id AS campaign_id,
       c.name AS campaign_name,
       c.status,
       c.sending_start,
       c.sending_stop,
       c.revision,
       m.audience,
       m.pending,
       m.sending,
       m.sent,
       m.failed,
       m.unknown,
       m.expired,
       m.cancelled,
       m.excluded,
       m.first_sent_at,
       m.last_sent_at,
       c.opened_at,
       c.finished_at
FROM campaigns c
CROSS JOIN LATERAL (
    SELECT count(*) AS audience,
           count(*) FILTER (WHERE state = 'pending') AS pending,
           count(*) FILTER (WHERE state = 'sending') AS sending,
           count(*) FILTER (WHERE state = 'sent') AS sent,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'unknown') AS unknown,
           count(*) FILTER (WHERE state = 'expired') AS expired,
           count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
           count(*) FILTER (WHERE state = 'excluded') AS excluded,
           min(sent_at) AS first_sent_at,
           max(sent_at) AS last_sent_at
    FROM messages
    WHERE messages.campaign_id = c.id
) AS m;

COMMENT ON VIEW reporting.campaign_statistics IS
    'One row per campaign: its window, its status, and its messages by state. The eight states add up to the audience.';
