"""What judging, versions, indexes and constraints cost a client list beyond its bare way into PostgreSQL."""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.child import Report
from benchmarks.row import BrokenMeasurement, Goal, Row
from mailing.csv_rows import CHUNK

REPEATS = 3
PIECE = 1 << 20
LIMIT_S = 900.0
TAGS = ("sport", "music", "art", "news", "travel", "food", "vip", "books", "games", "new")
ZONES = ("UTC", "Europe/Moscow", "Europe/Samara", "Asia/Omsk", "Asia/Tokyo", "Asia/Novosibirsk")


def measure(bench: Bench) -> list[Row]:
    """A client list imported ÷ the same file by COPY into a table without indexes; and the import's memory."""
    size = bench.pick(1_000_000, 100_000)
    part = max(size // 10, CHUNK)
    large, small = _write(bench.folder / "list.csv", size), _write(bench.folder / "part.csv", part)
    copied, imported = [], []
    partly = _import(bench, small, part)
    for repeat in range(1, REPEATS + 1):
        copied.append(_copy(bench, large, size))
        imported.append(_import(bench, large, size))
        bench.say(f"{repeat}: COPY {copied[-1]:.1f} s; import {imported[-1].seconds:.1f} s")
    return [_ratio(size, copied, imported), _memory(size, part, partly, imported)]


def _write(path: Path, size: int) -> Path:
    """A list of so many clients: numbers in no order, of 0 to 3 tags each, 1.5 in the mean."""
    chance = random.Random(7)  # noqa: S311 - the same list each time
    with path.open("w", encoding="utf-8") as file:
        file.write("phone_number,tags,timezone\n")
        for n in range(size):
            tags = ";".join(chance.sample(TAGS, chance.choice((0, 1, 1, 2, 2, 3))))
            file.write(f"79{n * 618033989 % 10**9:09},{tags},{chance.choice(ZONES)}\n")
    return path


def _copy(bench: Bench, path: Path, size: int) -> float:
    with bench.database() as database, path.open("rb") as file:
        database.connection.execute("CREATE TABLE bare (phone_number text, tags text, timezone text)")
        began = time.perf_counter()
        with database.connection.cursor() as cursor:
            with cursor.copy("COPY bare FROM STDIN (FORMAT csv, HEADER true)") as copy:
                while piece := file.read(PIECE):
                    copy.write(piece)
            took = time.perf_counter() - began
            if cursor.rowcount != size:
                raise BrokenMeasurement(f"COPY: wanted {size} rows, got {cursor.rowcount}")
    return took


def _import(bench: Bench, path: Path, size: int) -> Report:
    with bench.database() as database, bench.working("child_import", [str(path)], database) as child:
        child.go()
        report = child.finished(LIMIT_S)
    if report.said != size:
        raise BrokenMeasurement(f"import: wanted {size} new clients, got {report.said}")
    return report


def _ratio(size: int, copied: list[float], imported: list[Report]) -> Row:
    seconds = [report.seconds for report in imported]
    pairs = [ours / bare for ours, bare in zip(seconds, copied, strict=True)]
    return Row(
        name="import_ratio",
        what=f"import of {size:,} clients, {median(seconds):.1f} s ÷ COPY of the same rows, {median(copied):.1f} s",
        measured=median(seconds) / median(copied),
        goal=Goal("≤", 6),
        form=".1f",
        spread=(min(pairs), max(pairs)),
        details={"rows": size, "copy_s": copied, "imports": [asdict(report) for report in imported]},
    )


def _memory(size: int, part: int, partly: Report, imported: list[Report]) -> Row:
    peak = max(report.peak_mib for report in imported)
    return Row(
        name="import_ratio",
        what=f"peak RSS of the importing process: {size:,} rows less {part:,}",
        measured=peak - partly.peak_mib,
        goal=Goal("≤", 25),
        unit="MiB",
        form=".1f",
        details={"peak_mib": peak, "peak_of_a_part_mib": partly.peak_mib},
    )
