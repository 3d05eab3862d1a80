"""`okane load` over real HTTP, against a small API of the test's own that settles at the real mock provider."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from rich.console import Console

from okane.load import ApiUnreachableError, JournalCheck, Latency, LoadOptions, LoadReport, render, run_load
from okane.load.client import HttpClient
from okane.load.customers import Customers
from okane.load.options import payment_method_mix
from okane.load.progress import show_progress
from okane.load.report import Tally, Tracked, build_report, check_journal, latency
from okane.payment import Payment
from okane.providers.base import Approved, Declined
from okane.providers.okane_http.provider import OkaneHttpProvider
from okane.simulator.app import serving
from okane.simulator.options import SimulatorOptions
from tests.payments import NOW, PAYMENT


@dataclass(slots=True)
class SmallApi:
    """The two routes that a load needs. Payments are kept in a dict and charged once the POST is answered."""

    provider: OkaneHttpProvider | None = None  # None: nothing is ever settled
    fail_first: str = ""  # "503" or "drop": what the first POST of every key meets, after the payment was made
    refuse: bool = False
    by_key: dict[str, str] = field(default_factory=dict)
    payments: dict[str, dict[str, Any]] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    gets: int = 0
    base_url: str = ""
    created: asyncio.Event = field(default_factory=asyncio.Event)
    _charging: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            return web.json_response({"code": "amount_invalid"}, status=422)
        wanted = await request.json()
        key = wanted["idempotency_key"]
        created = key not in self.by_key
        if created:
            self._create(key, wanted["amount"])
        self.posts[key] += 1
        if self.fail_first and self.posts[key] == 1:
            if self.fail_first == "503":
                return web.json_response({}, status=503)
            assert request.transport is not None
            request.transport.abort()
        payment = self.payments[self.by_key[key]]
        return web.json_response(
            {"payment": payment, "created": created, "enqueued": True}, status=202 if created else 200
        )

    async def show(self, request: web.Request) -> web.Response:
        self.gets += 1
        payment = self.payments.get(request.match_info["id"])
        return web.json_response({"payment": payment}) if payment else web.json_response({}, status=404)

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def holds(self, count: int) -> None:
        """Wait until so many payments were made."""
        while len(self.payments) < count:
            self.created.clear()
            await self.created.wait()

    def set_status(self, payment_id: str, status: str) -> None:
        self.payments[payment_id] |= {"status": status, "updated_at": datetime.now(UTC).isoformat()}

    def _create(self, key: str, amount: int) -> None:
        now = datetime.now(UTC).isoformat()
        payment_id = str(uuid.uuid4())
        self.by_key[key] = payment_id
        self.payments[payment_id] = {
            "id": payment_id,
            "amount": amount,
            "status": "pending",
            "attempts": 0,
            "created_at": now,
            "updated_at": now,
        }
        self.created.set()
        if self.provider is not None:
            charging = asyncio.create_task(self._charge(payment_id, amount))
            self._charging.add(charging)
            charging.add_done_callback(self._charging.discard)

    async def _charge(self, payment_id: str, amount: int) -> None:
        """Until the provider says yes or no: what the pipeline does, without anything that makes it hard."""
        assert self.provider is not None
        while True:
            match await self.provider.charge(a_payment(payment_id, amount)):
                case Approved():
                    return self.set_status(payment_id, "success")
                case Declined():
                    return self.set_status(payment_id, "failed_final")
                case _:
                    self.set_status(payment_id, "failed_retryable")


def a_payment(payment_id: str, amount: int) -> Payment:
    return replace(PAYMENT, id=uuid.UUID(payment_id), amount_minor=amount, provider_key=payment_id)


@asynccontextmanager
async def serving_api(api: SmallApi) -> AsyncIterator[SmallApi]:
    app = web.Application()
    app.router.add_post("/v1/payments", api.accept)
    app.router.add_get("/v1/payments/{id}", api.show)
    app.router.add_get("/v1/health", api.health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


@dataclass(frozen=True, slots=True)
class World:
    api: SmallApi
    provider: OkaneHttpProvider
    options: LoadOptions


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A small API that settles at a mock provider with the default mix, and the options to load it."""
    async with (
        serving(SimulatorOptions(journal=tmp_path / "journal.jsonl", port=0, seed=1)) as provider_url,
        OkaneHttpProvider(provider_url, timeout=timedelta(seconds=5)) as provider,
        serving_api(SmallApi(provider=provider)) as api,
    ):
        options = LoadOptions(url=api.base_url, provider_url=provider_url, payments=60, connections=8, timeout_s=30)
        yield World(api, provider, options)


