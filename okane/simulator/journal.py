"""The journals of the mock provider: append-only files with one JSON line per charge, and per operation.

Promise: an entry whose `append` returned survives kill -9 and power loss; concurrent ones share their fsyncs, and the
event loop never waits for the disk. Memory holds a key and a file offset per charge, not the line: 160 MB for a million
charges.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, ClassVar, Generic, Protocol, Self, TypeVar

from okane.durable_files import sync

_CHUNK_BYTES = 1 << 20
_encode = json.JSONEncoder(separators=(",", ":")).encode
# The shape of `Charge.to_line`. Parsing each line as JSON makes a restart half as long again.
_LINE = re.compile(rb'\{"key":("(?:[^"\\]|\\.)*"),"payment_id":.*,"status":"(captured|authorized|declined)",.*\}\n')


class JournalError(Exception):
    """The journal cannot be used: another process owns it, it is damaged, or the disk failed."""


class Entry(Protocol):
    """One line of a journal. `key` is unique in it."""

    @property
    def key(self) -> str: ...

    @property
    def status(self) -> str: ...

    def to_line(self) -> bytes: ...


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One line of the journal: the decision for one idempotency key. `at` and `capture_before` are UTC, ISO 8601.

    An `authorized` charge stays so here: its captures and voids have a journal of their own.
    """

    key: str
    payment_id: str
    amount: int  # minor units of `currency`
    currency: str
    status: str  # "captured", "authorized" or "declined"
    provider_ref: str
    at: str
    code: str | None = None
    capture_before: str | None = None

    def to_line(self) -> bytes:
        # Written out: dataclasses.asdict copies deeply, at four times the cost of the rest.
        fields = {
            "key": self.key,
            "payment_id": self.payment_id,
            "amount": self.amount,
            "currency": self.currency,
            "status": self.status,
            "provider_ref": self.provider_ref,
            "at": self.at,
            "code": self.code,
        }
        if self.capture_before is not None:
            fields["capture_before"] = self.capture_before
        return encoded_line(fields)

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        """Parse a line of `to_line`. Raises ValueError or TypeError."""
        return cls(**json.loads(line))

    def same_request(self, *, payment_id: str, amount: int, currency: str) -> bool:
        return (self.payment_id, self.amount, self.currency) == (payment_id, amount, currency)

    @property
    def is_manual(self) -> bool:
        """True if the charge was asked for with a capture of its own."""
        return self.capture_before is not None

    def age_s(self, now: datetime) -> float:
        return (now - datetime.fromisoformat(self.at)).total_seconds()


