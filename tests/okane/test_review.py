"""Decisions about payments that need a review: over HTTP, on the command line, and in the Python client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from typer.testing import CliRunner, Result

from okane.cli import app
from okane.client import Client, Conflict
from okane.errors import SetupError, VersionConflict
from okane.payment import LATE_LOOK_UPS, Status
from okane.store import OPERATOR, PaymentStore, ReviewStore
from tests.okane.served_api import Api
from tests.okane.stored_payments import GRACE, LEASE, accept_one, claimed, new, settlement

Run = Callable[..., Awaitable[Result]]
DECIDED = {"as": "failed_final", "reason": "the provider never got it"}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentStore]:
    store = PaymentStore(database_url, actor="w1", lease=LEASE, grace=GRACE)
    yield store
    await store.aclose()


@pytest.fixture
def okane(database_url: str, redis_url: str, tmp_path: Path) -> Run:
    """Run `okane ARGUMENTS` in this process, with these servers in the environment."""
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "COLUMNS": "200"}
    runner = CliRunner(env=env)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(lambda: runner.invoke(app, [*arguments, "--data", str(tmp_path)]))

    return run


async def in_doubt(store: PaymentStore, key: str = "k", *, account_id: str = "default") -> UUID:
    """A payment that needs a review: its outcome stayed open."""
    payment = (await accept_one(store, replace(new(key), account_id=account_id))).payment
    claim = await claimed(store, payment.id)
    await store.settle(settlement(claim.payment, Status.NEEDS_REVIEW, event="needs_review", reason="open for too long"))
    return payment.id


async def resolve(api: Api, payment_id: UUID | str, body: object) -> tuple[int, dict[str, Any]]:
    async with api.client.post(f"/v1/payments/{payment_id}/resolve", json=body) as response:
        return response.status, await response.json()


@pytest.mark.parametrize("decision", ["success", "failed_final"])
async def test_a_payment_is_what_a_human_has_decided(api: Api, decision: str) -> None:
    payment_id = await in_doubt(api.store)
    status, said = await resolve(api, payment_id, {"as": decision, "reason": "seen at the provider"})
    assert (status, said["payment"]["status"]) == (200, decision)
    events = await api.store.events(payment_id)
    assert (events[-1].event, events[-1].status, events[-1].actor) == ("resolved", Status(decision), "api")
    assert events[-1].reason == "seen at the provider"
    async with api.client.get("/v1/dead-letters") as response:
        assert (await response.json())["dead_letters"] == []


async def test_the_history_of_the_api_has_the_kind_of_actor_and_the_reason(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    await resolve(api, payment_id, DECIDED)
    async with api.client.get(f"/v1/payments/{payment_id}/events") as response:
        last = (await response.json())["events"][-1]
    assert (last["event"], last["actor"], last["reason"]) == ("resolved", "api", DECIDED["reason"])


async def test_the_charge_that_was_found_is_kept(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    _, said = await resolve(api, payment_id, {"as": "success", "reason": "found", "provider_ref": "ch_1"})
    assert said["payment"]["provider_ref"] == "ch_1"
    assert "last_error" not in said["payment"]


async def test_the_same_decision_again_changes_nothing_and_another_is_refused(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    first = await resolve(api, payment_id, DECIDED)
    assert await resolve(api, payment_id, DECIDED) == first
    assert [event.event for event in await api.store.events(payment_id)].count("resolved") == 1
    status, said = await resolve(api, payment_id, {"as": "success", "reason": "or not"})
    assert (status, said["code"], said["payment_status"]) == (409, "status_conflict", "failed_final")


@pytest.mark.parametrize("decision", ["success", "failed_final"])
async def test_only_what_needs_a_review_is_decided(api: Api, decision: str) -> None:
    pending = (await accept_one(api.store, new("pending"))).payment.id
    canceled = (await accept_one(api.store, new("canceled"))).payment.id
    await api.store.cancel(canceled, account_id="default", actor="test")
    settled = {}
    for outcome in (Status.SUCCESS, Status.FAILED_FINAL):
        payment = (await accept_one(api.store, new(outcome.value))).payment
        claim = await claimed(api.store, payment.id)
        await api.store.settle(settlement(claim.payment, outcome))
        settled[payment.id] = outcome.value
    for payment_id, status in {pending: "pending", canceled: "canceled", **settled}.items():
        code, said = await resolve(api, payment_id, {"as": decision, "reason": "no"})
        assert (code, said["code"], said["payment_status"]) == (409, "status_conflict", status)
        assert status in said["detail"]


async def test_a_payment_of_another_account_is_not_found(api: Api) -> None:
    theirs = await in_doubt(api.store, account_id="globex")
    for payment_id in (theirs, uuid4(), "nonsense"):
        status, said = await resolve(api, payment_id, DECIDED)
        assert (status, said["code"]) == (404, "payment_not_found")
    assert (await api.store.get(theirs, account_id="globex")).status is Status.NEEDS_REVIEW


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"as": "failed_final"}, "/reason"),
        ({"reason": "no"}, "/as"),
        ({"as": "canceled", "reason": "no"}, "/as"),
        ({"as": "failed_final", "reason": ""}, "/reason"),
        ({"as": "failed_final", "reason": "  \n"}, "/reason"),
        ({"as": "failed_final", "reason": "x" * 501}, "/reason"),
        ({"as": "failed_final", "reason": 1}, "/reason"),
        ({"as": "success", "reason": "yes", "provider_ref": ""}, "/provider_ref"),
        ({"as": "success", "reason": "yes", "provider_ref": "x" * 256}, "/provider_ref"),
        ({"as": "failed_final", "reason": "no", "provider_ref": "ch_1"}, ""),
        ({"as": "failed_final", "reason": "no", "decision": "success"}, "/decision"),
    ],
)
async def test_a_wrong_decision_is_refused_and_changes_nothing(api: Api, body: object, pointer: str) -> None:
    payment_id = await in_doubt(api.store)
    status, said = await resolve(api, payment_id, body)
    assert (status, said["code"]) == (422, "validation_failed")
    assert pointer in [error["pointer"] for error in said["errors"]]
    assert (await api.store.get(payment_id, account_id="default")).status is Status.NEEDS_REVIEW


async def test_the_problem_of_an_unknown_member_lists_the_known_ones(api: Api) -> None:
    _, said = await resolve(api, await in_doubt(api.store), {**DECIDED, "why": "no"})
    assert "the members are as, reason, provider_ref" in said["detail"]


async def test_the_client_decides_and_raises_conflict(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    async with Client(api.url) as client:
        seen = (await client.payment(payment_id)).version
        assert seen is not None
        with pytest.raises(Conflict):
            await client.resolve(payment_id, as_="success", reason="found", version=seen - 1)
        payment = await client.resolve(payment_id, as_="success", reason="found", provider_ref="ch_1", version=seen)
        assert (payment.status, payment.provider_ref) == (Status.SUCCESS, "ch_1")
        with pytest.raises(Conflict):
            await client.resolve(payment_id, as_=Status.FAILED_FINAL, reason="or not")


async def test_a_decision_against_a_charge_is_looked_up_again_unless_one_is_known(
    store: PaymentStore, database_url: str
) -> None:
    unclear, known = await in_doubt(store), await in_doubt(store, "other")
    payment = await store.get(known, account_id="default")
    await store.record_late(settlement(payment))
    for payment_id in (unclear, known):
        await store.resolve(
            payment_id,
            account_id=None,
            decision=Status.FAILED_FINAL,
            reason="refunded",
            provider_ref=None,
            actor=OPERATOR,
        )
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await connection.execute("SELECT id, sweep_at - updated_at FROM payments")
        assert dict(await found.fetchall()) == {unclear: LATE_LOOK_UPS[0], known: None}


async def test_the_reviews_of_all_accounts_are_listed_newest_first_page_by_page(
    store: PaymentStore, database_url: str
) -> None:
    ids = [await in_doubt(store, f"k-{n}", account_id=f"account-{n % 3}") for n in range(7)]
    await accept_one(store, new("open"))
    review = ReviewStore(database_url)
    first = await review.page(4)
    second = await review.page(4, before=first[-1].id)
    assert [payment.id for payment in (*first, *second)] == ids[::-1]
    assert [payment.id for payment in await review.page(9, account_id="account-1")] == [ids[4], ids[1]]
    assert await review.page(9, account_id="another") == []
    await review.aclose()


async def test_a_payment_is_decided_on_the_command_line(okane: Run, store: PaymentStore) -> None:
    assert (await okane("review", "ls")).stdout.strip() == "nothing needs a review"
    first, second = await in_doubt(store, account_id="acme"), await in_doubt(store, "other")
    listed = json.loads((await okane("review", "ls", "--json", "--limit", "1")).stdout)
    assert [one["payment_id"] for one in listed["payments"]] == [str(second)]
    older = json.loads((await okane("review", "ls", "--json", "--before", listed["before"])).stdout)
    assert ([one["payment_id"] for one in older["payments"]], older["before"]) == ([str(first)], None)
    text = (await okane("review", "ls", "--limit", "1")).stdout
    assert str(second) in text
    assert f"--before {second}" in text
    shown = json.loads((await okane("review", "show", str(first), "--json")).stdout)
    assert (shown["provider_key"], shown["events"][-1]["event"]) == (str(first), "needs_review")
    done = await okane("review", "resolve", str(first), "--as", "failed_final", "--reason", "asked [them]", "--json")
    assert json.loads(done.stdout)["status"] == "failed_final"
    last = (await store.events(first))[-1]
    assert (last.event, last.actor, last.reason) == ("resolved", "operator", "asked [them]")
    assert "asked [them]" in (await okane("review", "show", str(first))).stdout
    again = await okane("review", "resolve", str(first), "--as", "success", "--reason", "or not")
    assert str(again.exception) == "a payment that is failed_final cannot be resolved"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resolve", str(UUID(int=1)), "--as", "success", "--reason", "x"), "there is no payment"),
        (("resolve", "nonsense", "--as", "success", "--reason", "x"), "not a payment's id"),
        (("resolve", str(UUID(int=1)), "--as", "success", "--reason", " "), "--reason"),
        (("resolve", str(UUID(int=1)), "--as", "failed_final", "--reason", "x", "--provider-ref", "y"), "--as success"),
        (("resolve", str(UUID(int=1)), "--as", "canceled", "--reason", "x"), "--as"),
        (("resolve", str(UUID(int=1)), "--as", "success"), "--reason"),
        (("show", str(UUID(int=1))), "there is no payment"),
        (("ls", "--before", "nonsense"), "not a payment's id"),
    ],
)
async def test_a_wrong_command_says_what_is_wrong(okane: Run, arguments: tuple[str, ...], said: str) -> None:
    done = await okane("review", *arguments)
    assert isinstance(done.exception, SetupError | SystemExit)
    assert said in f"{done.exception} {done.output}"


async def test_a_decision_against_a_known_charge_is_not_retried(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    payment = await api.store.get(payment_id, account_id="default")
    await api.store.record_late(settlement(payment))
    await resolve(api, payment_id, {"as": "failed_final", "reason": "refunded"})
    async with api.client.post(f"/v1/payments/{payment_id}/retry") as response:
        assert (response.status, (await response.json())["payment_status"]) == (409, "failed_final")
    assert (await api.store.get(payment_id, account_id="default")).status is Status.FAILED_FINAL


async def test_a_decided_success_has_no_decline_code(store: PaymentStore) -> None:
    payment = (await accept_one(store, new())).payment
    claim = await claimed(store, payment.id)
    declined = settlement(claim.payment, Status.FAILED_FINAL, event="declined")
    await store.settle(replace(declined, decline_code="no_money"))
    await store.record_late(settlement(claim.payment))
    decided = await store.resolve(
        payment.id, account_id=None, decision=Status.SUCCESS, reason="seen", provider_ref=None, actor=OPERATOR
    )
    assert (decided.status, decided.decline_code) == (Status.SUCCESS, None)


async def test_a_decision_by_an_earlier_version_of_the_payment_is_refused(api: Api) -> None:
    payment_id = await in_doubt(api.store)
    version = (await api.store.get(payment_id, account_id="default")).version
    status, said = await resolve(api, payment_id, DECIDED | {"version": version - 1})
    assert (status, said["code"], said["payment_status"]) == (409, "status_conflict", "needs_review")
    assert f"version {version}" in said["detail"]
    assert (await api.store.get(payment_id, account_id="default")).version == version
    status, said = await resolve(api, payment_id, DECIDED | {"version": version})
    assert (status, said["payment"]["status"]) == (200, "failed_final")
    assert (await resolve(api, payment_id, DECIDED | {"version": version}))[0] == 200  # a repeat, after a lost answer


@pytest.mark.parametrize("version", [-1, 2**31, "1", 1.5, True])
async def test_a_version_that_is_none_is_refused(api: Api, version: object) -> None:
    payment_id = await in_doubt(api.store)
    status, said = await resolve(api, payment_id, DECIDED | {"version": version})
    assert (status, said["code"]) == (422, "validation_failed")


async def test_the_command_refuses_a_version_that_is_over(okane: Run, store: PaymentStore) -> None:
    payment_id = await in_doubt(store)
    shown = json.loads((await okane("review", "show", str(payment_id), "--json")).stdout)
    arguments = ("review", "resolve", str(payment_id), "--as", "failed_final", "--reason", "no charge", "--yes")
    refused = await okane(*arguments, "--version", str(shown["version"] - 1))
    assert refused.exit_code != 0
    assert (await store.get(payment_id, account_id="default")).status is Status.NEEDS_REVIEW
    assert (await okane(*arguments, "--version", str(shown["version"]))).exit_code == 0


async def test_a_cancel_and_a_retry_by_an_earlier_version_change_nothing(store: PaymentStore) -> None:
    payment = (await accept_one(store, new("k"))).payment
    claim = await claimed(store, payment.id)
    await store.settle(settlement(claim.payment, Status.FAILED_RETRYABLE, event="unavailable", delay=LEASE))
    for act in (store.cancel, store.retry):
        with pytest.raises(VersionConflict, match="version 0, and is failed_retryable in version 2"):
            await act(payment.id, account_id="default", actor="test", version=0)
    assert (await store.get(payment.id, account_id="default")).version == 2
    assert (await store.cancel(payment.id, account_id="default", actor="test", version=2)).status is Status.CANCELED
