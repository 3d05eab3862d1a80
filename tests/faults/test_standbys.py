"""A Postgres primary and its standbys: which one is promoted, and what counts as one that has a commit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from okane.local.postgres import PostgresServer
from tests.okane.standbys import NAMES, ReplicatedPostgres, replicated_postgres
from torture.system import standbys


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[ReplicatedPostgres]:
    with replicated_postgres(tmp_path / "servers") as one:
        yield one


def execute(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_the_standby_that_received_most_is_promoted_and_the_old_primary_follows_it(
    replicated: ReplicatedPostgres, tmp_path: Path
) -> None:
    old, behind, ahead = replicated.servers
    execute(old, "CREATE TABLE kept (number int)")
    behind.kill()
    execute(old, "INSERT INTO kept VALUES (1)")  # acknowledged by one standby
    old.kill()
    behind.start()
    assert standbys.furthest([behind, ahead]) is ahead
    standbys.promote(ahead)
    assert standbys.takes_writes(ahead)
    assert not standbys.takes_writes(behind)
    standbys.follow(behind, ahead, name=NAMES[1])
    assert standbys.wait_for_followers(ahead, 1) == {NAMES[1]}
    execute(ahead, "INSERT INTO kept VALUES (2)")

    old.start()
    assert standbys.takes_writes(old)  # nothing has fenced it
    old.kill()
    standbys.back_up(ahead, tmp_path / "servers" / "0", name=NAMES[0])
    old.start()
    assert standbys.wait_for_followers(ahead, 2) == {NAMES[0], NAMES[1]}
    execute(ahead, "INSERT INTO kept VALUES (3)")
    assert execute(ahead, "SELECT number FROM kept ORDER BY 1") == [(1,), (2,), (3,)]
    password = ahead.url.partition("@")[0].rpartition(":")[2]
    assert not any(password in log.read_text() for log in (tmp_path / "servers").glob("*.log"))


def test_a_copy_that_is_being_made_does_not_count_as_a_standby(replicated: ReplicatedPostgres, tmp_path: Path) -> None:
    primary, *others = replicated.servers
    for other in others:
        other.kill()
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(execute, primary, "CREATE TABLE waits ()")
        standbys.back_up(primary, tmp_path / "servers" / "1", name=NAMES[1])
        with contextlib.suppress(TimeoutError):
            waiting.result(0.5)
        assert not waiting.done()
        others[0].start()
        waiting.result(30)
