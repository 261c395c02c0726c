"""Whether a page of a long list of clients costs more than one of a short list, and a late page more than the first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.database import Database
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing import clients, db, listing
from mailing.clients import Wanted

FEW = 5_000
CALLS = 200
DEEP_PAGE = 10_000
TAG = "chosen"
TAGGED = 5
"""Every so many clients have the tag."""


@dataclass(frozen=True, slots=True)
class List:
    """A list as a caller asks for it. `share`: one of so many clients is in it."""

    what: str
    sort: str
    wanted: Wanted
    share: int = 1

    def page(self, connection: db.Connection, cursor: str | None, limit: int = listing.DEFAULT_LIMIT) -> listing.Page:
        """One page of it."""
        return clients.page(connection, self.wanted, sort=self.sort, cursor=cursor, limit=limit)

    def deep(self, size: int) -> int:
        """The number of the late page, of so many clients in all."""
        return min(DEEP_PAGE, size * 9 // (10 * self.share * listing.DEFAULT_LIMIT))


LISTS = (
    List("all by id", "id", Wanted()),
    List("all by phone number", "phone_number", Wanted()),
    List("of a tag", "id", Wanted(tag=TAG), TAGGED),
)


def measure(bench: Bench) -> list[Row]:
    """Median times of a page of clients among millions ÷ among thousands: the first page, and the 10,000th."""
    many = bench.pick(5_000_000, 250_000)
    rows = []
    with bench.database() as small, bench.database() as large:
        _fill(bench, small, FEW)
        _fill(bench, large, many)
        for each in LISTS:
            rows.append(_row(bench, each, many, 1, _first(each, small), _first(each, large)))
            page = each.deep(many)
            rows.append(_row(bench, each, many, page, _later(each, small, each.deep(FEW)), _later(each, large, page)))
    return rows


def _fill(bench: Bench, database: Database, size: int) -> None:
    began = time.monotonic()
    database.add_client_list(size, TAG)
    bench.say(f"{size:,} clients loaded in {time.monotonic() - began:.0f} s")


def _first(each: List, database: Database) -> Callable[[], listing.Page]:
    return lambda: each.page(database.connection, None)


def _later(each: List, database: Database, page: int) -> Callable[[], listing.Page]:
    """A call for this page, whose cursor is found as a caller finds it; with larger pages, to be there sooner."""
    left, cursor = (page - 1) * listing.DEFAULT_LIMIT, None
    while left:
        limit = min(left, listing.MAX_LIMIT)
        cursor = each.page(database.connection, cursor, limit).next_cursor
        if cursor is None:
            raise BrokenMeasurement(f"{each.what}: wanted a page {page:,}, got the end of the list before it")
        left -= limit
    return lambda: each.page(database.connection, cursor)


def _row(
    bench: Bench, each: List, many: int, page: int, few_call: Callable[[], listing.Page],
    many_call: Callable[[], listing.Page],
) -> Row:  # fmt: skip
    few_ms, many_ms = [], []
    for _ in range(CALLS):
        few_ms.append(_ms(few_call))
        many_ms.append(_ms(many_call))
    few, large = statistics.median(few_ms), statistics.median(many_ms)
    bench.say(f"{each.what}, page {page:,}: {few:.2f} ms of {FEW:,}, {large:.2f} ms of {many:,}")
    return Row(
        name="page_latency",
        what=f"clients, {each.what}: page {page:,} of {many:,} ÷ {'page 1' if page == 1 else 'a late page'} of {FEW:,}",
        measured=large / few,
        goal=Goal("≤", 1.5),
        details={"few": FEW, "many": many, "page": page, "calls": CALLS, "few_ms": few, "many_ms": large},
    )


def _ms(call: Callable[[], listing.Page]) -> float:
    began = time.perf_counter()
    found = call()
    took = (time.perf_counter() - began) * 1_000
    if len(found.items) != listing.DEFAULT_LIMIT:
        raise BrokenMeasurement(f"wanted a page of {listing.DEFAULT_LIMIT} clients, got {len(found.items)}")
    return took
