-- What all lists share, each statement loaded by its name (plugins/mailing/db.py).

-- name: estimate
-- How many rows the planner takes a table to have; -1: it was never analyzed.
SELECT reltuples::bigint AS rows FROM pg_class WHERE oid = %(table)s::regclass

-- name: lose_patience
-- For this transaction.
SELECT set_config('statement_timeout', %(after)s, true)
