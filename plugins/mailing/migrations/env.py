"""Alembic's entry: runs the migrations on the connection that `mailing.migrate` hands over."""

from __future__ import annotations

import re

from alembic import context

from mailing.models import Base


def is_ours(name: str | None, kind: str, parents: object) -> bool:
    """All but the partitions of the ledger, which the function ledger_part makes."""
    return kind != "table" or re.fullmatch(r"(messages|attempts)_[0-9]+", name or "") is None


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_server_default=True,
    include_name=is_ours,
)
with context.begin_transaction():
    context.run_migrations()
