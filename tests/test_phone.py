"""Phone numbers: one number, however it is written; anything doubtful is refused."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import phone

DECORATION = " \t\u00a0()-."
TEN_DIGITS = st.text("0123456789", min_size=10, max_size=10)


@pytest.mark.parametrize(
    "written",
    [
        "79001234567",
        "+79001234567",
        "89001234567",
        "+7 (900) 123-45-67",
        "8 (900) 123-45-67",
        "8 900 123 45 67",
        "7.900.123.45.67",
        " 79001234567 ",
        "+7\u00a0900\u00a0123\u00a045\u00a067",
    ],
)
def test_written_forms_of_a_number_are_the_same_number(written):
    assert phone.normalise(written) == "79001234567"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "7",
        "9001234567",
        "7900123456",
        "790012345678",
        "+89001234567",
        "++79001234567",
        "7+9001234567",
        "19001234567",
        "7900123456O",
        "79001234567,79001234568",
        "79001234567\0",
        "٧٩٠٠١٢٣٤٥٦٧",
        "７９００１２３４５６７",
        "7.9001234567E+10",
    ],
)
def test_what_is_surely_no_such_number_is_refused(written):
    assert phone.normalise(written) is None


@given(TEN_DIGITS, st.sampled_from(["7", "8", "+7"]), st.data())
def test_decoration_anywhere_behind_the_prefix_changes_nothing(digits, prefix, data):
    decorated = "".join(data.draw(st.text(DECORATION, max_size=2)) + digit for digit in digits)

    assert phone.normalise(prefix + decorated + data.draw(st.text(DECORATION, max_size=2))) == "7" + digits


@given(TEN_DIGITS)
def test_ten_digits_without_a_prefix_are_refused(digits):
    assert phone.normalise(digits) is None


@given(TEN_DIGITS)
def test_a_normal_number_is_left_as_it_is(digits):
    assert phone.normalise("7" + digits) == "7" + digits


@given(st.one_of(st.text(), st.text("0123456789+()-. ", max_size=16)))
def test_whatever_is_taken_has_the_form_and_the_last_ten_digits_as_written(written):
    number = phone.normalise(written)

    if number is not None:
        assert re.fullmatch(phone.PHONE_NUMBER, number)
        assert re.sub(r"[^0-9]", "", written)[-10:] == number[1:]


def test_the_operator_code_is_digits_two_to_four():
    assert phone.operator_code("71034567890") == "103"