class EntryJournal(Generic[E]):
    """An open journal. `counts` holds the number of entries by status."""

    shape: ClassVar[re.Pattern[bytes]]  # of a line, with its key and its status

    def __init__(self, file: BinaryIO, offsets: dict[str, int], counts: Counter[str], size: int) -> None:
        """Internal: `open` is the constructor."""
        self.counts = counts
        self._file = file
        self._offsets = offsets
        self._written = size  # bytes handed out to appends
        self._durable = size  # bytes known to be on the disk
        self._fresh: dict[str, E] = {}  # appended, perhaps not yet in the file
        self._batch: list[tuple[E, bytes]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._flusher: asyncio.Task[None] | None = None
        self._failure: JournalError | None = None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or create `path`, cut off a torn last line, index the rest. Raises JournalError.

        Blocks: about five seconds for a million charges.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not O_APPEND: a line that was cut by a failed write has to be overwritten.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b", buffering=0)
        try:
            _lock(file, path)
            offsets, counts, size = _read_index(file, path, cls.shape)
            file.truncate(size)
            os.fsync(file.fileno())
            sync(path.parent)
        except BaseException:
            file.close()
            raise
        return cls(file, offsets, counts, size)

    def __len__(self) -> int:
        return len(self._offsets)

    def parse(self, line: bytes) -> E:
        """Return the entry of a line."""
        raise NotImplementedError

    def find(self, key: str) -> E | None:
        """Return the entry under `key`, which may not be durable yet: call `durable()` before answering."""
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh
        offset = self._offsets.get(key)
        return None if offset is None else self.parse(self._read_line(offset))

    async def append(self, entry: E) -> None:
        """Write `entry` and wait until it is on disk. The key must be new. Raises JournalError when the disk fails.

        The entry counts from the call on (`find` sees it): a second request for the key cannot slip in between.
        """
        if self._failure is not None:
            raise self._failure
        assert entry.key not in self._offsets, "one idempotency key is executed once"
        line = entry.to_line()
        self._offsets[entry.key] = self._written
        self._written += len(line)
        self._fresh[entry.key] = entry
        self.counts[entry.status] += 1
        self._batch.append((entry, line))
        await self.durable()

    async def durable(self) -> None:
        """Wait until everything appended so far is on the disk. Raises JournalError when it will never be."""
        if self._failure is not None:
            raise self._failure
        if self._durable == self._written:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        if self._flusher is None:
            self._flusher = asyncio.create_task(self._flush())
        await waiter

    async def lines(self, containing: bytes = b"", *, start: int = 0) -> AsyncIterator[bytes]:
        """Yield the durable lines so far in blocks of up to 1 MiB, from the one at byte `start` on; with `containing`,
        only lines that hold these bytes."""
        position, end = start, self._durable
        while position < end:
            block = await asyncio.to_thread(os.pread, self._file.fileno(), min(_CHUNK_BYTES, end - position), position)
            block = block[: block.rfind(b"\n") + 1]
            assert block, "no line is longer than a block"
            position += len(block)
            if containing:
                block = b"".join(line for line in block.splitlines(keepends=True) if containing in line)
            if block:
                yield block

    def read_lines(self) -> Iterator[bytes]:
        """Return the lines of the file. Blocks."""
        return _lines_of(self._file)

    async def aclose(self) -> None:
        """Flush and close the file."""
        with contextlib.suppress(JournalError):  # `append` has raised it to its caller
            await self.durable()
        if self._flusher is not None:
            await self._flusher
        self._file.close()

    async def _flush(self) -> None:
        """Write the waiting lines, with one fsync for all of them, until none is left. One of these runs at a time."""
        try:
            while self._waiting:
                batch, self._batch = self._batch, []
                waiting, self._waiting = self._waiting, []
                data = b"".join(line for _, line in batch)
                try:
                    await asyncio.to_thread(self._write, data)
                except OSError as error:
                    self._fail(JournalError(f"cannot write the journal: {error}"), waiting)
                    return
                self._durable += len(data)
                for entry, _ in batch:
                    del self._fresh[entry.key]
                for waiter in waiting:
                    if not waiter.done():  # its request was cancelled
                        waiter.set_result(None)
        finally:
            self._flusher = None

    def _fail(self, failure: JournalError, waiting: list[asyncio.Future[None]]) -> None:
        """Stop executing: after a failed fsync the content of the disk is unknown until a restart reads it."""
        self._failure = failure
        for waiter in waiting + self._waiting:
            if not waiter.done():
                waiter.set_exception(failure)
        self._waiting = []

    def _write(self, data: bytes) -> None:
        position = self._durable
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, position)
            position += written
            view = view[written:]
        os.fsync(self._file.fileno())

    def _read_line(self, offset: int) -> bytes:
        data = os.pread(self._file.fileno(), 4096, offset)
        return data[: data.index(b"\n")]


class Journal(EntryJournal[Charge]):
    """The journal of the charges."""

    shape = _LINE

    def parse(self, line: bytes) -> Charge:
        return Charge.from_line(line)


def encoded_line(fields: Mapping[str, object]) -> bytes:
    """Return the line of an entry."""
    return _encode(fields).encode() + b"\n"


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JournalError(f"{path} belongs to another running provider") from error


def _read_index(file: BinaryIO, path: Path, shape: re.Pattern[bytes]) -> tuple[dict[str, int], Counter[str], int]:
    """Offsets by key, entries by status, and the end of the last whole line."""
    offsets: dict[str, int] = {}
    counts: Counter[str] = Counter()
    position = 0
    torn_at: int | None = None
    for line in _lines_of(file):
        if torn_at is not None:
            raise JournalError(f"{path} is damaged at byte {torn_at}, before its last line")
        try:
            key, status = _key_and_status(line, shape)
        except ValueError:
            torn_at = position
        else:
            offsets[key] = position
            counts[status] += 1
        position += len(line)
    return offsets, counts, position if torn_at is None else torn_at


def _key_and_status(line: bytes, shape: re.Pattern[bytes]) -> tuple[str, str]:
    """Parse a whole line of this journal. Raises ValueError."""
    match = shape.fullmatch(line)
    if match is None:
        raise ValueError("not a line of the journal")
    key, status = match.groups()
    return json.loads(key) if b"\\" in key else key[1:-1].decode(), status.decode()


def _lines_of(file: BinaryIO) -> Iterator[bytes]:
    with open(os.dup(file.fileno()), "rb", buffering=_CHUNK_BYTES) as reader:  # noqa: PTH123 - a descriptor, not a path
        reader.seek(0)
        yield from reader