async def run_quietly(options: LoadOptions, *, stop: asyncio.Event | None = None) -> tuple[LoadReport, str]:
    """The report, and what was printed to a stdout that is not a terminal."""
    out = io.StringIO()
    report = await run_load(options, Console(file=out), stop=stop)
    return report, out.getvalue()


async def test_every_payment_is_followed_to_its_end_and_held_against_the_journal(world: World) -> None:
    report, text = await run_quietly(replace(world.options, payments=300))
    assert (report.accepted, report.settled, report.waiting, report.exit_code) == (300, 300, {}, 0)
    assert report.by_status.keys() == {"success", "failed_final"}
    assert report.journal is not None
    assert report.journal.ok
    successes = report.by_status["success"]
    assert (report.journal.charges, report.journal.successes) == (successes, successes)
    assert f"{successes:,} charges for {successes:,} successes, 0 doubled, 0 missing, 0 without a success" in text
    assert report.settle is not None
    assert report.settle.count == 300
    assert {payment["amount"] for payment in world.api.payments.values()} == set(LoadOptions(payments=300).amounts())


@pytest.mark.parametrize("failure", ["503", "drop"])
async def test_a_failed_post_is_repeated_with_its_own_key(world: World, failure: str) -> None:
    world.api.fail_first = failure
    report, _ = await run_quietly(world.options)
    assert (report.accepted, report.retried, report.exit_code) == (60, 60, 0)
    assert report.errors == {"POST HTTP 503" if failure == "503" else "POST connection lost": 60}
    assert set(world.api.posts.values()) == {2}
    assert len(world.api.payments) == 60


async def test_a_refused_payment_is_not_repeated_and_the_run_has_failed(world: World) -> None:
    world.api.refuse = True
    report, text = await run_quietly(world.options)
    assert (report.accepted, report.retried, report.exit_code) == (0, 0, 1)
    assert report.errors == {"POST HTTP 422": 60}
    assert "NOT ACCEPTED: 60 payments" in text


async def test_payments_still_open_at_the_timeout_are_waiting_by_status_and_fail_the_run(world: World) -> None:
    world.api.provider = None
    report, text = await run_quietly(replace(world.options, timeout_s=0))
    assert (report.accepted, report.settled, dict(report.waiting), report.exit_code) == (60, 0, {"pending": 60}, 1)
    assert "NOT SETTLED: 60 payments" in text
    assert "waiting                 60   pending 60" in text


async def test_an_accepted_payment_that_is_gone_is_lost(world: World) -> None:
    world.api.provider = None
    task = asyncio.create_task(run_quietly(world.options))
    await world.api.holds(60)
    *rest, gone = world.api.payments
    del world.api.payments[gone]
    for payment_id in rest:
        world.api.set_status(payment_id, "canceled")
    report, text = await task
    assert (report.lost, report.by_status, report.exit_code) == (1, {"canceled": 59}, 1)
    assert "BROKEN: 1 accepted and then not found: lost" in text


async def test_a_payment_with_another_amount_is_a_violation(world: World) -> None:
    world.api.provider = None
    task = asyncio.create_task(run_quietly(replace(world.options, payments=1)))
    await world.api.holds(1)
    [payment_id] = world.api.payments
    world.api.payments[payment_id] |= {"amount": 1, "status": "canceled"}
    report, _ = await task
    assert (report.wrong_amount, report.exit_code) == (1, 1)


