"""Card numbers: found in each spelling, and not in ids."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from okane.card_numbers import (
    holds_card_number,
    is_issued_card_number,
    masked,
    may_hold_card_number,
    passes_luhn,
)

# The numbers for tests that issuers and gateways publish.
CARDS = (
    "4242424242424242",
    "4000000000003220",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "30569309025904",
    "6011111111111117",
    "3566002020360505",
    "6200000000000005",
    "6759649826438453",
)


def with_check_digit(digits: str) -> str:
    """Return the digits with the one at the end that makes them pass."""
    return next(digits + last for last in "0123456789" if is_right(digits + last))


def is_right(digits: str) -> bool:
    """The Luhn check, as ISO/IEC 7812-1 states it."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


luhn_numbers = (
    st.text("0123456789", min_size=11, max_size=18).map(with_check_digit).filter(lambda text: text.strip("0"))
)


@given(digits=st.text("0123456789", min_size=1, max_size=30))
def test_the_check_is_that_of_the_standard(digits: str) -> None:
    assert passes_luhn(digits) == is_right(digits)


@given(number=luhn_numbers)
def test_every_number_with_a_right_check_digit_is_found(number: str) -> None:
    for text in (number, f"card {number}, please", f"order-{number}", f"order_{number}", f'{{"pan":"{number}"}}'):
        assert may_hold_card_number(text.encode())
        assert holds_card_number(text), text


@given(number=luhn_numbers)
def test_a_number_with_a_wrong_check_digit_is_not_found(number: str) -> None:
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert not holds_card_number(wrong)


@given(number=luhn_numbers, data=st.data())
def test_spaces_and_dashes_hide_no_number(number: str, data: st.DataObject) -> None:
    between = st.sampled_from(("", " ", "-", " - ", "\u00a0", "\u2013"))
    text = "".join(digit + data.draw(between) for digit in number[:-1]) + number[-1]
    assert holds_card_number(text), text


@pytest.mark.parametrize("card", CARDS)
def test_an_issued_number_is_found_beside_letters_and_other_digits(card: str) -> None:
    spaced = " ".join(card[at : at + 4] for at in range(0, len(card), 4))
    for text in (f"pan{card}", f"{card}x", f"{spaced} 12/27", f"{card} 123", f"{card} {card}", f"12 {card}"):
        assert holds_card_number(text), text
    assert is_issued_card_number(card)
    assert is_issued_card_number(spaced)


def test_digits_of_other_scripts_are_digits() -> None:
    for zero in (0xFF10, 0x0660, 0x0966):
        assert holds_card_number("".join(chr(zero + int(digit)) for digit in CARDS[0]))


@given(id_=st.uuids())
@example(id_="550e8400-e29b-41d4-a716-446655440000")
def test_an_id_is_no_card_number(id_: object) -> None:
    text = str(id_)
    for spelling in (text, f"order-{text}", text.replace("-", "").upper(), f"pay_{text}"):
        if not spelling.isdecimal():
            assert not holds_card_number(spelling)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42424242424",
        "0" * 16,
        "4242424242424242" * 2,
        "2026-03-01T12:00:00.250000Z",
        "0.30000000000000004",
        "127.0.0.1:65535",
        "order-0000000001",
        "+48 22 123 45 67",
        "b2" * 16,
    ],
)
def test_other_numbers_are_no_card_numbers(text: str) -> None:
    assert not holds_card_number(text)
    assert masked(text) == text


@given(text=st.text() | st.text(st.sampled_from("0123456789 -\u2007\uff14x")))
def test_the_quick_check_misses_nothing(text: str) -> None:
    if holds_card_number(text):
        assert may_hold_card_number(text.encode("utf-8", "surrogatepass"))


def test_a_mask_leaves_the_rest_of_a_text() -> None:
    assert (
        masked("Your card 4242 4242 4242 4242 was declined (378282246310005).") == "Your card **** was declined (****)."
    )


@given(text=st.text(st.sampled_from("0123456789 -a."), max_size=60))
def test_nothing_is_left_to_mask(text: str) -> None:
    assert not holds_card_number(masked(text))


ISSUED = re.compile(
    r"""4(?:\d{12}|\d{15}|\d{18})
      | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}
      | 3[47]\d{13}
      | 3(?:0[0-5]|[689]\d)\d{11}
      | (?:6011|64[4-9]\d|65\d\d|35[2-8]\d|62\d\d|81\d\d)\d{12,15}
      | (?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}""",
    re.VERBOSE | re.ASCII,
)


@given(beginning=st.integers(0, 9999), more=st.text("0123456789", min_size=7, max_size=16))
def test_the_issued_numbers_are_those_of_the_expression(beginning: int, more: str) -> None:
    number = with_check_digit(f"{beginning:04}{more}")
    assert is_issued_card_number(number) == (ISSUED.fullmatch(number) is not None)


RUN = re.compile(r"\d(?:[- \u00a0\u2007\u2010-\u2015\u202f\u2212]{0,3}\d){11,}")


def simply_masked(text: str) -> str:
    """Mask a text without ids: try each row of neighbouring groups of each run."""
    return RUN.sub(lambda run: "****" if simply_found(run) else run[0], text)


def simply_found(run: re.Match[str]) -> bool:
    groups = ["".join(str(unicodedata.decimal(digit)) for digit in group) for group in re.findall(r"\d+", run[0])]
    whole = "".join(groups)
    if len(run[0]) > 80:
        return False
    is_beside = re.search(r"([^\W\d_]|\d\.)$", run.string[: run.start()]) or re.match(
        r"[^\W\d_]|\.\d", run.string[run.end() :]
    )
    if 12 <= len(whole) <= 19 and is_right(whole) and not is_beside:
        return whole.strip("0") != ""
    rows = ("".join(groups[first:last]) for first in range(len(groups)) for last in range(first + 1, len(groups) + 1))
    return any(ISSUED.fullmatch(row) is not None and is_right(row) for row in rows)


beginnings = st.sampled_from([*CARDS, "4", "51", "2221", "2720", "34", "305", "6011", "3589", "81", "5018", "6763"])
groups = st.text("0123456789", min_size=1, max_size=5) | st.text("4", min_size=1, max_size=3) | beginnings
joints = st.sampled_from([" ", " ", "-", " - ", "    ", "\u2007", "\u00a0\u2013", "", ".", "x", "\n"])


@given(
    pieces=st.lists(st.tuples(groups, joints), min_size=1, max_size=40), zero=st.sampled_from([48, 48, 0xFF10, 0x660])
)
def test_a_text_is_searched_as_a_simple_search_does(pieces: list[tuple[str, str]], zero: int) -> None:
    text = "".join(map("".join, pieces)).translate({0x30 + digit: zero + digit for digit in range(10)})
    assert masked(text) == simply_masked(text)


@given(group=groups, joint=joints, other=groups, count=st.integers(1, 20))
def test_a_repeated_group_is_searched_as_a_simple_search_does(group: str, joint: str, other: str, count: int) -> None:
    text = (group + joint) * count + other
    assert masked(text) == simply_masked(text)
