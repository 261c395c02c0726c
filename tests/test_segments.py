"""How many SMS a text takes: the edges of both alphabets, and characters that are never cut in two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import segments
from mailing.segments import BASIC, EXTENSION, GSM_7, UCS_2, measure

GSM_TEXT = st.text(st.sampled_from(BASIC + EXTENSION), max_size=500)
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=500)


@pytest.mark.parametrize(
    ("text", "alphabet", "count", "left"),
    [
        ("", GSM_7, 0, 160),
        ("a" * 160, GSM_7, 1, 0),
        ("a" * 161, GSM_7, 2, 145),
        ("a" * 306, GSM_7, 2, 0),
        ("a" * 307, GSM_7, 3, 152),
        ("€" * 80, GSM_7, 1, 0),
        ("€" * 81, GSM_7, 2, 143),  # 76 in the first segment, of which a septet stays empty
        ("a" * 152 + "€" + "a" * 8, GSM_7, 2, 143),  # the euro is not cut in two
        ("я" * 70, UCS_2, 1, 0),
        ("я" * 71, UCS_2, 2, 63),
        ("я" * 134, UCS_2, 2, 0),
        ("я" * 135, UCS_2, 3, 66),
        ("😀" * 35, UCS_2, 1, 0),
        ("😀" * 36, UCS_2, 2, 61),  # 33 in the first segment
        ("a" * 69 + "`", UCS_2, 1, 0),
    ],
)
def test_a_text_is_cut_where_the_standard_cuts_it(text, alphabet, count, left):
    length = measure(text)
    assert (length.alphabet, length.segments, length.left) == (alphabet, count, left)


def test_the_alphabet_has_128_septets_but_for_the_escape():
    assert len(set(BASIC)) == len(BASIC) == 127
    assert not set(BASIC) & set(EXTENSION)


@given(GSM_TEXT)
def test_a_text_of_the_gsm_alphabet_counts_its_extension_twice(text):
    length = measure(text)
    assert length.alphabet is GSM_7
    assert length.units == len(text) + sum(character in EXTENSION for character in text)


@given(ANY_TEXT.filter(lambda text: any(character not in BASIC + EXTENSION for character in text)))
def test_any_other_text_counts_its_utf_16_units(text):
    length = measure(text)
    assert length.alphabet is UCS_2
    assert length.units == len(text.encode("utf-16-le")) // 2


@given(st.one_of(GSM_TEXT, ANY_TEXT))
def test_segments_hold_the_text_and_none_could_be_spared(text):
    length = measure(text)
    room = length.alphabet.single if length.segments <= 1 else length.alphabet.each
    assert 0 <= length.left <= room
    assert length.units <= length.segments * room
    if length.segments > 1:
        assert length.units > length.alphabet.single
        assert length.units + length.segments - 1 > (length.segments - 1) * room  # each wastes a unit at most


@given(ANY_TEXT, st.characters(codec="utf-8"))
def test_a_longer_text_never_takes_fewer_segments(text, more):
    assert segments.measure(text + more).segments >= segments.measure(text).segments
