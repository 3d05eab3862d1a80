"""Saved payment methods in Postgres: one for a key however often and at once it is requested, of one account, with tokens
that only the worker reads."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest

from okane.errors import PaymentMethodKeyReused, StoreUnavailable
from okane.payment_id import PaymentId
from okane.payment_method import NewSavedMethod, saved_method_id
from okane.store import payment_methods
from okane.store.payment_methods import PaymentMethodStore, PaymentMethodTokens

ID = UUID("0198c0de-0000-7000-8000-000000000001")
V4 = "6f9619ff-8b86-4011-b42d-00cf4fc964ff"
TOKENS = {"stripe": "pm_1", "payu": "TOKC_1"}


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[PaymentMethodStore]:
    one = PaymentMethodStore(database_url)
    yield one
    await one.aclose()


@pytest.fixture
async def tokens(database_url: str) -> AsyncIterator[PaymentMethodTokens]:
    one = PaymentMethodTokens(database_url)
    yield one
    await one.aclose()


def new(key: str = "m", account_id: str = "a", **changed: object) -> NewSavedMethod:
    plain = NewSavedMethod(
        id=UUID(int=PaymentId().int),
        account_id=account_id,
        idempotency_key=key,
        fingerprint=b"f" * 32,
        tokens=TOKENS,
        kind="card",
    )
    return dataclasses.replace(plain, **changed)  # type: ignore[arg-type] # any field of a method


async def test_one_method_is_saved_for_requests_with_one_key_at_the_same_time(
    database_url: str, store: PaymentMethodStore
) -> None:
    others = [PaymentMethodStore(database_url) for _ in range(3)]
    results = await asyncio.gather(*(one.create(new()) for one in [store, *others] for _ in range(3)))
    assert len({method.id for method, _ in results}) == 1
    assert [created for _, created in results].count(True) == 1
    with pytest.raises(PaymentMethodKeyReused):
        await store.create(new(fingerprint=b"g" * 32))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        found = await connection.execute(
            "SELECT (SELECT count(*) FROM payment_methods), (SELECT count(*) FROM payment_method_tokens),"
            " (SELECT count(*) FROM idempotency_keys WHERE kind = 'payment_method')"
        )
        assert await found.fetchone() == (1, 2, 1)
    for one in others:
        await one.aclose()


async def test_a_create_whose_answer_was_lost_finds_its_own_method(store: PaymentMethodStore) -> None:
    request = new()
    first = await store.create(request)
    assert first == await store.create(request)
    assert first[1]


async def test_an_account_sees_names_and_deletes_its_own_methods_only(
    store: PaymentMethodStore, tokens: PaymentMethodTokens
) -> None:
    mine, _ = await store.create(new())
    same_key, created = await store.create(new(account_id="b"))
    assert created
    assert await store.get("b", mine.id) is None
    assert await store.delete("b", mine.id) is None
    assert (await store.list("b", limit=9)).methods == [same_key]
    keys = [("a", mine.id), ("b", mine.id), ("a", uuid4())]
    assert await store.providers_of(keys) == [frozenset(TOKENS), frozenset(), frozenset()]
    assert [await tokens.tokens(*key) for key in keys] == [TOKENS, {}, {}]


async def test_a_deleted_method_keeps_its_tokens_for_the_worker(
    store: PaymentMethodStore, tokens: PaymentMethodTokens
) -> None:
    method, _ = await store.create(new())
    first, again = await store.delete("a", method.id), await store.delete("a", method.id)
    assert first == again
    assert first is not None
    assert first.deleted_at is not None
    assert await store.providers_of([("a", method.id)]) == [frozenset()]
    assert await tokens.tokens("a", method.id) == TOKENS


async def test_tokens_are_read_once_and_a_bounded_number_is_kept(
    database_url: str, store: PaymentMethodStore, tokens: PaymentMethodTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payment_methods, "MAX_CACHED", 2)
    made = [(await store.create(new(f"m{number}")))[0].id for number in range(3)]
    for method_id in made:
        assert await tokens.tokens("a", method_id) == TOKENS
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("ALTER TABLE payment_method_tokens RENAME TO away")
        assert [await tokens.tokens("a", one) for one in made[1:]] == [TOKENS, TOKENS]
        with pytest.raises(StoreUnavailable):
            await tokens.tokens("a", made[0])


@pytest.mark.parametrize("text", [None, "", "pm_1", "x" * 36, f"{{{ID}}}", ID.hex, f"{ID} ", V4])
def test_a_text_that_is_no_id_names_a_providers_own_token(text: str | None) -> None:
    assert saved_method_id(text) is None


def test_an_id_names_a_saved_method_in_either_case() -> None:
    method_id = PaymentId()
    assert saved_method_id(str(method_id)) == saved_method_id(str(method_id).upper()) == method_id
