"""The mock provider's captures, voids and refunds, over real HTTP: never more than there is, and never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions

ALWAYS = {"success": 1, "unavailable": 0, "decline": 0}
TIMES = "from=2000-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Caller:
    """Speaks the wire contract to one running provider."""

    session: aiohttp.ClientSession
    base_url: str

    async def charge(self, key: str = "k", amount: int = 1000, *, capture: str = "manual") -> tuple[int, Any]:
        body = {"payment_id": f"p-{key}", "amount": amount, "currency": "USD", "capture": capture}
        return await self.post("/charges", key, body)

    async def operate(self, kind: str, key: str, amount: int = 1000, *, charge: str = "k") -> tuple[int, Any]:
        body = {
            "kind": kind,
            "charge": charge,
            "operation_id": f"o-{key}",
            "payment_id": f"p-{charge}",
            "amount": amount,
            "currency": "USD",
        }
        return await self.post("/operations", key, body)

    async def post(self, path: str, key: str, body: Mapping[str, object]) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key}
        async with self.session.post(f"{self.base_url}{path}", json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.base_url}{path}") as answer:
            return answer.status, await answer.json(content_type=None)

    async def records(self, limit: int = 1000) -> list[Any]:
        """Return the records of all pages."""
        found: list[Any] = []
        after = "charges:0"
        while after is not None:
            status, page = await self.get(f"/records?{TIMES}&limit={limit}&after={after}")
            assert status == 200, page
            found += page["records"]
            after = page["next"]
        return found


@asynccontextmanager
async def provider(folder: Path, **options: Any) -> AsyncIterator[Caller]:
    chosen: dict[str, Any] = {**ALWAYS, "magic_amounts": True, **options}
    async with (
        serving(SimulatorOptions(journal=folder / "journal.jsonl", port=0, **chosen)) as base_url,
        aiohttp.ClientSession() as session,
    ):
        yield Caller(session, base_url)


def code_of(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["code"]


async def test_a_manual_charge_is_authorized_until_it_is_captured(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        status, charge = await caller.charge()
        assert (status, charge["status"]) == (200, "authorized")
        assert charge["capture_before"] > "2026"
        status, capture = await caller.operate("capture", "c", 700)
        assert (status, capture["status"], capture["amount"]) == (200, "succeeded", 700)
        assert await caller.operate("capture", "c", 700) == (200, capture)
        assert await caller.get("/operations/c") == (200, capture)
        _, found = await caller.get("/charges/k")
        assert (found["status"], found["amount"], found["amount_captured"]) == ("captured", 1000, 700)


async def test_nothing_is_captured_twice_or_beyond_the_authorization_or_after_a_void(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge()
        assert code_of(await caller.operate("capture", "c1", 1001)) == (422, "capture_exceeds_authorized")
        assert (await caller.operate("capture", "c2", 500))[0] == 200
        assert code_of(await caller.operate("capture", "c3", 500)) == (422, "already_captured")
        assert code_of(await caller.operate("void", "v1")) == (422, "already_captured")
        await caller.charge("k2")
        assert (await caller.operate("void", "v2", charge="k2"))[0] == 200
        assert (await caller.operate("void", "v3", charge="k2"))[0] == 200
        assert code_of(await caller.operate("capture", "c4", charge="k2")) == (422, "authorization_ended")
        assert (await caller.get("/charges/k2"))[1]["status"] == "voided"


async def test_an_authorization_that_has_ended_is_voided_and_cannot_be_captured(tmp_path: Path) -> None:
    async with provider(tmp_path, authorization_s=0) as caller:
        await caller.charge()
        assert (await caller.get("/charges/k"))[1]["status"] == "voided"
        assert code_of(await caller.operate("capture", "c")) == (422, "authorization_ended")
        assert (await caller.operate("void", "v"))[0] == 200


async def test_refunds_never_exceed_what_was_captured(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge()
        assert code_of(await caller.operate("refund", "r0", 1)) == (422, "not_captured")
        await caller.operate("capture", "c", 700)
        answers = await asyncio.gather(*(caller.operate("refund", f"r{n}", 150) for n in range(1, 9)))
        assert sorted(status for status, _ in answers) == [200] * 4 + [422] * 4
        assert (await caller.get("/charges/k"))[1]["amount_refunded"] == 600


async def test_a_refund_can_be_pending_and_fail_late_and_gives_back_what_it_took(tmp_path: Path) -> None:
    async with provider(tmp_path, refund_delay_s=0.3) as caller:
        await caller.charge(amount=6003, capture="automatic")
        _, late = await caller.operate("refund", "late", 6003)
        assert late["status"] == "succeeded"
        assert code_of(await caller.operate("refund", "more", 1)) == (422, "refund_exceeds_captured")
        async with asyncio.timeout(10):
            while (found := (await caller.get("/operations/late"))[1])["status"] != "failed":
                await asyncio.sleep(0.05)
        assert found["code"] == "refund_failed"
        assert code_of(await caller.operate("refund", "late", 6003)) == (422, "refund_failed")
        assert (await caller.operate("refund", "again", 6000))[0] == 200


@pytest.mark.parametrize(("amount", "later"), [(6001, "succeeded"), (6002, "failed")])
async def test_a_pending_refund_is_decided_later(tmp_path: Path, amount: int, later: str) -> None:
    async with provider(tmp_path, refund_delay_s=0.2) as caller:
        await caller.charge(amount=amount, capture="automatic")
        assert (await caller.operate("refund", "r", amount))[1]["status"] == "pending"
        async with asyncio.timeout(10):
            while (await caller.get("/operations/r"))[1]["status"] != later:
                await asyncio.sleep(0.05)


async def test_a_key_of_another_operation_is_a_conflict(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge()
        await caller.operate("capture", "c", 700)
        for answer in (await caller.operate("capture", "c", 701), await caller.operate("refund", "c", 700)):
            assert code_of(answer) == (409, "idempotency_key_reused")
        assert code_of(await caller.charge(capture="automatic")) == (409, "idempotency_key_reused")
        assert code_of(await caller.operate("refund", "r", charge="nonesuch")) == (404, "charge_not_found")
        assert code_of(await caller.operate("sale", "s")) == (400, "bad_request")
        assert (await caller.get("/operations/nonesuch"))[0] == 404


async def test_the_faults_befall_operations_too(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge(amount=9000)
        assert code_of(await caller.operate("capture", "declined", 4002)) == (422, "card_declined")
        assert (await caller.operate("capture", "busy", 5003))[0] == 503
        with pytest.raises(aiohttp.ClientError):
            await caller.operate("capture", "lost", 5006)
        assert (await caller.get("/operations/busy"))[0] == 404
        assert (await caller.get("/operations/lost"))[1]["status"] == "succeeded"


async def test_operations_survive_a_restart(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge()
        first = await caller.operate("capture", "c", 700)
    async with provider(tmp_path) as caller:
        assert await caller.operate("capture", "c", 700) == first
        assert code_of(await caller.operate("refund", "r", 701)) == (422, "refund_exceeds_captured")


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_the_records_of_a_time_are_paged_and_whole(tmp_path: Path, limit: int) -> None:
    async with provider(tmp_path, fee_bps=150) as caller:
        await caller.charge("k1", capture="automatic")
        await caller.charge("k2")
        await caller.operate("capture", "c", 600, charge="k2")
        await caller.operate("refund", "r", 100, charge="k2")
        await caller.operate("refund", "x", 9000, charge="k2")
        found = await caller.records(limit)
    shown = [(one["kind"], one["key"], one["status"], one["amount"], one.get("fee")) for one in found]
    assert shown == [
        ("charge", "k1", "captured", 1000, 15),
        ("charge", "k2", "captured", 1000, None),
        ("capture", "c", "succeeded", 600, 9),
        ("refund", "r", "succeeded", 100, None),
        ("refund", "x", "failed", 9000, None),
    ]
    assert found[1]["capture"] == "manual"
    assert {one["charge"] for one in found[2:]} == {"k2"}


async def test_records_of_another_time_and_wrong_questions_are_told_apart(tmp_path: Path) -> None:
    async with provider(tmp_path) as caller:
        await caller.charge()
        _, page = await caller.get("/records?from=2000-01-01T00:00:00Z&to=2001-01-01T00:00:00Z")
        assert page == {"records": [], "next": "operations:0"}
        for query in ("", "from=x&to=y", f"{TIMES}&limit=0", f"{TIMES}&after=charges:7", f"{TIMES}&after=disk:0"):
            assert code_of(await caller.get(f"/records?{query}")) == (400, "bad_request")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wishes=st.lists(
        st.tuples(st.sampled_from(["capture", "void", "refund"]), st.integers(1, 8), st.sampled_from([400, 6003, 700])),
        max_size=12,
    )
)
async def test_no_order_of_requests_moves_more_than_there_is(
    tmp_path_factory: pytest.TempPathFactory, wishes: list[tuple[str, int, int]]
) -> None:
    async with provider(tmp_path_factory.mktemp("any"), refund_delay_s=1000) as caller:
        await caller.charge()
        await asyncio.gather(*(caller.operate(kind, f"{kind}{key}", amount) for kind, key, amount in wishes))
        done = [one for one in await caller.records() if one["status"] in ("succeeded", "pending")]
    captured = [one["amount"] for one in done if one["kind"] == "capture"]
    voids = [one for one in done if one["kind"] == "void"]
    assert len(captured) <= 1
    assert sum(captured) <= 1000
    assert not (captured and voids)
    assert sum(one["amount"] for one in done if one["kind"] == "refund") <= sum(captured)
