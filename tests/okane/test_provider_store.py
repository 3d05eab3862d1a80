"""The switch and the shared breaker level in Postgres: who may open it, for how long, and what an operator's row says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from okane.store.providers import Mode, ProviderState, ProviderStore, SharedBreakerRules

NAME = "stripe"


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[ProviderStore]:
    one = ProviderStore(database_url)
    yield one
    await one.aclose()


async def state(store: ProviderStore) -> ProviderState:
    [found] = await store.read_all()
    return found


async def let_pass(database_url: str, time: str) -> None:
    """Make everything about the provider that much older."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE providers SET suspected_at = suspected_at - %s::interval, open_until = open_until - %s::interval",
            (time, time),
        )


async def test_there_are_no_rows_before_one_is_written(store: ProviderStore) -> None:
    assert await store.read_all() == []


@pytest.mark.parametrize("mode", ["drain", "off"])
async def test_an_operator_switches_a_provider_and_back(store: ProviderStore, mode: Mode) -> None:
    await store.set_mode(NAME, mode, reason="maintenance", actor="operator")
    found = await state(store)
    assert (found.mode, found.reason, found.changed_by) == (mode, "maintenance", "operator")
    assert found.changed_at is not None
    await store.set_mode(NAME, "on", reason="over", actor="operator")
    assert ((await state(store)).mode, (await state(store)).reason) == ("on", "over")


async def test_of_two_who_switch_by_the_same_state_the_second_changes_nothing(store: ProviderStore) -> None:
    seen = ProviderState(name=NAME)  # without a row, as before every first switch
    assert await store.set_mode(NAME, "drain", reason="the first", actor="a", seen=seen)
    assert not await store.set_mode(NAME, "off", reason="the second", actor="b", seen=seen)
    seen = await state(store)
    assert (seen.mode, seen.reason) == ("drain", "the first")
    assert await store.set_mode(NAME, "on", reason="over", actor="b", seen=seen)
    assert not await store.set_mode(NAME, "off", reason="late", actor="a", seen=seen)
    assert (await state(store)).mode == "on"


async def test_one_worker_of_several_only_suspects(store: ProviderStore) -> None:
    assert not await store.suspect(NAME, worker="w1", alone=False)
    found = await state(store)
    assert (found.suspected_by, found.open_s, found.open_count) == ("w1", 0, 0)


async def test_it_confirms_no_suspicion_of_its_own(store: ProviderStore) -> None:
    for _ in range(3):
        assert not await store.suspect(NAME, worker="w1", alone=False)
    assert (await state(store)).open_s == 0


async def test_a_second_worker_within_ten_seconds_opens_it_for_all(store: ProviderStore, database_url: str) -> None:
    await store.suspect(NAME, worker="w1", alone=False)
    await let_pass(database_url, "9 s")
    assert await store.suspect(NAME, worker="w2", alone=False)
    assert 0 < (await state(store)).open_s <= 1


async def test_a_second_worker_later_does_not(store: ProviderStore, database_url: str) -> None:
    await store.suspect(NAME, worker="w1", alone=False)
    await let_pass(database_url, "11 s")
    assert not await store.suspect(NAME, worker="w2", alone=False)
    assert (await state(store)).suspected_by == "w2"


@pytest.mark.parametrize("suspected", [False, True])
async def test_the_only_worker_opens_it_alone(store: ProviderStore, suspected: bool) -> None:
    if suspected:
        await store.set_mode(NAME, "on", reason="a row that was there", actor="operator")
    assert await store.suspect(NAME, worker="w1", alone=True)
    assert 0 < (await state(store)).open_s <= 1


async def test_it_opens_twice_as_long_each_time_up_to_a_minute(store: ProviderStore, database_url: str) -> None:
    lengths = []
    for _ in range(8):
        assert await store.suspect(NAME, worker="w1", alone=True)
        lengths.append(round((await state(store)).open_s))
        await let_pass(database_url, f"{lengths[-1] + 1} s")
    assert lengths == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_nothing_is_written_while_it_is_open(store: ProviderStore) -> None:
    await store.suspect(NAME, worker="w1", alone=True)
    before = await state(store)
    assert not await store.suspect(NAME, worker="w2", alone=True)
    after = await state(store)
    assert (after.open_count, after.suspected_by) == (before.open_count, "w1")


async def test_an_opening_of_long_ago_is_forgotten(store: ProviderStore, database_url: str) -> None:
    for _ in range(4):
        await store.suspect(NAME, worker="w1", alone=True)
        await let_pass(database_url, "9 s")
    await let_pass(database_url, "10 min")
    await store.suspect(NAME, worker="w1", alone=True)
    assert (await state(store)).open_count == 1


async def test_a_good_call_closes_it_and_leaves_the_switch(store: ProviderStore) -> None:
    await store.set_mode(NAME, "drain", reason="maintenance", actor="operator")
    await store.suspect(NAME, worker="w1", alone=True)
    assert await store.close(NAME)
    found = await state(store)
    assert (found.mode, found.open_s, found.open_count, found.suspected_by) == ("drain", 0, 0, None)
    assert not await store.close(NAME)


async def test_enabling_closes_it_too(store: ProviderStore) -> None:
    await store.suspect(NAME, worker="w1", alone=True)
    await store.set_mode(NAME, "on", reason="it works again", actor="operator")
    assert (await state(store)).open_s == 0


async def test_the_rules_are_parameters(database_url: str, store: ProviderStore) -> None:
    quick = ProviderStore(database_url, rules=SharedBreakerRules(first=timedelta(seconds=30)))
    await quick.suspect(NAME, worker="w1", alone=True)
    assert 29 < (await state(store)).open_s <= 30
    await quick.aclose()
