"""Actions and the audit table: written before and after, and never without a row."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from okane.api_key import Scope
from okane.errors import StoreUnavailable
from okane.store import ApiKeyStore
from okane.store.console_audit import MAX_TEXT, SQL, AuditEntry, ConsoleAuditStore
from tests.console.served_console import Console, text_of
from tests.okane.webhook_rows import fetch

ENTRY = AuditEntry(key="sk_test_0123456789ab", session="s", address="127.0.0.1", action="revoke key", target="x")


async def test_an_action_and_its_answer_are_one_line(console: Console) -> None:
    browser = await console.logged_in()
    key = (await console.key(Scope.READ))[:20]
    await browser.submit(f"/keys/{key}/revoke")
    row = (await console.services.audit.page(limit=1))[0]
    assert (row.action, row.target, row.answer, row.key) == ("revoke key", key, "revoked", browser.secret[:20])
    assert row.answered_at is not None
    assert row.answered_at >= row.at


async def test_an_action_that_refuses_or_fails_says_so(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await console.logged_in()
    assert (await browser.submit("/keys/sk_test_aaaaaaaaaaaa/revoke")).status == 404
    assert (await console.services.audit.page(limit=1))[0].answer == "refused: There is no such key."

    async def lost(_store: ApiKeyStore, _prefix: str) -> None:
        raise StoreUnavailable("the connection was lost")

    monkeypatch.setattr(ApiKeyStore, "revoke", lost)
    answer = await browser.submit("/keys/sk_test_aaaaaaaaaaaa/revoke")
    assert (answer.status, "may or may not have been done" in text_of(answer.text)) == (503, True)
    assert (await console.services.audit.page(limit=1))[0].answer == "failed: StoreUnavailable"


async def test_no_action_runs_whose_beginning_cannot_be_written(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = await console.logged_in(), (await console.key(Scope.READ))[:20]
    token = await browser.csrf()

    async def away(_store: ConsoleAuditStore, _entry: AuditEntry) -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(ConsoleAuditStore, "begin", away)
    assert (await browser.post(f"/keys/{key}/revoke", {"csrf": token})).status == 503
    assert key in {one.prefix for one in await console.services.keys.list()}


async def test_an_action_that_is_done_says_so_even_if_its_answer_cannot_be_written(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, key = await console.logged_in(), (await console.key(Scope.READ))[:20]

    async def away(*_arguments: object, **_named: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(ConsoleAuditStore, "answer", away)
    assert (await browser.submit(f"/keys/{key}/revoke")).status == 303
    assert key not in {one.prefix for one in await console.services.keys.list()}
    assert (await console.services.audit.page(limit=1))[0].answer is None


@pytest.fixture
async def audit(database_url: str) -> ConsoleAuditStore:
    return ConsoleAuditStore(database_url)


async def test_an_action_whose_process_died_is_there_without_an_answer(audit: ConsoleAuditStore) -> None:
    await audit.begin(ENTRY)
    [row] = await audit.page(limit=10)
    assert (row.action, row.answer, row.answered_at) == ("revoke key", None, None)
    await audit.aclose()


async def test_an_answer_is_written_once(audit: ConsoleAuditStore, database_url: str) -> None:
    one = await audit.begin(ENTRY)
    await asyncio.gather(*(audit.answer(one, f"answer {number}", count=number) for number in range(5)))
    [row] = await audit.page(limit=10)
    assert (row.answer or "").startswith("answer ")
    assert len(await fetch(database_url, "SELECT 1 FROM console_audit")) == 2
    await audit.aclose()


async def test_pages_of_the_table_are_newest_first_and_without_gaps(audit: ConsoleAuditStore) -> None:
    ids = [await audit.begin(ENTRY) for _ in range(5)]
    for one in ids:
        await audit.answer(one, "done")
    await audit.note(ENTRY, "x" * (MAX_TEXT + 1))
    first = await audit.page(limit=3)
    rest = await audit.page(limit=10, before=first[-1].id)
    assert [row.id for row in (*first, *rest)][1:] == ids[::-1]
    assert len(first[0].answer or "") == MAX_TEXT
    await audit.aclose()


def test_rows_are_only_added() -> None:
    """No statement of the product changes or deletes a row."""
    assert {text.lstrip().split()[0] for text in map(_without_comments, SQL.values())} == {"INSERT", "SELECT"}
    others = Path(__file__).parents[2] / "okane" / "store" / "sql"
    users = [path.name for path in others.glob("*.sql") if "console_audit" in path.read_text()]
    assert users == ["console_audit.sql"]


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--"))
