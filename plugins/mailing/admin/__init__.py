"""The Mailing pages inside Airflow's web UI, below /mailing/admin: administration, live campaigns, statistics.

Built on starlette-admin, which brings lists, forms, charts and all their assets; `site` puts the views together. A view
is thin: it opens a transaction, calls the domain, shows what came. Its templates and scripts lie beside it.
"""
