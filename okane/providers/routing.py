"""The routes of the providers file: the rules that choose the providers of a new payment, and their order. Pure.

```toml
[[routes]]
currency = ["PLN"]
amount_from = 100000
use = ["payu", "stripe"]               # or: weights = { stripe = 90, payu = 10 }
```
The first rule that matches decides, top to bottom. Its candidates are the providers that can take the payment; without one
the payment is refused, and never goes to a provider that the rule does not name. No rule matches: the default providers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from okane.currencies import CURRENCIES, MAX_AMOUNT_MINOR
from okane.errors import OkaneError
from okane.providers.base import Capability
from okane.providers.capabilities import ALL
from streams.values import value

MAX_ROUTES = 100
MAX_USED = 16
MAX_PATTERNS = 100
MAX_WEIGHT = 1_000_000

CaptureMethod = Literal["automatic", "manual"]


def _as_list(given: object) -> object:
    return [given] if isinstance(given, str) else given


def _known_currency(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("must be an ISO 4217 code in capitals, like PLN")
    return code


Amount = Annotated[int, Field(gt=0, le=MAX_AMOUNT_MINOR)]
Pattern = Annotated[str, Field(min_length=1, max_length=255)]
Patterns = Annotated[list[Pattern], BeforeValidator(_as_list), Field(min_length=1, max_length=MAX_PATTERNS)]
Currency = Annotated[str, AfterValidator(_known_currency)]
Currencies = Annotated[list[Currency], BeforeValidator(_as_list), Field(min_length=1, max_length=len(CURRENCIES))]
Weight = Annotated[int, Field(gt=0, le=MAX_WEIGHT)]


class RouteRule(BaseModel):
    """One rule. It matches a payment that meets all of its conditions; `use` or `weights` name the candidates."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    currency: Annotated[Currencies | None, Field(description="codes of ISO 4217")] = None
    amount_from: Annotated[Amount | None, Field(description="in minor units, from this on")] = None
    amount_to: Annotated[Amount | None, Field(description="in minor units, up to and with this")] = None
    account: Annotated[Patterns | None, Field(description="accounts; `*` stands for any characters")] = None
    capture_method: Annotated[CaptureMethod | None, Field(description="automatic or manual")] = None
    payment_method: Annotated[
        Patterns | None, Field(description="tokens of the request; `*` stands for any characters")
    ] = None
    use: Annotated[
        list[str] | None, Field(min_length=1, max_length=MAX_USED, description="candidates, the first first")
    ] = None
    weights: Annotated[
        dict[str, Weight] | None,
        Field(min_length=1, max_length=MAX_USED, description="candidates, each first for its share of payments"),
    ] = None
    fallback: Annotated[
        Literal["unavailable", "soft_decline"], Field(description="when the next candidate is tried")
    ] = "unavailable"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.use is None) == (self.weights is None):
            raise ValueError("must have use or weights, and not both")
        if self.use is not None and len(set(self.use)) < len(self.use):
            raise ValueError("use has a name twice")
        if None not in (self.amount_from, self.amount_to) and (self.amount_from or 0) > (self.amount_to or 0):
            raise ValueError("amount_from is above amount_to: no payment matches")
        return self

    @property
    def names(self) -> Sequence[str]:
        """The candidates as the file has them, the heaviest first."""
        if self.use is not None:
            return self.use
        weights = self.weights or {}
        return sorted(weights, key=lambda name: -weights[name])

    @property
    def is_unconditional(self) -> bool:
        """True if every payment matches."""
        conditions = (
            self.currency,
            self.amount_from,
            self.amount_to,
            self.account,
            self.capture_method,
            self.payment_method,
        )
        return all(one is None for one in conditions)


