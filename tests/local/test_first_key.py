"""The API key of a data folder: kept while it is good for everything, replaced otherwise."""

from __future__ import annotations

from pathlib import Path

from okane.api_key import ACCOUNT, Mode, NewKey, Scope
from okane.local.first_key import first_key
from okane.store import ApiKeyStore


async def test_a_key_is_kept_until_it_is_revoked(database_url: str, tmp_path: Path) -> None:
    kept = tmp_path / "api-key"
    first = await first_key(database_url, mode=Mode.TEST, kept_in=kept)
    assert await first_key(database_url, mode=Mode.TEST, kept_in=kept) == first == kept.read_text().strip()
    assert kept.stat().st_mode & 0o077 == 0
    store = ApiKeyStore(database_url)
    await store.revoke(first.rpartition("_")[0])
    await store.aclose()
    assert await first_key(database_url, mode=Mode.TEST, kept_in=kept) != first


async def test_a_key_of_a_version_with_fewer_scopes_is_replaced(database_url: str, tmp_path: Path) -> None:
    kept, old = tmp_path / "api-key", NewKey.make(Mode.TEST)
    kept.write_text(old.secret)
    store = ApiKeyStore(database_url)
    await store.create(old, account_id=ACCOUNT, mode=Mode.TEST, scopes=list(Scope)[:-1], name="okane up")
    new = await first_key(database_url, mode=Mode.TEST, kept_in=kept)
    assert new != old.secret
    found = await store.find(new.rpartition("_")[0])
    await store.aclose()
    assert found is not None
    assert found.scopes == frozenset(Scope)
