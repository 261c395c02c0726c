"""What a list was asked for, as its address has it: how it is narrowed, and sorted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from starlette.datastructures import QueryParams
from starlette.requests import Request

from mailing.admin.fields import typed_id
from mailing.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Filter:
    """One thing that a list can be narrowed by; `choices`: what is offered, else anything can be typed."""

    name: str
    label: str
    choices: Sequence[str] = ()
    hint: str = ""
    max_length: int = 200
    is_number: bool = False


def query_of(request: Request) -> QueryParams:
    """The list's own query: of its address, or as an action upon it brings it along."""
    listed = request.query_params.get("_list_query")
    return request.query_params if listed is None else QueryParams(listed.lstrip("?"))


def asked_of(filters: Sequence[Filter], query: QueryParams) -> dict[str, str]:
    """What the list is narrowed by."""
    given = {each.name: query.get(each.name, "").strip() for each in filters}
    return {name: value for name, value in given.items() if value}


def sort_of(sorts: Sequence[tuple[str, str]] | None) -> str:
    """The first column to sort by, as the domain has it."""
    name, direction = (sorts or [("id", "asc")])[0]
    return f"-{name}" if direction == "desc" else name


def asked_id(asked: Mapping[str, str], name: str, label: str) -> int | None:
    """An id that the list is narrowed by. Raises InvalidInput."""
    if name not in asked:
        return None
    try:
        return typed_id(asked[name])
    except ValueError as error:
        raise InvalidInput(f"{label}: {error}", [name]) from None
