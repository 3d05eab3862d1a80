"""The options of `okane load`, and the payments that follow from them. Pure: the same for the same seed and run id."""

from __future__ import annotations

import random
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from okane.addresses import check_http

# The default lanes' limits (Settings.low_below_minor, .critical_from_minor): one payment in five is low, one critical.
_LOW = (1, 999)
_DEFAULT = (1_000, 9_999)
_CRITICAL = (10_000, 250_000)
_LANES = (_LOW, _DEFAULT, _DEFAULT, _DEFAULT, _CRITICAL)


def _base_url(text: str) -> str:
    try:
        return check_http(text, userinfo=False)
    except ValueError as error:
        raise ValueError(f"it {error}") from error


def _key(text: str) -> str:
    """Return an API key that a header can carry. Raises ValueError."""
    if not text.isascii() or not text.isprintable() or not text.strip():
        raise ValueError("a key is visible ASCII characters")
    return text


def payment_method_mix(text: str) -> Mapping[str, int]:
    """Parse `pm_card_visa` or `pm_card_visa=8,pm_card_visa_chargeDeclined=2`: names with weights. Raises ValueError."""
    mix: dict[str, int] = {}
    for part in text.split(","):
        name, equals, weight = part.strip().partition("=")
        if not name or (equals and not (weight.isdecimal() and int(weight) > 0)):
            raise ValueError("payment methods are NAME or NAME=WEIGHT, with commas between them")
        mix[name] = int(weight) if equals else 1
    return mix


def _letters(length: int) -> str:
    """Return random letters: a key of digits may look like the number of a card."""
    return "".join(secrets.choice(string.ascii_lowercase) for _ in range(length))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """The options of `okane load`. Raises ValueError for values that cannot be run."""

    data: Path | None = field(default=None, metadata={"help": "data folder of `okane up` (default: .okane)"})
    payments: int = field(default=1_000, metadata={"help": "how many payments to send", "min": 1, "max": 10_000_000})
    rate: float | None = field(
        default=None, metadata={"help": "payments per second (default: as fast as it goes)", "min": 0.001, "max": 1e6}
    )
    # Of POSTs; polls take up to an eighth of that beside them.
    connections: int = field(default=64, metadata={"help": "requests in flight at most", "min": 1, "max": 100_000})
    timeout_s: float = field(
        default=120.0,
        metadata={
            "help": "seconds to follow payments after the last was sent",
            "flag": "--timeout",
            "min": 0,
            "max": 1e7,
        },
    )
    url: str = field(
        default="http://127.0.0.1:8080",
        metadata={"help": "the API's base URL (default: the running one)", "parse": _base_url, "computed": True},
    )
    provider_url: str | None = field(
        default=None,
        metadata={
            "help": "the mock provider's or simulator's, for the check against its journal (default: the running one)",
            "parse": _base_url,
            "computed": True,
        },
    )
    key: str | None = field(
        default=None,
        repr=False,
        metadata={
            "help": "the API key to send (default: OKANE_API_KEY, or that of the running one)",
            "parse": _key,
            "computed": True,
        },
    )
    payment_methods: Mapping[str, int] | None = field(
        default=None,
        metadata={
            "help": "tokens of the gateway, with weights: NAME=8,OTHER=2 (default: that of the running Stripe simulator)",
            "flag": "--payment-method",
            "parse": payment_method_mix,
            "computed": True,
        },
    )
    return_url: str | None = field(
        default=None,
        metadata={
            "help": "where customers return to; they complete 9 of 10 authentications on the simulator's page",
            "parse": _base_url,
            "computed": True,
        },
    )
    seed: int = field(default=0, metadata={"help": "of the amounts"})
    json: bool = field(default=False, metadata={"help": "print JSON instead of text", "flag": "--json"})
    run_id: str = field(default_factory=lambda: _letters(12))  # prefix of the idempotency keys

    def __post_init__(self) -> None:
        if self.payments < 1 or self.connections < 1:
            raise ValueError("payments and connections must be at least 1")
        if self.rate is not None and not self.rate > 0:
            raise ValueError("the rate must be above 0")
        if not self.timeout_s >= 0:
            raise ValueError("the timeout must not be negative")

    def idempotency_key(self, number: int) -> str:
        return f"load-{self.run_id}-{number}"

    def due_s(self, number: int) -> float:
        """Return the time at which to send payment `number` (from 0), in seconds after the start."""
        return 0.0 if self.rate is None else number / self.rate

    def amounts(self) -> list[int]:
        """Return the amount of every payment, in minor units, over all three lanes."""
        dice = random.Random(self.seed)
        return [dice.randint(*dice.choice(_LANES)) for _ in range(self.payments)]

    def methods(self) -> list[str | None]:
        """Return the payment method of every payment, drawn by the weights."""
        if not self.payment_methods:
            return [None] * self.payments
        dice = random.Random(self.seed)
        names, weights = list(self.payment_methods), list(self.payment_methods.values())
        return [*dice.choices(names, weights, k=self.payments)]

    def body(self, number: int, amount: int, method: str | None) -> dict[str, object]:
        """Return the request of payment `number`."""
        body: dict[str, object] = {"amount": amount, "idempotency_key": self.idempotency_key(number)}
        if method is not None:
            body["payment_method"] = method
        if self.return_url is not None:
            body["return_url"] = self.return_url
        return body