async def test_a_payment_that_waits_for_its_customer_is_authenticated_and_followed_to_its_end(tmp_path: Path) -> None:
    api = SmallApi()

    async def page(request: web.Request) -> web.Response:
        api.set_status(request.match_info["id"], "success")
        return web.Response(status=303, headers={"Location": "https://shop.example/back"})

    async def journal(request: web.Request) -> web.Response:
        lines = [
            {"status": "captured", "payment_id": id_, "amount": one["amount"]} for id_, one in api.payments.items()
        ]
        return web.Response(text="".join(f"{json.dumps(line)}\n" for line in lines))

    app = web.Application()
    app.router.add_post("/authenticate/{id}", page)
    app.router.add_get("/journal", journal)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with serving_api(api):
        options = LoadOptions(
            url=api.base_url,
            provider_url=provider_url,
            payments=5,
            return_url="https://shop.example/back",
            payment_methods={"pm_card_threeDSecure2Required": 1},
        )
        running = asyncio.create_task(run_quietly(options))
        await api.holds(5)
        for id_ in api.payments:
            api.payments[id_]["next_action"] = {"kind": "redirect", "url": f"{provider_url}/authenticate/{id_}"}
            api.set_status(id_, "requires_action")
        report, _ = await running
    await runner.cleanup()
    assert (report.by_status, report.exit_code) == ({"success": 5}, 0)


async def test_a_double_charge_and_a_missing_one_are_found_in_the_journal(world: World) -> None:
    world.api.provider = None
    task = asyncio.create_task(run_quietly(replace(world.options, payments=4)))
    await world.api.holds(4)
    doubled, missing, failed, fine = world.api.payments
    for payment_id in (doubled, failed, fine):
        await charge_for_certain(world, payment_id, key=payment_id)
    await charge_for_certain(world, doubled, key="another-key")
    for payment_id in (doubled, missing, fine):
        world.api.set_status(payment_id, "success")
    world.api.set_status(failed, "failed_final")
    report, text = await task
    assert report.journal == JournalCheck(
        charges=4, successes=3, doubled=1, missing=1, without_success=1, wrong_amount=0, open_charges=0
    )
    assert report.exit_code == 1
    assert "4 charges for 3 successes, 1 doubled, 1 missing, 1 without a success" in text
    assert "BROKEN: 1 charged more than once" in text


async def charge_for_certain(world: World, payment_id: str, *, key: str) -> None:
    control = f"{world.options.provider_url}/control"
    async with ClientSession() as session, session.put(control, json={"unavailable": 0, "decline": 0}) as answer:
        assert answer.status == 200
    payment = replace(a_payment(payment_id, world.api.payments[payment_id]["amount"]), provider_key=key)
    assert isinstance(await world.provider.charge(payment), Approved)


async def test_json_is_one_object_and_nothing_else_on_stdout(world: World) -> None:
    report, text = await run_quietly(replace(world.options, json=True))
    assert json.loads(text) == json.loads(json.dumps(report.to_json()))
    assert json.loads(text)["journal_ok"] is True


async def test_an_unreachable_journal_is_said_and_is_no_failure(world: World) -> None:
    report, text = await run_quietly(replace(world.options, provider_url="http://127.0.0.1:1"))
    assert (report.journal, report.exit_code) == (None, 0)
    assert "provider's journal: not checked, http://127.0.0.1:1/journal: connection refused" in text


async def test_another_providers_journal_page_is_no_journal(world: World) -> None:
    report, _ = await run_quietly(replace(world.options, provider_url=world.api.base_url))
    assert report.journal_error == f"{world.api.base_url}/journal: HTTP 404"


async def test_no_api_is_said_at_once() -> None:
    with pytest.raises(ApiUnreachableError, match=r"no API at http://127\.0\.0\.1:1: connection refused"):
        await run_quietly(LoadOptions(url="http://127.0.0.1:1"))


