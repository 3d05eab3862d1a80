"""The stream commands of the simulated Redis, and its model of streams, groups and pending lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.simulation.lua import ReplyError

Id = tuple[int, int]
Reply = Any  # int, bytes, None, bool, or a list of these

_START: Final = (0, 0)
_END: Final = ((1 << 64) - 1, (1 << 64) - 1)


@dataclass(slots=True)
class Pending:
    """One entry in a group's pending list."""

    consumer: bytes
    delivered_ms: int
    count: int


@dataclass(slots=True)
class Seen:
    """One consumer of a group."""

    seen_ms: int
    active_ms: int = -1


@dataclass(slots=True)
class Group:
    """One consumer group of one stream."""

    last: Id
    pending: dict[Id, Pending] = field(default_factory=dict)
    consumers: dict[bytes, Seen] = field(default_factory=dict)

    def look(self, consumer: bytes, now_ms: int) -> Seen:
        """Return the consumer, created if missing, with its last-seen time set."""
        seen = self.consumers.setdefault(consumer, Seen(now_ms))
        seen.seen_ms = now_ms
        return seen


@dataclass(slots=True)
class Entries:
    """One stream; `entries` is in the order of the ids."""

    entries: dict[Id, list[bytes]] = field(default_factory=dict)
    last: Id = _START
    groups: dict[bytes, Group] = field(default_factory=dict)


class Watch:
    """Hooks for changes of entries. Every method does nothing: override those you need."""

    def added(self, key: bytes, entry: Id) -> None: ...
    def delivered(self, key: bytes, entry: Id, consumer: bytes) -> None: ...
    def acknowledged(self, key: bytes, entry: Id, owner: bytes, deliveries: int) -> None: ...
    def moved(self, key: bytes, entry: Id, source: bytes, target: bytes, idle_ms: int) -> None: ...
    def deleting(self, key: bytes, entry: Id, fields: Sequence[bytes], *, pending: bool, trimmed: bool) -> None: ...


