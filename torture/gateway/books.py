"""The books of the gateway: PaymentIntents and idempotency keys, in a journal of JSON lines.

Promise: what an answer tells is in the journal before it is sent, and a line is written whole or was never answered for.
A key makes one PaymentIntent, also after kill -9.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

OPEN = ("processing", "requires_action")
ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "generic_decline", "message": "declined"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One PaymentIntent. `key` is the idempotency key that made it, `at_s` when, since the epoch."""

    ref: str
    key: str
    payment_id: str
    amount: int
    currency: str
    status: str
    at_s: float

    @property
    def captured(self) -> bool:
        return self.status == "succeeded"

    def to_json(self) -> dict[str, Any]:
        """Return it as Stripe shows it."""
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": f"https://bank.example/{self.ref}"}}
        return {
            "id": self.ref,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_received": self.amount if self.captured else 0,
            "currency": self.currency,
            "status": self.status,
            "created": int(self.at_s),
            "metadata": {"payment_id": self.payment_id, "attempt_key": self.key},
            "last_payment_error": ERROR if self.status == "requires_payment_method" else None,
            "next_action": action if self.status == "requires_action" else None,
        }


@dataclass(frozen=True, slots=True)
class Saved:
    """The first answer under a key, and the body of its request."""

    request: str
    status: int
    answer: str


class Books:
    """The state of one gateway. Every change is appended to `path` before it counts."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._intents: dict[str, Intent] = {}  # by reference, in the order of their making
        self._of_payment: dict[str, list[str]] = {}
        self._keys: dict[str, Saved] = {}
        for line in read_lines(path):
            self._take(line)
        end = self._file.tell()
        if end and not _ends_line(path):
            self._file.write(b"\n")  # of a torn line, which `read_lines` leaves out

    def close(self) -> None:
        """Close the journal."""
        self._file.close()

    def find_key(self, key: str) -> Saved | None:
        """Return what was answered first under a key."""
        return self._keys.get(key)

    def find(self, ref: str) -> Intent | None:
        """Return a PaymentIntent."""
        return self._intents.get(ref)

    def of_payment(self, payment_id: str) -> Sequence[Intent]:
        """Return the PaymentIntents of a payment."""
        return [self._intents[ref] for ref in self._of_payment.get(payment_id, ())]

    def newest(self, since_s: float) -> Iterator[Intent]:
        """Yield the PaymentIntents made since then, the newest first."""
        for intent in reversed(self._intents.values()):
            if int(intent.at_s) < since_s:
                return
            yield intent

    def undecided(self) -> Sequence[Intent]:
        """Return those that wait for their customer, or their bank."""
        return [one for one in self._intents.values() if one.status in OPEN]

    def make(self, intent: Intent, saved: Saved) -> None:
        """Write a new PaymentIntent, and the answer under its key."""
        self._write({"intent": asdict(intent), "key": intent.key, "saved": asdict(saved)})

    def decide(self, ref: str, status: str) -> Intent:
        """Write the outcome of a PaymentIntent, and return it."""
        intent = replace(self._intents[ref], status=status)
        self._write({"intent": asdict(intent)})
        return intent

    def counts(self) -> Mapping[str, int]:
        """Return how many keys there are, and how many PaymentIntents succeeded."""
        return {"keys": len(self._keys), "charged": sum(one.captured for one in self._intents.values())}

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._take(line)

    def _take(self, line: Mapping[str, Any]) -> None:
        intent = Intent(**line["intent"])
        if intent.ref not in self._intents:
            self._of_payment.setdefault(intent.payment_id, []).append(intent.ref)
        self._intents[intent.ref] = intent
        if "saved" in line:
            self._keys[line["key"]] = Saved(**line["saved"])


def read_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the lines of a journal. A torn one was never answered for, and is left out."""
    if not path.exists():
        return
    with path.open("rb") as lines:
        for line in lines:
            try:
                read = json.loads(line)
            except ValueError:
                continue
            if line.endswith(b"\n"):
                yield read


def read_intents(path: Path) -> Sequence[Intent]:
    """Return all PaymentIntents of a journal, as they are in the end."""
    intents = {}
    for line in read_lines(path):
        intent = Intent(**line["intent"])
        intents[intent.ref] = intent
    return list(intents.values())


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
