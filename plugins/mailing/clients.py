"""Clients as rows: whom campaigns choose, by their tags and operator codes. Lists of them come in by `client_import`.

Functions take a connection and never commit. What a write means for campaigns (docs/delivery.md): an audience is chosen
by the tags of that moment, so a client who is tagged anew stays in those that it is in, unless the campaign's filter is
edited, and joins only those that are yet to open, or `live`. A message that is not claimed yet goes to the number that
the client has then. A deleted client stays in the ledger: what was not claimed ends as excluded (`client_deleted`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Select, Text, func, literal_column, select, true

from mailing import audit, db, listing, phone
from mailing.client_file import DEFAULT_ZONE, own_tags
from mailing.errors import Conflict, InvalidInput, NotFound
from mailing.models import Client, Tag, client_tags
from mailing.tags import ensure as ensure_tags

SQL = db.queries("clients")

EDITABLE = ("phone_number", "tags", "timezone")

MAX_PREFIX = 7
"""Digits of a phone number that may stand in a URL: a whole one would end in access logs."""


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client. `tags`: its operator code, then its tags by name."""

    id: int
    phone_number: str
    mobile_operator_code: str
    tags: list[str]
    timezone: str
    created: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which clients a list is of: those of whom all of this is true.

    `tag`: the name of a tag, or an operator code; `phone_prefix`: the first digits of the number, 7 at most.
    """

    tag: str | None = None
    operator_code: str | None = None
    timezone: str | None = None
    phone_prefix: str | None = None


def page(
    connection: db.Connection,
    wanted: Wanted = Wanted(),  # noqa: B008 - frozen
    *,
    sort: str = "id",
    cursor: str | None = None,
    limit: int = listing.DEFAULT_LIMIT,
) -> listing.Page:
    """Some of the clients, as dicts with the fields of `ClientRow`.

    `sort`: id or phone_number, with `-` before it for descending. Raises InvalidInput for a sort, a cursor or a prefix
    that is none.
    """
    by_phone = sort.removeprefix("-") == "phone_number"
    statement, key = _selected(wanted, _tag_id(connection, wanted), by_phone)
    if by_phone:
        return _page_by_phone(connection, statement, sort, cursor, limit)
    return listing.page(connection, statement, {"id": key}, key, sort=sort, cursor=cursor, limit=limit)


def get(connection: db.Connection, client_id: int) -> ClientRow:
    """One client. Raises NotFound."""
    row = db.one(connection, SQL["client"], {"client_id": client_id})
    if row is None:
        raise NotFound(f"client {client_id}: there is no such client")
    return ClientRow(**row)


def find(connection: db.Connection, phone_number: str) -> ClientRow:
    """The client with this number, however it is written. Raises NotFound, InvalidInput for what is no number."""
    row = db.one(connection, SQL["id_of_phone"], {"phone_number": _number("client", phone_number)})
    if row is None:
        raise NotFound("client: phone_number: there is no client with this number")
    return get(connection, row["id"])


def create(
    connection: db.Connection, phone_number: str, *, tags: Iterable[str] = (), timezone: str = DEFAULT_ZONE, actor: str
) -> ClientRow:
    """A new client; unknown tags are created. Raises Conflict for a number that is taken.

    Raises InvalidInput for what is no number, no time zone, or cannot be a tag. The client's own operator code may be
    among the tags; it is not stored, since the number tells it.
    """
    thing = "new client"
    audit.check_actor(thing, actor)
    number = _number(thing, phone_number)
    names = _known_tags(connection, thing, tags, number)
    with _rules(thing, timezone), connection.transaction():
        row = db.one(connection, SQL["insert_client"], {"phone_number": number, "timezone": timezone})
    assert row is not None  # noqa: S101 - RETURNING
    connection.execute(SQL["set_tags"], {"client_id": row["id"], "names": names})
    audit.record(connection, actor, "create_client", client_id=row["id"])
    return get(connection, row["id"])


def edit(
    connection: db.Connection,
    client_id: int,
    *,
    phone_number: str | None = None,
    tags: Iterable[str] | None = None,
    timezone: str | None = None,
    actor: str,
) -> ClientRow:
    """The client with another number, time zone, or other tags in place of all it had; None: as it is.

    The operator code that it had may be among the tags too: who sends back all it read, with another number, sends it.
    Raises NotFound, and Conflict and InvalidInput as `create` does.
    """
    thing = f"client {client_id}"
    audit.check_actor(thing, actor)
    number = None if phone_number is None else _number(thing, phone_number)
    before = get(connection, client_id)
    # Tags before the client, as an import locks them: in the other order the two might wait for each other for ever.
    own = (name for name in tags or () if name != before.mobile_operator_code)
    names = None if tags is None else _known_tags(connection, thing, own, number or before.phone_number)
    if db.one(connection, SQL["lock_client"], {"client_id": client_id}) is None:
        raise NotFound(f"{thing}: there is no such client")
    with _rules(thing, timezone), connection.transaction():
        parameters = {"client_id": client_id, "phone_number": number, "timezone": timezone}
        connection.execute(SQL["update_client"], parameters)
    if names is not None:
        connection.execute(SQL["set_tags"], {"client_id": client_id, "names": names})
    after = get(connection, client_id)
    if changed := [name for name in EDITABLE if getattr(after, name) != getattr(before, name)]:
        audit.record(connection, actor, "edit_client", client_id=client_id, changed=changed)
    return after


def tag(connection: db.Connection, client_ids: Collection[int], tags: Iterable[str], *, actor: str) -> int:
    """Put tags on these clients, beside those they have; unknown tags are created. How many got one they had not.

    Clients that are gone are passed over. Raises InvalidInput for no tag, and for what cannot be one.
    """
    return _mark(connection, "tag_clients", client_ids, tags, actor)


def untag(connection: db.Connection, client_ids: Collection[int], tags: Iterable[str], *, actor: str) -> int:
    """Take tags off these clients. How many had one. Raises InvalidInput for no tag, and for what cannot be one."""
    return _mark(connection, "untag_clients", client_ids, tags, actor)


def _mark(connection: db.Connection, action: str, client_ids: Collection[int], tags: Iterable[str], actor: str) -> int:
    thing = f"{len(client_ids)} clients"
    audit.check_actor(thing, actor)
    # Tags before the clients, as `edit` does.
    names = _known_tags(connection, thing, tags, "") if action == "tag_clients" else _checked_tags(thing, tags, "")
    if not names:
        raise InvalidInput(f"{thing}: tags: wanted at least one", ["tags"])
    parameters = {"client_ids": list(client_ids), "names": names}
    connection.execute(SQL["lock_clients"], parameters)
    row = db.one(connection, SQL[action], parameters)
    count = int(row["count"]) if row else 0
    if count:
        audit.record(connection, actor, action, client_ids=sorted(client_ids), tags=names, changed=count)
    return count


def delete(connection: db.Connection, client_id: int, *, actor: str) -> None:
    """Delete a client. What the ledger holds of it stays. Raises NotFound."""
    audit.check_actor(f"client {client_id}", actor)
    if not connection.execute(SQL["delete_client"], {"client_id": client_id}).rowcount:
        raise NotFound(f"client {client_id}: there is no such client")
    audit.record(connection, actor, "delete_client", client_id=client_id)


# What is written


def _number(thing: str, written: str) -> str:
    number = phone.normalise(written)
    if number is None:
        raise InvalidInput(f"{thing}: phone_number: wanted {phone.WANTED}", ["phone_number"])  # not what was got: logs
    return number


def _known_tags(connection: db.Connection, thing: str, tags: Iterable[str], number: str) -> list[str]:
    """The tags to store: each is there when this returns, and stays until the transaction ends."""
    names = _checked_tags(thing, tags, number)
    known = {row["name"] for row in connection.execute(SQL["lock_tags"], {"names": names})}
    ensure_tags(connection, set(names) - known)
    return names


def _checked_tags(thing: str, tags: Iterable[str], number: str) -> list[str]:
    names, wrong = own_tags(tags, phone.operator_code(number))
    if wrong:
        raise InvalidInput(f"{thing}: tags: {wrong}", ["tags"])
    return names


@contextmanager
def _rules(thing: str, timezone: str | None) -> Iterator[None]:
    """What the database refuses, in words."""
    try:
        yield
    except psycopg.errors.UniqueViolation:
        # Not the cause: it shows the number.
        raise Conflict(f"{thing}: phone_number: there is a client with this number already") from None
    except psycopg.errors.ForeignKeyViolation as error:
        raise InvalidInput(
            f"{thing}: timezone: wanted the name of a time zone, such as Europe/Moscow, got {timezone!r}", ["timezone"]
        ) from error


# What is listed


def _tag_id(connection: db.Connection, wanted: Wanted) -> int | None:
    """The tag's id, or 0, which none has; None: any tag. Apart from the list, so that PostgreSQL plans for this tag."""
    if wanted.tag is None or _is_code(wanted.tag):
        return None
    row = db.one(connection, SQL["id_of_tag"], {"name": wanted.tag})
    return row["id"] if row else 0


