"""Finds texts that look like the number of a card. Pure.

A card number has 12 to 19 digits, may be written with spaces and dashes between them, and passes the Luhn check; so does
every tenth number of that length that is none. Numbers that are part of an id in hexadecimal (a UUID, a hash) do not count.
Digits beside letters or a decimal point, and groups within a longer row of groups (a card number and its expiry), count if
an issuer has such numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

MIN_DIGITS, MAX_DIGITS = 12, 19
FEW = 6  # rows of groups, for which running sums would cost more than they save
_MASK = "****"

# Before a text is looked at: each digit and byte beyond ASCII as a zero, without spaces and dashes, so that one search finds
# a run of digits.
_RUN_BYTES = bytes(0x30 if byte >= 0x80 or chr(byte) in "0123456789" else byte for byte in range(256))
_MIN_RUN = b"0" * MIN_DIGITS

_SEPARATORS = "- \u00a0\u2007\u2010\u2011\u2012\u2013\u2014\u2015\u202f\u2212"
_RUN = re.compile(rf"\d(?:[{_SEPARATORS}]{{0,3}}\d)*")
_GROUPS = re.compile(rf"[{_SEPARATORS}]+")
_GAP = re.compile(rf"[{_SEPARATORS}]{{4,}}")  # no card number goes on after it
_ROW = re.compile(rf"[{_SEPARATORS}\d]{{{MIN_DIGITS},}}")
_ASCII_ROW = re.compile(rf"[- 0-9]{{{MIN_DIGITS},}}")  # the same in ASCII, in half the time
_ID = re.compile(
    r"(?<![0-9A-Za-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?=[0-9]*[a-f])[0-9a-f]{16,})(?![0-9A-Za-z])",
    re.IGNORECASE,
)

# The numbers that issuers give out: the first and the last beginning of four digits, and how many digits they have.
_ISSUED: Mapping[str, Sequence[int]] = {
    str(beginning): lengths
    for first, last, lengths in (
        (4000, 4999, (13, 16, 19)),  # Visa
        (2221, 2720, (16,)),  # Mastercard
        (5100, 5599, (16,)),
        (3400, 3499, (15,)),  # American Express
        (3700, 3799, (15,)),
        (3000, 3059, (14,)),  # Diners Club
        (3600, 3699, (14,)),
        (3800, 3999, (14,)),
        (6011, 6011, range(16, 20)),  # Discover, JCB and UnionPay
        (6440, 6599, range(16, 20)),
        (3520, 3589, range(16, 20)),
        (6200, 6299, range(16, 20)),
        (8100, 8199, range(16, 20)),
        *((maestro, maestro, range(12, 20)) for maestro in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763)),
    )
    for beginning in range(first, last + 1)
}
_ID_AND_NUMBER = 16 + MIN_DIGITS  # characters; a shorter text cannot hold a number beside an id
_LONGEST_RUN = 80  # characters; a longer row of groups is a list of numbers

_VALUES = bytes(48) + bytes(range(10)) + bytes(198)
_DOUBLED = bytes(48) + bytes(digit * 2 - 9 * (digit > 4) for digit in range(10)) + bytes(198)


def may_hold_card_number(utf8: bytes) -> bool:
    """Return False if no digits of this text can be a card number: a quick check of most requests."""
    return (
        utf8.translate(_RUN_BYTES, b" -").find(_MIN_RUN) >= 0
    )  # `in` takes twice as long: it tries the run as a number first


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
    return (sum(number[-1::-2].translate(_VALUES)) + sum(number[-2::-2].translate(_DOUBLED))) % 10 == 0


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the runs of digits are that hold a card number. The time is linear in the length of the text."""
    row_of = _ASCII_ROW if text.isascii() else _ROW
    if row_of.search(text) is None:
        return
    # Of the same length: the places stay.
    if _GAP.search(text) is not None:
        text = _GAP.sub(lambda found: "\n" * len(found[0]), text)
    if len(text) < _ID_AND_NUMBER and next(_cards(row_of, text), None) is None:
        return  # an id in it could only hide a number
    yield from _cards(row_of, _ID.sub(lambda found: "x" * len(found[0]), text))


def _cards(row_of: re.Pattern[str], text: str) -> Iterator[tuple[int, int]]:
    for row in row_of.finditer(text):
        run = row[0].lstrip(_SEPARATORS)
        start = row.end() - len(run)
        run = run.rstrip(_SEPARATORS)
        if MIN_DIGITS <= len(run) <= _LONGEST_RUN and _is_card(run, text, start):
            yield start, start + len(run)


def _is_card(run: str, text: str, start: int) -> bool:
    digits = _digits(run)
    if len(digits) < MIN_DIGITS:
        return False
    if len(digits) <= MAX_DIGITS and passes_luhn(digits) and not _is_beside(text, start, start + len(run)):
        return digits.strip("0") != ""
    if len(run) == len(digits):  # one group
        return _is_issued(digits)
    return _holds_issued(digits, _GROUPS.split(run))


def _is_beside(text: str, start: int, end: int) -> bool:
    """Return True for digits beside a letter or a decimal point."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return (
        before[-1:].isalpha()
        or after[:1].isalpha()
        or (before[-1:] == "." and before[0].isdecimal())
        or (after[:1] == "." and after[-1].isdecimal())
    )


def _holds_issued(digits: str, groups: list[str]) -> bool:
    """Return True if neighbouring groups are a number that an issuer gives out. `digits` are those of all groups."""
    start, starts = 0, []
    for group in groups:
        if digits[start : start + 4] in _ISSUED:
            starts.append(start)
        start += len(group)
    if not starts:
        return False
    ends = set(accumulate(map(len, groups)))
    found = [
        (start, start + length)
        for start in starts
        for length in _ISSUED[digits[start : start + 4]]
        if start + length in ends
    ]
    if len(found) < FEW:
        return any(passes_luhn(digits[start:end]) for start, end in found)
    # Running sums, so that a check takes one subtraction: a row of single digits has a hundred candidates.
    values = digits.encode().translate(_VALUES)
    doubled = digits.encode().translate(_DOUBLED)
    sums = []
    for parity in (0, 1):
        mixed = bytearray(values)
        mixed[parity::2] = doubled[parity::2]
        sums.append(list(accumulate(mixed, initial=0)))
    return 0 in [(sums[end % 2][end] - sums[end % 2][start]) % 10 for start, end in found]


def _is_issued(digits: str) -> bool:
    return len(digits) in _ISSUED.get(digits[:4], ()) and passes_luhn(digits)


def _digits(text: str) -> str:
    """Return the digits of a run, those of other scripts as ASCII."""
    if text.isascii():
        return text.replace(" ", "").replace("-", "")
    return str(int("1" + _GROUPS.sub("", text)))[1:]
