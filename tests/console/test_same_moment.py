"""Two people who act on one page at the same moment: one of them is told that it has changed."""

from __future__ import annotations

import asyncio
import html
import re

from okane.payment import Status
from tests.console.console_payments import accepted, act, settled
from tests.console.served_console import Console
from tests.okane.webhook_rows import fetch


async def test_a_payment_is_decided_once(console: Console, database_url: str) -> None:
    payment = await accepted(console)
    assert await console.services.payments.bury(payment.id, reason="poison")
    payment = await console.services.payments.get(payment.id, account_id=payment.account_id)
    people = [await console.logged_in() for _ in range(4)]
    decisions = ({"as": "success"}, {"as": "failed_final"}) * 2
    answers = await asyncio.gather(
        *(
            act(one, payment, "resolve", {**decision, "reason": f"by {number}"})
            for number, (one, decision) in enumerate(zip(people, decisions, strict=True))
        )
    )
    assert sorted(answer.status for answer in answers) == [303, 409, 409, 409]
    [(reason,)] = await fetch(database_url, "SELECT reason FROM payment_events WHERE event = 'resolved'")
    assert reason == f"by {[answer.status for answer in answers].index(303)}"
    said = await fetch(database_url, "SELECT answer LIKE 'refused: %%' FROM console_audit WHERE begun IS NOT NULL")
    assert sorted(refused for (refused,) in said) == [False, True, True, True]


async def test_a_cancellation_that_came_too_late_says_so(console: Console, database_url: str) -> None:
    payment = await accepted(console)
    people = [await console.logged_in() for _ in range(3)]
    answers = await asyncio.gather(*(act(one, payment, "cancel") for one in people))
    assert sorted(answer.status for answer in answers) == [303, 409, 409]
    assert await fetch(database_url, "SELECT count(*) FROM payment_events WHERE event = 'canceled'") == [(1,)]


async def test_dead_letters_are_replayed_once(console: Console, database_url: str) -> None:
    for number in range(5):
        await settled(console, f"k{number}", Status.FAILED_FINAL, event="spent", reason="HTTP 503")
    people = [await console.logged_in() for _ in range(3)]
    page = (await people[0].get("/dead/replay")).text
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
    form = {name: html.unescape(value) for name, value in fields if name != "csrf"}
    answers = await asyncio.gather(*(one.submit("/dead/replay", form) for one in people))
    assert {answer.status for answer in answers} <= {303, 409}
    retried = await fetch(
        database_url, "SELECT count(*) FROM payment_events WHERE event = 'retried' GROUP BY payment_id"
    )
    assert retried == [(1,)] * 5
    [(count,)] = await fetch(database_url, "SELECT sum(count) FROM console_audit")
    assert count == 5
