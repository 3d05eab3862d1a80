"""`okane providers route`: explain the choice of a provider by the routes of the providers file, for a payment that is only
described."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table

from okane.cli.context import Context
from okane.cli.output import CONSOLE, print_json
from okane.payment_method import saved_method_id
from okane.providers.config import ProvidersConfig, load_providers
from okane.providers.routing import Router, RouteRequest, RouteRule, RuleVerdict, by_weight
from okane.store.payment_methods import PaymentMethodStore
from okane.store.providers import ProviderState, ProviderStore


@dataclass(frozen=True, slots=True)
class Candidate:
    """One provider that the routes allow. `excluded` is the reason why it cannot take the payment."""

    state: ProviderState
    excluded: str | None
    share: float | None

    @property
    def can_be_called(self) -> bool:
        """True if a claim may choose it now."""
        return self.excluded is None and self.state.mode == "on" and self.state.open_s <= 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """The choice for one payment. `decided_by` is the number of the rule; None: the default providers.

    `tokens` are the providers at which its saved payment method has a token; None: it names no saved one.
    """

    verdicts: Sequence[RuleVerdict]
    decided_by: int | None
    candidates: Sequence[Candidate]
    tokens: Collection[str] | None = None

    @property
    def refusal(self) -> str | None:
        """The code of the API's refusal; None: the payment is accepted."""
        if self.tokens is not None and not self.tokens:
            return "payment_method_unknown"
        if any(one.excluded is None for one in self.candidates):
            return None
        if self.tokens is not None and not any(one.state.name in self.tokens for one in self.candidates):
            return "payment_method_unusable"
        return "unsupported_by_provider"

    @property
    def goes_to(self) -> str | None:
        """The provider that a claim would choose now, None if it would find none. By weight without a key: for most
        payments."""
        if self.refusal is not None:
            return None
        return next((one.state.name for one in self.candidates if one.can_be_called), None)


async def show_route(context: Context, request: RouteRequest, *, as_json: bool) -> None:
    """Print the verdict of each rule, and the candidates with their state. A saved payment method is looked up, as the API
    does when it accepts a payment. Raises SetupError, StoreUnavailable."""
    config = load_providers(context.settings)
    request = replace(request, tokens=await _find_tokens(context, request))
    store = ProviderStore(context.database_url)
    try:
        states = {one.name: one for one in await store.read_all()}
    finally:
        await store.aclose()
    explanation = explain(config, request, states)
    if as_json:
        print_json(_document(explanation))
    else:
        _print(explanation)


async def _find_tokens(context: Context, request: RouteRequest) -> Collection[str] | None:
    """Return the providers at which the saved payment method has a token, none for an unknown or deleted one; None if the
    payment names no saved one."""
    method_id = saved_method_id(request.payment_method)
    if method_id is None:
        return None
    methods = PaymentMethodStore(context.database_url)
    try:
        [found] = await methods.providers_of([(request.account_id, method_id)])
    finally:
        await methods.aclose()
    if isinstance(found, BaseException):
        raise found
    return found


def explain(config: ProvidersConfig, request: RouteRequest, states: Mapping[str, ProviderState]) -> Explanation:
    """Return the choice by these routes, while the providers are in these states."""
    router = Router(config.routes, defaults=config.default, capabilities=config.capabilities)
    verdicts = router.explain(request)
    decisive = next((one for one in verdicts if one.mismatch is None), None)
    if decisive is None:
        names, excluded, weights = config.default, router.excluded_defaults(request), None
    else:
        names, excluded, weights = decisive.rule.names, decisive.excluded, decisive.rule.weights
        if weights and request.key:
            names = by_weight(weights, request.key)
    total = sum(weights.values()) if weights else 1
    candidates = [
        Candidate(
            states.get(name, ProviderState(name=name)), excluded.get(name), weights[name] / total if weights else None
        )
        for name in names
    ]
    return Explanation(verdicts, None if decisive is None else decisive.number, candidates, request.tokens)


def _print(explanation: Explanation) -> None:
    rules = _table("route", "matches", "leads to", "")
    for one in explanation.verdicts:
        decides = "decides" if one.number == explanation.decided_by else ""
        rules.add_row(str(one.number), f"no: {one.mismatch}" if one.mismatch else "yes", _shown(one.rule), decides)
    if explanation.decided_by is None:
        rules.add_row("default", "yes", ", ".join(one.state.name for one in explanation.candidates), "decides")
    providers = _table("candidate", "share", "state")
    for candidate in explanation.candidates:
        share = "" if candidate.share is None else f"{candidate.share:.1%}"
        providers.add_row(candidate.state.name, share, _state(candidate))
    for table in (rules, providers):
        CONSOLE.print(table, soft_wrap=not CONSOLE.is_terminal)
        CONSOLE.print()
    if explanation.tokens:
        CONSOLE.print(f"the saved payment method has a token at {', '.join(sorted(explanation.tokens))}")
    if explanation.refusal is not None:
        CONSOLE.print(f"such a payment is refused (422 {explanation.refusal})")
    elif explanation.goes_to is None:
        CONSOLE.print("such a payment waits: no candidate can be called now")
    else:
        CONSOLE.print(f"such a payment goes to {explanation.goes_to} now")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table


def _shown(rule: RouteRule) -> str:
    weights = rule.weights
    return ", ".join(name if weights is None else f"{name} {weights[name]}" for name in rule.names)


def _state(candidate: Candidate) -> str:
    if candidate.excluded is not None:
        return f"left out: {candidate.excluded}"
    state = candidate.state
    if state.mode != "on":
        return f"{state.mode}: {state.reason}" if state.reason else state.mode
    return f"circuit open for {state.open_s:.0f} s" if state.open_s > 0 else "on"


def _document(explanation: Explanation) -> dict[str, Any]:
    return {
        "routes": [
            {
                "number": one.number,
                "matches": one.mismatch is None,
                "mismatch": one.mismatch,
                **one.rule.model_dump(exclude_none=True),
            }
            for one in explanation.verdicts
        ],
        "decided_by": explanation.decided_by,
        "candidates": [
            {
                "name": one.state.name,
                "share": one.share,
                "excluded": one.excluded,
                "mode": one.state.mode,
                "open_s": one.state.open_s,
            }
            for one in explanation.candidates
        ],
        "tokens": None if explanation.tokens is None else sorted(explanation.tokens),
        "refused": explanation.refusal is not None,
        "refusal": explanation.refusal,
        "goes_to": explanation.goes_to,
    }
