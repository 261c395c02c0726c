"""The import of a client list."""

from __future__ import annotations

import csv
import logging
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Self

from mailing import audit, db
from mailing.client_file import Chunk, Reject, judge, open_clients
from mailing.errors import InvalidInput

SLICE = 200_000  # lines written by one statement: some 30 MB of foreign-key checks in PostgreSQL
REJECT_COLUMNS = tuple(column.name for column in fields(Reject))

_LOCK = 7_262_464_547  # any number, the same for every release, and not the one of `migrate`
_PHONE_SIGNS = re.compile(r"[0-9 ()+.-]*")
_FORMULA_START = re.compile(r"(?:^|(?<=;))(?=[=+\-@\t\r\n＝＋－＠])")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportFigures:
    """What became of the rows of a client list: `rows` = `clients` + `repeated_phone` + the sum of `rejected`."""

    rows: int
    clients: int
    """Phone numbers in the file, each counted once: `inserted` + `updated` + `unchanged`."""
    inserted: int
    updated: int
    unchanged: int
    repeated_phone: int
    """Good rows that gave way to a later row for the same phone number."""
    normalised: int
    """Good rows whose phone number was written in another form than 7XXXXXXXXXX."""
    rejected: dict[str, int]
    """Rows left out, by their first wrong field: phone_number, tags, timezone, or `row` for one of another shape."""
    reject_file: Path | None
    """Where each of them stands with its reason; None when there is none."""


def import_clients(
    connection: db.Connection,
    source: str | Path,
    reject_file: str | Path | None = None,
    *,
    on_rejects: Callable[[list[Reject]], None] | None = None,
    actor: str | None = None,
) -> ImportFigures:
    """Bring the clients of the CSV file `source` in: their tags and time zones become those of the file.

    Clients that the file does not name stay as they are. Rows that break a rule go to `reject_file` (by default
    `<name>.rejects.csv` beside the source), which is replaced, or removed when no row was rejected; `on_rejects` gets
    them too, some at a time. The same file again changes nothing. `actor`: who decides, as the audit log is to have it;
    None: it has no entry.

    Raises InvalidInput, with nothing written, when the file cannot be read, is not UTF-8 or has another header, or when
    `reject_file` is some other file. All of it or nothing is written, and only the caller commits, unless `connection`
    is in autocommit.
    """
    source = Path(source)
    with open_clients(source) as file, _RejectFile(_reject_path(source, reject_file), like=source) as rejects:
        # This query begins the caller's transaction, so that the block below is a savepoint in it and commits nothing.
        zones = _zones(connection)
        with connection.transaction():
            staged = _stage(connection, file.chunks(zones), (rejects.write, *([on_rejects] if on_rejects else ())))
            figures = _write(connection, staged, rejects.path if staged.rejected else None)
            if actor is not None:
                _record(connection, actor, figures)
    _log.info("%s: %s", source, figures)
    return figures


def write_clients(
    connection: db.Connection, rows: Sequence[tuple[str, list[str], str]], *, actor: str
) -> tuple[ImportFigures, list[Reject]]:
    """Bring these clients in (phone number, tags, time zone), by the rules of a file: the figures, and the wrong rows.

    The line numbers of those count from 1. All of it or nothing is written, and only the caller commits.
    """
    chunk = judge(rows, _zones(connection))
    with connection.transaction():
        figures = _write(connection, _stage(connection, [chunk], ()), None)
        _record(connection, actor, figures)
    return figures, chunk.rejects


def _record(connection: db.Connection, actor: str, figures: ImportFigures) -> None:
    counts = {name: count for name, count in asdict(figures).items() if name != "reject_file"}
    audit.record(connection, actor, "import_clients", **counts)


def _zones(connection: db.Connection) -> set[str]:
    return {row["name"] for row in connection.execute(db.queries("client_import")["zone_names"])}


@dataclass
class _Staged:
    """What the file held."""

    rows: int = 0
    good: int = 0
    normalised: int = 0
    last_line: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def count(self, chunk: Chunk) -> None:
        self.rows += chunk.rows
        self.good += len(chunk.clients)
        self.normalised += chunk.normalised
        self.rejected.update(reject.field for reject in chunk.rejects)
        if len(chunk.clients):
            self.last_line = chunk.clients[-1][0]


