"""Mailing Service: campaigns that live in PostgreSQL and are sent by Airflow.

Floors, each importing only from the ones below it (proven by tests/test_layers.py):

0. `errors`
1. rules, pure: `window`, `local_hours`, `throttle`, `breaker`, `replies`, `phone`, `segments`
2. tables and files: `db`, `models`, `migrations`, `client_file`
3. `migrate`; `audit`: who decided what
4. nouns: `clients`, `client_import`, `campaigns`, `messages`, `gateways` (as rows); `ledger`: messages as read;
   `campaign_rows`, one below: campaigns as people read them
5. `runs`: what a campaign's run does; `gateway`: speaks HTTP; `roster`: which campaigns are DAGs; `statistics`;
   `spans`: figures of a span of time;
   `preview`: whom a campaign would reach
6. `outcomes`: the sender's decisions, pure; `exchange`: the sender's side of the ledger; `enrolment`:
   what people do to messages by hand; `watch`: a campaign as its page shows it
7. `posting`: the requests of one task; `upkeep`: what must happen though nobody asks
8. `sender`: sends one batch; `test_send`: a few, to try; `triggers`: what a task waits for without a worker
9. faces: `operators`, `timetable`, `cli`
"""
