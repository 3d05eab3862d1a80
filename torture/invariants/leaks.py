"""I12: no log holds a secret that we planted, or a card number. Evidence names the place, never the secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import quote

from torture.history.journals import History
from torture.invariants.violation import Violation

# American Express has 15 digits and begins with 34 or 37, the others have 16 and begin with 4, 5 or 6. Neither a digit run
# within a word (an id in hex) nor a side of a decimal point (seconds, ratios) is a card.
_MAYBE_CARD = re.compile(r"(?<![0-9A-Za-z_])(?<!\d\.)(?:3[47]\d{13}|[456]\d{15})(?![0-9A-Za-z_])(?!\.\d)")


def logs_hold_no_secrets(history: History) -> Sequence[Violation]:
    """I12: no canary and no card number in any line of any log."""
    secrets = _needles(history.canaries)
    return [found for name, lines in history.logs.items() for found in _leaks(name, lines, secrets)]


def is_card_number(digits: str) -> bool:
    """Return True if the check digit (Luhn) is right."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 * (value > 9) for value in doubled) % 10 == 0


def _needles(canaries: Iterable[str]) -> Sequence[tuple[int, str]]:
    """The canaries, numbered, as they are and as an address or a JSON text spells them."""
    return [
        (number, spelling)
        for number, canary in enumerate(canaries, 1)
        for spelling in sorted({canary, quote(canary, safe=""), json.dumps(canary)[1:-1]})
        if spelling
    ]


def _leaks(log: str, lines: Iterable[str], secrets: Sequence[tuple[int, str]]) -> Iterator[Violation]:
    for line_number, line in enumerate(lines, 1):
        for number, secret in secrets:
            if secret in line:
                yield Violation("I12", log, f"canary {number} was logged", f"line {line_number}")
                break
        if any(is_card_number(match.group()) for match in _MAYBE_CARD.finditer(line)):
            yield Violation("I12", log, "a card number was logged", f"line {line_number}")
