"""Texts that others wrote: markup in any of them is shown as text, and those of another account are shown nowhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlencode
from uuid import UUID, uuid4

from okane.api_key import Scope
from okane.console.screens import SCREENS
from okane.payment import Payment, Status
from okane.payment_id import PaymentId
from okane.store.webhook_endpoints import Endpoint
from streams import Draft, connect
from tests.console.console_payments import accepted, listed, now
from tests.console.served_console import ALL, Console, serve_console
from tests.okane.stored_payments import claimed, settlement
from tests.okane.webhook_rows import created, fetch, log_event

MARKUP = "\"'><img src=x onerror=alert(1)>"
ESCAPED = re.compile(r"(?:&#34;|&quot;)(?:&#39;|&#x27;)&gt;&lt;img src=x onerror=alert\(1\)&gt;")

# Every column of text that a client, a provider, a receiver or a person can write, and that a page shows.
COLUMNS = {
    "payments": (
        "last_error",
        "decline_code",
        "provider_ref",
        "provider_key",
        "provider",
        "payment_method",
        "return_url",
    ),
    "payment_events": ("actor", "reason", "provider", "decline_code"),
    "operations": ("reason", "provider", "provider_key", "provider_ref", "decline_code", "last_error"),
    "operation_events": ("event", "actor", "reason", "provider", "call", "decline_code"),
    "disputes": ("provider", "provider_ref", "reason"),
    "provider_events": ("provider", "event_id", "kind"),
    "providers": ("reason", "changed_by", "suspected_by"),
    "webhook_endpoints": ("url", "description", "disabled_reason"),
    "webhook_queues": ("owner", "last_error"),
    "webhook_deliveries": ("reason",),
    "console_audit": ("key", "address", "action", "target", "answer"),
    "api_keys": ("name",),
}


async def filled(console: Console, database_url: str, account: str) -> tuple[Payment, Endpoint, UUID]:
    """Write a payment that needs a review, with a refund, a dispute, a notice, an endpoint and a delivery."""
    payments = console.services.payments
    payment = await accepted(console, f"{account} {MARKUP}", account=account, metadata={MARKUP[:40]: MARKUP})
    claim = await claimed(payments, payment.id)
    await payments.settle(settlement(claim.payment, Status.FAILED_FINAL, event="spent", reason=account))
    await fetch(
        database_url,
        "UPDATE payments SET status = 'needs_review', rare_status = 'needs_review' WHERE id = %s",
        payment.id,
    )
    endpoint = await created(
        console.services.endpoints, account, url=f"https://{account}.example/hook", description=account
    )
    position = await log_event(database_url, account, payment_id=payment.id, version=1)
    insert = "INSERT INTO webhook_deliveries (endpoint_id, position, state, attempts, reason, at)"
    insert += " VALUES (%s, %s, 'given_up', 1, %s, now())"
    await fetch(database_url, insert, endpoint.id, position, account)
    insert = (
        "INSERT INTO provider_events (provider, event_id, kind, payment_id) VALUES ('http', %s, 'charge.failed', %s)"
    )
    await fetch(database_url, insert, f"evt_{account}", payment.id)
    refund_id = await _refunded(database_url, payment)
    insert = "INSERT INTO disputes (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, reason,"
    insert += " status) VALUES (gen_random_uuid(), %s, %s, 'http', %s, 440, 'USD', %s, 'lost')"
    await fetch(database_url, insert, payment.id, account, f"dp_{account}", account)
    return await now(console, payment), endpoint, refund_id


async def _refunded(database_url: str, payment: Payment) -> UUID:
    """Write a refund that needs a review, and its event; return its id."""
    refund_id, account = uuid7(), payment.account_id
    insert = (
        "INSERT INTO operations (id, payment_id, account_id, kind, amount_minor, currency, reason, status, version,"
    )
    insert += " provider, provider_key, last_error, dead_at)"
    insert += " VALUES (%s, %s, %s, 'refund', 440, 'USD', %s, 'needs_review', 1, 'http', %s,"
    insert += " %s, now())"
    await fetch(database_url, insert, refund_id, payment.id, account, account, account, account)
    insert = "INSERT INTO operation_events (operation_id, version, event, status, attempt, actor, reason)"
    insert += " VALUES (%s, 1, 'needs_review', 'needs_review', 1, %s, %s)"
    await fetch(database_url, insert, refund_id, account, account)
    return refund_id


def uuid7() -> UUID:
    return UUID(int=PaymentId().int)


def pages_of(payment: UUID, endpoint: UUID) -> Sequence[str]:
    named = {"payment_id": str(payment), "endpoint_id": str(endpoint), "lane": "low"}
    pages = [re.sub(r"\{(\w+)\}", lambda name: named[name[1]], one.path) for one, _ in SCREENS if one.method == "GET"]
    return [*pages, *(f"{page}?part=1" for page in pages)]


async def test_markup_is_text_wherever_it_is_stored(console: Console, database_url: str, redis_url: str) -> None:
    browser = await console.logged_in()
    payment, endpoint, _ = await filled(console, database_url, "default")
    await fetch(database_url, "INSERT INTO providers (name, changed_at) VALUES ('http', now())")
    for table, columns in COLUMNS.items():
        changes = ", ".join(f"{one} = %s" for one in columns)
        await fetch(database_url, f"UPDATE {table} SET {changes}", *[MARKUP] * len(columns))
    stream = console.services.stream
    await console.services.producer.publish_many([Draft(payment.id.bytes, lane="low")])
    client, group, lane = connect(redis_url), console.services.settings.group, stream.lane_key("low")
    await client.hset(stream.key("present"), MARKUP, f"9999999999999 {MARKUP.replace(' ', '')} {MARKUP}")
    await client.xgroup_create(lane, group, id="0", mkstream=True)
    await client.xreadgroup(group, MARKUP, {lane: ">"}, count=1)
    await client.aclose()
    for path in pages_of(payment.id, endpoint.id):
        answer = await browser.get(path)
        assert "<img src=x" not in answer.text, path
        if not path.startswith(("/login", "/doctor", "/streams/delayed")) and answer.status == 200:
            assert ESCAPED.search(answer.text), path


async def test_what_belongs_to_another_account_is_answered_like_what_does_not_exist(
    database_url: str, redis_url: str
) -> None:
    async with serve_console(database_url, redis_url, webhook_master="m" * 42) as console:
        payment, endpoint, refund_id = await filled(console, database_url, "victim")
        browser = await console.logged_in(*set(ALL) - {Scope.SYSTEM}, account="other")
        secrets = (str(payment.id), "victim", str(endpoint.id))
        missing_payment, missing_endpoint = uuid4(), uuid4()
        for foreign, missing in zip(
            pages_of(payment.id, endpoint.id), pages_of(missing_payment, missing_endpoint), strict=True
        ):
            answers = [await browser.get(path) for path in (foreign, missing)]
            texts = [
                one.text.replace(str(a), "ID").replace(str(b), "ID")
                for one, (a, b) in zip(
                    answers, ((payment.id, endpoint.id), (missing_payment, missing_endpoint)), strict=True
                )
            ]
            assert answers[0].status == answers[1].status, foreign
            assert texts[0] == texts[1], foreign
            assert not any(one in texts[0] for one in secrets), foreign
        key = f"key:victim {MARKUP}"[:60]
        for query in (payment.id, f"{payment.id}:2", key, f"metadata.{MARKUP[:40]}={MARKUP}", "ref:x", ""):
            found = await browser.get(f"/payments?{urlencode({'q': query})}")
            assert (found.status in {200, 400}, listed(found.text)) == (True, []), query
        before = await rows(database_url)
        named = {
            "payment_id": str(payment.id),
            "endpoint_id": str(endpoint.id),
            "operation_id": str(refund_id),
        }
        actions = [one for one, _ in SCREENS if one.method == "POST" and one.changes and not one.public]
        for screen in [one for one in actions if one.scope is not Scope.SYSTEM]:
            path = re.sub(r"\{(\w+)\}", lambda name: named[name[1]], screen.path)
            fields = {
                "version": str(payment.version if "payment" in path else endpoint.version),
                "position": "1",
                "as": "success",
                "amount": "1",
            }
            fields |= {
                "reason": "x",
                "since": "2020-01-01",
                "count": "1",
                "id": str(payment.id),
                "shown": payment.id.hex,
            }
            answer = await browser.submit(path, fields)
            assert 400 <= answer.status < 500, (path, answer.status)
            assert "victim" not in answer.text
        assert await rows(database_url) == before


async def rows(database_url: str) -> Sequence[tuple[object, ...]]:
    """Return the rows that an action could change."""
    tables = (
        "payments",
        "payment_events",
        "operations",
        "operation_events",
        "disputes",
        "webhook_endpoints",
        "webhook_queues",
        "webhook_deliveries",
        "webhook_replays",
    )
    return [row for table in tables for row in await fetch(database_url, f"SELECT t::text FROM {table} t ORDER BY 1")]
