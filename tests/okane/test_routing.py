"""The routes of the providers file: which rule decides, in which order its candidates come, and what is refused."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.providers.base import Capability
from okane.providers.routing import (
    NoCandidate,
    Route,
    Router,
    RouteRequest,
    RouteRule,
    by_weight,
    is_like,
    mismatch,
    route_errors,
)

NAMES = ("stripe", "payu", "mock")
ABLE: Mapping[str, frozenset[Capability]] = {name: frozenset({"manual_capture"}) for name in ("stripe", "mock")}
ORDER = RouteRequest(amount_minor=1_000, currency="PLN", account_id="shop-eu", key="shop-eu key-1")


def rule(**given: object) -> RouteRule:
    return RouteRule.model_validate({"use": ["payu", "stripe"], **given})


def router(*rules: RouteRule) -> Router:
    return Router(rules, defaults=NAMES, capabilities=ABLE)


def order(**changed: object) -> RouteRequest:
    return dataclasses.replace(ORDER, **changed)  # type: ignore[arg-type] # any field of a request


@pytest.mark.parametrize(
    ("condition", "met", "unmet", "reason"),
    [
        ({"currency": ["PLN", "EUR"]}, {}, {"currency": "USD"}, "currency is not PLN or EUR"),
        ({"currency": "PLN"}, {}, {"currency": "USD"}, "currency is not PLN"),
        ({"amount_from": 1_000}, {}, {"amount_minor": 999}, "amount is below 1000"),
        ({"amount_to": 1_000}, {}, {"amount_minor": 1_001}, "amount is above 1000"),
        ({"account": "shop-*"}, {}, {"account_id": "shop"}, "account is not like shop-*"),
        ({"account": ["a", "shop-eu"]}, {}, {"account_id": "b"}, "account is not like a or shop-eu"),
        ({"capture_method": "automatic"}, {}, {"manual_capture": True}, "capture_method is not automatic"),
        ({"capture_method": "manual"}, {"manual_capture": True}, {}, "capture_method is not manual"),
        ({"payment_method": "pm_*"}, {"payment_method": "pm_1"}, {}, "there is no payment_method"),
        (
            {"payment_method": "pm_*"},
            {"payment_method": "pm_1"},
            {"payment_method": "blik"},
            "payment_method is not like pm_*",
        ),
    ],
)
def test_a_rule_matches_what_meets_its_condition(
    condition: dict[str, object], met: dict[str, object], unmet: dict[str, object], reason: str
) -> None:
    assert mismatch(rule(**condition), order(**met)) is None
    assert mismatch(rule(**condition), order(**unmet)) == reason


def test_the_first_rule_that_matches_decides() -> None:
    rules = rule(currency="USD", use=["mock"]), rule(currency="PLN"), rule(use=["stripe"])
    assert router(*rules).route(ORDER) == Route(["payu", "stripe"])
    assert router(*rules).route(order(currency="USD")) == Route(["mock"])
    assert router(*rules).route(order(currency="EUR")) == Route(["stripe"])


def test_a_rule_says_whether_the_next_candidate_is_tried_after_a_soft_decline() -> None:
    assert router(rule(fallback="soft_decline")).route(ORDER) == Route(["payu", "stripe"], soft_fallback=True)
    assert router(rule(fallback="unavailable")).route(ORDER) == Route(["payu", "stripe"])


def test_a_payment_that_no_rule_matches_is_left_to_the_default_providers() -> None:
    assert router().route(ORDER) is None
    assert router(rule(currency="USD")).route(ORDER) is None


def test_a_provider_that_cannot_take_the_payment_is_no_candidate() -> None:
    assert router(rule()).route(order(manual_capture=True)) == Route(["stripe"])
    assert router(rule()).route(order(tokens=["payu"])) == Route(["payu"])
    assert router().route(order(manual_capture=True)) == Route(["stripe", "mock"])
    assert router().route(order(tokens=NAMES)) is None


def test_without_a_candidate_the_payment_is_refused_and_never_led_elsewhere() -> None:
    routes = router(rule(use=["payu"]), rule(use=["stripe"]))
    with pytest.raises(NoCandidate, match=r"^route 1: payu: it cannot capture manually$"):
        routes.route(order(manual_capture=True))
    with pytest.raises(NoCandidate, match="the default providers: stripe: the payment method has no token there; payu"):
        router().route(order(tokens=[]))


def test_other_rules_decide_from_the_moment_they_are_set() -> None:
    routes = router()
    assert not routes.has_rules
    routes.set_rules([rule()])
    assert routes.has_rules
    assert routes.route(ORDER) == Route(["payu", "stripe"])


def test_the_explanation_has_every_rule_with_its_reasons() -> None:
    told = router(rule(currency="USD"), rule()).explain(order(manual_capture=True))
    assert [(one.number, one.mismatch, one.excluded) for one in told] == [
        (1, "currency is not USD", {"payu": "it cannot capture manually"}),
        (2, None, {"payu": "it cannot capture manually"}),
    ]


WEIGHTS = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 1_000_000), min_size=1)


@given(weights=WEIGHTS, key=st.text())
def test_the_order_by_weight_has_every_name_once_and_is_that_of_a_repeat(weights: dict[str, int], key: str) -> None:
    ordered = by_weight(weights, key)
    assert sorted(ordered) == sorted(weights)
    assert by_weight(dict(reversed(weights.items())), key) == ordered


@given(weights=WEIGHTS, key=st.text(), more=st.integers(1, 1_000))
def test_a_heavier_name_never_comes_later_for_the_same_payment(weights: dict[str, int], key: str, more: int) -> None:
    name = next(iter(weights))
    before = by_weight(weights, key).index(name)
    assert by_weight({**weights, name: weights[name] * more}, key).index(name) <= before


@pytest.mark.parametrize("weights", [{"stripe": 90, "payu": 10}, {"stripe": 1, "payu": 1, "mock": 2}])
def test_each_name_comes_first_for_its_share_of_the_payments(weights: dict[str, int]) -> None:
    count = 20_000
    first = Counter(by_weight(weights, f"default key-{number}")[0] for number in range(count))
    for name, weight in weights.items():
        assert first[name] / count == pytest.approx(weight / sum(weights.values()), abs=0.015)


@given(text=st.text("ab*", max_size=12), pattern=st.text("ab*", min_size=1, max_size=8))
def test_patterns_mean_what_globs_mean(text: str, pattern: str) -> None:
    assert is_like(text, pattern) == fnmatch.fnmatchcase(text, pattern)


@given(
    chosen=st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    manual=st.booleans(),
    tokens=st.none() | st.lists(st.sampled_from(NAMES), unique=True),
)
def test_every_candidate_is_of_its_rule_and_can_take_the_payment(
    chosen: Sequence[str], manual: bool, tokens: Sequence[str] | None
) -> None:
    able = [name for name in chosen if not manual or name in ABLE]
    able = [name for name in able if tokens is None or name in tokens]
    routes = router(rule(use=chosen))
    wanted = order(manual_capture=manual, tokens=tokens)
    if able:
        assert routes.route(wanted) == Route(able)
    else:
        with pytest.raises(NoCandidate):
            routes.route(wanted)


def test_rules_that_never_decide_and_unknown_names_are_errors() -> None:
    rules = [rule(), rule(currency="PLN", use=["nowhere"]), rule(use=None, weights={"stripe": 1, "no": 1})]
    assert route_errors(rules, NAMES) == [
        (2, "use takes names of this file's providers: stripe, payu, mock"),
        (3, "weights takes names of this file's providers: stripe, payu, mock"),
        (1, "has no condition: the routes below it never decide"),
    ]