class StreamCommands:
    """The commands that begin with X."""

    keys: dict[bytes, Entries | dict[bytes, float]]
    signalled: dict[bytes, None]
    watch: Watch

    @property
    def now_ms(self) -> int:
        raise NotImplementedError

    def _entries(self, key: bytes) -> Entries | None:
        value = self.keys.get(key)
        if value is not None and not isinstance(value, Entries):
            raise ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def _group(self, key: bytes, name: bytes, suffix: str = "") -> tuple[Entries, Group]:
        stream = self._entries(key)
        group = stream.groups.get(name) if stream else None
        if stream is None or group is None:
            raise ReplyError(f"NOGROUP No such key '{key.decode()}' or consumer group '{name.decode()}'{suffix}")
        return stream, group

    def xadd(self, arguments: Sequence[bytes]) -> bytes:
        key, at, longest = arguments[1], 2, None
        if arguments[at].upper() == b"MAXLEN":
            at += 2 if arguments[at + 1] in (b"~", b"=") else 1
            longest = int(arguments[at])
            at += 1
        if arguments[at] != b"*" and _id(arguments[at]) == _START:
            raise ReplyError("ERR The ID specified in XADD must be greater than 0-0")
        stream = self._entries(key)
        if stream is None:
            stream = self.keys[key] = Entries()
        now_ms = self.now_ms
        entry = (now_ms, 0) if now_ms > stream.last[0] else (stream.last[0], stream.last[1] + 1)
        if arguments[at] != b"*":
            entry = _id(arguments[at])
            if entry <= stream.last:
                raise ReplyError("ERR The ID specified in XADD is equal or smaller than the target stream top item")
        stream.entries[entry] = list(arguments[at + 1 :])
        stream.last = entry
        self.signalled[key] = None
        self.watch.added(key, entry)
        while longest is not None and len(stream.entries) > longest:
            oldest = next(iter(stream.entries))
            self.watch.deleting(key, oldest, stream.entries[oldest], pending=_is_pending(stream, oldest), trimmed=True)
            del stream.entries[oldest]
        return _text(entry)

    def xlen(self, arguments: Sequence[bytes]) -> int:
        stream = self._entries(arguments[1])
        return len(stream.entries) if stream else 0

    def xrange(self, arguments: Sequence[bytes]) -> list[Reply]:
        stream = self._entries(arguments[1])
        limit = int(arguments[5]) if len(arguments) > 5 else None
        if stream is None:
            return []
        first, last = _bound(arguments[2], _START), _bound(arguments[3], _END)
        found = [_reply(entry, fields) for entry, fields in stream.entries.items() if first <= entry <= last]
        return found[:limit]

    def xdel(self, arguments: Sequence[bytes]) -> int:
        stream = self._entries(arguments[1])
        if stream is None:
            return 0
        deleted = 0
        for entry in map(_id, arguments[2:]):
            if entry in stream.entries:
                pending = _is_pending(stream, entry)
                self.watch.deleting(arguments[1], entry, stream.entries[entry], pending=pending, trimmed=False)
                del stream.entries[entry]
                deleted += 1
        return deleted

    def xack(self, arguments: Sequence[bytes]) -> int:
        stream = self._entries(arguments[1])
        group = stream.groups.get(arguments[2]) if stream else None
        if group is None:
            return 0
        acknowledged = 0
        for entry in map(_id, arguments[3:]):
            pending = group.pending.pop(entry, None)
            if pending is not None:
                self.watch.acknowledged(arguments[1], entry, pending.consumer, pending.count)
                acknowledged += 1
        return acknowledged

    def xgroup(self, arguments: Sequence[bytes]) -> Reply:
        what, key, name = arguments[1].upper(), arguments[2], arguments[3]
        stream = self._entries(key)
        if what == b"CREATE":
            if stream is None:
                if b"MKSTREAM" not in [each.upper() for each in arguments[5:]]:
                    raise ReplyError("ERR The XGROUP subcommand requires the key to exist.")
                stream = self.keys[key] = Entries()
            if name in stream.groups:
                raise ReplyError("BUSYGROUP Consumer Group name already exists")
            stream.groups[name] = Group(stream.last if arguments[4] == b"$" else _id(arguments[4]))
            return b"OK"
        if what == b"SETID":
            self._group(key, name)[1].last = _id(arguments[4])
            return b"OK"
        if what == b"DELCONSUMER":
            if stream is None:
                raise ReplyError("ERR The XGROUP subcommand requires the key to exist.")
            _, group = self._group(key, name)
            held = [entry for entry, pending in group.pending.items() if pending.consumer == arguments[4]]
            for entry in held:
                del group.pending[entry]
            group.consumers.pop(arguments[4], None)
            return len(held)
        raise ReplyError(f"ERR unknown subcommand '{what.decode()}'")

    def xreadgroup(self, arguments: Sequence[bytes]) -> Reply:
        group_name, consumer, at, count = arguments[2], arguments[3], 4, None
        while (option := arguments[at].upper()) != b"STREAMS":
            if option == b"COUNT":
                count = int(arguments[at + 1])
            at += 2
        rest = arguments[at + 1 :]
        wanted = list(zip(rest[: len(rest) // 2], rest[len(rest) // 2 :], strict=True))
        for key, _ in wanted:
            self._group(key, group_name, " in XREADGROUP with GROUP option")
        answer = []
        for key, since in wanted:
            stream, group = self._group(key, group_name)
            seen = group.look(consumer, self.now_ms)
            if since == b">":
                if found := self._deliver(key, stream, group, consumer, seen, count):
                    answer.append([key, found])
            else:
                answer.append([key, self._history(stream, group, consumer, _id(since), count)])
        return answer or None

    def _deliver(
        self, key: bytes, stream: Entries, group: Group, consumer: bytes, seen: Seen, count: int | None
    ) -> list[Reply]:
        if stream.last <= group.last:
            return []
        found: list[Reply] = []
        for entry, fields in stream.entries.items():
            if entry <= group.last:
                continue
            if count is not None and len(found) >= count:
                break
            group.last = entry
            group.pending[entry] = Pending(consumer, self.now_ms, 1)
            found.append(_reply(entry, fields))
            self.watch.delivered(key, entry, consumer)
        if found:
            seen.active_ms = self.now_ms
        return found

    def _history(self, stream: Entries, group: Group, consumer: bytes, since: Id, count: int | None) -> list[Reply]:
        found: list[Reply] = []
        for entry in sorted(group.pending):
            pending = group.pending[entry]
            if entry > since and pending.consumer == consumer and (count is None or len(found) < count):
                fields = stream.entries.get(entry)
                if fields is not None:
                    pending.delivered_ms, pending.count = self.now_ms, pending.count + 1
                found.append([_text(entry), fields])
        return found

    def xpending(self, arguments: Sequence[bytes]) -> list[Reply]:
        _, group = self._group(arguments[1], arguments[2])
        if len(arguments) == 3:
            counts: dict[bytes, int] = {}
            for pending in group.pending.values():
                counts[pending.consumer] = counts.get(pending.consumer, 0) + 1
            if not counts:
                return [0, None, None, None]
            consumers = [[name, str(counts[name]).encode()] for name in sorted(counts)]
            return [len(group.pending), _text(min(group.pending)), _text(max(group.pending)), consumers]
        first, last, count = _bound(arguments[3].lstrip(b"("), _START), _bound(arguments[4], _END), int(arguments[5])
        if first == last:
            entries = [first] if first in group.pending else []
        else:
            entries = [entry for entry in sorted(group.pending) if first <= entry <= last]
        if arguments[3][:1] == b"(":
            entries = [entry for entry in entries if entry > first]
        about = [(entry, group.pending[entry]) for entry in entries]
        if len(arguments) > 6:
            about = [(entry, pending) for entry, pending in about if pending.consumer == arguments[6]]
        now_ms = self.now_ms
        return [
            [_text(entry), pending.consumer, max(0, now_ms - pending.delivered_ms), pending.count]
            for entry, pending in about[:count]
        ]

    def xclaim(self, arguments: Sequence[bytes]) -> list[Reply]:
        key, consumer, min_idle_ms = arguments[1], arguments[3], int(arguments[4])
        stream, group = self._group(key, arguments[2])
        ids = [text for text in arguments[5:] if text[:1].isdigit() and b"-" in text]
        options = [each.upper() for each in arguments[5 + len(ids) :]]
        just_ids = b"JUSTID" in options
        idle_ms = int(options[options.index(b"IDLE") + 1]) if b"IDLE" in options else 0
        seen = group.look(consumer, self.now_ms)
        answer: list[Reply] = []
        for text in ids:
            entry = _id(text)
            pending = group.pending.get(entry)
            if pending is None:
                continue
            if entry not in stream.entries:
                del group.pending[entry]
                continue
            if min_idle_ms and self.now_ms - pending.delivered_ms < min_idle_ms:
                continue
            self._take_over(key, entry, pending, consumer, count=not just_ids)
            pending.delivered_ms -= idle_ms
            if b"RETRYCOUNT" in options:
                pending.count = int(options[options.index(b"RETRYCOUNT") + 1])
            seen.active_ms = self.now_ms
            answer.append(_text(entry) if just_ids else _reply(entry, stream.entries[entry]))
        return answer

    def xautoclaim(self, arguments: Sequence[bytes]) -> list[Reply]:
        key, consumer, min_idle_ms, start = arguments[1], arguments[3], int(arguments[4]), _bound(arguments[5], _START)
        stream, group = self._group(key, arguments[2])
        just_ids = arguments[-1].upper() == b"JUSTID"
        rest = [each.upper() for each in arguments[6:]]
        left = int(rest[rest.index(b"COUNT") + 1]) if b"COUNT" in rest else 100
        seen = group.look(consumer, self.now_ms)
        looks = left * 10
        claimed: list[Reply] = []
        gone: list[Reply] = []
        cursor = _START
        for entry in sorted(group.pending):
            if entry < start:
                continue
            if not looks or not left:
                cursor = entry
                break
            looks -= 1
            pending = group.pending[entry]
            if entry not in stream.entries:
                del group.pending[entry]
                gone.append(_text(entry))
                left -= 1
            elif self.now_ms - pending.delivered_ms >= min_idle_ms:
                self._take_over(key, entry, pending, consumer, count=not just_ids)
                seen.active_ms = self.now_ms
                claimed.append(_text(entry) if just_ids else _reply(entry, stream.entries[entry]))
                left -= 1
        return [_text(cursor), claimed, gone]

    def _take_over(self, key: bytes, entry: Id, pending: Pending, consumer: bytes, *, count: bool) -> None:
        if pending.consumer != consumer:
            self.watch.moved(key, entry, pending.consumer, consumer, self.now_ms - pending.delivered_ms)
        pending.consumer, pending.delivered_ms = consumer, self.now_ms
        pending.count += count

    def xinfo(self, arguments: Sequence[bytes]) -> list[Reply]:
        what, key = arguments[1].upper(), arguments[2]
        stream = self._entries(key)
        if stream is None:
            raise ReplyError("ERR no such key")
        if what == b"STREAM":
            return _about_stream(stream)
        if what == b"GROUPS":
            return [_about_group(name, stream.groups[name]) for name in sorted(stream.groups)]
        group = stream.groups.get(arguments[3])
        if group is None:
            raise ReplyError(f"NOGROUP No such consumer group '{arguments[3].decode()}' for key name '{key.decode()}'")
        return [_about_consumer(name, group, self.now_ms) for name in sorted(group.consumers)]


def _about_stream(stream: Entries) -> list[Reply]:
    entries = [_reply(entry, fields) for entry, fields in stream.entries.items()]
    return [
        *(b"length", len(stream.entries), b"radix-tree-keys", 1, b"radix-tree-nodes", 2),
        *(b"last-generated-id", _text(stream.last), b"groups", len(stream.groups)),
        *(b"first-entry", entries[0] if entries else None, b"last-entry", entries[-1] if entries else None),
    ]


def _about_group(name: bytes, group: Group) -> list[Reply]:
    return [
        *(b"name", name, b"consumers", len(group.consumers), b"pending", len(group.pending)),
        *(b"last-delivered-id", _text(group.last), b"entries-read", None, b"lag", None),
    ]


def _about_consumer(name: bytes, group: Group, now_ms: int) -> list[Reply]:
    seen = group.consumers[name]
    held = sum(pending.consumer == name for pending in group.pending.values())
    inactive_ms = now_ms - seen.active_ms if seen.active_ms >= 0 else -1
    return [b"name", name, b"pending", held, b"idle", now_ms - seen.seen_ms, b"inactive", inactive_ms]


def _is_pending(stream: Entries, entry: Id) -> bool:
    return any(entry in group.pending for group in stream.groups.values())


def _reply(entry: Id, fields: list[bytes]) -> list[Reply]:
    return [_text(entry), fields]


def _text(entry: Id) -> bytes:
    return b"%d-%d" % entry


def _id(text: bytes) -> Id:
    ms, _, number = text.partition(b"-")
    return int(ms), int(number or 0)


def _bound(text: bytes, open_end: Id) -> Id:
    """Return one end of a range: `-` and `+` are the smallest and largest id."""
    return open_end if text in (b"-", b"+") else _id(text)
