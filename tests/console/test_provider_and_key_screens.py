"""Providers and keys in the console: the switch with its reason, and the revocation."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from http import HTTPStatus

import pytest

from okane.api_key import Scope, prefix_of
from okane.store.providers import ProviderState, ProviderStore
from tests.console.served_console import Browser, Console, text_of
from tests.okane.webhook_rows import fetch


async def shown_version(browser: Browser) -> str:
    """Return the version of the only provider, as its dialogs have it."""
    found = re.search(r'name="version" value="([^"]+)"', (await browser.get("/providers")).text)
    assert found is not None
    return html.unescape(found[1])


async def test_a_stale_dialog_does_not_switch_a_provider(console: Console, database_url: str) -> None:
    browser = await console.logged_in(Scope.SYSTEM)
    stale = {"action": "disable", "reason": "a late click", "version": await shown_version(browser)}
    await console.services.providers.set_mode("http", "drain", reason="maintenance", actor="operator")
    answer = await browser.submit("/providers/http/switch", stale)
    assert answer.status == HTTPStatus.CONFLICT
    assert "it is drain now, by operator: maintenance." in answer.text
    assert await fetch(database_url, "SELECT mode FROM providers") == [("drain",)]


async def test_a_switch_between_the_check_and_the_change_is_kept(
    console: Console, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, providers = await console.logged_in(Scope.SYSTEM), console.services.providers
    fields = {"action": "enable", "reason": "a click at the same time", "version": await shown_version(browser)}
    read = ProviderStore.read_all

    async def read_and_lose(store: ProviderStore) -> Sequence[ProviderState]:
        found = await read(store)
        monkeypatch.setattr(ProviderStore, "read_all", read)
        await providers.set_mode("http", "off", reason="fraud", actor="operator")
        return found

    monkeypatch.setattr(ProviderStore, "read_all", read_and_lose)
    answer = await browser.submit("/providers/http/switch", fields)
    assert answer.status == HTTPStatus.CONFLICT
    assert "it is off now, by operator: fraud." in answer.text
    assert await fetch(database_url, "SELECT mode FROM providers") == [("off",)]


async def test_a_provider_is_drained_disabled_and_enabled_with_a_reason(console: Console, database_url: str) -> None:
    browser = await console.logged_in(Scope.SYSTEM)
    for action, mode in (("drain", "drain"), ("disable", "off"), ("enable", "on")):
        fields = {"action": action, "reason": f"<i>{action}</i> for a test", "version": await shown_version(browser)}
        answer = await browser.submit("/providers/http/switch", fields)
        assert answer.status == HTTPStatus.SEE_OTHER, text_of(answer.text)
        [row] = await fetch(database_url, "SELECT name, mode, reason, changed_by FROM providers")
        assert row[:3] == ("http", mode, fields["reason"])
        assert row[3].startswith("console sk_test_")
        page = (await browser.get(answer.location)).text
        assert f"http is {mode} now." in page
        assert "<i>" not in page
        assert f"&lt;i&gt;{action}" in page


@pytest.mark.parametrize(
    ("name", "fields", "status"),
    [
        ("http", {"action": "drain"}, HTTPStatus.BAD_REQUEST),
        ("http", {"action": "drain", "reason": "card 4242 4242 4242 4242"}, HTTPStatus.BAD_REQUEST),
        ("http", {"action": "drain", "reason": "r" * 501}, HTTPStatus.BAD_REQUEST),
        ("http", {"action": "explode", "reason": "because"}, HTTPStatus.BAD_REQUEST),
        ("http", {"reason": "because"}, HTTPStatus.BAD_REQUEST),
        ("unknown", {"action": "drain", "reason": "because"}, HTTPStatus.NOT_FOUND),
        ("No name", {"action": "drain", "reason": "because"}, HTTPStatus.NOT_FOUND),
    ],
)
async def test_a_switch_that_cannot_be_made_changes_nothing(
    console: Console, database_url: str, name: str, fields: dict[str, str], status: HTTPStatus
) -> None:
    browser = await console.logged_in()
    answer = await browser.submit(f"/providers/{name}/switch", fields)
    assert answer.status == status, text_of(answer.text)
    assert await fetch(database_url, "SELECT name FROM providers WHERE mode <> 'on'") == []


async def test_keys_of_all_accounts_are_listed_without_secrets(console: Console) -> None:
    secret = await console.key(Scope.READ, account="shop", name="<b>till</b>")
    browser = await console.logged_in(Scope.SYSTEM)
    page = (await browser.get("/keys")).text
    assert str(prefix_of(secret)) in page
    assert secret not in page
    assert secret.rpartition("_")[2] not in page
    assert "&lt;b&gt;till" in page
    assert str(prefix_of(secret)) not in (await browser.get("/keys?account=default")).text


async def test_keys_come_in_pages_each_key_once(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("okane.console.keys.PAGE", 2)
    browser = await console.logged_in(Scope.SYSTEM)
    names = {str(prefix_of(await console.key(Scope.READ, account=f"shop-{n}"))) for n in range(4)}
    seen, address = [], "/keys"
    while address:
        page = (await browser.get(address)).text
        on_page = re.findall(r'id="revoke-(sk_test_\w{12})"', page)
        assert 1 <= len(on_page) <= 2
        seen += on_page
        more = re.search(r'href="([^"]*)">More keys<', page)
        address = "" if more is None else html.unescape(more[1])
    assert len(seen) == len(set(seen)) == 5
    assert names < set(seen)
    assert "No more keys." in (await browser.get(f"/keys?after={seen[-1]}")).text
    assert "No more keys." in (await browser.get("/keys?after=none")).text


async def test_a_revoked_key_leaves_the_list_and_the_action_is_in_the_audit(console: Console) -> None:
    name = str(prefix_of(await console.key(Scope.READ, account="shop")))
    browser = await console.logged_in(Scope.SYSTEM)
    answer = await browser.submit(f"/keys/{name}/revoke")
    assert answer.status == HTTPStatus.SEE_OTHER
    keys = (await browser.get(answer.location)).text
    assert f"{name} is revoked" in keys
    assert f'id="revoke-{name}"' not in keys
    assert name in (await browser.get("/keys?ended=1")).text
    audit = text_of((await browser.get("/audit")).text)
    assert f"revoke key {name}" in audit


@pytest.mark.parametrize("name", ["sk_test_000000000000", "nonsense"])
async def test_an_unknown_key_cannot_be_revoked(console: Console, name: str) -> None:
    answer = await (await console.logged_in()).submit(f"/keys/{name}/revoke")
    assert answer.status == HTTPStatus.NOT_FOUND


async def test_switch_and_revocation_need_the_scope_system(console: Console, database_url: str) -> None:
    others = await console.logged_in(Scope.READ, Scope.WRITE, Scope.OPERATE, Scope.WEBHOOKS)
    name = str(prefix_of(others.secret))
    fields = {"action": "drain", "reason": "because"}
    assert (await others.submit("/providers/http/switch", fields)).status == HTTPStatus.FORBIDDEN
    assert (await others.submit(f"/keys/{name}/revoke")).status == HTTPStatus.FORBIDDEN
    assert await fetch(database_url, "SELECT 1 FROM api_keys WHERE revoked_at IS NOT NULL") == []
