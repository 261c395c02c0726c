"""The rows of a CSV file by line number, read a chunk at a time: one row with a stray quote costs no other its place.

Lines without quotes are parted at their commas, ten times as fast as a CSV reader that keeps count of its lines:
docs/decisions/0012-what-was-tried-for-speed.md.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mailing.errors import InvalidInput

CHUNK = 50_000  # lines at a time: about 25 MB
LINE_LIMIT = 1 << 20  # bytes; no row of clients is that long, and a file of another kind may be one endless line
ROW_LINES = 100  # lines that a quoted field may run over before its quote is taken for a stray one
PLAIN_LIMIT = 100_000  # bytes of a line that needs no CSV reader to part it: below the reader's own limit of a field

_BOM = b"\xef\xbb\xbf"

Row = tuple[int, list[str], str]
"""Line number, fields, and what is wrong with the row as a whole: then its fields are its one line."""


def chunks(lines: Lines) -> Iterator[Iterable[Row]]:
    """The rows of about CHUNK lines, again and again, to be read before the next are asked for.

    Raises InvalidInput at a line that is not UTF-8 or longer than LINE_LIMIT.
    """
    rows = _rows(lines)
    while not lines.at_end():
        yield lines.plain_rows() or _until_settled(rows, lines)


class Lines:
    """The file's lines as text, each counted, with a way back to the line after a broken row's first."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._file = iter(partial(file.readline, LINE_LIMIT + 1), b"")
        self._ahead: deque[bytes] = deque()  # read, and not handed out yet
        self._again: deque[str] = deque()  # handed out, and given back
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

    def is_ahead(self) -> bool:
        """Whether lines were read that were not handed out yet."""
        return bool(self._again or self._ahead)

    def at_end(self) -> bool:
        """Whether there is no line left. Reads up to CHUNK of them ahead."""
        if not self.is_ahead():
            self._ahead.extend(islice(self._file, CHUNK))
        return not self.is_ahead()

    def plain_rows(self) -> Iterator[Row] | None:
        """The rows of the lines ahead if each line is one and its commas part its fields, else None."""
        text = None if self._again else _plain_text(self._ahead)
        if text is None:
            return None
        first = self.number + 1
        self.number += len(self._ahead)
        self._ahead.clear()
        return ((number, line.split(","), "") for number, line in enumerate(text.split("\n"), first) if line)

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
        line = self._ahead.popleft() if self._ahead else next(self._file)
        if len(line) > LINE_LIMIT:
            raise InvalidInput(f"{self._path}: line {self.number + 1} is longer than {LINE_LIMIT:,} bytes")
        try:
            return (line.removeprefix(_BOM) if self.number == 0 else line).decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{self._path}: line {self.number + 1}: byte 0x{error.object[error.start]:02x} is not UTF-8; "
                "wanted a text file in UTF-8"
            ) from None  # the cause would carry the line, and with it a phone number, into logs


def _plain_text(lines: Collection[bytes]) -> str | None:
    """These lines parted by LF alone, or None where it takes a CSV reader to tell what they hold."""
    content = b"".join(lines)
    breaks = content.count(b"\r")
    if b'"' in content or breaks != content.count(b"\r\n") or max(map(len, lines)) > PLAIN_LIMIT:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None  # the reader says in which line
    return text.replace("\r\n", "\n") if breaks else text


def _rows(lines: Lines) -> Iterator[Row]:
    """The rows of a CSV file. One whose quotes do not match costs its own line, not those that its field runs over."""
    reader = csv.reader(lines, strict=True)
    while True:
        line_number = lines.begin_row()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line_number, [lines.step_back().rstrip("\r\n")], _why_broken(error)
            continue
        if fields:  # an empty line is no row
            yield line_number, fields, ""


def _until_settled(rows: Iterator[Row], lines: Lines) -> Iterator[Row]:
    """The rows of the lines that `lines` has read ahead, or the first CHUNK of them."""
    for _ in range(CHUNK):
        if not lines.is_ahead() or (row := next(rows, None)) is None:
            return
        yield row


def _why_broken(error: csv.Error) -> str:
    if "field limit" in str(error):
        return "a field is too long"
    if "new-line" in str(error):
        return "has a carriage return within the line"
    return "its quotes do not match"
