"""A client file, read and judged row by row: what `client_import` may write, and what was wrong with the rest.

A row is judged by its first wrong field in the order phone_number, tags, timezone. Whatever the length of the file, one
chunk of it is in memory.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from mailing import phone
from mailing.errors import InvalidInput

DEFAULT_ZONE = "UTC"
MAX_TAG = 200  # characters
COLUMNS = ("phone_number", "tags", "timezone")
CHUNK = 50_000  # rows judged at a time: about 50 MB
LINE_LIMIT = 1 << 20  # bytes; no row of clients is that long, and a file of another kind may be one endless line
ROW_LINES = 100  # lines that a quoted field may run over before its quote is taken for a stray one

_BOM = b"\xef\xbb\xbf"
_REASONS = {
    "phone_number": f"is not {phone.WANTED}",
    "timezone": "is not the name of a time zone in the table timezones",
}
_TAG_SIGNS = frozenset("0123456789-_")


@dataclass(frozen=True)
class Reject:
    """Why a row is left out. `line_number` counts the file's lines from 1, the header's; `field` may be `row`."""

    line_number: int
    field: str
    value: str
    reason: str


@dataclass(frozen=True)
class Chunk:
    """Up to CHUNK rows, judged.

    `clients` holds the good ones: by line number the columns phone_number (7XXXXXXXXXX, perhaps more than once),
    timezone and tags (sorted by code point, joined by `;`). `normalised` counts those that wrote it otherwise.
    """

    rows: int
    clients: pd.DataFrame
    rejects: list[Reject]
    normalised: int


@dataclass(frozen=True)
class _Row:
    line_number: int
    fields: list[str]
    wrong: str = ""  # what is wrong with the row as a whole; then `fields` is its one line


class ClientFile:
    """The rows of an open file, whose header was found right. Made by `open_clients`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._lines = _Lines(file, path)
        self._header = _read_header(self._lines, path)

    def chunks(self, zones: Collection[str]) -> Iterator[Chunk]:
        """The rows in the order of the file, CHUNK at a time; `zones` are the time zones a client may have.

        Raises InvalidInput at a line that is not UTF-8 or longer than LINE_LIMIT.
        """
        rows = _rows(self._lines)
        while batch := list(islice(rows, CHUNK)):
            yield self._judge(batch, zones)

    def _judge(self, rows: list[_Row], zones: Collection[str]) -> Chunk:
        whole = [row for row in rows if not row.wrong and len(row.fields) == len(COLUMNS)]
        broken = [_reject_row(row) for row in rows if row.wrong or len(row.fields) != len(COLUMNS)]
        frame = pd.DataFrame(
            [row.fields for row in whole], columns=self._header, index=[row.line_number for row in whole], dtype="str"
        )
        lists = [written.split(";") if written else [] for written in frame["tags"]]
        chunk = _judge_fields(frame, lists, zones)
        rejects = sorted(broken + chunk.rejects, key=lambda reject: reject.line_number)
        return replace(chunk, rows=len(rows), rejects=rejects)


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


def _read_header(lines: _Lines, path: Path) -> list[str]:
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


class _Lines:
    """The file's lines as text, each counted, with a way back to the line after a broken row's first."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._again: deque[str] = deque()
        self._row: list[str] = []
        self.number = 0  # of the last line handed out

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self._row) >= ROW_LINES:
            raise csv.Error
        line = self._again.popleft() if self._again else self._read()
        self.number += 1
        self._row.append(line)
        return line

    def begin_row(self) -> int:
        """Forget the lines of the row before; the number of the line where the next row begins."""
        self._row.clear()
        return self.number + 1

    def step_back(self) -> str:
        """The first line of this row; its other lines will be handed out again."""
        first, *others = self._row
        self._again.extendleft(reversed(others))
        self.number -= len(others)
        return first

    def _read(self) -> str:
        line = self._file.readline(LINE_LIMIT + 1)
        if not line:
            raise StopIteration
        if len(line) > LINE_LIMIT:
            raise InvalidInput(f"{self._path}: line {self.number + 1} is longer than {LINE_LIMIT:,} bytes")
        try:
            return (line.removeprefix(_BOM) if self.number == 0 else line).decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{self._path}: line {self.number + 1}: byte 0x{error.object[error.start]:02x} is not UTF-8; "
                "wanted a text file in UTF-8"
            ) from None  # the cause would carry the line, and with it a phone number, into logs


def _rows(lines: _Lines) -> Iterator[_Row]:
    """The rows of a CSV file. One whose quotes do not match costs its own line, not those that its field runs over."""
    reader = csv.reader(lines, strict=True)
    while True:
        line_number = lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Row(line_number, [lines.step_back().rstrip("\r\n")], _why_broken(error))
            continue
        if fields:  # an empty line is no row
            yield _Row(line_number, fields)


def _why_broken(error: csv.Error) -> str:
    if "field limit" in str(error):
        return "a field is too long"
    if "new-line" in str(error):
        return "has a carriage return within the line"
    return "its quotes do not match"


def _reject_row(row: _Row) -> Reject:
    reason = row.wrong or f"has {len(row.fields)} fields, wanted {len(COLUMNS)}"
    return Reject(row.line_number, "row", ",".join(row.fields), reason)


def judge(rows: Sequence[tuple[str, list[str], str]], zones: Collection[str]) -> Chunk:
    """Rows that stand in no file (phone number, tags, time zone), judged as a file's: their line numbers count from 1.

    The value of a reject for its tags is empty.
    """
    frame = pd.DataFrame(
        {"phone_number": [row[0] for row in rows], "tags": "", "timezone": [row[2] for row in rows]},
        index=range(1, len(rows) + 1),
        dtype="str",
    )
    return _judge_fields(frame, [row[1] for row in rows], zones)


def _judge_fields(frame: pd.DataFrame, lists: Sequence[list[str]], zones: Collection[str]) -> Chunk:
    """The good rows as clients, and the wrong ones by their first wrong field. `lists`: the tags of each row."""
    numbers = frame["phone_number"]
    other = ~numbers.str.fullmatch(phone.PHONE_NUMBER)
    numbers = numbers.mask(other, numbers[other].map(phone.normalise))
    judged = map(own_tags, lists, numbers.fillna("").map(phone.operator_code))
    joined = [(";".join(names), wrong) for names, wrong in judged]
    tags = pd.DataFrame(joined, columns=["names", "wrong"], index=frame.index, dtype="str")
    zone = frame["timezone"].mask(frame["timezone"] == "", DEFAULT_ZONE)
    # The first that holds decides.
    wrong = np.select([numbers.isna(), tags["wrong"] != "", ~zone.isin(list(zones))], COLUMNS, default="")
    good = wrong == ""
    clients = pd.DataFrame({"phone_number": numbers, "timezone": zone, "tags": tags["names"]})[good]
    bad = frame[~good].assign(field=wrong[~good], wrong_tag=tags["wrong"][~good])
    rejects = [
        Reject(line, row["field"], row[row["field"]], _REASONS.get(row["field"], row["wrong_tag"]))
        for line, row in zip(bad.index, bad.to_dict("records"), strict=True)
    ]
    normalised = int((clients["phone_number"] != frame.loc[clients.index, "phone_number"]).sum())
    return Chunk(len(frame), clients, rejects, normalised)


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
    if re.fullmatch(r"[0-9]{3}", name):
        return "is an operator code, which is computed from the phone number"
    return ""
