"""Where a report is kept: a folder for each day, local or in an object store.

An object store has no renaming, so that a report is whole is told by one more file, written last: `manifest.json` names
each file with its size and its SHA-256. Whoever writes a day anew takes it away first.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

from airflow.configuration import AIRFLOW_HOME
from airflow.sdk import ObjectStoragePath

from mailing.errors import Unusable

MANIFEST = "manifest.json"
FIGURES = "figures.json"
MAILED = "mailed.json"
"""Who has got the report already."""


def root() -> str:
    """The setting `MAILING_REPORTS`: a path, or a URL such as `s3://aws_default@bucket/reports`."""
    return os.environ.get("MAILING_REPORTS") or os.path.join(AIRFLOW_HOME, "mailing-reports")


def of_day(day: date) -> str:
    """The day's folder."""
    return f"{root().rstrip('/')}/{day.isoformat()}"


def last_before(day: date) -> date | None:
    """The last day before this one whose report was written to its end; None: there is none. Raises Unusable."""
    with _usable(root()) as path:
        try:
            names = [each.name for each in path.iterdir()]
        except FileNotFoundError:
            return None
        for name in sorted(names, reverse=True):
            if re.fullmatch(r"\d{4}-\d\d-\d\d", name) and name < day.isoformat() and (path / name / MANIFEST).exists():
                return date.fromisoformat(name)
    return None


@contextmanager
def _usable(folder: str) -> Iterator[ObjectStoragePath]:
    """The folder as a path. Raises Unusable for whatever goes wrong there."""
    try:
        yield ObjectStoragePath(folder)
    except Unusable:
        raise
    except Exception as error:  # of a file system, or of any object store's own kind
        raise Unusable(f"report folder {folder}: {type(error).__name__}: {error}; wanted one to write to") from error


def begin(folder: str) -> None:
    """Make the folder; what is in it is no report from now on, until `finish`. Raises Unusable."""
    with _usable(folder) as path:
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).unlink(missing_ok=True)


def write(folder: str, files: dict[str, bytes]) -> None:
    """Write files, by name. Raises Unusable."""
    with _usable(folder) as path:
        for name, content in files.items():
            (path / name).write_bytes(content)


def read(folder: str, name: str) -> bytes:
    """One file. Raises Unusable."""
    with _usable(folder) as path:
        content: bytes = (path / name).read_bytes()
        return content


def finish(folder: str, names: list[str]) -> None:
    """What is in the folder is a report from now on: these files. Raises Unusable."""
    files = {name: _seal(read(folder, name)) for name in names}
    write(folder, {MANIFEST: json.dumps({"files": files}, indent=1).encode()})


def whole(folder: str) -> dict[str, bytes]:
    """The files of a report, by name. Raises Unusable for one that is not whole."""
    with _usable(folder) as path:
        if not (path / MANIFEST).exists():
            raise Unusable(f"report folder {folder}: has no {MANIFEST}: it was not written to its end")
        sealed: dict[str, Any] = json.loads((path / MANIFEST).read_bytes())["files"]
        files = {name: (path / name).read_bytes() for name in sealed}
    if wrong := [name for name, content in files.items() if _seal(content) != sealed[name]]:
        raise Unusable(f"report folder {folder}: {', '.join(wrong)}: not what {MANIFEST} says; wanted it written anew")
    return files


def _seal(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def mailed(folder: str, version: str) -> list[str]:
    """Who has got this version of the report. Raises Unusable."""
    with _usable(folder) as path:
        if not (path / MAILED).exists():
            return []
        kept = json.loads((path / MAILED).read_bytes())
    recipients: list[str] = kept["recipients"] if kept["version"] == version else []
    return recipients


def note_mailed(folder: str, version: str, recipients: list[str]) -> None:
    """Keep who has got this version. Raises Unusable."""
    write(folder, {MAILED: json.dumps({"version": version, "recipients": recipients}, indent=1).encode()})
