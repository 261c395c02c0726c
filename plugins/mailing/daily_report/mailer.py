"""The report by e-mail, through Airflow's SMTP connection: one mail for each recipient, so that each is told apart."""

from __future__ import annotations

import os
import re
import smtplib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from mailing.errors import Unusable

CONNECTIONS = ("mailing_smtp", "smtp_default")
"""The first of these that is defined."""


def recipients() -> list[str]:
    """The setting `MAILING_REPORT_TO`: addresses, separated by commas or semicolons."""
    addresses = re.split(r"[,;\s]+", os.environ.get("MAILING_REPORT_TO") or "")
    return [address for address in dict.fromkeys(addresses) if address]


def send(to: list[str], subject: str, body: str, attachments: dict[str, bytes], on_sent: Callable[[str], None]) -> None:
    """Send it to each of them; `on_sent` is told of each address at once.

    Raises Unusable, naming those who did not get it, after all were tried.
    """
    connection_id = _connection_id()
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        letter = {"subject": subject, "html_content": body, "files": _written(attachments, Path(folder))}
        try:
            with SmtpHook(connection_id) as hook:
                for address in to:
                    if reason := _refusal(hook, address, letter):
                        refused[address] = reason
                    else:
                        on_sent(address)
        except (smtplib.SMTPException, OSError, AirflowException) as error:
            raise Unusable(f"connection {connection_id}: the mail server: {type(error).__name__}: {error}") from error
    if refused:
        said = "; ".join(f"{address}: {reason}" for address, reason in refused.items())
        raise Unusable(f"connection {connection_id}: the mail server refused the report to {said}")


def _refusal(hook: SmtpHook, address: str, letter: dict[str, Any]) -> str | None:
    """Send it to one; what the server said if it did not take it. The server's other troubles are raised."""
    try:
        hook.send_email_smtp(to=[address], mime_subtype="related", **letter)  # the body shows some of what is attached
    except smtplib.SMTPResponseException as error:
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    except smtplib.SMTPRecipientsRefused as error:
        return "; ".join(f"{code} {_text(said)}" for code, said in error.recipients.values())
    return None


def _connection_id() -> str:
    for connection_id in CONNECTIONS:
        try:
            BaseHook.get_connection(connection_id)
        except AirflowNotFoundException:
            continue
        return connection_id
    raise Unusable(f"MAILING_REPORT_TO is set, but no connection {' or '.join(CONNECTIONS)} is: wanted one of them")


def _written(attachments: dict[str, bytes], folder: Path) -> list[str]:
    """The hook attaches files that lie on a disk."""
    for name, content in attachments.items():
        (folder / name).write_bytes(content)
    return [str(folder / name) for name in attachments]


def _text(said: bytes | str) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said
