"""Phone numbers: `7` and ten digits, however people write them. Pure."""

from __future__ import annotations

import re

PHONE_NUMBER = r"7[0-9]{10}"
WANTED = "a number of the form 7XXXXXXXXXX"

_DECORATION = re.compile(r"[\s()\-.]")  # \s: also the no-break space that spreadsheets leave


def normalise(written: str) -> str | None:
    """The number as `7XXXXXXXXXX`, or None where it is none.

    `+7 (900) 123-45-67`, `8 900 123 45 67` and `79001234567` are the same number. Ten digits without a prefix are
    refused: they may belong to another country.
    """
    digits = _DECORATION.sub("", written)
    digits = digits.removeprefix("+") if digits.startswith("+7") else digits
    if re.fullmatch(r"8[0-9]{10}", digits):
        digits = "7" + digits[1:]
    return digits if re.fullmatch(PHONE_NUMBER, digits) else None


def operator_code(phone_number: str) -> str:
    """Digits 2 to 4 of a normalised number: the operator code, which counts as a tag."""
    return phone_number[1:4]