@pytest.mark.parametrize("by_signal", [True, False])
async def test_ctrl_c_reports_what_is_known(world: World, by_signal: bool) -> None:
    world.api.provider = None
    stop = asyncio.Event()
    task = asyncio.create_task(run_quietly(world.options, stop=stop))
    await world.api.holds(60)
    if by_signal:
        os.kill(os.getpid(), signal.SIGINT)
    else:
        stop.set()
    report, text = await task
    assert report.interrupted
    assert report.exit_code == 130
    assert report.waiting["pending"] == report.accepted > 0
    assert "interrupted" in text


async def test_a_rate_spreads_the_payments(world: World) -> None:
    report, _ = await run_quietly(replace(world.options, payments=21, rate=100))
    assert report.sending_s >= 0.2
    assert report.accept_rate <= 105


async def test_polls_that_find_nothing_new_are_rationed_whatever_the_backlog(world: World) -> None:
    world.api.provider = None
    report, _ = await run_quietly(replace(world.options, payments=1500, connections=64, timeout_s=1.0))
    assert sum(report.waiting.values()) == 1500
    last_look = 1500
    allowed = 200 + 200 * (report.sending_s + 1.0)  # a full ration, and what comes in while the run lasts
    assert world.api.gets - last_look <= allowed + 64


async def test_progress_is_lines_where_there_is_no_terminal_and_bars_where_there_is() -> None:
    for terminal, expected in ((False, "accepted 3 of 10, settled 1\n"), (True, "3/10")):
        out = io.StringIO()
        asked = asyncio.Event()

        def counts(asked: asyncio.Event = asked) -> tuple[int, int]:
            asked.set()
            return 3, 1

        console = Console(file=out, force_terminal=terminal, width=100)
        async with show_progress(console, total=10, counts=counts, every_s=0.001):
            await asked.wait()
        assert expected in out.getvalue()


# Pure


def test_percentiles_are_measured_values() -> None:
    assert latency([]) is None
    assert latency([7]) == Latency(count=1, p50=7, p90=7, p99=7, max=7)
    assert latency(range(100, 0, -1)) == Latency(count=100, p50=50, p90=90, p99=99, max=100)


def test_amounts_are_the_same_for_a_seed_and_cover_the_three_lanes() -> None:
    amounts = LoadOptions(payments=1000, seed=4).amounts()
    assert amounts == LoadOptions(payments=1000, seed=4).amounts()
    assert amounts != LoadOptions(payments=1000, seed=5).amounts()
    lanes = Counter("low" if a < 1000 else "critical" if a >= 10_000 else "default" for a in amounts)
    assert min(lanes.values()) > 150
    assert len(lanes) == 3


def test_payment_methods_are_drawn_by_their_weights_and_the_same_for_a_seed() -> None:
    mix = payment_method_mix("pm_card_visa=9, pm_card_visa_chargeDeclined")
    assert mix == {"pm_card_visa": 9, "pm_card_visa_chargeDeclined": 1}
    methods = LoadOptions(payments=1000, payment_methods=mix).methods()
    assert methods == LoadOptions(payments=1000, payment_methods=mix).methods()
    assert 800 < Counter(methods)["pm_card_visa"] < 970
    assert LoadOptions(payments=2).methods() == [None, None]


@pytest.mark.parametrize("wrong", ["", "pm_card_visa=0", "pm_card_visa=x", "a,,b", "=3"])
def test_a_mix_of_payment_methods_that_cannot_be_read_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="NAME=WEIGHT"):
        payment_method_mix(wrong)


def test_a_request_has_a_payment_method_and_a_return_url_only_where_one_was_given() -> None:
    options = LoadOptions(run_id="r")
    assert options.body(3, 440, None) == {"amount": 440, "idempotency_key": "load-r-3"}
    with_url = replace(options, return_url="https://shop.example/back")
    assert with_url.body(3, 440, "pm_card_visa") == {
        "amount": 440,
        "idempotency_key": "load-r-3",
        "payment_method": "pm_card_visa",
        "return_url": "https://shop.example/back",
    }


