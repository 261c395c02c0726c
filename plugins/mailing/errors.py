"""What can go wrong, by the question a caller asks: again? later? never?"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime


class MailingError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInput(MailingError):
    """Never: what was given breaks a rule. The message names the thing, its id and what was wanted.

    `fields`: the names of what was wrong, where it has names.
    """

    def __init__(self, message: str, fields: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.fields = tuple(fields)


class NotFound(MailingError):
    """Never: there is no such row."""


class Conflict(MailingError):
    """Never, as things stand: the state of the row forbids it. The message names both."""


class Stale(MailingError):
    """Again, with the thing as it is now: it was written since the caller read it."""


class Busy(MailingError):
    """Later: as many are at it already as may be."""


class Unusable(MailingError):
    """Again, once somebody has mended it: a folder, or a server of others, did not take what it was given."""


class NotFinished(MailingError):
    """Later: the campaign still has messages that are pending or sending.

    `again_in_s`: in how many seconds that may have changed by itself; None: somebody must send first. `wake_at`: the
    run that was asked for last, by whoever left something to send.
    """

    def __init__(self, message: str, again_in_s: float | None, wake_at: datetime | None = None) -> None:
        super().__init__(message)
        self.again_in_s = again_in_s
        self.wake_at = wake_at
