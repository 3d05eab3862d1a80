"""`okane doctor` about captures, voids and refunds: who reads their stream, what waits, what providers and routes can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from okane.config import Settings
from okane.lanes import operations_stream, payments_stream
from okane.monitoring.operation_checks import abilities, operation_checks, readers, waiting
from okane.monitoring.operation_summary import OperationCounts
from okane.operation import OperationKind, OperationStatus
from okane.providers.capabilities import ALL, PAYU, PAYU_BY_HAND
from okane.providers.route_checks import covers, idle_routes
from okane.providers.routing import RouteRule
from streams import Consumer, Done, Message, Outcome, Stream, connect

FILE = """
[providers.first]
kind = "okane_http"
base_url = "http://127.0.0.1:1"
capabilities = ["refund"]
[providers.second]
kind = "okane_http"
base_url = "http://127.0.0.1:2"
capabilities = []
[[routes]]
currency = ["PLN", "EUR"]
use = ["first"]
[[routes]]
currency = "PLN"
use = ["second"]
[[routes]]
capture_method = "manual"
use = ["first", "second"]
"""


@dataclass(frozen=True)
class System:
    """The system that is checked."""

    settings: Settings
    database: str | None
    redis_url: str
    source: str = "the environment"
    provider_base_url: str | None = None
    api_url: str | None = None

    @property
    def database_url(self) -> str:
        assert self.database is not None
        return self.database


async def read_once(redis_url: str, stream: Stream, *names: str) -> None:
    async def done(_message: Message) -> Outcome:
        return Done()

    async with connect(redis_url) as redis:
        for name in names:
            await Consumer(redis, stream, group="workers", name=name, handler=done).run_once()


async def test_the_doctor_finds_a_worker_that_reads_payments_only(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    file.write_text(FILE)
    settings = Settings(_env_file=None, stream=f"test-{uuid4()}", providers_file=file)
    system = System(settings, database_url, redis_url)
    of_payments = payments_stream(settings.stream)
    of_operations = operations_stream(settings.operations_stream_name)
    assert "operation workers" not in {one.name for one in await operation_checks(system)}  # no worker: another line
    await read_once(redis_url, of_payments, "old", "new")
    found = {one.name: one for one in await operation_checks(system)}
    assert found["operation workers"].state == "fail"
    await read_once(redis_url, of_operations, "new")
    found = {one.name: one for one in await operation_checks(system)}
    assert found["operation workers"].state == "warn"
    assert found["operation workers"].found == f"old of 2 do not read the stream {of_operations.name}"
    await read_once(redis_url, of_operations, "old")
    found = {one.name: one for one in await operation_checks(system)}
    assert (found["operation workers"].state, found["operation workers"].found) == ("ok", "new, old")
    assert [(one.name, one.state) for one in found.values() if one.name != "operation workers"] == [
        ("operations of first", "ok"),
        ("operations of second", "warn"),
        ("route 2", "warn"),
        ("route 3", "warn"),
    ]


async def test_servers_that_are_away_and_a_wrong_file_have_lines_of_their_own(tmp_path: Path) -> None:
    away = System(
        Settings(_env_file=None, providers_file=tmp_path / "absent.toml"),
        "postgresql://127.0.0.1:9/x",
        "redis://127.0.0.1:9",
    )
    assert await operation_checks(away) == []


def test_no_worker_for_operations_fails_and_a_part_of_them_is_a_warning() -> None:
    assert readers((), (), "s") == []
    assert [one.state for one in readers({"a"}, (), "s")] == ["fail"]
    assert [one.state for one in readers({"a", "b"}, {"b"}, "s")] == ["warn"]
    assert [(one.state, one.found) for one in readers({"a"}, {"b", "a"}, "s")] == [("ok", "a, b")]


def test_operations_that_wait_for_a_human_or_for_long_are_warnings() -> None:
    def counts(status: OperationStatus, minutes: int) -> OperationCounts:
        return OperationCounts({(OperationKind.VOID, status): 2}, timedelta(minutes=minutes), 0)

    assert waiting(counts(OperationStatus.SUBMITTED, 5)) == []
    [review] = waiting(counts(OperationStatus.NEEDS_REVIEW, 0))
    assert (review.found, review.advice) == (
        "2 captures, voids and refunds need one",
        "decide them: okane review ls --operations",
    )
    [late] = waiting(counts(OperationStatus.PENDING, 6))
    assert late.found == "one has been due for 360 s"


def test_a_provider_without_refunds_or_without_voids_is_a_warning() -> None:
    held_only = PAYU_BY_HAND - {"void"}
    found = abilities({"all": ALL, "payu": PAYU, "none": frozenset(), "held": held_only})
    assert [(one.name, one.state) for one in found] == [
        ("operations of all", "ok"),
        ("operations of held", "warn"),
        ("operations of none", "warn"),
        ("operations of payu", "ok"),
    ]
    assert found[1].found == "no void: manual capture, partial refund, refund"
    assert found[2].found == "no refund: none"


def rule(**conditions: object) -> RouteRule:
    return RouteRule.model_validate({"use": ["p"], **conditions})


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (rule(currency=["PLN", "EUR"]), rule(currency="EUR"), True),
        (rule(currency="EUR"), rule(currency=["PLN", "EUR"]), False),
        (rule(currency="EUR"), rule(amount_from=1), False),
        (rule(amount_from=100), rule(amount_from=100, currency="EUR"), True),
        (rule(amount_from=101), rule(amount_from=100), False),
        (rule(amount_to=100), rule(amount_from=5, amount_to=99), True),
        (rule(amount_to=100), rule(amount_to=101), False),
        (rule(capture_method="manual"), rule(capture_method="manual", account="a"), True),
        (rule(capture_method="manual"), rule(account="a"), False),
        (rule(account="shop-*"), rule(account=["shop-eu-*", "shop-1"]), True),
        (rule(account="shop-*"), rule(account=["shop-1", "till-1"]), False),
        (rule(account="shop-eu-*"), rule(account="shop-*"), False),
        (rule(account="*-eu"), rule(account="shop-*"), False),
        (rule(payment_method=["pm_*", "cus_*"]), rule(payment_method="pm_card_*", amount_to=1), True),
    ],
)
def test_a_rule_covers_another_where_each_of_its_conditions_does(
    one: RouteRule, other: RouteRule, expected: bool
) -> None:
    assert covers(one, other) is expected


def test_a_route_that_decides_nothing_is_named_with_its_reason() -> None:
    rules: Sequence[RouteRule] = [
        rule(currency="EUR"),
        rule(capture_method="manual", use=["payu", "all"]),
        rule(currency="EUR", amount_from=5),
        rule(capture_method="manual", currency="PLN", use=["payu"]),
        rule(capture_method="automatic", use=["payu"]),
    ]
    assert idle_routes(rules, {"all": ALL, "payu": PAYU, "p": ALL}) == [
        (3, "never decides: route 1 matches every payment that it matches"),
        (4, "never decides: route 2 matches every payment that it matches"),
    ]
    assert idle_routes(rules[3:], {"all": ALL, "payu": PAYU}) == [
        (1, "refuses every payment: none of payu can capture manually")
    ]
