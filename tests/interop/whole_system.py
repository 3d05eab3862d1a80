"""`python -m tests.interop.whole_system`: `okane up`, the Express receiver of docs/webhooks.md, payments, and the log.

Meanwhile the dispatcher is killed by -9, and the receiver is away for a while. Each event of `GET /v1/events` must arrive,
with a signature that `standardwebhooks` accepts, in the order of its payment's versions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from okane.local.data_folder import DataFolder, Endpoints
from tests.interop.receivers import EXPRESS, Receiver
from tests.okane_commands import LONGEST_S, endpoints_of, running

_JOURNAL = replace(
    EXPRESS,
    name="express-journal",
    replaced={
        "const event = JSON.parse(request.body);": "const event = JSON.parse(request.body);\n"
        '  console.log("verified", request.headers["webhook-id"]);',
        "return response.sendStatus(400);": 'return console.log("refused"), response.sendStatus(400);',
    },
)
_PORTS = [f"--{name}port=0" for name in ("", "provider-", "postgres-", "redis-", "metrics-")]
_ARRIVE_S = 120.0
# `okane up` gives a program up that has died this often in a row, within 30 s of each start.
_MAX_DEATHS, _HEALTHY_AFTER_S = 4, 32.0
_DISPATCHER = "dispatcher"
_ENDS = {"success": "payment.succeeded", "failed_final": "payment.failed"}
_EVENT_ID = re.compile(r"evt_([0-9a-f]{32})_(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The events of the log and the requests that the receiver verified."""

    events: int
    requests: int
    missing: int  # events that did not arrive
    unknown: int  # requests that are in no log
    out_of_order: int  # first arrivals of a version after a later one of its payment
    refused: int
    unlogged: int  # payments at their end without an event of it in the log

    @property
    def is_right(self) -> bool:
        return not (self.missing or self.unknown or self.out_of_order or self.refused or self.unlogged)

    @property
    def repeats(self) -> int:
        return self.requests - self.events - self.unknown + self.missing

    def __str__(self) -> str:
        return (
            f"{self.events} events, {self.requests} requests verified, {self.repeats} of them repeats\n"
            f"{self.missing} missing, {self.unknown} unknown, {self.out_of_order} out of order, {self.refused} refused, "
            f"{self.unlogged} payments without the event of their end"
        )


