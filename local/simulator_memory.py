"""What the simulated gateway remembers of each request it took, and the journal that outlives its process.

Memory: about 20 bytes a request plus 110 a distinct msgId, so a few million requests fit in half a gigabyte.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from struct import Struct
from typing import Any

MAGIC = b"GWSIM\x00\x01\n"
RECORD = Struct("<qdhB")  # msgId, arrival (epoch seconds), status (0: no reply), taken as
REFUSED, ACCEPTED = 1, 2  # never 0, so that a hole left by a crash of the machine is not read as a request
DROPPED = 0  # the status of a request that got no reply

Record = tuple[int, float, int, bool]


class CannotStart(Exception):
    """The simulator cannot start with these options; the message is the one line to show."""


class Journal:
    """An append-only file of requests, locked by one process at a time.

    Each record is handed to the kernel before its request is answered, so `kill -9` loses none. A record torn by
    the end of the machine is cut off when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotStart(f"journal {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._write_magic()
        except BlockingIOError as error:
            self.close()
            raise CannotStart(f"journal {path}: another simulator is using it") from error
        except BaseException:
            self.close()
            raise

    def _write_magic(self) -> None:
        head = os.pread(self._file, len(MAGIC), 0)
        if head == MAGIC:
            return
        if not MAGIC.startswith(head):  # a torn head is a start of the right one, and has nothing behind it
            raise CannotStart(f"journal {self._path}: not a journal of the simulator, left as it is")
        os.ftruncate(self._file, 0)
        os.write(self._file, MAGIC)

    def records(self) -> Iterator[Record]:
        """Each whole record, oldest first; what follows the last whole one is cut off."""
        position = len(MAGIC)
        while chunk := os.pread(self._file, RECORD.size * 65_536, position):
            whole = len(chunk) // RECORD.size * RECORD.size
            for msg_id, arrived, status, taken_as in RECORD.iter_unpack(chunk[:whole]):
                if taken_as not in (REFUSED, ACCEPTED):
                    os.ftruncate(self._file, position)
                    return
                yield msg_id, arrived, status, taken_as == ACCEPTED
                position += RECORD.size
            if whole < len(chunk):
                os.ftruncate(self._file, position)

    def append(self, msg_id: int, arrived: float, status: int, accepted: bool) -> None:
        """Write one record through to the kernel. OSError when it does not fit: the caller must stop then."""
        record = RECORD.pack(msg_id, arrived, status, ACCEPTED if accepted else REFUSED)
        if os.write(self._file, record) != len(record):
            raise OSError(f"journal {self._path}: a record was cut short")

    def forget(self) -> None:
        """Leave an empty journal."""
        os.ftruncate(self._file, len(MAGIC))

    def close(self) -> None:
        """Let go of the file and its lock."""
        os.close(self._file)


class RequestLog:
    """Counts per msgId and the arrival of every request taken; starts with what its journal holds."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._clear()
        for record in journal.records() if journal else ():
            self._count(*record)

    def _clear(self) -> None:
        self._ids, self._arrivals, self._statuses = array("q"), array("d"), array("h")
        self._received: dict[int, int] = {}
        self._refused: dict[int, int] = {}  # accepted = received - refused; most msgIds are never refused
        self._missed: dict[int, int] = {}  # requests dropped before they were read
        self._by_status: Counter[int] = Counter()
        self._accepted = self._repeated = 0
        self.not_taken: Counter[str] = Counter()

    def take(self, msg_id: int, arrived: float, status: int, accepted: bool) -> None:
        """Remember a request; `arrived` in epoch seconds, `status` 0 if it will get no reply. OSError: journal."""
        if self._journal:
            self._journal.append(msg_id, arrived, status, accepted)
        self._count(msg_id, arrived, status, accepted)

    def _count(self, msg_id: int, arrived: float, status: int, accepted: bool) -> None:
        self._ids.append(msg_id)
        self._arrivals.append(arrived)
        self._statuses.append(status)
        self._by_status[status] += 1
        received = self._received[msg_id] = self._received.get(msg_id, 0) + 1
        if not accepted:
            self._refused[msg_id] = self._refused.get(msg_id, 0) + 1
            return
        self._accepted += 1
        self._repeated += received - self._refused.get(msg_id, 0) == 2

    def miss(self, msg_id: int) -> None:
        """Note a request that was dropped before it was read: not taken, but its next attempt is another one."""
        self._missed[msg_id] = self._missed.get(msg_id, 0) + 1
        self.not_taken["drop_before_read"] += 1

    def attempts(self, msg_id: int) -> int:
        """How many requests for this msgId came so far, taken or dropped."""
        return self._received.get(msg_id, 0) + self._missed.get(msg_id, 0)

    def counts(self, first: int | None = None, last: int | None = None) -> dict[int, int]:
        """How often each msgId of `first`..`last` (both included, default: all) was accepted, if it ever was."""
        refused = self._refused
        pairs = ((i, self._received[i] - refused.get(i, 0)) for i in self._seen(first, last))
        return {msg_id: accepted for msg_id, accepted in pairs if accepted}

    def _seen(self, first: int | None, last: int | None) -> Iterator[int]:
        if first is not None and last is not None and last - first < len(self._received):
            return (i for i in range(first, last + 1) if i in self._received)
        low, high = -(2**63) if first is None else first, 2**63 if last is None else last
        return (i for i in self._received if low <= i <= high)

    def requests(
        self, ids: Collection[int] | None = None, first: int | None = None, last: int | None = None
    ) -> dict[int, dict[str, Any]]:
        """Per msgId: received, accepted, arrivals (epoch seconds) and statuses (0: no reply), in order of arrival.

        `ids` asks for these, with zeros for those never seen; else the seen ones of `first`..`last`, both
        included. Looks through every request taken: about 50 ms a million.
        """
        wanted = set(self._seen(first, last)) if ids is None else set(ids)
        found: dict[int, dict[str, Any]] = {}
        for i in sorted(wanted):
            received = self._received.get(i, 0)
            accepted = received - self._refused.get(i, 0)
            found[i] = {"received": received, "accepted": accepted, "arrivals": [], "statuses": []}
        for index, i in enumerate(self._ids):
            if i in wanted:
                found[i]["arrivals"].append(self._arrivals[index])
                found[i]["statuses"].append(self._statuses[index])
        return found

    def arrivals(self, since: float = 0.0) -> list[float]:
        """When each request taken at or after `since` arrived (epoch seconds), in the order they were taken."""
        return [arrived for arrived in self._arrivals if arrived >= since]

    def stats(self) -> dict[str, Any]:
        """The sums over everything remembered; `not_taken` counts since the start of the process."""
        return {
            "received": len(self._ids),
            "accepted": self._accepted,
            "by_status": {str(s) if s else "dropped": n for s, n in sorted(self._by_status.items())},
            "distinct": len(self._received),
            "accepted_more_than_once": self._repeated,
            "first_arrival": self._arrivals[0] if self._arrivals else None,
            "last_arrival": self._arrivals[-1] if self._arrivals else None,
            "not_taken": dict(self.not_taken),
        }

    def forget(self) -> None:
        """Start anew, in the journal too."""
        if self._journal:
            self._journal.forget()
        self._clear()

    def close(self) -> None:
        """Let go of the journal; what is remembered can still be asked."""
        if self._journal:
            self._journal.close()
            self._journal = None