def _selected(wanted: Wanted, tag_id: int | None, by_phone: bool) -> tuple[Select[Any], ColumnElement[int]]:
    """The clients, and the column of their ids by which they are sorted and paged, unless it is by phone number.

    Of a tag's clients it is that of `client_tags`, whose index on (tag_id, client_id) has them in this order.
    """
    names = (
        select(Tag.name).join(client_tags, client_tags.c.tag_id == Tag.id)
        .where(client_tags.c.client_id == Client.id).order_by(Tag.name.collate("C"))
    )  # fmt: skip
    tags = func.array_prepend(Client.mobile_operator_code, func.array(names.scalar_subquery())).label("tags")
    statement = select(
        Client.id, Client.phone_number, Client.mobile_operator_code, tags, Client.timezone, Client.created
    ).where(*_conditions(wanted, by_phone))
    if tag_id is None:
        return statement, Client.__table__.c.id
    chosen = client_tags.alias("chosen")
    of_tag = chosen.c.tag_id == tag_id
    if by_phone:
        return statement.join(chosen, chosen.c.client_id == Client.id).where(of_tag), chosen.c.client_id
    # OFFSET 0 keeps PostgreSQL from a merge join, which reads all clients up to the cursor: at 500,000 clients half the
    # way down, 45 ms instead of 3.
    each = statement.where(Client.id == chosen.c.client_id).offset(0).lateral()
    return select(each).select_from(chosen).join(each, true()).where(of_tag), chosen.c.client_id