def compare(logged: Mapping[str, str], payments: Mapping[str, str], lines: Sequence[str]) -> Comparison:
    """Compare the log (types by event id), payments that ended (statuses by id), and the lines of the receiver."""
    arrived = [line.removeprefix("verified ") for line in lines if line.startswith("verified ")]
    newest: dict[str, int] = {}
    out_of_order = 0
    for id_ in dict.fromkeys(arrived):  # first arrivals
        match = _EVENT_ID.fullmatch(id_)
        assert match is not None, id_
        out_of_order += int(match[2]) < newest.get(match[1], 0)
        newest[match[1]] = max(int(match[2]), newest.get(match[1], 0))
    ends = {(id_.split("_")[1], type_) for id_, type_ in logged.items()}
    return Comparison(
        events=len(logged),
        requests=len(arrived),
        missing=len(logged.keys() - set(arrived)),
        unknown=len(set(arrived) - logged.keys()),
        out_of_order=out_of_order,
        refused=lines.count("refused"),
        unlogged=len({(id_.replace("-", ""), _ENDS[status]) for id_, status in payments.items()} - ends),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The payments of a run and their rate, the deaths of its dispatcher, and the absence of its receiver."""

    payments: int
    rate: float
    kills: int
    away_s: float


async def run(plan: Plan, env: dict[str, str]) -> Comparison:
    """Run the whole system once; print what its commands print. Raises AssertionError if a command fails."""
    with TemporaryDirectory(prefix="okane-webhooks-") as name:
        folder = Path(name)
        data = DataFolder(folder / "data")
        async with running("up", "--data", str(data.path), *_PORTS, env=env) as up:
            where = await endpoints_of(data, up)
            receiver = Receiver(_JOURNAL, folder=folder)
            document = {"url": receiver.url, "types": ["payment.*"]}
            made = await asyncio.to_thread(_request, where, "/v1/webhook-endpoints", document)
            receiver.secret = made["secret"]
            receiver.start()
            try:
                await _pay(plan, data, receiver, env, up)
                found = await _all_arrived(where, receiver)
            finally:
                receiver.stop()
            up.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(up.wait(), LONGEST_S) == 0
    return found


async def _pay(
    plan: Plan, data: DataFolder, receiver: Receiver, env: dict[str, str], up: asyncio.subprocess.Process
) -> None:
    """Send the payments; meanwhile the dispatcher dies and the receiver goes away."""
    lasts_s = plan.payments / plan.rate
    arguments = [
        "--payments",
        str(plan.payments),
        "--rate",
        str(plan.rate),
        "--data",
        str(data.path),
        "--timeout",
        "300",
    ]
    async with running("load", *arguments, env=env) as load, asyncio.TaskGroup() as faults:
        faults.create_task(_kill(data, plan.kills, every_s=lasts_s / (plan.kills + 1)))
        faults.create_task(_be_away(receiver, after_s=lasts_s / 3, away_s=plan.away_s))
        watch = faults.create_task(_fail_when_ended(up))
        code = await asyncio.wait_for(load.wait(), LONGEST_S)
        assert code == 0, f"okane load: exit code {code}"
        watch.cancel()


async def _fail_when_ended(up: asyncio.subprocess.Process) -> None:
    code = await up.wait()
    raise AssertionError(f"okane up: exit code {code}")


async def _kill(data: DataFolder, kills: int, *, every_s: float) -> None:
    for _ in range(kills):
        await asyncio.sleep(every_s)
        async with asyncio.timeout(LONGEST_S):
            while (pid := _pid(data, least_age_s=_HEALTHY_AFTER_S if kills > _MAX_DEATHS else 0)) is None:
                await asyncio.sleep(0.05)
        sys.stdout.write(f"kill -9 {pid}  # the dispatcher\n")
        os.kill(pid, signal.SIGKILL)
        while _pid(data) == pid:
            await asyncio.sleep(0.05)


def _pid(data: DataFolder, *, least_age_s: float = 0) -> int | None:
    """Return the dispatcher's pid, None while it does not run or is younger."""
    for record in data.roster.load():
        if record.name == _DISPATCHER and record.find() and time.time() - record.born_at_s >= least_age_s:
            return record.pid
    return None


async def _be_away(receiver: Receiver, *, after_s: float, away_s: float) -> None:
    await asyncio.sleep(after_s)
    sys.stdout.write(f"the receiver is away for {away_s:.0f} s\n")
    receiver.stop()
    await asyncio.sleep(away_s)
    receiver.start()


async def _all_arrived(where: Endpoints, receiver: Receiver) -> Comparison:
    """Return the comparison once every event has arrived, or as it is when that takes too long."""

    def read() -> Comparison:
        logged = {event["id"]: event["type"] for event in _pages(where, "/v1/events?limit=100", "events")}
        return compare(logged, ended, receiver.output.splitlines())

    payments = await asyncio.to_thread(lambda: list(_pages(where, "/v1/payments?limit=100", "payments")))
    ended = {one["id"]: one["status"] for one in payments if one["status"] in _ENDS}
    ends_s = time.monotonic() + _ARRIVE_S
    while (found := await asyncio.to_thread(read)).missing and time.monotonic() < ends_s:
        await asyncio.sleep(0.5)
    return found


def _request(where: Endpoints, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {where.api_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(where.api_url + path, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def _pages(where: Endpoints, path: str, member: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = _request(where, path + cursor)
        yield from page[member]
        if not page["has_more"]:
            return
        cursor = f"&after={page['after']}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.whole_system", description=__doc__)
    parser.add_argument("--payments", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=24.0, help="payments per second")
    parser.add_argument("--kills", type=int, default=5, help="of the dispatcher")
    parser.add_argument("--away", type=float, default=30.0, help="seconds without the receiver")
    given = parser.parse_args()
    plan = Plan(payments=given.payments, rate=given.rate, kills=given.kills, away_s=given.away)
    found = asyncio.run(run(plan, dict(os.environ)))
    sys.stdout.write(f"{found}\n")
    sys.exit(0 if found.is_right else 1)


if __name__ == "__main__":
    main()
