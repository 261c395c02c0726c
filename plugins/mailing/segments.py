"""How many SMS a text takes. Pure; source of the rules: 3GPP TS 23.038 (alphabets) and 23.040 (concatenation).

A text of the GSM-7 alphabet fits 160 septets into one SMS, any other 70 UTF-16 units. A longer one is cut into
segments, each of which gives some room to a header: 153 septets, or 67 units. No character is cut in two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
"""The basic table of GSM-7, without its escape: a septet each."""

EXTENSION = "\f^{}\\[~]|€"
"""What follows an escape: two septets each."""


@dataclass(frozen=True, slots=True)
class Alphabet:
    """`single`: units in a text of one SMS; `each`: in every segment of a longer one."""

    name: str
    single: int
    each: int


GSM_7 = Alphabet("GSM-7", 160, 153)
UCS_2 = Alphabet("UCS-2", 70, 67)


@dataclass(frozen=True, slots=True)
class Length:
    """`units`: septets, or UTF-16 units; `left`: how many more fit into the last segment."""

    alphabet: Alphabet
    units: int
    segments: int
    left: int


def measure(text: str) -> Length:
    """How long the text is as SMS; an empty one takes none."""
    alphabet = GSM_7 if all(character in BASIC or character in EXTENSION for character in text) else UCS_2
    widths = [_width(character, alphabet) for character in text]
    units = sum(widths)
    if units <= alphabet.single:
        return Length(alphabet, units, min(units, 1), alphabet.single - units)
    segments, used = _packed(widths, alphabet.each)
    return Length(alphabet, units, segments, alphabet.each - used)


def _width(character: str, alphabet: Alphabet) -> int:
    if alphabet is GSM_7:
        return 2 if character in EXTENSION else 1
    return 2 if ord(character) > 0xFFFF else 1  # a pair of surrogates


def _packed(widths: Iterable[int], room: int) -> tuple[int, int]:
    """Into how many segments the characters go, and how much of the last is used."""
    segments, used = 1, 0
    for width in widths:
        if used + width > room:
            segments, used = segments + 1, 0
        used += width
    return segments, used