def _conditions(wanted: Wanted, by_phone: bool) -> Iterator[ColumnElement[bool]]:
    codes = [wanted.operator_code, wanted.tag if wanted.tag and _is_code(wanted.tag) else None]
    for code in filter(None, codes):
        if by_phone and _is_code(code):
            yield from _begins(f"7{code}")  # the same clients, and one stretch of the index by phone number
        else:
            yield Client.mobile_operator_code == code
    if wanted.timezone is not None:
        yield Client.timezone == wanted.timezone
    if wanted.phone_prefix is not None:
        if not re.fullmatch(rf"7[0-9]{{0,{MAX_PREFIX - 1}}}", wanted.phone_prefix):
            raise InvalidInput(f"phone_prefix: wanted 1 to {MAX_PREFIX} digits, the first a 7", ["phone_prefix"])
        yield from _begins(wanted.phone_prefix)


def _begins(digits: str) -> Iterator[ColumnElement[bool]]:
    """`digits`: the first a 7. A range, which the index serves under any collation; LIKE would want its own."""
    yield Client.phone_number >= digits
    yield Client.phone_number < str(int(digits) + 1)


def _is_code(tag: str) -> bool:
    return re.fullmatch(r"[0-9]{3}", tag) is not None


def _page_by_phone(
    connection: db.Connection, statement: Select[Any], sort: str, cursor: str | None, limit: int
) -> listing.Page:
    """As `listing.page`, but its cursor names the last client by its first digits, its id and its row's version.

    So it holds no number. Where that client was deleted or written since, the page begins where those digits do: some
    clients may come again, none is left out.
    """
    number = Client.__table__.c.phone_number
    # The transaction that wrote the row: all API servers see the same, and no number can be told from it.
    version = literal_column("clients.xmin").cast(Text)
    if cursor is not None:
        digits, client_id, as_of = _read_cursor(sort, cursor)
        last = select(number).where(
            Client.id == client_id, Client.phone_number.startswith(digits), version == as_of
        ).scalar_subquery()  # fmt: skip
        if sort.startswith("-"):
            statement = statement.where(number < func.coalesce(last, f"{digits}99999"))
        else:
            statement = statement.where(number > func.coalesce(last, digits))
    statement = statement.add_columns(version.label("version"))
    found = listing.page(connection, statement, {"phone_number": number}, number, sort=sort, limit=limit)
    versions = [item.pop("version") for item in found.items]
    if found.next_cursor is None:
        return found
    last_item = found.items[-1]
    digits = last_item["phone_number"][:MAX_PREFIX]
    return replace(found, next_cursor=f"{sort}.{digits}.{last_item['id']}.{versions[-1]}")


def _read_cursor(sort: str, cursor: str) -> tuple[str, int, str]:
    read = re.fullmatch(rf"{re.escape(sort)}\.(7[0-9]{{{MAX_PREFIX - 1}}})\.([0-9]{{1,18}})\.([0-9]{{1,10}})", cursor)
    if read is None:
        raise InvalidInput(f"cursor: wanted a next_cursor of this list, sorted by {sort}", ["cursor"])
    return read[1], int(read[2]), read[3]