def _stage(
    connection: db.Connection, chunks: Iterable[Chunk], on_rejects: Collection[Callable[[list[Reject]], None]]
) -> _Staged:
    queries = db.queries("client_import")
    staged = _Staged()
    connection.execute(queries["create_staging"])
    with connection.cursor().copy(queries["copy_staging"]) as copy:
        for chunk in chunks:
            # No value that was judged good has a sign that COPY wants escaped.
            copy.write("".join([f"{line}\t{number}\t{zone}\t{tags}\n" for line, number, zone, tags in chunk.clients]))
            for tell in on_rejects:
                tell(chunk.rejects)
            staged.count(chunk)
    return staged


def _write(connection: db.Connection, staged: _Staged, reject_file: Path | None) -> ImportFigures:
    queries = db.queries("client_import")
    connection.execute(queries["lock_import"], {"lock": _LOCK})
    repeated = connection.execute(queries["drop_repeated"]).rowcount
    connection.execute(queries["analyze_staging"])
    connection.execute(queries["insert_tags"])
    written: Counter[str] = Counter()
    for after in range(0, staged.last_line, SLICE):
        for counts in connection.execute(queries["write_slice"], {"after": after, "last": after + SLICE}):
            written.update(counts)
    connection.execute(queries["drop_staging"])
    clients = staged.good - repeated
    return ImportFigures(
        rows=staged.rows,
        clients=clients,
        inserted=written["inserted"],
        updated=written["updated"],
        unchanged=clients - written.total(),
        repeated_phone=repeated,
        normalised=staged.normalised,
        rejected=dict(staged.rejected),
        reject_file=reject_file,
    )


def _reject_path(source: Path, wanted: str | Path | None) -> Path:
    return Path(wanted) if wanted else source.with_name(f"{source.stem}.rejects.csv")


class _RejectFile:
    """The rejected rows on their way to disk: in place at the end of the block, all of them or, on an error, none.

    Raises InvalidInput when `path` cannot be written or is another kind of file: whoever may start an import must not
    be able to replace or remove any file by it.
    """

    def __init__(self, path: Path, *, like: Path) -> None:
        self.path = path
        self._like = like
        self._file: IO[str] | None = None
        if not path.parent.is_dir():
            raise InvalidInput(f"reject file {path}: there is no directory {path.parent}")
        if path.exists() and not _is_reject_file(path):
            raise InvalidInput(f"reject file {path}: exists and is none, so it is left alone; wanted another path")

    def write(self, rejects: list[Reject]) -> None:
        """Append `rejects`."""
        if rejects and self._file is None:
            self._file = self._create()
            csv.writer(self._file).writerow(REJECT_COLUMNS)
        if self._file is not None:
            csv.writer(self._file).writerows((r.line_number, r.field, _harmless(r.value), r.reason) for r in rejects)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            if kind is None:
                self.path.unlink(missing_ok=True)  # what an earlier run rejected is good now
            return
        temporary = Path(self._file.name)
        try:
            self._file.close()
            if kind is None:
                temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def _create(self) -> IO[str]:
        try:
            file = tempfile.NamedTemporaryFile(  # noqa: SIM115  (closed by __exit__)
                "w", encoding="utf-8", newline="", dir=self.path.parent, suffix=".rejects.csv", delete=False
            )
            shutil.copymode(self._like, file.name)  # it holds phone numbers: for the same eyes as the source
        except OSError as error:
            raise InvalidInput(
                f"reject file {self.path}: cannot be written: {error.strerror}; wanted another path"
            ) from error
        return file


def _is_reject_file(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.readline(200).rstrip() == ",".join(REJECT_COLUMNS)
    except (OSError, UnicodeDecodeError):
        return False


def _harmless(value: str) -> str:
    """`value` for a file that people open in a spreadsheet, which runs what begins with = + - @ as a formula.

    An apostrophe in front makes it text, also where the spreadsheet parts columns at `;`. A value made only of the
    signs of a phone number stays as it was: it can call nothing, and people look for it in their list.
    """
    value = value.replace("\0", "\\0")
    return value if _PHONE_SIGNS.fullmatch(value) else _FORMULA_START.sub("'", value)
