"""Kills every process of a stack, cuts its gateway and database, presses every button, and counts what became of it.

`make chaos` runs it (`__main__`); a cut of it is a test (tests/stack/test_chaos.py). Top down: `plan` (what is sent and
struck when, all of it by one seed) → `raid` (does it) → `blows` (the kinds) → `world` (the stack as they see it); then
`promises` (the count) → `report`. `fight` is all of it, for the embedded stack and for a cluster (tests/compose).
"""
