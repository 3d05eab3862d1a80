"""Find routes that can never lead a payment to a provider: an earlier one takes all, or no candidate can take any. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from okane.providers.base import Capability
from okane.providers.routing import RouteRule, is_like


def idle_routes(
    rules: Sequence[RouteRule], capabilities: Mapping[str, Collection[Capability]]
) -> Sequence[tuple[int, str]]:
    """Return the number of each route that never leads a payment to a provider, and why."""
    found = []
    for number, rule in enumerate(rules, 1):
        earlier = next((at for at, one in enumerate(rules[: number - 1], 1) if covers(one, rule)), None)
        if earlier is not None:
            found.append((number, f"never decides: route {earlier} matches every payment that it matches"))
        elif rule.capture_method == "manual" and not any(
            "manual_capture" in capabilities.get(name, ()) for name in rule.names
        ):
            found.append((number, f"refuses every payment: none of {', '.join(rule.names)} can capture manually"))
    return found


def covers(one: RouteRule, other: RouteRule) -> bool:
    """Return True if every payment that matches the other rule matches this one."""
    return (
        (one.currency is None or (other.currency is not None and set(other.currency) <= set(one.currency)))
        and (one.amount_from is None or (other.amount_from is not None and other.amount_from >= one.amount_from))
        and (one.amount_to is None or (other.amount_to is not None and other.amount_to <= one.amount_to))
        and one.capture_method in (None, other.capture_method)
        and _covers_patterns(one.account, other.account)
        and _covers_patterns(one.payment_method, other.payment_method)
    )


def _covers_patterns(ours: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    # A pattern that is like another as a text is so with whatever its `*` stand for: the other has no `*` to compare with,
    # so each lies where the other takes any characters.
    return ours is None or (others is not None and all(any(is_like(each, own) for own in ours) for each in others))
