"""The real docker-compose.yaml under fire: `make compose-test` (`__main__`). It wants a Docker engine.

`cluster` brings it up, down and to its knees; the raid, the count and the report are those of tests/chaos.
"""
