"""The books of the gateway: PaymentIntents, captures, voids, refunds, disputes and keys, in a journal of JSON lines.

Promise: what an answer tells is in the journal before it is sent, and a line is written whole or was never answered for.
A key makes one PaymentIntent, also after kill -9.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

OPEN = ("processing", "requires_action", "requires_capture")
DISPUTES_OVER = ("won", "lost", "warning_closed", "prevented")
ERROR = {"type": "card_error", "code": "card_declined", "decline_code": "generic_decline", "message": "declined"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One PaymentIntent. `key` is the idempotency key that made it, `at_s` when, since the epoch.

    `method` and `customer` are what it charges; `off_session`: without the customer.
    """

    ref: str
    key: str
    payment_id: str
    amount: int
    currency: str
    status: str
    at_s: float
    manual: bool = False
    received: int | None = None  # None: all of it, once it succeeded
    capture_before_s: float | None = None
    method: str = ""
    customer: str = ""
    off_session: bool = False

    @property
    def captured(self) -> bool:
        return self.status == "succeeded"

    @property
    def received_minor(self) -> int:
        """The money that has moved."""
        if not self.captured:
            return 0
        return self.amount if self.received is None else self.received

    def to_json(self) -> dict[str, Any]:
        """Return it as Stripe shows it."""
        card = {"capture_before": None if self.capture_before_s is None else int(self.capture_before_s)}
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": f"https://bank.example/{self.ref}"}}
        return {
            "id": self.ref,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_received": self.received_minor,
            "amount_capturable": self.amount if self.status == "requires_capture" else 0,
            "capture_method": "manual" if self.manual else "automatic",
            "latest_charge": {
                "id": f"ch_{self.ref}",
                "object": "charge",
                "payment_method_details": {"type": "card", "card": card},
            },
            "currency": self.currency,
            "status": self.status,
            "created": int(self.at_s),
            "metadata": {"payment_id": self.payment_id, "attempt_key": self.key},
            "last_payment_error": ERROR if self.status == "requires_payment_method" else None,
            "next_action": action if self.status == "requires_action" else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One refund of a PaymentIntent. `key` is the idempotency key that made it, `operation_key` the one in its metadata."""

    ref: str
    key: str
    operation_id: str
    payment_id: str
    intent: str
    amount: int
    currency: str
    status: str
    at_s: float
    operation_key: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as Stripe shows it."""
        return {
            "id": self.ref,
            "object": "refund",
            "amount": self.amount,
            "currency": self.currency,
            "payment_intent": self.intent,
            "charge": f"ch_{self.intent}",
            "status": self.status,
            "created": int(self.at_s),
            "metadata": {
                "operation_id": self.operation_id,
                "operation_key": self.operation_key,
                "payment_id": self.payment_id,
            },
            "failure_reason": "expired_or_canceled_card" if self.status == "failed" else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One dispute of a PaymentIntent, as it is now."""

    ref: str
    intent: str
    payment_id: str
    amount: int
    currency: str
    status: str
    at_s: float

    def to_json(self, intent: Intent | None) -> dict[str, Any]:
        """Return it as Stripe shows it, with its PaymentIntent where that was asked for."""
        return {
            "id": self.ref,
            "object": "dispute",
            "amount": self.amount,
            "currency": self.currency,
            "charge": f"ch_{self.intent}",
            "payment_intent": self.intent if intent is None else intent.to_json(),
            "reason": "fraudulent",
            "status": self.status,
            "created": int(self.at_s),
            "evidence_details": {"due_by": int(self.at_s) + 7 * 86_400},
            "metadata": {},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """One capture or void (`kind`) of a PaymentIntent, and the money that it took or let go."""

    kind: str
    key: str
    payment_id: str
    amount: int
    currency: str
    at_s: float


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
        self._refunds: dict[str, Refund] = {}
        self._disputes: dict[str, Dispute] = {}
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
        """Return those that wait for their customer, their bank, or their capture."""
        return [one for one in self._intents.values() if one.status in OPEN]

    def find_refund(self, ref: str) -> Refund | None:
        """Return a refund."""
        return self._refunds.get(ref)

    def refunds_of(self, intent: str) -> Sequence[Refund]:
        """Return the refunds of a PaymentIntent, the newest first."""
        return [one for one in reversed(self._refunds.values()) if one.intent == intent]

    def refundable(self, intent: Intent) -> int:
        """Return what is left of a PaymentIntent for refunds."""
        return intent.received_minor - sum(one.amount for one in self.refunds_of(intent.ref) if one.status != "failed")

    def refunds_in(self, status: str) -> Sequence[Refund]:
        """Return the refunds with this status: `pending` before a bank decides, `failed` for those that have come back."""
        return [one for one in self._refunds.values() if one.status == status]

    def find_dispute(self, ref: str) -> Dispute | None:
        """Return a dispute."""
        return self._disputes.get(ref)

    def disputes(self) -> Sequence[Dispute]:
        """Return all disputes."""
        return list(self._disputes.values())

    def dispute(self, dispute: Dispute) -> None:
        """Write a dispute as it is now."""
        self._write({"dispute": asdict(dispute)})

    def make(self, intent: Intent, saved: Saved) -> None:
        """Write a new PaymentIntent, and the answer under its key."""
        self._write({"intent": asdict(intent), "key": intent.key, "saved": asdict(saved)})

    def take(self, intent: Intent, taken: Taken, saved: Saved) -> None:
        """Write a capture or void: the PaymentIntent after it, and the answer under its key."""
        self._write({"intent": asdict(intent), "key": taken.key, "saved": asdict(saved), "taken": asdict(taken)})

    def refund(self, refund: Refund, saved: Saved) -> None:
        """Write a new refund, and the answer under its key."""
        self._write({"refund": asdict(refund), "key": refund.key, "saved": asdict(saved)})

    def refuse(self, key: str, saved: Saved) -> None:
        """Write the answer under the key of a request that did nothing."""
        self._write({"key": key, "saved": asdict(saved)})

    def decide_refund(self, ref: str, status: str) -> Refund:
        """Write the outcome of a refund, and return it."""
        refund = replace(self._refunds[ref], status=status)
        self._write({"refund": asdict(refund)})
        return refund

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
        if "intent" in line:
            intent = Intent(**line["intent"])
            if intent.ref not in self._intents:
                self._of_payment.setdefault(intent.payment_id, []).append(intent.ref)
            self._intents[intent.ref] = intent
        if "refund" in line:
            refund = Refund(**line["refund"])
            self._refunds[refund.ref] = refund
        if "dispute" in line:
            dispute = Dispute(**line["dispute"])
            self._disputes[dispute.ref] = dispute
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
        if "intent" in line:
            intent = Intent(**line["intent"])
            intents[intent.ref] = intent
    return list(intents.values())


def read_refunds(path: Path) -> Sequence[Refund]:
    """Return all refunds of a journal, as they are in the end."""
    refunds = {}
    for line in read_lines(path):
        if "refund" in line:
            refund = Refund(**line["refund"])
            refunds[refund.ref] = refund
    return list(refunds.values())


def read_disputes(path: Path) -> Sequence[Dispute]:
    """Return all disputes of a journal, as they are in the end."""
    disputes = {}
    for line in read_lines(path):
        if "dispute" in line:
            dispute = Dispute(**line["dispute"])
            disputes[dispute.ref] = dispute
    return list(disputes.values())


def read_taken(path: Path) -> Sequence[Taken]:
    """Return all captures and voids of a journal."""
    return [Taken(**line["taken"]) for line in read_lines(path) if "taken" in line]


def _ends_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
