"""Card numbers: found in each spelling, and not in ids."""

from __future__ import annotations

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


@given(text=st.text())
def test_the_quick_check_misses_nothing(text: str) -> None:
    if text.isascii() and holds_card_number(text):
        assert may_hold_card_number(text.encode())


def test_a_mask_leaves_the_rest_of_a_text() -> None:
    assert (
        masked("Your card 4242 4242 4242 4242 was declined (378282246310005).") == "Your card **** was declined (****)."
    )


@given(text=st.text(st.sampled_from("0123456789 -a."), max_size=60))
def test_nothing_is_left_to_mask(text: str) -> None:
    assert not holds_card_number(masked(text))
