"""Mailing Service: campaigns that live in PostgreSQL and are sent by Airflow.

Floors, each importing only from the ones below it (proven by tests/test_layers.py):

0. rules, pure: `window`, `replies`, `phone`
1. tables: `errors`, `db`, `models`, `migrations`
2. nouns: `clients`, `campaigns`, `messages`
3. sending: `gateway`, `sender`
4. faces: `operators`, `timetable`, `cli`
"""
