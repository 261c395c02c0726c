"""Mailing Service: campaigns that live in PostgreSQL and are sent by Airflow.

Floors, each importing only from the ones below it (proven by tests/test_layers.py):

0. `errors`
1. rules, pure: `window`, `local_hours`, `throttle`, `breaker`, `replies`, `phone`, `segments`;
   `metric_list`: every metric there is; `csv_rows`: the rows of a CSV file;
   `background_log`: a log whose writer never waits; `environment`: numbers from variables
2. tables and files: `db`, `models` (and migrations), `client_file`
3. `migrate`; `audit`: who decided what; `pool`, `listing`, `idempotency`, `problems`: what a web server needs
4. `tags`; `campaign_rows`: campaigns as they are read; `gate`: who may come in; `headers`; `poke`: tells Airflow
5. nouns: `clients`, `client_import`, `campaigns`, `messages`, `gateways` (as rows); `ledger`: messages as they are
   read; `finishes`: how campaigns ended; `verdicts`: what people say of what is in doubt, or failed
6. `runs`: what a campaign's run does; `gateway`: speaks HTTP; `roster`: which campaigns are DAGs; `preview`: whom a
   campaign would reach; `statistics`; `spans`: figures of a span of time; `recount`: counts the ledger anew;
   `metrics`: figures for monitoring; `retention`: what of it goes; `exports`: outcomes of a campaign as a file;
   `launches`: campaigns of other pipelines, once per key; `announce`, `webhook`: tell them how campaigns ended
7. `outcomes`: the sender's decisions, pure; `exchange`: the sender's side of the ledger; `enrolment`: what people do to
   messages by hand; `watch`: a campaign as its page shows it; `scrape`: metrics for Prometheus; `push`: and to StatsD;
   `daily_report`: what happened on a day; `history`: what Airflow keeps of what is over goes;
   `dag_watch`: has the DAGs of campaigns parsed when they were written
8. `posting`: the requests of one task; `upkeep`: what must happen though nobody asks
9. `sender`: sends one batch; `test_send`: a few, to try; `triggers`: what a task waits for without a worker
10. faces: `operators`, `pipelines`, `timetable`, `cli`, `api`, `admin`
11. `web`: api and pages in one app; `needed`: what tasks are run with
12. `preload`: has Airflow import that before it forks
"""
