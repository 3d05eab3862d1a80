"""`okane partitions` against a real Postgres: the conversion, the list, its exit code, and what the doctor says."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from okane.app.system_metrics import SystemMetrics
from okane.errors import SetupError
from okane.monitoring.partition_checks import NEARLY, partition_checks
from okane.store import Overview
from okane.store.partition_bounds import DAY, MAX_PARTS, TABLES
from okane.store.partition_making import read_parts
from okane.store.table_partitions import read_partitioning
from tests.okane.commands import Command, command_of

command = command_of("partitions")


async def test_a_database_is_converted_listed_and_put_back(command: Command) -> None:
    assert "in one table" in (await command()).stdout
    done = await command("--convert", "--every", "1d", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["partitions"][0]["name"] == "first"
    assert len(document["partitions"]) == 3
    assert document["problems"] == []
    listed = await command()
    assert listed.exit_code == 0
    assert "first" in listed.stdout
    assert "have table partitions already" in (await command("--convert")).stderr
    assert "none is missing" in (await command("--create")).stderr
    assert "in one table again" in (await command("--undo")).stderr
    assert "in one table" in (await command()).stdout


async def test_it_fails_while_none_is_left_for_tomorrow(command: Command, database_url: str) -> None:
    await command("--convert", "--every", "2d")
    with psycopg.connect(database_url, autocommit=True) as connection:
        for part in read_parts(connection)[1:]:
            for table in TABLES:
                connection.execute(f"DROP TABLE {part.table(table)}".encode())
    found = await read_partitioning(database_url)
    later = replace(found, now=found.now + 3 * DAY)
    assert [check.state for check in partition_checks(later)] == ["fail"]
    # The length of the next ones is not known any more.
    made = await command("--create")
    assert isinstance(made.exception, SetupError)
    assert "--every" in str(made.exception)
    made = await command("--create", "--every", "2d")
    assert made.exit_code == 0, made.output
    assert len(json.loads((await command("--json")).stdout)["partitions"]) >= 2


async def test_a_gap_is_the_end(command: Command, database_url: str) -> None:
    await command("--convert", "--every", "1d")
    with psycopg.connect(database_url, autocommit=True) as connection:
        first, second, _ = read_parts(connection)
        for table in TABLES:
            connection.execute(f"DROP TABLE {second.table(table)}".encode())
    found = await read_partitioning(database_url)
    assert found.end == first.end
    [check] = partition_checks(replace(found, now=first.end - timedelta(hours=1)))
    assert check.state == "fail"


async def test_the_metric_says_how_long_they_last(command: Command, database_url: str) -> None:
    overview = Overview(database_url)
    assert await overview.partitions_ahead() is None
    await command("--convert", "--every", "2d")
    ahead = await overview.partitions_ahead()
    await overview.aclose()
    assert ahead is not None
    assert 4 * DAY < ahead < 9 * DAY
    metrics = SystemMetrics(CollectorRegistry())
    for shown, value in ((ahead, ahead.total_seconds()), (None, math.inf)):
        metrics.set_partitions_ahead(shown)
        assert metrics.registry.get_sample_value("okane_partitions_ahead_seconds") == value


async def test_too_few_locks_for_the_parts_are_a_warning(command: Command, database_url: str) -> None:
    await command("--convert", "--every", "1d")
    found = await read_partitioning(database_url)
    assert found.max_locks >= 64
    for parts, state, advice in ((16, "ok", ""), (17, "warn", "restart")):
        [check] = partition_checks(replace(found, max_locks=64, parts=[*found.parts, *[found.parts[0]] * (parts - 3)]))
        assert check.state == state
        assert advice in check.advice


async def test_many_are_a_warning(command: Command, database_url: str) -> None:
    await command("--convert", "--every", "1d")
    found = await read_partitioning(database_url)
    [check] = partition_checks(replace(found, parts=[*found.parts, *[found.parts[0]] * (NEARLY - 3)]))
    assert check.state == "warn"
    assert str(MAX_PARTS) in check.advice


@pytest.mark.parametrize(
    "words", [("--create", "--undo"), ("--convert", "--every", "36h"), ("--convert", "--every", "0d")]
)
async def test_wrong_words_are_refused(command: Command, words: tuple[str, ...]) -> None:
    assert (await command(*words)).exit_code == 2


async def test_a_conversion_that_was_left_fails(command: Command, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "ALTER TABLE payments ADD CONSTRAINT okane_first_part"
            " CHECK (id < '01a30000-0000-0000-0000-000000000000'::uuid) NOT VALID"
        )
    left = await command()
    overview = Overview(database_url)
    ahead = await overview.partitions_ahead()
    await overview.aclose()
    assert ahead is not None
    assert ahead < 600 * DAY
    assert left.exit_code == 1
    assert "--undo takes it back" in left.stdout
    assert "in one table again" in (await command("--undo")).stderr
    assert (await command()).exit_code == 0
