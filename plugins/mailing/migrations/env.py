"""Alembic's entry: runs the migrations on the connection that `mailing.migrate` hands over."""

from __future__ import annotations

from alembic import context

from mailing.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
