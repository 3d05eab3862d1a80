"""Archiving table partitions, killed at each statement: every row is in a table or in a checked file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID

import psycopg
import pytest
from pyarrow import parquet

from okane.archive import archive as module
from okane.archive import files
from okane.archive.archive import archive
from okane.errors import SetupError
from okane.monitoring.partition_checks import partition_checks
from okane.payment_id import PaymentId
from okane.store import part_archive, payment_keys
from okane.store.partition_bounds import DAY, TABLES, Part, lowest_id
from okane.store.partition_conversion import convert
from okane.store.partition_making import Connection, read_parts
from okane.store.table_partitions import read_partitioning
from tests.okane.commands import Command, command_of
from tests.okane.mortal_connection import Killed, Mortal

NOW = datetime.now(UTC)
BEGIN = NOW - 100 * DAY  # of the conversion: the first part ends soon after it
PAYMENT = """INSERT INTO payments (id, account_id, idempotency_key, fingerprint, amount_minor, currency, lane, provider_key,
             status, metadata, candidates, created_at)
             VALUES (%(id)s, 'a', %(key)s, '\\x00ff', 440, 'USD', 'low', 'k', 'success', '{"a": "ü"}', '{x,NULL}', %(at)s)"""
EVENT = """INSERT INTO payment_events (payment_id, version, event, status, attempt, actor, reason)
           VALUES (%(id)s, %(version)s, 'claimed', 'processing', 1, 'w', %(key)s)"""
OPERATION = """INSERT INTO operations (id, payment_id, account_id, kind, idempotency_key, amount_minor, currency, provider,
               provider_key, status, created_at)
               VALUES (%(operation)s, %(id)s, 'a', 'refund', %(key)s, 1, 'USD', 'http', 'k', 'success', %(at)s)"""
OPERATION_EVENT = """INSERT INTO operation_events (operation_id, version, event, status, attempt, actor)
                     VALUES (%(operation)s, 1, 'claimed', 'processing', 1, 'w')"""
OPERATION_KEY = """INSERT INTO idempotency_keys (account_id, idempotency_key, kind, id, fingerprint)
                   VALUES ('a', %(key)s, 'operation', %(operation)s, 'f')"""


@pytest.fixture
def connection(database_url: str) -> Iterator[Mortal]:
    """A database with three old parts, two of them with payments, and some of now."""
    with Mortal.connect(database_url, autocommit=True) as one:
        assert isinstance(one, Mortal)
        convert(one, every=50 * DAY, ahead=150 * DAY, now=BEGIN, pause_s=0.01)
        fill(one)
        yield one


def id_at(at: datetime) -> UUID:
    return UUID(int=lowest_id(at).int | PaymentId().int & (1 << 80) - 1)


def fill(connection: Connection) -> None:
    for number, at in enumerate([BEGIN - DAY, BEGIN, BEGIN + timedelta(hours=1), BEGIN + 60 * DAY, NOW]):
        values = {"id": id_at(at), "operation": id_at(at), "key": f"k{number}", "at": at}
        for statement in (PAYMENT, OPERATION, OPERATION_EVENT, OPERATION_KEY):
            connection.execute(statement.encode(), values)
        for version in (1, 2):
            connection.execute(EVENT, {**values, "version": version})
        digest = payment_keys.digest("a", f"k{number}")
        connection.execute("INSERT INTO payment_keys VALUES (%s, %s)", (digest, values["id"]))


def rows_of(connection: Connection, parents: Sequence[str] = tuple(TABLES)) -> dict[str, set[str]]:
    """Return all rows in tables, attached or not, as texts without their order."""
    found: dict[str, set[str]] = {}
    for parent in parents:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ %s", (f"^{parent}_(first|[0-9]{{8}})$",)
        ).fetchall()
        column = TABLES[parent]
        version = "" if column == "id" else " || ' ' || version"
        found[parent] = {
            row[0]
            for table in tables
            for row in connection.execute(f"SELECT {column}::text{version} FROM {table[0]}".encode()).fetchall()
        }
    return found


def rows_in(folder: Path) -> dict[str, set[str]]:
    """Return all rows in files that a manifest names, whose SHA-256 is right."""
    found: dict[str, set[str]] = {parent: set() for parent in TABLES}
    for path in folder.glob("*.json"):
        manifest = files.read_manifest(folder, path.stem)
        assert manifest is not None
        for parent, one in manifest.tables.items():
            assert files._sha256(folder / one.file) == one.sha256
            rows = parquet.read_table(folder / one.file).to_pylist()
            assert len(rows) == one.rows
            column = TABLES[parent]
            found[parent] |= {row[column] if column == "id" else f"{row[column]} {row['version']}" for row in rows}
    return found


def both(connection: Connection, folder: Path) -> dict[str, set[str]]:
    tables, archived = rows_of(connection), rows_in(folder)
    return {parent: tables[parent] | archived[parent] for parent in TABLES}


def run(connection: Connection, folder: Path, **more: Any) -> module.Archived:
    return archive(connection, folder, **{"before": NOW - 30 * DAY, "pause_s": 0.01, **more})


def test_old_parts_become_files_and_nothing_else_changes(connection: Mortal, tmp_path: Path) -> None:
    before = rows_of(connection)
    old = [part for part in read_parts(connection) if part.end <= NOW - 30 * DAY]
    done = run(connection, tmp_path)
    assert done.refused is None
    assert [one.part for one in done.manifests] == old
    assert both(connection, tmp_path) == before
    left = rows_of(connection)
    assert {len(rows) for rows in left.values()} <= {1, 2, 4}
    assert not before["payments"] - left["payments"] - rows_in(tmp_path)["payments"]
    assert not left["payments"] & rows_in(tmp_path)["payments"]
    keys = connection.execute("SELECT id::text FROM payment_keys").fetchall()
    assert {row[0] for row in keys} == left["payments"]
    operations = connection.execute("SELECT id::text FROM idempotency_keys").fetchall()
    assert {row[0] for row in operations} == left["operations"]
    assert min(part.begin for part in read_parts(connection) if part.begin is not None) == old[-1].end
    assert run(connection, tmp_path).manifests == []


def test_a_file_has_the_values_of_the_rows(connection: Mortal, tmp_path: Path) -> None:
    run(connection, tmp_path)
    row = parquet.read_table(tmp_path / "payments_first.parquet").to_pylist()[0]
    assert (row["idempotency_key"], row["fingerprint"], row["metadata"]) == ("k0", b"\x00\xff", '{"a": "ü"}')
    assert (row["candidates"], row["created_at"], row["lease_until"]) == (["x", None], BEGIN - DAY, None)
    document = json.loads((tmp_path / "first.json").read_text())
    assert document["tables"]["payments"]["rows"] == 3
    assert not list(tmp_path.glob("*.partial"))


def test_killed_before_any_statement_no_row_is_in_neither(
    connection: Mortal, tmp_path: Path, database_url: str
) -> None:
    whole = rows_of(connection)
    dies_before = 0
    while True:
        dies_before += 1
        with Mortal.connect(database_url, autocommit=True) as mortal:
            assert isinstance(mortal, Mortal)
            mortal.left = dies_before
            try:
                run(mortal, tmp_path)
            except Killed:
                assert both(connection, tmp_path) == whole, dies_before
            else:
                break
    assert dies_before > 30
    assert both(connection, tmp_path) == whole
    assert len(rows_of(connection)["payments"]) == 1


@pytest.mark.parametrize("step", ["write_table", "write_manifest", "holds"])
def test_killed_in_a_step_of_the_files_no_row_is_in_neither(connection: Mortal, tmp_path: Path, step: str) -> None:
    whole = rows_of(connection)
    for number in range(3):
        calls = iter(range(100))
        original = getattr(files, step)

        def dies(*arguments: Any, calls: Iterator[int] = calls, number: int = number, **more: Any) -> Any:
            if next(calls) == number:
                raise Killed
            return original(*arguments, **more)  # noqa: B023 - of this round

        with mock.patch.object(files, step, dies):
            try:
                run(connection, tmp_path)
            except Killed:
                assert both(connection, tmp_path) == whole
    run(connection, tmp_path)
    assert both(connection, tmp_path) == whole


OBSTACLES = {
    "an open payment": "UPDATE payments SET status = 'unknown' WHERE id = %(id)s",
    "a payment in review": "UPDATE payments SET status = 'needs_review' WHERE id = %(id)s",
    "a late look-up": "UPDATE payments SET sweep_at = now() WHERE id = %(id)s",
    "an open capture": "UPDATE payments SET open_operation = id WHERE id = %(id)s",
    "an open refund": "UPDATE operations SET status = 'submitted' WHERE payment_id = %(id)s",
    "a payment of a clock that was wrong": "UPDATE payments SET created_at = now() WHERE id = %(id)s",
    "a refund of a clock that was wrong": "UPDATE operations SET created_at = now() WHERE payment_id = %(id)s",
    "an event": "INSERT INTO webhook_events VALUES (1, 'a', %(id)s, 1, 'payment.succeeded', now())",
    "an event without a position": "INSERT INTO webhook_outbox (account_id, type, payment_ids, versions)"
    " VALUES ('a', 'payment.failed', ARRAY[%(id)s], '{1}')",
    "a dispute": "INSERT INTO disputes (id, payment_id, account_id, provider, provider_ref, amount_minor, currency, status)"
    " VALUES (gen_random_uuid(), %(id)s, 'a', 'p', 'r', 1, 'USD', 'under_review')",
    "a notice": "INSERT INTO provider_events (provider, event_id, kind, payment_id) VALUES ('p', 'e', 'k', %(id)s)",
}


@pytest.mark.parametrize("what", OBSTACLES)
def test_a_part_with_something_open_stays_and_so_do_those_behind_it(
    connection: Mortal, tmp_path: Path, what: str
) -> None:
    ids = connection.execute("SELECT id FROM payments ORDER BY id").fetchall()
    for number in (3, 0):  # of the second old part, then of the first
        connection.execute("BEGIN")
        connection.execute(OBSTACLES[what].encode(), {"id": ids[number][0]})
        done = run(connection, tmp_path, dry_run=True)
        connection.execute("ROLLBACK")
        assert done.refused is not None
        assert str(ids[number][0]) in done.refused
    connection.execute(OBSTACLES[what].encode(), {"id": ids[3][0]})
    done = run(connection, tmp_path)
    assert [one.part.suffix for one in done.manifests] == ["first"]
    assert done.refused is not None
    assert len(rows_of(connection)["payments"]) == 2


def test_a_payment_that_changes_behind_the_comparison_is_found(
    connection: Mortal, tmp_path: Path, database_url: str
) -> None:
    """By a retry through an API whose statement had begun."""
    whole = rows_of(connection)
    original = files.write_manifest

    def and_then_changed(*arguments: Any, **more: Any) -> None:
        original(*arguments, **more)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("UPDATE payments SET status = 'pending', version = version + 1 WHERE idempotency_key = 'k0'")

    with (
        mock.patch.object(files, "write_manifest", and_then_changed),
        pytest.raises(SetupError, match="attached again"),
    ):
        run(connection, tmp_path)
    assert read_parts(connection)[0].begin is None
    assert rows_of(connection) == whole
    assert connection.execute("SELECT status FROM payments WHERE idempotency_key = 'k0'").fetchone() == ("pending",)
    assert not list(tmp_path.glob("*.json"))
    assert "pending" in str(run(connection, tmp_path).refused)


def test_a_backup_that_reads_its_tables_delays_the_drop(connection: Mortal, tmp_path: Path, database_url: str) -> None:
    connection.execute("SET lock_timeout = '50ms'")
    original = part_archive.places
    backup = psycopg.connect(database_url)
    tried = 0

    def and_then_read(archive: Connection, part: Part) -> Any:
        nonlocal tried
        found = original(archive, part)
        if set(found.values()) == {"detached"}:
            tried += 1
            backup.execute("SELECT FROM payments_first") if tried == 1 else backup.rollback()
        return found

    with backup, mock.patch.object(part_archive, "places", and_then_read):
        assert len(run(connection, tmp_path).manifests) == 2
    assert tried == 3


def test_a_file_that_the_disk_has_changed_is_found(connection: Mortal, tmp_path: Path) -> None:
    whole = rows_of(connection)
    original = files.write_table

    def damaged(folder: Path, name: str, *arguments: Any) -> files.ArchivedTable:
        archived = original(folder, name, *arguments)
        path = folder / archived.file
        data = bytearray(path.read_bytes())
        data[20] ^= 1
        path.write_bytes(data)
        return archived

    with mock.patch.object(files, "write_table", damaged), pytest.raises(SetupError, match="check the disk"):
        run(connection, tmp_path)
    assert rows_of(connection) == whole
    assert not list(tmp_path.glob("*.json"))


def test_a_row_that_is_missing_in_a_file_is_found(connection: Mortal, tmp_path: Path) -> None:
    original = files.write_table

    def without_one(folder: Path, name: str, columns: Any, chunks: Any) -> files.ArchivedTable:
        return original(folder, name, columns, [rows[1:] for rows in chunks if rows[1:]])

    with mock.patch.object(files, "write_table", without_one), pytest.raises(SetupError, match="check the disk"):
        run(connection, tmp_path)


def test_a_run_with_another_folder_is_refused_after_one_that_died(
    connection: Mortal, tmp_path: Path, database_url: str
) -> None:
    with mock.patch.object(part_archive, "drop_if", mock.Mock(side_effect=Killed)), pytest.raises(Killed):
        run(connection, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SetupError, match="give the folder of that run"):
        run(connection, other)
    found = asyncio.run(read_partitioning(database_url))
    assert found.detached == ["first"]
    assert [check.state for check in partition_checks(found)] == ["warn"]
    assert run(connection, tmp_path).manifests[0].part.suffix == "first"
    assert not asyncio.run(read_partitioning(database_url)).detached


def test_the_part_that_takes_new_payments_is_never_archived(connection: Mortal, tmp_path: Path) -> None:
    run(connection, tmp_path, before=NOW + 1000 * DAY)
    assert len(read_parts(connection)) == 1


def test_no_other_type_is_lost_without_a_word() -> None:
    with pytest.raises(SetupError, match="numeric"):
        files.schema_of({"id": "uuid", "amount": "numeric"})


command = command_of("archive")


async def test_the_command_archives_and_says_what(connection: Mortal, command: Command, tmp_path: Path) -> None:
    planned = await command("--older", "40d", "--to", str(tmp_path), "--dry-run")
    assert "would archive first" in planned.stderr
    assert not list(tmp_path.iterdir())
    done = await command("--older", "40d", "--to", str(tmp_path), "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["archived"][0]["tables"]["payments"]["rows"] == 3
    assert "no table partition is old enough" in (await command("--older", "40d", "--to", str(tmp_path))).stdout
    assert Part(NOW, None).suffix == "first"


async def test_the_command_refuses_what_may_still_be_needed(
    connection: Mortal, command: Command, tmp_path: Path
) -> None:
    for older in ("29d", "37d", "90", "0d"):
        assert (await command("--older", older, "--to", str(tmp_path))).exit_code == 2
    missing = await command("--older", "90d", "--to", str(tmp_path / "none"))
    assert isinstance(missing.exception, SetupError)
    connection.execute("UPDATE payments SET status = 'needs_review'")
    refused = await command("--older", "40d", "--to", str(tmp_path))
    assert refused.exit_code == 1
    assert "first stays" in refused.stdout


async def test_one_table_has_nothing_to_archive(command: Command, tmp_path: Path) -> None:
    refused = await command("--older", "90d", "--to", str(tmp_path))
    assert "okane partitions --convert" in str(refused.exception)
