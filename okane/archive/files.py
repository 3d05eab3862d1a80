"""The files of an archived part: one Parquet file for each table, and a manifest that is written last.

A file is complete when the manifest names it with its rows and SHA-256; what a process that died has left is written anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from okane.durable_files import sync
from okane.errors import SetupError
from okane.store.partition_bounds import Part

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as _error:
    raise SetupError("the archive writes Parquet files: pip install 'okane[archive]'") from _error

FORMAT = 1
# The types of the columns of payments, as Parquet has them. Ids and JSON documents are texts.
_TYPES: Mapping[str, Any] = {
    "uuid": pa.string(),
    "text": pa.string(),
    "jsonb": pa.string(),
    "bytea": pa.binary(),
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "bigint": pa.int64(),
    "timestamp with time zone": pa.timestamp("us", tz="UTC"),
    "text[]": pa.list_(pa.string()),
}
Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ArchivedTable:
    """One file: its name in the folder, its rows, and its SHA-256."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a part."""

    part: Part
    tables: Mapping[str, ArchivedTable]


def schema_of(columns: Mapping[str, str]) -> Any:
    """Return the schema of a file for these columns. Raise SetupError for a type that it has no place for."""
    unknown = {name: kind for name, kind in columns.items() if kind not in _TYPES}
    if unknown:
        raise SetupError(f"the archive does not know these types: {unknown}")
    return pa.schema([pa.field(name, _TYPES[kind]) for name, kind in columns.items()])


def write_table(folder: Path, name: str, columns: Mapping[str, str], chunks: Iterable[Rows]) -> ArchivedTable:
    """Write the rows of one table, and put them on the disk; a chunk becomes a row group."""
    schema = schema_of(columns)
    path = folder / f"{name}.parquet"
    partial = path.with_suffix(".partial")
    count = 0
    with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
        for rows in chunks:
            writer.write_table(_table(schema, rows))
            count += len(rows)
    sync(partial)
    partial.rename(path)
    sync(folder)
    return ArchivedTable(path.name, count, _sha256(path))


def holds(folder: Path, archived: ArchivedTable, columns: Mapping[str, str], chunks: Iterable[Rows]) -> bool:
    """Return whether a file, as it is on the disk, has exactly these rows in their order."""
    path = folder / archived.file
    if not path.is_file() or _sha256(path) != archived.sha256:
        return False
    schema = schema_of(columns)
    groups = _row_groups(path)
    count = 0
    for rows in chunks:
        count += len(rows)
        group = next(groups, None)
        if group is None or group.schema.names != schema.names or not group.cast(schema).equals(_table(schema, rows)):
            return False
    return next(groups, None) is None and count == archived.rows


def write_manifest(folder: Path, manifest: Manifest, *, schema_version: int) -> None:
    """Write the manifest: from then on the files are complete."""
    part = manifest.part
    document = {
        "format": FORMAT,
        "schema_version": schema_version,
        "part": part.suffix,
        "from": None if part.begin is None else part.begin.isoformat(),
        "to": part.end.isoformat(),
        "tables": {
            name: {"file": one.file, "rows": one.rows, "sha256": one.sha256} for name, one in manifest.tables.items()
        },
    }
    partial = _manifest_path(folder, part.suffix).with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=2) + "\n")
    sync(partial)
    partial.rename(_manifest_path(folder, part.suffix))
    sync(folder)


def read_manifest(folder: Path, suffix: str) -> Manifest | None:
    """Return the manifest of a part, None if the folder has none. Raise SetupError for one that cannot be read."""
    path = _manifest_path(folder, suffix)
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_text())
        begin = document["from"]
        part = Part(datetime.fromisoformat(document["to"]), None if begin is None else datetime.fromisoformat(begin))
        tables = {
            name: ArchivedTable(one["file"], one["rows"], one["sha256"]) for name, one in document["tables"].items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path} is not a manifest of an archive: {error!r}") from error
    return Manifest(part, tables)


def remove_manifest(folder: Path, suffix: str) -> None:
    """Remove a manifest: its files do not count any more."""
    _manifest_path(folder, suffix).unlink(missing_ok=True)
    sync(folder)


def _manifest_path(folder: Path, suffix: str) -> Path:
    return folder / f"{suffix}.json"


def _row_groups(path: Path) -> Iterator[Any]:
    with parquet.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)


def _table(schema: Any, rows: Rows) -> Any:
    columns = zip(*rows, strict=True)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
