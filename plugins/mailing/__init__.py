"""Mailing Service: campaigns that live in PostgreSQL and are sent by Airflow.

Floors, each importing only from the ones below it (proven by tests/test_layers.py):

0. rules, pure: `window`, `replies`, `phone`, `errors`
1. tables and files: `db`, `models`, `migrations`, `client_file`
2. nouns: `clients`, `campaigns`, `messages`; `migrate`
3. towards the world: `gateway` (HTTP), `roster` (which campaigns are DAGs)
4. `outcomes`: the sender's decisions, pure
5. `sender`: sends one batch
6. faces: `operators`, `timetable`, `cli`
"""
