"""What `okane load` is asked to do, and the payments that this means. Pure: the same for the same seed and run id."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, field

# The default lanes' limits (Settings.low_below_minor, .critical_from_minor): one payment in five is low, one critical.
_LOW = (1, 999)
_DEFAULT = (1_000, 9_999)
_CRITICAL = (10_000, 250_000)
_LANES = (_LOW, _DEFAULT, _DEFAULT, _DEFAULT, _CRITICAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Everything `okane load` takes. Raises ValueError for what cannot be run."""

    url: str = field(default="http://127.0.0.1:8080", metadata={"help": "the API's base URL"})
    payments: int = field(default=1_000, metadata={"help": "how many payments to send"})
    rate: float | None = field(default=None, metadata={"help": "payments per second; none: as fast as it goes"})
    connections: int = field(
        default=64, metadata={"help": "POSTs in flight at most; polls take up to an eighth of that beside them"}
    )
    timeout_s: float = field(default=120.0, metadata={"help": "how long to follow payments after the last was sent"})
    provider_url: str | None = field(
        default=None, metadata={"help": "the mock provider's base URL, for the cross-check with its journal"}
    )
    key: str | None = field(default=None, repr=False, metadata={"help": "the API key to send"})
    seed: int = field(default=0, metadata={"help": "of the amounts"})
    run_id: str = field(
        default_factory=lambda: secrets.token_hex(6), metadata={"help": "prefix of the idempotency keys"}
    )
    json: bool = field(default=False, metadata={"help": "print one JSON object and nothing else to stdout"})

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
        """When payment `number` (from 0) is to be sent, in seconds after the start."""
        return 0.0 if self.rate is None else number / self.rate

    def amounts(self) -> list[int]:
        """The amount of every payment, in minor units, over all three lanes."""
        dice = random.Random(self.seed)
        return [dice.randint(*dice.choice(_LANES)) for _ in range(self.payments)]
