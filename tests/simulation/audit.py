"""The invariants I1 to I10, and those of providers, over all journals at the end, and sharper rules on every step in between.

The journals: the answers to clients, the charges of the provider, every row and event of the store, every entry of Redis.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from okane.payment import TERMINAL, Payment, Status
from okane.store import Event
from streams import Stream
from tests.simulation.audit_providers import ProviderAudit
from tests.simulation.network import Exchange
from tests.simulation.provider import Charge
from tests.simulation.redis import Server
from tests.simulation.redis_client import Listener
from tests.simulation.redis_streams import Entries, Group, Id, Watch
from tests.simulation.store import OPEN, MemoryDatabase, PaymentRow

MANUAL = frozenset({"retried", "late_result", "unanswered"})  # or a charge that came late, or may have
REST = TERMINAL | {Status.NEEDS_REVIEW, Status.AUTHORIZED}  # no wake-up is due; what is held has one at its end
RESULTS = frozenset({"success", "declined", "spent", "unavailable", "unknown", "pending", "deferred", "fell_back"})


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """A 2xx answer to a client."""

    account_id: str
    key: str
    payment_id: UUID
    amount_minor: int
    currency: str


class Audit(ProviderAudit, Watch, Listener):
    """The audit of one run. `found` has the violations in their order."""

    def __init__(
        self,
        database: MemoryDatabase,
        stream: Stream,
        *,
        group: str,
        lease: timedelta,
        key_lifetime_s: dict[str, float],
    ) -> None:
        super().__init__(database, key_lifetime_s=key_lifetime_s)
        self.found: list[str] = []
        self.client_answers: list[ClientAnswer] = []
        self.repairs: Counter[str] = Counter()
        self.over = False
        self._stream = stream
        self._group = group.encode()
        self._lease_ms = int(lease.total_seconds() * 1000)
        self._lanes = [key.encode() for key in stream.lane_keys]
        self._removed: list[tuple[bytes, Id, bytes]] = []
        self._acknowledged: list[tuple[bytes, Id, bytes]] = []
        self._poisoned: set[tuple[bytes, Id]] = set()
        self._scans: dict[tuple[str, bytes], bytes] = {}
        self._canceled: set[UUID] = set()
        self._looked_up: set[tuple[UUID, int]] = set()

    def report(self, what: str) -> None:
        """Note a violation."""
        if len(self.found) < 20:
            self.found.append(what)

    def canceled(self, payment: Payment) -> None:
        """Note that a client got the answer that its payment is withdrawn. Only a late charge may still appear."""
        self.repairs["canceled by hand"] += 1
        if payment.status is not Status.CANCELED:
            self.report(f"{payment.id} was answered as canceled, and is {payment.status}")
        self._canceled.add(payment.id)

    # Every step in Redis

    def moved(self, key: bytes, entry: Id, source: bytes, target: bytes, idle_ms: int) -> None:
        self.repairs["taken over"] += 1
        if idle_ms < self._lease_ms:
            self.report(
                f"{key.decode()} {entry} went from {source!r} to {target!r} after {idle_ms} ms: its lease was stolen"
            )

    def acknowledged(self, key: bytes, entry: Id, owner: bytes, deliveries: int) -> None:
        self._acknowledged.append((key, entry, owner))
        if deliveries > 1:
            self._poisoned.add((key, entry))

    def deleting(self, key: bytes, entry: Id, fields: Sequence[bytes], *, pending: bool, trimmed: bool) -> None:
        if trimmed:
            self.report(f"{key.decode()} {entry} was trimmed away")
        if key in self._lanes:
            self._removed.append((key, entry, dict(zip(fields[::2], fields[1::2], strict=True)).get(b"b", b"")))

    def replied(self, exchange: Exchange, what: str, arguments: Sequence[bytes], reply: object, server: Server) -> None:
        """Note that one request of a client has been executed."""
        acknowledged, self._acknowledged = self._acknowledged, []
        if what == "ack":
            consumer = arguments[4 + int(arguments[2])]  # after the digest, the keys and the group
            for key, entry, owner in acknowledged:
                if owner != consumer:
                    self.report(f"{key.decode()} {entry} was acked by {consumer!r}, and {owner!r} held it")
        if self._removed:
            removed, self._removed = self._removed, []
            for key, entry, body in removed:
                self._check_removed(server, key, entry, body)
        if what == "reclaim" and isinstance(reply, list) and b"last" not in arguments[9:]:
            self._check_scan(exchange, arguments, reply)

    def repeated(self, what: str) -> None:
        """Note that one call of a client was executed twice."""
        self.report(f"one call of {what} was executed twice")

    def _check_removed(self, server: Server, key: bytes, entry: Id, body: bytes) -> None:
        row = self._database.payments.get(UUID(bytes=body)) if len(body) == 16 else None
        if row is None or row.status in REST:
            return
        if row.sweep_at is not None and any(each.event == "retried" for each in self._database.events[row.id]):
            return  # retried by hand while this entry of its former life was being settled: it has another, and the sweep
        delayed = server.keys.get(self._stream.delayed_key.encode(), {})
        if isinstance(delayed, dict) and any(body in member for member in delayed):
            return
        if row.status is Status.PROCESSING and (key, entry) in self._poisoned:
            return  # poison whose payment is claimed: its holder finishes it
        self.report(f"{key.decode()} {entry} was removed, and its payment {row.id} is {row.status} without a wake-up")

    def _check_scan(self, exchange: Exchange, arguments: Sequence[bytes], reply: Sequence[object]) -> None:
        """Check that a scan goes on where it stopped: else an entry far down the list would never be taken over."""
        scan = (f"{exchange.sender.name} {exchange.sender.number}", arguments[3])
        start, cursor = arguments[7], reply[0]
        expected = self._scans.get(scan)
        # A reply that was lost, or an error, leaves the scanner where it was.
        if start == b"0-0" and expected not in (None, b"0-0") and not exchange.lose_reply:
            self.report(f"{scan[0]} starts its scan of {scan[1].decode()} again, having come to {expected!r}")
        assert isinstance(cursor, bytes)
        self._scans[scan] = cursor if not exchange.lose_reply and exchange.waiting else b"0-0"

    # Every call of the provider

    def looked_up(self, payment: Payment, _provider: str) -> None:
        """Note a look-up that is about to be made."""
        self._looked_up.add((payment.id, payment.attempts))

    def charged(self, payment: Payment, provider: str) -> None:
        """Check a charge that is about to be sent."""
        row = self._database.payments.get(payment.id)
        if payment.id in self._canceled:
            self.report(f"{payment.id} is charged after a client got the answer that it is canceled")
        if row is None or row.attempts != payment.attempts or row.status is not Status.PROCESSING:
            self.report(f"{payment.id} is charged under attempt {payment.attempts}, which does not hold it")
            return
        if (wrong := self.wrong_charge(payment, row, provider)) is not None:
            self.report(f"{payment.id} {wrong}")
        if row.lease_until is None or row.lease_until <= self._database.now():
            self.report(f"{payment.id} is charged under attempt {payment.attempts}, whose lease has run out")
        if row.execute_at is not None and self._database.now() < row.execute_at:
            self.report(f"{payment.id} is charged before its time")
        if row.expires_at is not None and self._database.events[row.id][-1].at >= row.expires_at:
            self.report(f"{payment.id} is charged under a claim that was taken after it had expired")
        before = [event for event in self._database.events[row.id] if event.attempt < payment.attempts]
        is_open = bool(before) and before[-1].status in OPEN
        if is_open and (payment.id, payment.attempts) not in self._looked_up:
            self.report(f"{payment.id} is charged again without a look-up while its outcome is open")

    # At any time

    def check_groups(self, server: Server) -> None:
        """Check that no entry is behind its group's cursor without being pending."""
        for key in self._lanes:
            stream = server.keys.get(key)
            group = stream.groups.get(self._group) if isinstance(stream, Entries) else None
            if isinstance(stream, Entries) and group is not None:
                for entry in _orphans(stream, group):
                    self.report(f"{key.decode()} {entry} will never be delivered: its group is past it")

    # At the end

    def settled(self, server: Server) -> bool:
        """Return True if everything has come to rest."""
        rows = self._database.payments.values()
        looked_up = all(row.sweep_at is None or row.status is Status.AUTHORIZED for row in rows)  # looked up for ever
        return self.payments_rest() and looked_up and not self._left(server)

    def payments_rest(self) -> bool:
        """Return True if all payments have come to rest."""
        return all(self.rests(row) for row in self._database.payments.values())

    def rests(self, row: PaymentRow) -> bool:
        """Return True if a payment is closed, or waits for a human."""
        return row.status in TERMINAL or row.status is Status.NEEDS_REVIEW

    def check_rest_without_redis(self, refused: str) -> None:
        """I5 while Redis still refuses: payments settle without it."""
        for row in self._database.payments.values():
            if row.status not in TERMINAL and row.status is not Status.NEEDS_REVIEW:
                self.report(f"I5: {row.id} is {row.status} for as long as Redis refuses {refused}")

    def conclude(self, server: Server, charges: Iterable[Charge]) -> None:
        """Check the invariants over all journals."""
        self.check_groups(server)
        captured: dict[str, list[Charge]] = defaultdict(list)
        for charge in charges:
            if charge.captured:
                captured[charge.payment_id].append(charge)
        for row in self._database.payments.values():
            self._check_money(row, captured[str(row.id)])
            self._check_events(row, self._database.events[row.id])
            for fault in self.faults(row, self._database.events[row.id], captured[str(row.id)]):
                self.report(fault)
            if not self.rests(row):
                self.report(f"I5: {row.id} is {row.status} forever")
            if row.status in TERMINAL and row.sweep_at is not None:
                self.report(f"I5: {row.id} is {row.status}, and to be looked up forever")
            self.repairs["found late"] += "charged after it was closed" in (row.last_error or "")
            if row.status is Status.NEEDS_REVIEW and not row.last_error:
                self.report(f"I5: {row.id} needs review and does not say why")
            self.repairs["scheduled"] += row.execute_at is not None
            self.repairs["expired"] += row.status is Status.CANCELED and row.last_error == "expired"
            if row.id in self._canceled and row.status not in (Status.CANCELED, Status.NEEDS_REVIEW):
                self.report(f"I6: a client got the answer that {row.id} is canceled, and it is {row.status}")
        for left in self._left(server):
            self.report(f"I10: {left}")
        self._check_told()

    def check_innocents(self, guilty: str) -> None:
        """Check that no payment but the poison was given up, in a run without other faults."""
        for row in self._database.payments.values():
            if row.idempotency_key != guilty and row.status is Status.NEEDS_REVIEW:
                self.report(f"{row.id} shares the fate of the poison: {row.last_error}")

    def check_consumers(self, server: Server, alive: Sequence[str]) -> None:
        """I10: consumers that are gone have been removed."""
        names = {name.encode() for name in alive}
        for key in self._lanes:
            stream = server.keys.get(key)
            group = stream.groups.get(self._group) if isinstance(stream, Entries) else None
            for consumer in group.consumers if group else ():
                if consumer not in names:
                    self.report(f"I10: {consumer.decode()} is long gone, and still a consumer of {key.decode()}")

    def check_unrepaired(self) -> None:
        """I11: without faults, the sweep repairs nothing."""
        for row in self._database.payments.values():
            if row.sweeps > (row.execute_at is not None):  # it wakes what is scheduled, once
                self.report(f"I11: nothing went wrong, and the sweep had to wake {row.id}")

    def _check_money(self, row: PaymentRow, captured: Sequence[Charge]) -> None:
        if len(captured) > 1:
            self.report(f"I2: {row.id} was captured {len(captured)} times: {captured}")
        if row.status is Status.SUCCESS:
            exact = [
                each for each in captured if (each.amount_minor, each.currency) == (row.amount_minor, row.currency)
            ]
            if len(exact) != 1 or exact[0].ref != row.provider_ref:
                self.report(f"I3: {row.id} is a success, and the provider captured {captured}")
        elif captured and row.status in TERMINAL:
            self.report(f"I4: {row.id} is {row.status}, and the provider captured {captured}")

    def _check_events(self, row: PaymentRow, events: Sequence[Event]) -> None:
        attempt, holder = 0, ""
        status = Status.PENDING
        for event in events:
            if event.event == "claimed":
                if event.attempt <= attempt:
                    self.report(f"I8: {row.id} was claimed under attempt {event.attempt} after {attempt}")
                attempt, holder = event.attempt, event.actor
            elif event.event in RESULTS and (event.attempt, event.actor) != (attempt, holder):
                self.report(
                    f"I8: {row.id}: {event.actor} wrote {event.event} under attempt {attempt}, which {holder} held"
                )
            if status in TERMINAL and event.status is not status and event.event not in MANUAL:
                self.report(f"I6: {row.id} went from {status} to {event.status} by {event.event}")
            status = event.status
        if attempt != row.attempts or status is not row.status:
            self.report(f"I8: {row.id} says {row.status} ({row.attempts}), its events say {status} ({attempt})")

    def _check_told(self) -> None:
        ids: dict[tuple[str, str], UUID] = {}
        for answer in self.client_answers:
            row = self._database.payments.get(answer.payment_id)
            if row is None or (row.amount_minor, row.currency) != (answer.amount_minor, answer.currency):
                self.report(f"I1: a client has the answer {answer}, and there is {row}")
            if ids.setdefault((answer.account_id, answer.key), answer.payment_id) != answer.payment_id:
                self.report(f"I7: {answer.key} led to two payments")

    def _left(self, server: Server) -> list[str]:
        left = []
        for key in self._lanes:
            stream = server.keys.get(key)
            if isinstance(stream, Entries):
                if stream.entries:
                    left.append(f"{len(stream.entries)} entries are left in {key.decode()}")
                held = sum(len(group.pending) for group in stream.groups.values())
                if held:
                    left.append(f"{held} entries are pending in {key.decode()}")
        if delayed := server.keys.get(self._stream.delayed_key.encode()):
            left.append(f"{len(delayed)} are left in the delayed set")  # type: ignore[arg-type] # a sorted set
        return left


def _orphans(stream: Entries, group: Group) -> list[Id]:
    return [entry for entry in stream.entries if entry <= group.last and entry not in group.pending]
