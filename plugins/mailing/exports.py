"""Outcomes of a campaign as a file, written while they are read: as many messages as there are, in little memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from psycopg.rows import tuple_row
from starlette_admin.export.helpers import escape_formula

from mailing import campaign_rows, db

if TYPE_CHECKING:
    import pyarrow as pa

SQL = db.queries("exports")

COLUMNS = (
    "message_id", "campaign_id", "client_id", "operator_code", "timezone", "state", "reason", "attempts", "revision",
    "created", "claimed_at", "sent_at", "not_before",
)  # fmt: skip
"""One row per message, by client. No phone number and no text."""

INTEGERS = {"message_id": 64, "campaign_id": 64, "client_id": 64, "attempts": 16, "revision": 32}
MOMENTS = {"created", "claimed_at", "sent_at", "not_before"}

FETCH = 5_000
"""Messages that a server-side cursor brings at a time."""

ROW_GROUP = 65_536
"""Messages of one row group of a Parquet file: what is held in memory, about 10 MB."""

Row = tuple[Any, ...]
Written = Generator[bytes]


def outcomes(connection: db.Connection, campaign_id: int, form: str) -> Written:
    """The file, in pieces. `form`: a key of FORMS. To be read to its end, or closed, within the transaction.

    Raises NotFound, and Conflict for a campaign that is archived, before the first piece.
    """
    with connection.cursor(name="outcomes", row_factory=tuple_row) as cursor:
        cursor.itersize = FETCH
        cursor.execute(SQL["outcomes"], {"campaign_id": campaign_id})
        campaign_rows.check_there(connection, campaign_id)  # after: what is read cannot be dropped any more
        yield from FORMS[form](iter(cursor))


def _csv(rows: Iterator[Row]) -> Written:
    """With a head line. Moments are ISO 8601 in UTC; what a spreadsheet would run as a formula is marked as text."""
    yield (",".join(COLUMNS) + "\r\n").encode()
    while some := list(islice(rows, FETCH)):
        text = io.StringIO()
        csv.writer(text).writerows([_plain(value) for value in row] for row in some)
        yield text.getvalue().encode()


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return escape_formula(value)
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _parquet(rows: Iterator[Row]) -> Written:
    """In row groups."""
    import pyarrow as pa  # 0.1 s and 40 MB, for those who want it
    import pyarrow.parquet as pq

    schema, sink = _schema(), _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        yield sink.taken()
        while some := list(_batches(islice(rows, ROW_GROUP), schema)):
            writer.write_table(pa.Table.from_batches(some, schema))
            yield sink.taken()
    yield sink.taken()


def _batches(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Column by column: a tenth of what the rows take."""
    import pyarrow as pa

    while some := list(islice(rows, FETCH)):
        columns = zip(*some, strict=True)
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def _schema() -> pa.Schema:
    import pyarrow as pa

    def type_of(column: str) -> pa.DataType:
        if column in MOMENTS:
            return pa.timestamp("us", tz="UTC")
        return {64: pa.int64(), 32: pa.int32(), 16: pa.int16()}[INTEGERS[column]] if column in INTEGERS else pa.string()

    return pa.schema([(column, type_of(column)) for column in COLUMNS])


class _Sink(io.RawIOBase):
    """A file that gives away what was written to it."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        """It is for nothing else."""
        return True

    def write(self, data: Any) -> int:
        """Keep it, for now."""
        self._written += data
        return len(data)

    def taken(self) -> bytes:
        """What was written since the last time."""
        written = bytes(self._written)
        self._written.clear()
        return written


FORMS: dict[str, Callable[[Iterator[Row]], Written]] = {"csv": _csv, "parquet": _parquet}
"""What a file can be, by the suffix of its name."""

MEDIA_TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
