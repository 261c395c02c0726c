"""Pages of a list, each as fast as the first: a cursor says after which row to go on; nothing is counted."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy import table as from_table
from sqlalchemy.dialects.postgresql import psycopg as dialect

from mailing import db
from mailing.errors import InvalidInput

MAX_LIMIT = 1_000
DEFAULT_LIMIT = 50
EXACT_TO = 10_000
"""So many rows are counted in a few milliseconds."""

SQL = db.queries("listing")

T = TypeVar("T")

_DIALECT = dialect.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the cursor of those after them (None: there are none)."""

    items: list[dict[str, Any]]
    next_cursor: str | None


def rows(connection: db.Connection, statement: Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
    """What a SQLAlchemy statement selects, as dicts by the labels of its columns."""
    compiled = statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    return connection.execute(compiled.string, compiled.params).fetchall()


def size(connection: db.Connection, table: str) -> tuple[int, bool]:
    """How many rows a table has, and whether that is exact: above `EXACT_TO` it is the planner's estimate."""
    some = select(literal(1)).select_from(from_table(table)).limit(EXACT_TO + 1).subquery()
    counted: int = rows(connection, select(func.count().label("count")).select_from(some))[0]["count"]
    if counted <= EXACT_TO:
        return counted, True
    estimate = db.one(connection, SQL["estimate"], {"table": table})
    return max(counted, estimate["rows"] if estimate else 0), False


def lose_patience(connection: db.Connection, after_s: float) -> None:
    """From here on, each statement of this transaction may take so long: then psycopg.errors.QueryCanceled."""
    connection.execute(SQL["lose_patience"], {"after": f"{int(after_s * 1000)}ms"})


def counted(connection: db.Connection, within_s: float, count: Callable[[], T]) -> T | None:
    """What `count` returns; None when a statement of it takes longer. The transaction goes on, as impatient as that."""
    try:
        with connection.transaction():
            lose_patience(connection, within_s)
            return count()
    except psycopg.errors.QueryCanceled:
        return None


def page(
    connection: db.Connection,
    statement: Select[*tuple[Any, ...]],
    orders: Mapping[str, ColumnElement[Any]],
    key: ColumnElement[Any],
    *,
    sort: str,
    cursor: str | None = None,
    limit: int = DEFAULT_LIMIT,
) -> Page:
    """One page of `statement`, by `sort`: a name of `orders`, with `-` before it for descending.

    `orders`: the columns to sort by (never NULL, selected under these names); `key`: the unique one, selected as `id`.
    Raises InvalidInput for a sort that is not among them, and for a cursor of another list or sort.
    """
    name = sort.removeprefix("-")
    if name not in orders:
        raise InvalidInput(
            f"sort {sort!r}: wanted one of {', '.join(orders)}, with - before it for descending", ["sort"]
        )
    columns = [orders[name]] if orders[name] is key else [orders[name], key]
    if cursor is not None:
        after = _read(cursor, sort, columns)
        here = tuple_(*columns)
        statement = statement.where(here < after if sort.startswith("-") else here > after)
    direction = (column.desc() if sort.startswith("-") else column.asc() for column in columns)
    found = rows(connection, statement.order_by(*direction).limit(limit + 1))
    items = found[:limit]
    last = [items[-1][name], items[-1]["id"]][: len(columns)] if len(found) > limit else None
    return Page(items, cursor_after(sort, last) if last else None)


def cursor_after(sort: str, values: list[Any]) -> str:
    """The cursor of what comes after the row with these values of the columns sorted by, the key among them."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([sort, *plain]).encode()).decode().rstrip("=")


def _read(cursor: str, sort: str, columns: list[ColumnElement[Any]]) -> Any:
    try:
        sorted_by, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if sorted_by != sort or len(values) != len(columns):
            raise ValueError
        return tuple_(*(_as(column.type.python_type, value) for column, value in zip(columns, values, strict=True)))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidInput(f"cursor: wanted a next_cursor of this list, sorted by {sort}", ["cursor"]) from None


def _as(kind: type, value: Any) -> Any:
    if kind is datetime:
        return datetime.fromisoformat(value)
    if type(value) is not kind or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise ValueError
    if isinstance(value, str) and b"\x00" in value.encode():  # which refuses a lone surrogate
        raise ValueError
    return value
