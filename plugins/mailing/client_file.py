"""A client file, read and judged row by row: what `client_import` may write, and what was wrong with the rest.

A row is judged by its first wrong field in the order phone_number, tags, timezone. Whatever the length of the file, one
chunk of it is in memory. A list of tags is judged once, however many rows have it: a file has few different ones.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, TypeVar

from mailing import phone
from mailing.csv_rows import Lines, Row, chunks
from mailing.errors import InvalidInput

DEFAULT_ZONE = "UTC"
MAX_TAG = 200  # characters
COLUMNS = ("phone_number", "tags", "timezone")

_REASONS = {
    "phone_number": f"is not {phone.WANTED}",
    "timezone": "is not the name of a time zone in the table timezones",
}
_TAG_SIGNS = frozenset("0123456789-_")
_OPERATOR_CODE = re.compile(r"[0-9]{3}")

T = TypeVar("T")
Client = tuple[int, str, str, str]
"""Line number, phone number (7XXXXXXXXXX), time zone, tags (sorted by code point, joined by `;`)."""


@dataclass(frozen=True)
class Reject:
    """Why a row is left out. `line_number` counts the file's lines from 1, the header's; `field` may be `row`."""

    line_number: int
    field: str
    value: str
    reason: str


@dataclass
class Chunk:
    """About CHUNK rows, judged.

    `clients` holds the good ones, in the order of their lines; a phone number may be there more than once. `normalised`
    counts those that wrote it otherwise.
    """

    rows: int = 0
    clients: list[Client] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    normalised: int = 0


class ClientFile:
    """The rows of an open file, whose header was found right. Made by `open_clients`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._lines = Lines(file, path)
        self._header = _read_header(self._lines, path)

    def chunks(self, zones: Collection[str]) -> Iterator[Chunk]:
        """The rows in the order of the file, CHUNK lines at a time; `zones` are the time zones a client may have.

        Raises InvalidInput at a line that is not UTF-8 or longer than LINE_LIMIT.
        """
        for rows in chunks(self._lines):
            yield self._judge(rows, zones)

    def _judge(self, rows: Iterable[Row], zones: Collection[str]) -> Chunk:
        broken: list[Reject] = []
        chunk = _judge_fields(self._whole(rows, broken), _tags_of_text, zones)
        chunk.rows += len(broken)
        chunk.rejects = sorted(chunk.rejects + broken, key=lambda reject: reject.line_number)
        return chunk

    def _whole(self, rows: Iterable[Row], broken: list[Reject]) -> Iterator[tuple[int, str, str, str]]:
        """Line number and fields in the order of COLUMNS of those rows that have them; the others go to `broken`."""
        in_order = itemgetter(*(self._header.index(column) for column in COLUMNS))
        for line_number, fields, wrong in rows:
            if wrong or len(fields) != len(COLUMNS):
                reason = wrong or f"has {len(fields)} fields, wanted {len(COLUMNS)}"
                broken.append(Reject(line_number, "row", ",".join(fields), reason))
            else:
                yield line_number, *in_order(fields)


@contextmanager
def open_clients(path: Path) -> Iterator[ClientFile]:
    """The client file at `path`: UTF-8 with or without BOM, its header the three COLUMNS in any order.

    Raises InvalidInput when it cannot be read, is empty, is not UTF-8 or has another header.
    """
    if path.is_dir():
        raise InvalidInput(f"{path}: is a directory; wanted a CSV file")
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{path}: cannot be read: {reason}; wanted a CSV file") from error
    with file:
        yield ClientFile(file, path)


def _read_header(lines: Lines, path: Path) -> list[str]:
    wanted = f"wanted the header {','.join(COLUMNS)}"
    first = next(lines, "").strip("\r\n")
    if not first and next(lines, None) is None:
        raise InvalidInput(f"{path}: is empty; {wanted}")
    try:
        header = next(csv.reader([first], strict=True), [])
    except csv.Error:
        header = []
    if sorted(header) != sorted(COLUMNS):
        # Without its header a client list begins with a phone number, and this message goes into logs.
        found = re.sub(r"\d", "#", first[:80])
        raise InvalidInput(f"{path}: line 1 is {found!r} (digits hidden); {wanted}, separated by commas")
    return header


def judge(rows: Sequence[tuple[str, list[str], str]], zones: Collection[str]) -> Chunk:
    """Rows that stand in no file (phone number, tags, time zone), judged as a file's: their line numbers count from 1.

    The value of a reject for its tags is empty.
    """
    return _judge_fields(((number, *row) for number, row in enumerate(rows, start=1)), _tags_of_list, zones)


def _judge_fields(
    rows: Iterable[tuple[int, str, T, str]], judge_tags: Callable[[T, str], tuple[str, str]], zones: Collection[str]
) -> Chunk:
    """Rows as line number, phone number, tags and time zone. `judge_tags`: see `_tags_of_text`."""
    chunk = Chunk()
    is_normal = re.compile(phone.PHONE_NUMBER).fullmatch
    for line_number, written, tags, zone in rows:
        chunk.rows += 1
        number = written if is_normal(written) else phone.normalise(written)
        if number is None:
            chunk.rejects.append(Reject(line_number, "phone_number", written, _REASONS["phone_number"]))
            continue
        names, wrong = judge_tags(tags, phone.operator_code(number))
        if wrong:
            chunk.rejects.append(Reject(line_number, "tags", tags if isinstance(tags, str) else "", wrong))
        elif zone and zone not in zones:
            chunk.rejects.append(Reject(line_number, "timezone", zone, _REASONS["timezone"]))
        else:
            chunk.clients.append((line_number, number, zone or DEFAULT_ZONE, names))
            chunk.normalised += number is not written
    return chunk


def _tags_of_list(names: list[str], operator_code: str) -> tuple[str, str]:
    own, wrong = own_tags(names, operator_code)
    return ";".join(own), wrong


def _tags_of_text(written: str, operator_code: str) -> tuple[str, str]:
    """The tags of one client as they are stored, joined by `;`, and what is wrong with the first wrong one, or ""."""
    names, wrong, has_code = _tags_without_client(written)
    return _tags_of_list(written.split(";"), operator_code) if has_code else (names, wrong)


@lru_cache(maxsize=10_000)
def _tags_without_client(written: str) -> tuple[str, str, bool]:
    """As `_tags_of_text`, and whether there is an operator code among them: then it depends on the client."""
    listed = written.split(";") if written else []
    return *_tags_of_list(listed, ""), any(map(_OPERATOR_CODE.fullmatch, listed))


def own_tags(names: Iterable[str], operator_code: str) -> tuple[list[str], str]:
    """The tags of one client, sorted and each once, and what is wrong with the first wrong one, or "".

    The client's own operator code is left out: it counts as a tag, so an exported list holds it, but it is computed.
    """
    names = [name for name in names if name != operator_code]
    for name in names:
        if wrong := wrong_tag(name):
            return [], f"tag {name[:80]!r} {wrong}"
    return sorted(set(names)), ""


@lru_cache(maxsize=10_000)
def wrong_tag(name: str) -> str:
    """Why `name` cannot be a tag, or "". What passes here also passes the CHECKs of the table `tags`."""
    if not all(character.isalpha() or character in _TAG_SIGNS for character in name):
        return "has a character other than letters, digits, - and _"
    if not 1 <= len(name) <= MAX_TAG:
        return f"has {len(name)} characters, wanted 1 to {MAX_TAG}"
    if _OPERATOR_CODE.fullmatch(name):
        return "is an operator code, which is computed from the phone number"
    return ""
