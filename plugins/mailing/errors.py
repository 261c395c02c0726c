"""What can go wrong, by the question a caller asks: again? later? never?"""

from __future__ import annotations


class MailingError(Exception):
    """Base of every error this package raises on purpose."""


class InvalidInput(MailingError):
    """Never: what was given breaks a rule. The message names the thing, its id and what was wanted."""


class NotFound(MailingError):
    """Never: there is no such row."""


class NotFinished(MailingError):
    """Later: the campaign still has messages that are pending or sending."""
