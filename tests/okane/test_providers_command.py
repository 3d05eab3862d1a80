"""`okane providers` against a real Postgres: the list, the switch, and the names that it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import Result

from okane.errors import SetupError
from okane.monitoring.doctor import switch
from okane.payment_id import PaymentId
from okane.payment_method import NewSavedMethod
from okane.providers.routing import by_weight
from okane.store import PaymentStore
from okane.store.payment_methods import PaymentMethodStore
from okane.store.providers import ProviderState, ProviderStore
from tests.okane.commands import Command, command_of
from tests.okane.stored_payments import GRACE, LEASE, accept_one, new

FILE = """
default = ["second", "first"]
[providers.first]
kind = "okane_http"
base_url = "http://127.0.0.1:1"
[providers.second]
kind = "okane_http"
base_url = "http://127.0.0.1:2"
[providers.third]
kind = "okane_http"
base_url = "http://127.0.0.1:3"
"""


command = command_of("providers")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "providers.toml"
    path.write_text(FILE)
    monkeypatch.setenv("OKANE_PROVIDERS_FILE", str(path))
    return path


async def listed(command: Command) -> list[dict[str, Any]]:
    result = await command("ls", "--json")
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.output)["providers"]
    return found


async def test_without_a_file_there_is_the_provider_of_today(command: Command) -> None:
    assert [(one["name"], one["mode"], one["open_s"]) for one in await listed(command)] == [("http", "on", 0)]
    assert "http" in (await command("ls")).output


@pytest.mark.usefixtures("file")
async def test_the_providers_of_the_file_are_listed_the_candidates_first(command: Command, database_url: str) -> None:
    store = ProviderStore(database_url)
    await store.set_mode("removed", "off", reason="of an older file", actor="operator")
    await store.aclose()
    assert [one["name"] for one in await listed(command)] == ["second", "first", "third", "removed"]


@pytest.mark.parametrize(("word", "mode"), [("drain", "drain"), ("disable", "off")])
async def test_a_switch_and_its_reason_are_kept_and_shown(command: Command, word: str, mode: str) -> None:
    result = await command(word, "http", "--reason", "incident 4711")
    assert result.exit_code == 0, result.output
    assert result.output == f"http is {mode}: incident 4711\n"
    [found] = await listed(command)
    assert (found["mode"], found["reason"], found["changed_by"]) == (mode, "incident 4711", "operator")
    for word_of_list in (mode, "incident 4711", "operator"):
        assert word_of_list in (await command("ls")).output
    back = await command("enable", "http", "--reason", "over", "--json")
    assert (json.loads(back.output)["mode"], json.loads(back.output)["woken"]) == ("on", 0)


async def test_enabling_makes_payments_that_wait_due_at_once(command: Command, database_url: str) -> None:
    store = PaymentStore(database_url, actor="w1", lease=LEASE, grace=GRACE)
    waiting, scheduled = [(await accept_one(store, new(f"k-{number}"))).payment.id for number in range(2)]
    await store.aclose()
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("UPDATE payments SET sweep_at = now() + interval '1 minute'")
        await connection.execute(
            "UPDATE payments SET execute_at = now() + interval '1 hour' WHERE id = %s", (scheduled,)
        )
        result = await command("enable", "http", "--reason", "over")
        assert "1 payment that waited is tried now" in result.output
        rows = await (await connection.execute("SELECT id FROM payments WHERE sweep_at <= now()")).fetchall()
    assert rows == [(waiting,)]


@pytest.mark.usefixtures("file")
async def test_a_name_that_nothing_has_is_refused_with_those_there_are(command: Command) -> None:
    with pytest.raises(SetupError, match="first, second, third") as refused:
        raise_of(await command("disable", "frist", "--reason", "typo"))
    assert "'frist'" in str(refused.value)
    assert [one["mode"] for one in await listed(command)] == ["on"] * 3


async def test_force_takes_a_name_that_only_other_machines_know(command: Command) -> None:
    result = await command("disable", "stripe", "--reason", "incident", "--force")
    assert result.exit_code == 0, result.output
    assert [(one["name"], one["mode"]) for one in await listed(command)] == [("http", "on"), ("stripe", "off")]


@pytest.mark.parametrize("name", ["", "Stripe", "a b", "x" * 40])
async def test_force_takes_no_name_that_no_provider_can_have(command: Command, name: str) -> None:
    with pytest.raises(SetupError, match="name"):
        raise_of(await command("disable", name, "--reason", "incident", "--force"))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "two\nlines"])
async def test_a_reason_without_words_is_refused(command: Command, reason: str) -> None:
    with pytest.raises(SetupError, match="--reason"):
        raise_of(await command("disable", "http", "--reason", reason))


async def test_a_reason_is_required(command: Command) -> None:
    assert (await command("disable", "http")).exit_code == 2


def raise_of(result: Result) -> None:
    assert result.exception is not None, result.output
    raise result.exception


def test_the_doctor_warns_of_what_is_switched_or_open() -> None:
    assert switch(ProviderState("p")) is None
    drained = switch(ProviderState("p", "drain", "maintenance", "operator"))
    assert drained is not None
    assert (drained.state, drained.found) == ("warn", "draining: no new charge (operator: maintenance)")
    off = switch(ProviderState("p", "off", "incident", "operator"))
    assert off is not None
    assert "okane providers enable p" in off.advice
    opened = switch(ProviderState("p", open_s=timedelta(seconds=12).total_seconds()))
    assert opened is not None
    assert "12 s" in opened.found


ROUTES = """
[[routes]]
currency = "USD"
use = ["third"]
[[routes]]
amount_from = 1000
weights = { first = 3, third = 1 }
"""


async def explained(command: Command, *words: str) -> dict[str, Any]:
    result = await command("route", *words, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


async def test_the_choice_by_routes_is_explained_rule_by_rule(command: Command, file: Path) -> None:
    file.write_text(FILE + ROUTES)
    large = await explained(command, "--amount", "1000", "--currency", "PLN")
    assert [(one["number"], one["matches"], one["mismatch"]) for one in large["routes"]] == [
        (1, False, "currency is not USD"),
        (2, True, None),
    ]
    assert (large["decided_by"], large["goes_to"], large["refused"]) == (2, "first", False)
    assert [(one["name"], one["share"]) for one in large["candidates"]] == [("first", 0.75), ("third", 0.25)]
    small = await explained(command, "--amount", "999", "--currency", "PLN")
    assert (small["decided_by"], [one["name"] for one in small["candidates"]]) == (None, ["second", "first"])
    shown = (await command("route", "--amount", "999", "--currency", "PLN")).output
    for text in ("no: amount is below 1000", "second, first", "such a payment goes to second now"):
        assert text in shown
    for name in ("first", "second", "third"):
        file.write_text(file.read_text().replace(f"[providers.{name}]", f"[providers.{name}]\ncapabilities = []"))
    manual = await command("route", "--amount", "999", "--capture-method", "manual")
    assert "left out: it cannot capture manually" in manual.output
    assert "such a payment is refused (422 unsupported_by_provider)" in manual.output


async def test_the_explanation_shows_what_is_off_and_leads_past_it(command: Command, file: Path) -> None:
    file.write_text(FILE + ROUTES)
    await command("disable", "first", "--reason", "incident")
    assert (await explained(command, "--amount", "1000", "--currency", "PLN"))["goes_to"] == "third"
    await command("drain", "third", "--reason", "rest")
    shown = (await command("route", "--amount", "1000", "--currency", "PLN")).output
    for text in ("off: incident", "drain: rest", "75.0%", "such a payment waits: no candidate can be called now"):
        assert text in shown


async def saved(database_url: str, *providers: str) -> str:
    """Return the id of a payment method that has a token at each of these."""
    methods = PaymentMethodStore(database_url)
    method = NewSavedMethod(
        id=PaymentId(),
        account_id="default",
        idempotency_key=",".join(providers),
        fingerprint=b"f" * 32,
        tokens=dict.fromkeys(providers, "pm_secret"),
        kind="card",
    )
    await methods.create(method)
    await methods.aclose()
    return str(method.id)


async def test_a_saved_payment_method_leads_to_the_providers_that_have_its_token(
    command: Command, file: Path, database_url: str
) -> None:
    file.write_text(FILE + ROUTES)
    method = await saved(database_url, "third")
    payment = ("--amount", "1000", "--currency", "PLN", "--payment-method", method)
    found = await explained(command, *payment)
    assert (found["tokens"], found["goes_to"], found["refused"]) == (["third"], "third", False)
    assert [(one["name"], one["excluded"]) for one in found["candidates"]] == [
        ("first", "the payment method has no token there"),
        ("third", None),
    ]
    shown = (await command("route", *payment)).output
    assert "the saved payment method has a token at third\nsuch a payment goes to third now\n" in shown
    assert "secret" not in shown

    elsewhere = await explained(command, "--amount", "999", "--currency", "PLN", "--payment-method", method)
    assert (elsewhere["refusal"], elsewhere["goes_to"]) == ("payment_method_unusable", None)
    unknown = (*payment[:-1], str(PaymentId()))
    other_account = (*payment, "--account", "acme")
    for words in (unknown, other_account):
        found = await explained(command, *words)
        assert (found["tokens"], found["refusal"], found["goes_to"]) == ([], "payment_method_unknown", None)
        assert "such a payment is refused (422 payment_method_unknown)" in (await command("route", *words)).output
    assert (await explained(command, *payment[:-1], "pm_card_visa"))["tokens"] is None


async def test_with_its_idempotency_key_a_payment_goes_where_the_weights_lead_it(command: Command, file: Path) -> None:
    file.write_text(FILE + ROUTES)
    weights = {"first": 3, "third": 1}
    keys = ["key-5", "key-6"]
    expected = [by_weight(weights, f"default {key}")[0] for key in keys]
    assert set(expected) == {"first", "third"}
    payment = ("--amount", "1000", "--currency", "PLN", "--idempotency-key")
    assert [(await explained(command, *payment, key))["goes_to"] for key in keys] == expected


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize(
    "words", [("--amount", "0"), ("--amount", "1", "--currency", "zz"), ("--amount", "1", "--capture-method", "later")]
)
async def test_a_payment_that_cannot_be_is_no_question(command: Command, words: Sequence[str]) -> None:
    result = await command("route", *words)
    assert result.exit_code == 2
