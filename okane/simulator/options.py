"""The options of `okane provider`, and the subset that `PUT /control` changes at run time.

Promise: an options object is valid; the constructor raises a ValueError that names the wrong field.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from okane import binding


class Act(enum.StrEnum):
    """The acts of the mock provider for a key without a result. Each is a weight in `Behaviour`."""

    SUCCESS = "success"
    DECLINE = "decline"
    UNAVAILABLE = "unavailable"
    RATE_LIMIT = "rate_limit"
    ERROR_500 = "error_500"
    ERROR_500_AFTER_CHARGE = "error_500_after_charge"
    GARBAGE = "garbage"
    TIMEOUT_AFTER_CHARGE = "timeout_after_charge"
    TIMEOUT_BEFORE_CHARGE = "timeout_before_charge"
    RESET_AFTER_CHARGE = "reset_after_charge"
    RESET_BEFORE_CHARGE = "reset_before_charge"
    HELD_BACK = "held_back"


# With `magic_amounts`, the last four digits of an amount decide: 4xxx is a refusal, 5xxx a fault of the provider.
# Any other amount follows the weights.
MAGIC_AMOUNTS: Mapping[int, tuple[Act, str]] = {
    4002: (Act.DECLINE, "card_declined"),
    4003: (Act.DECLINE, "insufficient_funds"),
    4004: (Act.DECLINE, "expired_card"),
    4029: (Act.RATE_LIMIT, ""),
    5000: (Act.ERROR_500, ""),
    5001: (Act.ERROR_500_AFTER_CHARGE, ""),
    5002: (Act.GARBAGE, ""),
    5003: (Act.UNAVAILABLE, ""),
    5004: (Act.TIMEOUT_AFTER_CHARGE, ""),
    5005: (Act.TIMEOUT_BEFORE_CHARGE, ""),
    5006: (Act.RESET_AFTER_CHARGE, ""),
    5007: (Act.RESET_BEFORE_CHARGE, ""),
    5008: (Act.HELD_BACK, ""),
}

# The same for refunds: the status at first, and the one after `refund_delay_s`.
MAGIC_REFUNDS: Mapping[int, tuple[str, str | None]] = {
    6001: ("pending", "succeeded"),
    6002: ("pending", "failed"),
    6003: ("succeeded", "failed"),
}

_LARGEST = 1e9  # of a weight, of seconds: timers overflow somewhere beyond it


def _option(default: Any, description: str, **metadata: Any) -> Any:
    """Return a field that is an option of the command line."""
    return field(default=default, metadata={"help": description, **metadata})


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """The options that can change while the provider runs. Weights are relative: with the defaults, 10 is 10 %.

    A key that is already charged or declined gets its first result again, whatever the weights say.
    """

    success: float = _option(80, "weight of 200: charged")
    unavailable: float = _option(10, "weight of 503: nothing happens, nothing is kept")
    decline: float = _option(10, "weight of 422 card_declined: kept, so repeats are declined as well")
    rate_limit: float = _option(0, "weight of 429: nothing happens")
    error_500: float = _option(0, "weight of 500 with an HTML page, nothing charged")
    error_500_after_charge: float = _option(0, "weight of 500 with an HTML page, although it charged")
    garbage: float = _option(0, "weight of 200 with a cut-off body, after charging")
    timeout_after_charge: float = _option(0, "weight of charging and then not answering for hang_s")
    timeout_before_charge: float = _option(0, "weight of not answering for hang_s, nothing charged")
    reset_after_charge: float = _option(0, "weight of charging and then resetting the connection (RST)")
    reset_before_charge: float = _option(0, "weight of resetting the connection, nothing charged")
    held_back: float = _option(0, "weight of not seeing the request for hang_s, and charging it then")
    latency_ms: str = _option("0", "time before anything happens to a charge: milliseconds, or a range like 5-50")
    retry_after: int | None = _option(None, "Retry-After, in seconds, on 503 and 429")
    hang_s: float = _option(30.0, "seconds that a time-out holds the request before its connection is closed")
    lookup_lag_ms: float = _option(0, "milliseconds for which look-ups do not see a new charge (consistency lag)")
    magic_amounts: bool = _option(False, "the last four digits of an amount select the act, see MAGIC_AMOUNTS")
    authorization_s: float = _option(604_800.0, "seconds until an authorization ends that is not captured")
    pending_refunds: float = _option(0.0, "share of the refunds, 0 to 1, that are decided after refund_delay_s")
    failing_refunds: float = _option(0.0, "share of the refunds, 0 to 1, that fail after refund_delay_s")
    refund_delay_s: float = _option(1.0, "seconds after which a refund is decided, or fails")
    fee_bps: float = _option(0.0, "fee of a charge in hundredths of a percent, in the list of records")

    def __post_init__(self) -> None:
        for act in Act:
            _check_number(act.value, getattr(self, act.value))
        if not sum(self.weights):
            raise ValueError("at least one weight must be above 0")
        for name in ("hang_s", "lookup_lag_ms", "authorization_s", "refund_delay_s", "fee_bps"):
            _check_number(name, getattr(self, name))
        for name in ("pending_refunds", "failing_refunds"):
            _check_number(name, getattr(self, name), most=1)
        if self.retry_after is not None and (type(self.retry_after) is not int or self.retry_after < 0):
            raise ValueError("retry_after must be a whole number of seconds >= 0, or null")
        if not isinstance(self.magic_amounts, bool):
            raise ValueError("magic_amounts must be true or false")  # noqa: TRY004 - callers handle one exception type
        _ = self.latency_range_ms

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights in the order of `Act`."""
        return tuple(getattr(self, act.value) for act in Act)

    @property
    def latency_range_ms(self) -> tuple[float, float]:
        low, dash, high = str(self.latency_ms).partition("-")
        try:
            bounds = (float(low), float(high if dash else low))
        except ValueError:
            bounds = (math.nan, math.nan)
        if not 0 <= bounds[0] <= bounds[1] <= _LARGEST:
            raise ValueError(f"latency_ms must be milliseconds or a range like 5-50, not {self.latency_ms!r}")
        return bounds

    def changed(self, changes: Mapping[str, object]) -> Behaviour:
        """Return this behaviour with some fields replaced. Raises ValueError for an unknown field or a wrong value."""
        known = {f.name for f in fields(Behaviour)}
        if unknown := sorted(changes.keys() - known):
            raise ValueError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        values: dict[str, Any] = dict(changes)
        return replace(self, **values)

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions(Behaviour):
    """The options of `okane provider`."""

    journal: Path = field(
        metadata={
            "help": "the file of charges, kept over restarts, one provider's at a time (.okane/provider.jsonl)",
            "computed": True,
        }
    )
    host: str = _option("127.0.0.1", "hosts to bind, separated by commas (default: loopback)")
    port: int = _option(
        8081, "port to bind; 0 takes a free one (default of the command: MOCK_PROVIDER_PORT or 8081)", computed=True
    )
    notify_url: str | None = _option(None, "address for notices, like http://host/v1/providers/NAME/webhook")
    notify_secret: str | None = _option(None, "secret that signs notices: one of webhook_secrets in the providers file")
    seed: int | None = _option(None, "seed of the acts: equal calls in equal order get equal answers")

    def __post_init__(self) -> None:
        Behaviour.__post_init__(self)
        if (self.notify_url is None) != (not self.notify_secret):
            raise ValueError("notify_url and notify_secret belong together")
        if not 0 <= self.port <= 65535:
            raise ValueError("port must be from 0 to 65535")
        try:
            binding.hosts(self.host)
        except ValueError as error:
            raise ValueError(f"host {error}") from error

    @property
    def behaviour(self) -> Behaviour:
        return Behaviour(**{f.name: getattr(self, f.name) for f in fields(Behaviour)})


def _check_number(name: str, value: object, *, most: float = _LARGEST) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}, not {value!r}")