async def test_a_customer_authenticates_each_payment_once_on_the_simulators_page_and_on_no_other() -> None:
    opened: list[tuple[str, str]] = []

    async def page(request: web.Request) -> web.Response:
        opened.append((request.path, (await request.text())))
        return web.Response(status=303 if len(opened) > 1 else 503, headers={"Location": "https://shop.example/back"})

    app = web.Application()
    app.router.add_post("/authenticate/{intent}", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    tally = Tally(errors=Counter())
    here = Tracked(number=0, amount=5, action_url=f"{provider_url}/authenticate/pi_1")
    elsewhere = Tracked(number=1, amount=5, action_url="http://127.0.0.1:1/authenticate/pi_2")
    async with HttpClient() as http:
        customers = Customers(provider_url=provider_url, http=http, tally=tally, seed=1)
        for payment in (here, elsewhere, here, here):
            await customers.authenticate(payment)
    await runner.cleanup()
    assert opened == [("/authenticate/pi_1", "outcome=succeeded")] * 2  # the second because the first failed
    assert tally.errors == {"page HTTP 503": 1}


def test_keys_of_two_runs_differ() -> None:
    assert LoadOptions().idempotency_key(1) != LoadOptions().idempotency_key(1)


@pytest.mark.parametrize("wrong", [{"payments": 0}, {"connections": 0}, {"rate": 0.0}, {"timeout_s": -1.0}])
def test_options_that_cannot_be_run_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        LoadOptions(**wrong)


def test_a_charge_of_a_payment_that_still_waits_is_not_wrong_yet_but_two_are() -> None:
    open_ = Tracked(number=0, amount=5, id="a", status="unknown")
    assert check_journal([open_], {"a": [5]}).ok
    assert check_journal([open_], {"a": [5]}).open_charges == 1
    assert not check_journal([open_], {"a": [5, 5]}).ok


def test_a_charge_of_another_amount_is_wrong() -> None:
    assert not check_journal([Tracked(number=0, amount=5, id="a", status="success")], {"a": [6]}).ok


def test_one_id_for_two_keys_is_a_violation() -> None:
    tracked = [Tracked(number=n, amount=5, id="a", status="pending") for n in range(2)]
    report = build_report(run_id="r", payments=tracked, tally=Tally(errors=Counter()), journal="no", interrupted=False)
    assert report.violations == ["1 ids given to two different idempotency keys"]


def test_the_summary_reads_like_this() -> None:
    statuses = ["success"] * 3 + ["failed_final", "needs_review", "unknown", "failed_retryable", "failed_retryable"]
    tracked = [
        Tracked(
            number=n,
            amount=5,
            id=str(n),
            status=status,
            accept_ms=n + 1.0,
            created_at=NOW,
            updated_at=NOW + timedelta(milliseconds=50 * (n + 1)),
        )
        for n, status in enumerate(statuses)
    ]
    captured = {"0": [5], "1": [5], "2": [5], "5": [5]}
    report = build_report(
        run_id="abc",
        payments=tracked,
        tally=Tally(errors=Counter({"POST HTTP 503": 1}), retried=1, sending_s=2.0),
        journal=check_journal(tracked, captured),
        interrupted=False,
    )
    assert render(report).splitlines() == [
        "run abc: 8 of 8 payments accepted in 2.0 s (4/s)",
        "",
        "  success                  3",
        "  failed_final             1",
        "  needs_review             1",
        "  waiting                  3   failed_retryable 2, unknown 1",
        "",
        "                                 p50       p90       p99       max",
        "  POST to 202, ms                4.0       8.0       8.0       8.0",
        "  accepted to settled, ms      100.0     200.0     200.0     200.0",
        "",
        "  4 settled at 20/s, 1 requests repeated, errors: POST HTTP 503 1",
        "",
        "provider's journal: 3 charges for 3 successes, 0 doubled, 0 missing, 0 without a success "
        "(1 charge of payments still waiting)",
        "NOT SETTLED: 4 payments in time (--timeout); see `okane review ls`",
    ]
    assert report.exit_code == 1
