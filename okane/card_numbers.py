"""Finds texts that look like the number of a card. Pure.

A card number has 12 to 19 digits, may be written with spaces and dashes between them, and passes the Luhn check; so does
every tenth number of that length that is none. Numbers that are part of an id in hexadecimal (a UUID, a hash) do not count.
Digits beside letters or a decimal point, and groups within a longer row of groups (a card number and its expiry), count if
an issuer has such numbers.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MIN_DIGITS, MAX_DIGITS = 12, 19
_MASK = "****"

# Before a text is looked at: each digit, space and dash as a zero, so that one search finds a run of them.
_RUN_BYTES = bytes(0x30 if chr(byte) in "0123456789 -" else byte for byte in range(256))
_MIN_RUN = b"0" * MIN_DIGITS

_SEPARATOR = "[- \u00a0\u2007\u2010-\u2015\u202f\u2212]"
_RUN = re.compile(rf"\d(?:{_SEPARATOR}{{0,3}}\d){{{MIN_DIGITS - 1},}}")
_GROUPS = re.compile(rf"{_SEPARATOR}+")
_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{16,})(?![0-9A-Za-z])",
    re.IGNORECASE,
)

# The numbers that issuers give out: Visa, Mastercard, American Express, Diners Club, Discover, JCB and UnionPay, Maestro.
_ISSUED = re.compile(
    r"""4(?:\d{12}|\d{15}|\d{18})
      | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}
      | 3[47]\d{13}
      | 3(?:0[0-5]|[689]\d)\d{11}
      | (?:6011|64[4-9]\d|65\d\d|35[2-8]\d|62\d\d|81\d\d)\d{12,15}
      | (?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}""",
    re.VERBOSE | re.ASCII,
)
_LONGEST_RUN = 80  # characters; a longer row of groups is a list of numbers

_DOUBLED = bytes(range(48)) + bytes(48 + digit * 2 - 9 * (digit > 4) for digit in range(10)) + bytes(198)


def may_hold_card_number(ascii_text: bytes) -> bool:
    """Return False if no digits of this text can be a card number: a quick check of most requests."""
    return _MIN_RUN in ascii_text.translate(_RUN_BYTES)


def holds_card_number(text: str) -> bool:
    """Return True if the text, or a part of it, looks like the number of a card."""
    return next(_spans(text), None) is not None


def is_issued_card_number(text: str) -> bool:
    """Return True if the whole text looks like the number of a card, and an issuer has such numbers."""
    return _RUN.fullmatch(text) is not None and _is_issued(_digits(text))


def masked(text: str) -> str:
    """Return the text with `****` in the place of what looks like the number of a card."""
    pieces, end = [], 0
    for start, stop in _spans(text):
        pieces += [text[end:start], _MASK]
        end = stop
    return "".join([*pieces, text[end:]]) if pieces else text


def passes_luhn(digits: str) -> bool:
    """Return True if the check digit of these ASCII digits is right."""
    number = digits.encode()
    return (sum(number[-1::-2]) + sum(number[-2::-2].translate(_DOUBLED)) - 48 * len(number)) % 10 == 0


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the runs of digits are that hold a card number."""
    if _RUN.search(text) is None:
        return
    # Of the same length: the places stay.
    without_ids = _ID.sub(lambda found: "x" * len(found[0]), text)
    for run in _RUN.finditer(without_ids):
        if _is_card(without_ids, run):
            yield run.span()


def _is_card(text: str, run: re.Match[str]) -> bool:
    if len(run[0]) > _LONGEST_RUN:
        return False
    digits = _digits(run[0])
    if not _is_beside(text, *run.span()) and MIN_DIGITS <= len(digits) <= MAX_DIGITS and passes_luhn(digits):
        return digits.strip("0") != ""
    return any(map(_is_issued, _windows(_GROUPS.split(run[0]))))


def _is_beside(text: str, start: int, end: int) -> bool:
    """Return True for digits beside a letter or a decimal point."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (
        before[-1:].isalpha()
        or after[:1].isalpha()
        or (before[-1:] == "." and before[0].isdecimal())
        or (after[:1] == "." and after[-1].isdecimal())
    )


def _windows(groups: list[str]) -> Iterator[str]:
    """Yield the digits of neighbouring groups that are as long as a card number."""
    for first in range(len(groups)):
        digits = ""
        for group in groups[first:]:
            digits += group
            if len(digits) > MAX_DIGITS:
                break
            if len(digits) >= MIN_DIGITS:
                yield _digits(digits)


def _is_issued(digits: str) -> bool:
    return _ISSUED.fullmatch(digits) is not None and passes_luhn(digits)


def _digits(text: str) -> str:
    """Return the digits of a run, those of other scripts as ASCII."""
    if text.isascii():
        return text.replace(" ", "").replace("-", "")
    return "".join(str(unicodedata.decimal(letter)) for letter in text if letter.isdecimal())
