"""`okane load`: send, follow, check against the provider's journal, report.

Promise: the report covers every payment, also after Ctrl-C (see `LoadReport`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator, Sequence
from uuid import uuid4

from rich.console import Console

from okane.client import AccessDenied, Client, NoAnswer, Refused
from okane.load.client import HttpClient
from okane.load.customers import Customers
from okane.load.following import Follower
from okane.load.options import LoadOptions
from okane.load.progress import show_progress
from okane.load.rendering import render
from okane.load.report import JournalCheck, LoadReport, Tally, Tracked, build_report, check_journal
from okane.load.sending import Sender


class ApiUnreachableError(Exception):
    """No API answers at the URL, so nothing was sent."""


async def run_load(options: LoadOptions, console: Console, *, stop: asyncio.Event | None = None) -> LoadReport:
    """Run the load, show its progress, print the summary (or, with `options.json`, one JSON object) to `console`.

    Ctrl-C, or setting `stop`, ends it early with the results so far; a second Ctrl-C ends it at once.
    Raises ApiUnreachableError.
    """
    stop = asyncio.Event() if stop is None else stop
    drawn = zip(options.amounts(), options.methods(), strict=True)
    payments = [Tracked(number=number, amount=amount, method=method) for number, (amount, method) in enumerate(drawn)]
    tally = Tally(errors=Counter())
    progress_console = Console(stderr=True) if options.json else console
    with _interrupts_set(stop):
        async with HttpClient(api_key=options.key) as http, HttpClient() as provider:  # without the key
            await _check_reachable(options)
            customers = _customers(options, provider, tally)
            finished = await _until(
                stop, _send_and_follow(options, payments, tally, http, console=progress_console, customers=customers)
            )
            journal = await fetch_and_check(options.provider_url, payments, provider)
    report = build_report(
        run_id=options.run_id, payments=payments, tally=tally, journal=journal, interrupted=not finished
    )
    # `out` neither wraps nor interprets: the text is the same on a terminal, in a pipe and in a log.
    console.out(json.dumps(report.to_json()) if options.json else render(report), highlight=False)
    return report


async def fetch_and_check(
    provider_url: str | None, payments: Sequence[Tracked], http: HttpClient
) -> JournalCheck | str:
    """Compare the run with the provider's journal, read once from end to end; or return why that is not possible."""
    if provider_url is None:
        return "no provider URL given"
    ours = {payment.id for payment in payments if payment.id is not None}
    captured: defaultdict[str, list[int]] = defaultdict(list)
    try:
        async for line in http.lines(f"{provider_url}/journal"):
            charge = json.loads(line)
            if charge["status"] == "captured" and charge["payment_id"] in ours:
                captured[charge["payment_id"]].append(charge["amount"])
    except OSError as error:
        return f"{provider_url}/journal: {error}"
    except (ValueError, KeyError, TypeError):
        return f"{provider_url}/journal is not a journal"
    return check_journal(payments, captured)


def _customers(options: LoadOptions, http: HttpClient, tally: Tally) -> Customers | None:
    if options.return_url is None or options.provider_url is None:
        return None
    return Customers(provider_url=options.provider_url, http=http, tally=tally, seed=options.seed)


async def _send_and_follow(
    options: LoadOptions,
    payments: Sequence[Tracked],
    tally: Tally,
    http: HttpClient,
    *,
    console: Console,
    customers: Customers | None,
) -> None:
    follower = Follower(url=options.url, http=http, tally=tally, connections=options.connections, customers=customers)
    accepted: list[Tracked] = []

    def on_accepted(payment: Tracked) -> None:
        accepted.append(payment)
        follower.add(payment)

    sender = Sender(options=options, http=http, tally=tally, on_accepted=on_accepted)
    async with show_progress(console, total=len(payments), counts=lambda: (len(accepted), follower.at_rest)):
        following = asyncio.create_task(follower.run())
        try:
            await sender.run(payments)
            follower.no_more()
            await asyncio.wait([following], timeout=options.timeout_s)
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
        await follower.look_once([payment for payment in accepted if not payment.at_rest])


async def _check_reachable(options: LoadOptions) -> None:
    try:
        async with Client(options.url, key=options.key, patience_s=0) as client:
            await client.payment(uuid4())  # no payment has this id: NotFound shows that the API answers
    except ValueError as error:
        raise ApiUnreachableError(f"no API at {options.url}: {error}") from error
    except NoAnswer as error:
        raise ApiUnreachableError(f"no API at {options.url}: {error.reason}") from error
    except AccessDenied as error:
        message = f"the API at {options.url} refuses the key: {error.detail} (--key, OKANE_API_KEY)"
        raise ApiUnreachableError(message) from error
    except Refused:
        return


async def _until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> bool:
    """Run `work` until it is done (True) or `stop` is set (False). Its errors are raised."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
        return working.done()
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working


@contextlib.contextmanager
def _interrupts_set(stop: asyncio.Event) -> Iterator[None]:
    """Set `stop` at the first Ctrl-C; the second one has its usual effect."""
    loop = asyncio.get_running_loop()

    def on_interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, on_interrupt)
    except (RuntimeError, NotImplementedError, ValueError):  # not the main thread, or not a Unix
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