@value
class RouteRequest:
    """The properties of a new payment that rules look at.

    `key` is any text of the payment that a repeat has, too (`weight_key`): weights select by its hash. `tokens` are the
    providers at which the saved payment method has a token; None: the payment names no saved one.
    """

    amount_minor: int
    currency: str
    account_id: str
    key: str
    manual_capture: bool = False
    payment_method: str | None = None
    tokens: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one payment: its candidates, the first first. `soft_fallback`: the next one is also tried after a soft
    decline."""

    candidates: Sequence[str]
    soft_fallback: bool = False


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """The look of one rule at a payment. `mismatch` is the first condition that it does not meet; None: it matches.

    `excluded` has the reason for each of its providers that cannot take the payment.
    """

    number: int
    rule: RouteRule
    mismatch: str | None
    excluded: Mapping[str, str]


class NoCandidate(OkaneError):
    """No provider that may take a payment can. The message says why, provider by provider; `names` are the providers."""

    def __init__(self, names: Sequence[str], reasons: str) -> None:
        super().__init__(reasons)
        self.names = names


class Router:
    """The rules in use, and what each provider can do. `defaults` are the providers of payments that match no rule."""

    def __init__(
        self,
        rules: Sequence[RouteRule],
        *,
        defaults: Sequence[str],
        capabilities: Mapping[str, Collection[Capability]],
    ) -> None:
        self._rules = tuple(rules)
        self._defaults = tuple(defaults)
        self._capabilities = capabilities

    @classmethod
    def of_able(cls, names: Collection[str]) -> Self:
        """Return one without rules, of providers that can do everything."""
        return cls((), defaults=tuple(names), capabilities=dict.fromkeys(names, ALL))

    @property
    def has_rules(self) -> bool:
        """False: only saved payment methods and manual captures have candidates."""
        return bool(self._rules)

    def set_rules(self, rules: Sequence[RouteRule]) -> None:
        """Use other rules from now on. Payments that were accepted keep their candidates."""
        self._rules = tuple(rules)

    def route(self, request: RouteRequest) -> Route | None:
        """Return the way of a new payment; None: every default provider may take it. Raises NoCandidate."""
        for number, rule in enumerate(self._rules, 1):
            if mismatch(rule, request) is None:
                return self._routed(request, rule, number)
        excluded = self._excluded(self._defaults, request)
        return Route(_rest(self._defaults, excluded, "the default providers")) if excluded else None

    def explain(self, request: RouteRequest) -> Sequence[RuleVerdict]:
        """Return the verdict of every rule, top to bottom. The first that matches decides."""
        return [
            RuleVerdict(number, rule, mismatch(rule, request), self._excluded(rule.names, request))
            for number, rule in enumerate(self._rules, 1)
        ]

    def excluded_defaults(self, request: RouteRequest) -> Mapping[str, str]:
        """Return the reason for each default provider that cannot take the payment."""
        return self._excluded(self._defaults, request)

    def _routed(self, request: RouteRequest, rule: RouteRule, number: int) -> Route:
        ordered = rule.names if rule.weights is None else by_weight(rule.weights, request.key)
        candidates = _rest(ordered, self._excluded(ordered, request), f"route {number}")
        return Route(candidates, rule.fallback == "soft_decline")

    def _excluded(self, names: Sequence[str], request: RouteRequest) -> Mapping[str, str]:
        reasons = {name: self._incapacity(name, request) for name in names}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _incapacity(self, name: str, request: RouteRequest) -> str | None:
        if request.manual_capture and "manual_capture" not in self._capabilities.get(name, ()):
            return "it cannot capture manually"
        if request.tokens is not None and name not in request.tokens:
            return "the payment method has no token there"
        return None


def route_errors(rules: Sequence[RouteRule], names: Collection[str]) -> Sequence[tuple[int, str]]:
    """Return the number and the message of everything wrong with rules that are right by themselves."""
    errors = []
    for number, rule in enumerate(rules, 1):
        if not set(rule.names) <= set(names):
            key = "use" if rule.weights is None else "weights"
            errors.append((number, f"{key} takes names of this file's providers: {', '.join(names)}"))
    for (number, rule), _ in pairwise(enumerate(rules, 1)):
        if rule.is_unconditional:
            errors.append((number, "has no condition: the routes below it never decide"))
    return errors


def mismatch(rule: RouteRule, request: RouteRequest) -> str | None:
    """Return the first condition of a rule that a payment does not meet, or None if it matches."""
    method = "manual" if request.manual_capture else "automatic"
    if rule.currency is not None and request.currency not in rule.currency:
        return f"currency is not {_either(rule.currency)}"
    if rule.amount_from is not None and request.amount_minor < rule.amount_from:
        return f"amount is below {rule.amount_from}"
    if rule.amount_to is not None and request.amount_minor > rule.amount_to:
        return f"amount is above {rule.amount_to}"
    if rule.account is not None and not _is_like_one(request.account_id, rule.account):
        return f"account is not like {_either(rule.account)}"
    if rule.capture_method is not None and rule.capture_method != method:
        return f"capture_method is not {rule.capture_method}"
    if rule.payment_method is not None:
        if request.payment_method is None:
            return "there is no payment_method"
        if not _is_like_one(request.payment_method, rule.payment_method):
            return f"payment_method is not like {_either(rule.payment_method)}"
    return None


def weight_key(account_id: str, idempotency_key: str) -> str:
    """Return the key that weights select by. No other payment has it: a repeat is led the same way."""
    return f"{account_id} {idempotency_key}"


def by_weight(weights: Mapping[str, int], key: str) -> Sequence[str]:
    """Return the names in an order that depends on the key alone: a name comes first for its share of all keys.

    A race of exponential clocks: that of a name with weight w rings at -ln(u) / w. A changed weight moves only the keys that
    must move.
    """
    return sorted(weights, key=lambda name: (-math.log(_uniform(name, key)) / weights[name], name))


def _uniform(name: str, key: str) -> float:
    """Return a number in (0, 1) from the hash of both."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=name.encode()).digest()
    return ((int.from_bytes(digest) >> 11) + 0.5) / 2**53


def is_like(text: str, pattern: str) -> bool:
    """Return True if a text matches a pattern in which `*` stands for any characters. It takes linear time."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    at, end = len(first), len(text) - len(last)
    if not text.startswith(first) or not text.endswith(last) or at > end:
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _is_like_one(text: str, patterns: Sequence[str]) -> bool:
    return any(is_like(text, pattern) for pattern in patterns)


def _rest(names: Sequence[str], excluded: Mapping[str, str], place: str) -> Sequence[str]:
    """Return the names that are not excluded. Raises NoCandidate."""
    left = [name for name in names if name not in excluded]
    if not left:
        raise NoCandidate(names, f"{place}: {'; '.join(f'{name}: {excluded[name]}' for name in names)}")
    return left


def _either(texts: Sequence[str]) -> str:
    shown = [*texts[:5], *(["…"] if len(texts) > 5 else [])]
    return " or ".join(shown)
