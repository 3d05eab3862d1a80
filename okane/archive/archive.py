"""Archive the oldest parts of a database, each in these steps:

    1. nothing may be open in it: else the run ends, and names a payment
    2. its rows are written to files, read back and compared, all of one snapshot; then the manifest is written
    3. its idempotency keys are deleted: they may be used again
    4. its tables are detached
    5. under an exclusive lock its rows are compared with the files once more, and its tables dropped

A process that dies leaves every row in its table, in a checked file, or in both; the next run with the same folder goes on. A
row that was changed after step 2 is found in step 5: the part is attached again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from okane.archive import files
from okane.archive.files import Manifest
from okane.errors import SetupError
from okane.store import part_archive, schema
from okane.store.partition_bounds import TABLES, Part
from okane.store.partition_making import Connection, patiently, read_parts


@dataclass(frozen=True, slots=True)
class Archived:
    """The parts that a run has archived, and why it ended before the next one: None if no other is old enough."""

    manifests: Sequence[Manifest]
    refused: str | None = None


def archive(
    connection: Connection,
    folder: Path,
    *,
    before: datetime,
    dry_run: bool = False,
    report: Callable[[str], None] = lambda _line: None,
    pause_s: float = schema.PAUSE_S,
) -> Archived:
    """Archive the parts that ended before this time, oldest first. The caller holds the migration lock. Raises SetupError."""
    done = (
        [] if dry_run else [_finish(connection, folder, manifest, pause_s) for manifest in _begun(connection, folder)]
    )
    parts = read_parts(connection)
    if not parts:
        raise SetupError("payments are in one table: okane partitions --convert makes table partitions")
    for part in parts[:-1]:  # one takes new payments, however old it is
        if part.end > before:
            break
        if (obstacle := part_archive.obstacle(connection, part, before=before)) is not None:
            return Archived(done, f"{part.suffix} stays: {obstacle}")
        report(f"{'would archive' if dry_run else 'archiving'} {part.suffix}, to {part.end.isoformat()}")
        if not dry_run:
            done.append(_finish(connection, folder, _write(connection, folder, part), pause_s))
    return Archived(done)


def _begun(connection: Connection, folder: Path) -> Sequence[Manifest]:
    """Return the manifests of parts that an earlier run has begun to detach."""
    manifests = []
    for suffix in part_archive.left_suffixes(connection):
        manifest = files.read_manifest(folder, suffix)
        if manifest is None:
            raise SetupError(
                f"an earlier run has detached the table partition {suffix}, and {folder} has no manifest of it: give the"
                " folder of that run"
            )
        manifests.append(manifest)
    return manifests


def _write(connection: Connection, folder: Path, part: Part) -> Manifest:
    """Write the files of a part, read them back, and compare; then write the manifest."""
    files.remove_manifest(folder, part.suffix)
    with part_archive.snapshot(connection):
        tables = {
            parent: files.write_table(
                folder,
                part.table(parent),
                part_archive.columns_of(connection, part.table(parent)),
                part_archive.read_rows(connection, part, parent),
            )
            for parent in TABLES
        }
        manifest = Manifest(part, tables)
        if not _is_archived(connection, folder, manifest):
            raise SetupError(
                f"the files of {part.suffix} in {folder} do not have the rows that were written: check the disk"
            )
    files.write_manifest(folder, manifest, schema_version=schema.VERSION)
    return manifest


def _finish(connection: Connection, folder: Path, manifest: Manifest, pause_s: float) -> Manifest:
    """Delete the keys of a part, detach it, compare it with its files, and drop it."""
    part = manifest.part
    if "payments" in part_archive.places(connection, part):
        part_archive.delete_keys(connection, part)
    patiently(lambda: part_archive.detach(connection, part), pause_s)
    # A backup of these tables, which began before, may read them for long.
    drop = partial(part_archive.drop_if, connection, part, lambda: _is_archived(connection, folder, manifest))
    if not patiently(drop, pause_s):
        files.remove_manifest(folder, part.suffix)
        raise SetupError(f"{part.suffix} differs from its files in {folder}: it was attached again, run this once more")
    return manifest


def _is_archived(connection: Connection, folder: Path, manifest: Manifest) -> bool:
    return all(
        files.holds(
            folder,
            manifest.tables[parent],
            part_archive.columns_of(connection, manifest.part.table(parent)),
            part_archive.read_rows(connection, manifest.part, parent),
        )
        for parent in TABLES
    )
