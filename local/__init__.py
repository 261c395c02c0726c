"""The embedded stack: PostgreSQL, Airflow and the gateway simulator on one machine, without Docker or root."""
