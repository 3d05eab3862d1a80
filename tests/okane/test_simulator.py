"""The mock provider, over real HTTP: what it charges, what it keeps over restarts, and how it misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from okane.simulator.app import serving
from okane.simulator.journal import Charge, Journal, JournalError
from okane.simulator.options import MAGIC_AMOUNTS, Act, Behaviour, SimulatorOptions

ALWAYS_CHARGE = {"success": 1, "unavailable": 0, "decline": 0}


@dataclass(frozen=True, slots=True)
class Caller:
    """Speaks the wire contract to one running provider."""

    session: aiohttp.ClientSession
    base_url: str

    async def charge(self, key: str, amount: object = 440, *, payment: str = "") -> tuple[int, Any]:
        body = {"payment_id": payment or f"p-{key}", "amount": amount, "currency": "USD"}
        return await self.post(json.dumps(body).encode(), {"Idempotency-Key": key})

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        async with self.session.post(f"{self.base_url}/charges", data=body, headers=dict(headers)) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(f"{self.base_url}{path}") as answer:
            return answer.status, json.loads(await answer.read())

    async def journal(self, query: str = "") -> list[Any]:
        async with self.session.get(f"{self.base_url}/journal{query}") as answer:
            return [json.loads(line) for line in (await answer.read()).splitlines()]

    async def control(self, changes: object) -> tuple[int, Any]:
        async with self.session.put(f"{self.base_url}/control", json=changes) as answer:
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def provider(journal: Path, **options: Any) -> AsyncIterator[Caller]:
    async with (
        serving(SimulatorOptions(journal=journal, port=0, **options)) as base_url,
        aiohttp.ClientSession() as session,
    ):
        yield Caller(session, base_url)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "provider" / "journal.jsonl"


async def test_a_key_is_charged_once_and_every_repeat_gets_the_first_result(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        answers = await asyncio.gather(*(caller.charge("k1") for _ in range(50)))
        charges = await caller.journal()
        _, summary = await caller.get("/journal/summary")
    assert {status for status, _ in answers} == {200}
    assert {body["provider_ref"] for _, body in answers} == {charges[0]["provider_ref"]}
    assert len(charges) == 1
    assert charges[0].keys() == {"key", "payment_id", "amount", "currency", "status", "provider_ref", "at", "code"}
    assert summary == {
        "keys": 1,
        "charged": 1,
        "authorized": 0,
        "declined": 0,
        "calls": 50,
        "duplicates_suppressed": 49,
        "conflicts": 0,
        "lookups": 0,
    }


async def test_the_default_mix_is_the_ancestors_80_10_10(journal: Path) -> None:
    async with provider(journal, seed=7) as caller:
        answers = await asyncio.gather(*(caller.charge(f"k{n}") for n in range(2000)))
    seen = Counter(status for status, _ in answers)
    assert seen.keys() == {200, 503, 422}
    assert 1520 <= seen[200] <= 1680
    assert 140 <= seen[503] <= 260
    assert 140 <= seen[422] <= 260


async def test_equal_seeds_give_equal_answers(tmp_path: Path) -> None:
    async def statuses(name: str) -> list[int]:
        async with provider(tmp_path / name, seed=3) as caller:
            return [(await caller.charge(f"k{n}"))[0] for n in range(60)]

    assert await statuses("a") == await statuses("b")


async def test_a_decline_is_kept_and_repeated(journal: Path) -> None:
    async with provider(journal, success=0, unavailable=0, decline=1) as caller:
        first = await caller.charge("k1")
        await caller.control({"success": 1, "decline": 0})
        assert await caller.charge("k1") == first
        assert await caller.get("/charges/k1") == (
            200,
            {
                "provider_ref": (await caller.journal())[0]["provider_ref"],
                "status": "declined",
                "amount": 440,
                "currency": "USD",
                "code": "card_declined",
            },
        )
    assert first == (422, {"code": "card_declined", "message": "the charge was declined"})


async def test_a_503_keeps_nothing_so_the_next_call_can_charge(journal: Path) -> None:
    async with provider(journal, success=0, unavailable=1, decline=0, retry_after=3) as caller:
        async with caller.session.post(
            f"{caller.base_url}/charges",
            json={"payment_id": "p", "amount": 1, "currency": "USD"},
            headers={"Idempotency-Key": "k1"},
        ) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
        assert await caller.journal() == []
        assert (await caller.get("/charges/k1"))[0] == 404
        await caller.control(ALWAYS_CHARGE)
        assert (await caller.charge("k1"))[0] == 200


async def test_a_429_keeps_nothing(journal: Path) -> None:
    async with provider(journal, success=0, unavailable=0, decline=0, rate_limit=1) as caller:
        assert (await caller.charge("k1"))[0] == 429
        assert await caller.journal() == []


async def test_a_key_used_for_another_amount_or_payment_is_a_conflict_and_charges_nothing(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        await caller.charge("k1", 440)
        assert (await caller.charge("k1", 441))[0] == 409
        assert (await caller.charge("k1", 440, payment="another"))[0] == 409
        assert len(await caller.journal()) == 1


@pytest.mark.parametrize(
    ("key", "body"),
    [
        pytest.param("", b'{"payment_id": "p", "amount": 1, "currency": "USD"}', id="no key"),
        pytest.param("a b", b'{"payment_id": "p", "amount": 1, "currency": "USD"}', id="key with a space"),
        pytest.param("k" * 256, b'{"payment_id": "p", "amount": 1, "currency": "USD"}', id="key too long"),
        pytest.param("k", b'{"payment_id": "p", "currency": "USD"}', id="no amount"),
        pytest.param("k", b'{"payment_id": "p", "amount": 0, "currency": "USD"}', id="amount 0"),
        pytest.param("k", b'{"payment_id": "p", "amount": true, "currency": "USD"}', id="amount true"),
        pytest.param("k", b'{"payment_id": "p", "amount": 1.0, "currency": "USD"}', id="amount 1.0"),
        pytest.param("k", b'{"payment_id": "p", "amount": 9223372036854775808, "currency": "USD"}', id="amount 2^63"),
        pytest.param("k", b'{"amount": 1, "currency": "USD"}', id="no payment"),
        pytest.param("k", b'{"payment_id": "p", "amount": 1, "currency": "usd"}', id="currency in lower case"),
        pytest.param("k", b"{not json", id="bad JSON"),
        pytest.param("k", b"[1]", id="not an object"),
        pytest.param("k", b"[" * 60_000, id="nested too deep"),
        pytest.param("k", b"\xff\xfe", id="not UTF-8"),
    ],
)
async def test_a_bad_request_is_a_400_and_charges_nothing(journal: Path, key: str, body: bytes) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        status, problem = await caller.post(body, {"Idempotency-Key": key} if key else {})
        assert (status, problem["status"], problem["code"]) == (400, 400, "bad_request")
        assert await caller.journal() == []


async def test_charges_survive_a_restart_and_are_not_charged_again(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        first = await caller.charge('odd"key\\')
    async with provider(journal, success=0, unavailable=1, decline=0) as caller:
        assert await caller.charge('odd"key\\') == first
        assert (await caller.get("/charges/odd%22key%5C"))[0] == 200
        assert len(await caller.journal()) == 1


@pytest.mark.parametrize("torn", [b'{"key":"k2","payment_id":"p2","amo', b"\x00" * 40, b"x" * 500, b'{"key":"k2"}\n'])
async def test_a_torn_last_line_is_cut_off_and_what_follows_is_readable(journal: Path, torn: bytes) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        await caller.charge("k1")
    with journal.open("ab") as file:
        file.write(torn)
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        assert (await caller.charge("k2"))[0] == 200
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        assert [charge["key"] for charge in await caller.journal()] == ["k1", "k2"]
    assert [json.loads(line)["key"] for line in journal.read_bytes().splitlines()] == ["k1", "k2"]


def test_damage_before_the_last_line_is_refused(journal: Path) -> None:
    journal.parent.mkdir()
    journal.write_bytes(b"garbage\n" + _line("k1"))
    with pytest.raises(JournalError, match="damaged at byte 0"):
        Journal.open(journal)


async def test_a_journal_has_one_owner(journal: Path) -> None:
    async with provider(journal):
        with pytest.raises(JournalError, match="belongs to another running provider"):
            Journal.open(journal)


async def test_concurrent_charges_share_their_fsyncs(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = await asyncio.to_thread(Journal.open, journal)
    fsyncs = 0
    real_fsync = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal fsyncs
        fsyncs += 1
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    await asyncio.gather(*(opened.append(Charge.from_line(_line(f"k{n}"))) for n in range(500)))
    await opened.aclose()
    assert fsyncs <= 2
    assert len(journal.read_bytes().splitlines()) == 500


async def test_a_full_disk_stops_all_charging_until_a_restart(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with provider(journal, **ALWAYS_CHARGE) as caller:
        await caller.charge("k1")
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert [status for status, _ in [await caller.charge("k2"), await caller.charge("k2")]] == [500, 500]
        assert (await caller.charge("k3"))[0] == 500
        assert (await caller.charge("k1"))[0] == 500
        assert [charge["key"] for charge in await caller.journal()] == ["k1"]


async def test_what_was_answered_before_a_kill_9_is_in_the_journal(journal: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from okane.simulator.app import run\n"
        "from okane.simulator.options import SimulatorOptions\n"
        "options = SimulatorOptions(journal=Path(sys.argv[1]), port=0, success=1, unavailable=0, decline=0)\n"
        "asyncio.run(run(options, stop=asyncio.Event(), ready=lambda url: sys.stdout.write(url + chr(10)) "
        "and sys.stdout.flush()))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(journal), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    base_url = (await process.stdout.readline()).decode().strip()
    answered: set[str] = set()

    async def keep_charging(caller: Caller, name: str) -> None:
        n = 0
        while True:
            key = f"{name}-{n}"
            n += 1
            assert (await caller.charge(key))[0] == 200
            answered.add(key)
            if len(answered) == 300:
                process.send_signal(signal.SIGKILL)

    async with aiohttp.ClientSession() as session:
        callers = [keep_charging(Caller(session, base_url), f"c{n}") for n in range(16)]
        results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientError) for result in results)
    assert await process.wait() == -signal.SIGKILL
    async with provider(journal) as caller:
        keys = [charge["key"] for charge in await caller.journal()]
    assert len(answered) >= 300
    assert answered <= set(keys)
    assert len(keys) == len(set(keys))


async def test_a_timeout_after_charge_charges_and_does_not_answer(journal: Path) -> None:
    async with provider(journal, success=0, unavailable=0, decline=0, timeout_after_charge=1) as caller:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await caller.charge("k1")
        assert (await caller.get("/charges/k1"))[1]["status"] == "captured"
        assert (await caller.charge("k1"))[0] == 200  # the repeat is told


async def test_a_hung_request_is_cut_after_hang_s(journal: Path) -> None:
    async with provider(journal, success=0, timeout_before_charge=1, unavailable=0, decline=0, hang_s=0.05) as caller:
        with pytest.raises(aiohttp.ClientError):
            await caller.charge("k1")
        assert await caller.journal() == []


@pytest.mark.parametrize(("act", "charges"), [("reset_after_charge", 1), ("reset_before_charge", 0)])
async def test_a_reset_reaches_the_client_as_rst(journal: Path, act: str, charges: int) -> None:
    weights = {"success": 0, "unavailable": 0, "decline": 0, act: 1}
    async with provider(journal, **weights) as caller:
        with pytest.raises(aiohttp.ClientOSError) as error:
            await caller.charge("k1")
        assert isinstance(error.value.__cause__ or error.value, ConnectionResetError) or error.value.errno == 104
        assert len(await caller.journal()) == charges


@pytest.mark.parametrize(
    ("act", "status", "charges"),
    [("garbage", 200, 1), ("error_500", 500, 0), ("error_500_after_charge", 500, 1)],
)
async def test_unreadable_answers_come_with_and_without_a_charge(
    journal: Path, act: str, status: int, charges: int
) -> None:
    async with provider(journal, **{"success": 0, "unavailable": 0, "decline": 0, act: 1}) as caller:
        async with caller.session.post(
            f"{caller.base_url}/charges",
            json={"payment_id": "p", "amount": 1, "currency": "USD"},
            headers={"Idempotency-Key": "k1"},
        ) as answer:
            assert answer.status == status
            with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
                json.loads(await answer.read())
        assert len(await caller.journal()) == charges


async def test_a_fresh_charge_is_invisible_to_lookups_for_the_consistency_lag(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE, lookup_lag_ms=60_000) as caller:
        await caller.charge("k1")
        status, problem = await caller.get("/charges/k1")
        assert (status, problem["code"]) == (404, "charge_not_found")
        await caller.control({"lookup_lag_ms": 0})
        assert (await caller.get("/charges/k1"))[0] == 200


async def test_control_changes_what_is_given_and_leaves_the_rest(journal: Path) -> None:
    async with provider(journal, retry_after=9) as caller:
        status, shown = await caller.control({"success": 0, "unavailable": 5, "latency_ms": "1-2"})
        assert status == 200
        assert shown == (await caller.get("/control"))[1]
        assert (shown["success"], shown["unavailable"], shown["decline"], shown["retry_after"]) == (0, 5, 10, 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"sucess": 1},
        {"journal": "elsewhere"},
        {"success": -1},
        {"success": "many"},
        {"success": True},
        {"success": 0, "unavailable": 0, "decline": 0},
        {"latency_ms": "9-5"},
        {"latency_ms": "soon"},
        {"retry_after": 1.5},
        {"magic_amounts": 1},
        ["success"],
    ],
)
async def test_wrong_control_changes_nothing(journal: Path, changes: object) -> None:
    async with provider(journal) as caller:
        before = (await caller.get("/control"))[1]
        assert (await caller.control(changes))[0] == 400
        assert (await caller.get("/control"))[1] == before


async def test_magic_amounts_decide_only_when_switched_on(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        assert (await caller.charge("off", 4002))[0] == 200
        await caller.control({"magic_amounts": True})
        assert (await caller.charge("a", 4002))[0] == 422
        assert (await caller.charge("b", 14_003)) == (
            422,
            {"code": "insufficient_funds", "message": "the charge was declined"},
        )
        assert (await caller.charge("c", 25_003))[0] == 503
        assert (await caller.charge("d", 4029))[0] == 429
        assert (await caller.charge("e", 4444))[0] == 200


def test_every_act_but_plain_success_has_a_magic_amount() -> None:
    assert {act for act, _ in MAGIC_AMOUNTS.values()} == set(Act) - {Act.SUCCESS}


def test_every_act_is_a_weight() -> None:
    assert len(Behaviour().weights) == len(Act)


async def test_the_journal_can_be_filtered_by_payment(journal: Path) -> None:
    async with provider(journal, **ALWAYS_CHARGE) as caller:
        await asyncio.gather(*(caller.charge(f"k{n}", payment=f"p{n % 3}") for n in range(9)))
        assert sorted(charge["key"] for charge in await caller.journal("?payment_id=p1")) == ["k1", "k4", "k7"]
        assert await caller.journal("?payment_id=p") == []
        assert len(await caller.journal()) == 9


async def test_a_long_journal_is_streamed_whole(journal: Path) -> None:
    journal.parent.mkdir()
    journal.write_bytes(b"".join(_line(f"key-{n}") for n in range(20_000)))
    async with provider(journal) as caller:
        charges = await caller.journal()
        assert [charge["key"] for charge in charges] == [f"key-{n}" for n in range(20_000)]
        assert (await caller.get("/journal/summary"))[1]["keys"] == 20_000


async def test_health_answers(journal: Path) -> None:
    async with provider(journal) as caller:
        assert await caller.get("/health") == (200, {"status": "ok"})


def _line(key: str) -> bytes:
    return Charge(
        key=key,
        payment_id=f"p-{key}",
        amount=440,
        currency="USD",
        status="captured",
        provider_ref="ch_1",
        at="2026-01-01T00:00:00+00:00",
    ).to_line()


async def test_a_request_that_was_held_back_is_charged_when_its_caller_has_given_up(journal: Path) -> None:
    weights = {"success": 0, "unavailable": 0, "decline": 0, "held_back": 1}
    async with provider(journal, **weights, hang_s=0.4) as caller:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await caller.charge("k1")
        assert (await caller.get("/charges/k1"))[0] == 404
        async with asyncio.timeout(30):
            while not await caller.journal():
                await asyncio.sleep(0.02)
        assert (await caller.get("/charges/k1"))[1]["status"] == "captured"
        assert (await caller.charge("k1"))[0] == 200  # the repeat is told
