"""Tags as rows: labels on clients, by which filters choose them.

Functions take a connection and never commit. An operator code is never a tag's name: it is told by the phone number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, select

from mailing import audit, db, listing
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.models import Tag

SQL = db.queries("tags")

WRONG_NAMES = {
    "tags_name_form_check": "name: wanted 1 to 200 letters, digits, - or _",
    "tags_not_an_operator_code_check": "name: three digits are an operator code, which every client has by itself",
}
"""What was wanted, by the constraint that a name broke."""

ORDERS: dict[str, ColumnElement[Any]] = {"id": Tag.__table__.c.id, "name": Tag.__table__.c.name}
"""What a list of tags can be sorted by."""


@dataclass(frozen=True, slots=True)
class TagRow:
    """A tag."""

    id: int
    name: str


def page(
    connection: db.Connection,
    *,
    part: str | None = None,
    sort: str = "name",
    cursor: str | None = None,
    limit: int = listing.DEFAULT_LIMIT,
) -> listing.Page:
    """Some of the tags; `part`: of their names, in whatever case.

    Raises InvalidInput for a sort or a cursor that is none.
    """
    statement = select(Tag.id, Tag.name)
    if part:
        statement = statement.where(Tag.name.icontains(part, autoescape=True))
    return listing.page(connection, statement, ORDERS, ORDERS["id"], sort=sort, cursor=cursor, limit=limit)


def containing(connection: db.Connection, part: str, limit: int = 20) -> list[str]:
    """Names of tags that have this part, in whatever case: those that begin with it come first."""
    return [row["name"] for row in connection.execute(SQL["tags_containing"], {"part": part, "limit": limit})]


def get(connection: db.Connection, tag_id: int) -> TagRow:
    """One tag. Raises NotFound."""
    row = db.one(connection, SQL["tag"], {"tag_id": tag_id})
    if row is None:
        raise NotFound(f"tag {tag_id}: there is no such tag")
    return TagRow(**row)


def create(connection: db.Connection, name: str, *, actor: str) -> TagRow:
    """A new tag. Raises InvalidInput for a name that breaks a rule, Conflict for one that is taken."""
    audit.check_actor("new tag", actor)
    with _rules("new tag", name), connection.transaction():
        row = db.one(connection, SQL["insert_tag"], {"name": name})
    assert row is not None  # noqa: S101 - RETURNING
    audit.record(connection, actor, "create_tag", tag_id=row["id"])
    return TagRow(**row)


def rename(connection: db.Connection, tag_id: int, name: str, *, actor: str) -> TagRow:
    """The tag under another name. Raises NotFound, InvalidInput for a name that breaks a rule.

    Raises Conflict for a name that is taken, and for a tag that the filter of a campaign names which is not over.
    """
    thing = f"tag {tag_id}"
    audit.check_actor(thing, actor)
    with _rules(thing, name), connection.transaction():
        row = db.one(connection, SQL["rename_tag"], {"tag_id": tag_id, "name": name})
    if row is None:
        raise NotFound(f"{thing}: there is no such tag")
    audit.record(connection, actor, "rename_tag", tag_id=tag_id)
    return TagRow(**row)


def delete(connection: db.Connection, tag_id: int, *, actor: str) -> None:
    """Take the tag off all clients, and delete it. Raises NotFound, and Conflict as `rename` does."""
    thing = f"tag {tag_id}"
    audit.check_actor(thing, actor)
    with _rules(thing, None), connection.transaction():
        deleted = connection.execute(SQL["delete_tag"], {"tag_id": tag_id}).rowcount
    if not deleted:
        raise NotFound(f"{thing}: there is no such tag")
    audit.record(connection, actor, "delete_tag", tag_id=tag_id)


def ensure(connection: db.Connection, names: Collection[str]) -> None:
    """Create those of `names` that are no tags so far. Raises InvalidInput for a name that breaks a rule."""
    for name in sorted(set(names)):
        with _rules(f"tag {name!r}", name), connection.transaction():
            connection.execute(SQL["ensure_tag"], {"name": name})


@contextmanager
def _rules(thing: str, name: str | None) -> Iterator[None]:
    """What the database refuses, in words."""
    try:
        yield
    except psycopg.errors.CheckViolation as error:
        wanted = WRONG_NAMES[error.diag.constraint_name or ""]
        raise InvalidInput(f"{thing}: {wanted}, got {name!r}", ["name"]) from error
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"{thing}: name: there is a tag {name!r} already") from error
    except psycopg.errors.ForeignKeyViolation as error:
        raise Conflict(f"{error.diag.message_primary}") from error
