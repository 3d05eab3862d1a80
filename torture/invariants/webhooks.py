"""Events and webhooks: I13 (none missed), I14 (order), I15 (signatures), I16 (nothing that was not asked for), I17 (the log
at rest), I18 (repeats), I19 (a dead endpoint harms no other)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from torture.history.journals import History
from torture.history.webhooks import CONFIRMED_S, Delay, Endpoint, LogRow, Received, Trouble, WebhookHistory, reported
from torture.invariants.violation import Violation

_ARRIVAL_S = 1.0  # a request that was sent before may be read so much later by a busy receiver
_SKEW_S = 300.0  # that receivers of Standard Webhooks allow
_WRITTEN_S = 2.0  # an answer is written to Postgres within this time, when nothing is wrong
_FACTOR = 2.0  # of I19
_FLOOR_S = 1.0  # a busy machine has pauses: below this a p99 is no waiting behind a dead endpoint
_FEWEST = 20  # deliveries in each of the times that are compared

Key = tuple[str, int]  # payment and version


def nothing_is_missed(history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I13: every change is in the log, and those of a subscribed type that were committed after the endpoint's creation
    was answered were accepted there, or are given up with a reason."""
    by_key = {(row.payment_id, row.version): row for row in webhooks.tables.log}
    accepted = {(one.path, one.webhook_id) for one in webhooks.received if one.accepted}
    lasting = [one for one in webhooks.endpoints if one.deleted_s is None]
    for key, type_, committed_s in _changes(history, webhooks):
        account = history.rows[key[0]].account_id
        due = [
            one
            for one in lasting
            if one.account_id == account and one.created_s < committed_s and one.subscribes(type_)
        ]
        row = by_key.get(key)
        if due and (row is None or row.type != type_):
            yield Violation("I13", _event_id(key), f"is not in the log as {type_}", repr(row))
        for one in due:
            if (one.path, _event_id(key)) not in accepted and not _given_up(webhooks, one, row):
                evidence = f"{type_}, committed at {committed_s}, {row}, {_requests(webhooks, one, _event_id(key))}"
                yield Violation("I13", _event_id(key), f"never arrived at {one.path}", evidence)


def payments_are_in_order(_history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I14: per endpoint and payment never two requests in flight, and the first acceptances in the order of versions.

    Two in flight are excused while an owner is stopped or cut off beyond its lease: it cannot take back what it has sent.
    """
    stops = [one for one in webhooks.troubles if one.cuts_off]
    by_payment: defaultdict[tuple[str, str], list[Received]] = defaultdict(list)
    for one in webhooks.received:
        by_payment[one.path, one.payment_id].append(one)
    for (path, payment_id), requests in by_payment.items():
        requests.sort(key=lambda one: one.began_s)
        for earlier, later in _overlapping(requests):
            if not _troubled(stops, earlier.began_s, later.began_s):
                yield Violation("I14", payment_id, f"two requests in flight to {path}", f"{earlier}, {later}")
        for earlier, later in _disordered(requests):
            what = f"version {later.version} was accepted at {path} before version {earlier.version}"
            yield Violation("I14", payment_id, what, f"{earlier}, {later}")


def requests_are_signed(_history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I15: every request verifies under a secret that is valid then; one id has one body."""
    endpoints = {one.path: one for one in webhooks.endpoints}
    bodies: dict[tuple[str, str], str] = {}
    for one in webhooks.received:
        wrong = one.broken or _wrong_signature(one, endpoints.get(one.path), webhooks.stalls)
        if not wrong and bodies.setdefault((one.path, one.webhook_id), one.digest) != one.digest:
            wrong = "has another body than before"
        if not wrong and not one.webhook_id == one.event_id == _event_id((one.payment_id, one.version)):
            wrong = "has another id than its event"
        if wrong:
            yield Violation("I15", one.webhook_id, f"to {one.path}: {wrong}", repr(one))


def nothing_uncalled_arrives(history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I16: nothing begins after a DELETE was answered; nothing of another account, nor of a type not subscribed to."""
    endpoints = {one.path: one for one in webhooks.endpoints}
    stops = [one for one in webhooks.troubles if one.cuts_off]
    for one in webhooks.received:
        endpoint = endpoints.get(one.path)
        if endpoint is None or one.broken:
            continue  # a creation without an answer, or I15's
        deleted_s = endpoint.deleted_s
        row = history.rows.get(one.payment_id)
        if (
            deleted_s is not None
            and one.began_s > _delayed(webhooks.stalls, deleted_s, _ARRIVAL_S)
            and not _troubled(stops, deleted_s, deleted_s)
        ):
            yield Violation("I16", one.webhook_id, f"began at {one.path} after its deletion", f"{one}, {endpoint}")
        elif one.account_id != endpoint.account_id or (row is not None and row.account_id != endpoint.account_id):
            yield Violation("I16", one.webhook_id, f"of another account, to {one.path}", f"{one}, {row}, {endpoint}")
        elif not one.type.startswith("webhook_endpoint.") and not endpoint.subscribes(one.type):
            yield Violation("I16", one.webhook_id, f"{one.type} was not subscribed to at {one.path}", repr(endpoint))


def log_is_at_rest(_history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I17: the outbox is empty, every queue is at the last position, none waits; positions are dense, no event is double."""
    tables = webhooks.tables
    if tables.outbox_changes:
        yield Violation("I17", "webhook_outbox", f"{tables.outbox_changes} rows are left", "")
    for endpoint, done_to in tables.done_to.items():
        if done_to != tables.last:
            yield Violation("I17", endpoint, f"is done to {done_to} of {tables.last}", "")
    for endpoint, count in tables.waiting.items():
        if endpoint in tables.done_to:
            yield Violation("I17", endpoint, f"{count} deliveries wait", "")
    if [row.position for row in tables.log] != list(range(1, tables.last + 1)):
        yield Violation(
            "I17", "webhook_events", "positions are not dense", f"{len(tables.log)} rows, last {tables.last}"
        )
    for key, count in Counter((row.payment_id, row.version) for row in tables.log).items():
        if count > 1:
            yield Violation("I17", _event_id(key), f"is {count} times in the log", "")


def repeats_have_a_reason(_history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I18: what was accepted is sent again only if its result could not be written: the owner, the receiver or Postgres
    was in trouble right then."""
    by_event: defaultdict[tuple[str, str], list[Received]] = defaultdict(list)
    for one in webhooks.received:
        by_event[one.path, one.webhook_id].append(one)
    unlimited = [one for one in webhooks.troubles if one.most is None]
    left = {one: one.most for one in webhooks.troubles if one.most is not None}
    for (path, webhook_id), requests in by_event.items():
        requests.sort(key=lambda one: one.began_s)
        for number, one in enumerate(requests[:-1]):
            written_s = _delayed(webhooks.delays, one.ended_s, _WRITTEN_S)
            if (
                one.accepted
                and not _troubled(unlimited, one.began_s, written_s)
                and not _takes_one(left, one.began_s, written_s)
            ):
                evidence = f"{one}, {requests[number + 1]}"
                yield Violation("I18", webhook_id, f"was accepted at {path}, and sent again for no reason", evidence)
                break


def dead_endpoints_harm_no_other(history: History, webhooks: WebhookHistory) -> Iterator[Violation]:
    """I19: beside an endpoint that never answers, the p99 of the others is within twice theirs without it."""
    samples = _samples(history, webhooks)
    if samples is None:
        return
    alone_s, beside_s = (sorted(one)[int(len(one) * 0.99)] for one in samples)
    if beside_s > _FACTOR * max(alone_s, _FLOOR_S / _FACTOR):
        what = f"the others' p99 was {beside_s:.2f} s beside a dead endpoint, {alone_s:.2f} s without it"
        yield Violation("I19", webhooks.comparison.dead_path if webhooks.comparison else "", what, "")


Check = Callable[[History, WebhookHistory], Iterator[Violation]]


def of_webhooks(check: Check) -> Callable[[History], Sequence[Violation]]:
    """Return a check of a history, which finds nothing in one without webhooks."""
    return lambda history: [] if history.webhooks is None else list(check(history, history.webhooks))


def count_due(history: History) -> int:
    """Return how many changes were due at an endpoint, once for each."""
    if history.webhooks is None:
        return 0
    webhooks = history.webhooks
    return sum(
        one.deleted_s is None
        and one.account_id == history.rows[key[0]].account_id
        and one.created_s < committed_s
        and one.subscribes(type_)
        for key, type_, committed_s in _changes(history, webhooks)
        for one in webhooks.endpoints
    )


def count_received(history: History) -> int:
    """Return how many requests arrived."""
    return 0 if history.webhooks is None else len(history.webhooks.received)


def count_logged(history: History) -> int:
    """Return how many events are in the log."""
    return 0 if history.webhooks is None else len(history.webhooks.tables.log)


def count_compared(history: History) -> int:
    """Return how many deliveries I19 compares."""
    samples = None if history.webhooks is None else _samples(history, history.webhooks)
    return 0 if samples is None else sum(map(len, samples))


def _changes(history: History, webhooks: WebhookHistory) -> Iterator[tuple[Key, str, float]]:
    """Yield the changes that are reported, with their types, and when each was committed."""
    committed_s = webhooks.tables.committed_s
    for payment_id, events in history.events.items():
        if payment_id in history.rows:
            for change, type_ in reported(events):
                key = payment_id, change.version
                yield key, type_, committed_s.get(key, change.at_s)


def _given_up(webhooks: WebhookHistory, endpoint: Endpoint, row: LogRow | None) -> bool:
    return row is not None and bool(webhooks.tables.given_up.get((endpoint.id, row.position), "").strip())


def _requests(webhooks: WebhookHistory, endpoint: Endpoint, webhook_id: str) -> Sequence[Received]:
    return [one for one in webhooks.received if (one.path, one.webhook_id) == (endpoint.path, webhook_id)]


def _overlapping(requests: Sequence[Received]) -> Iterator[tuple[Received, Received]]:
    """Yield requests that began while an earlier one was in flight. They come in the order of their beginnings."""
    longest: Received | None = None
    for one in requests:
        if longest is not None and one.began_s < longest.ended_s:
            yield longest, one
        if longest is None or one.ended_s > longest.ended_s:
            longest = one


def _disordered(requests: Sequence[Received]) -> Iterator[tuple[Received, Received]]:
    """Yield pairs of which the second, of a higher version, was accepted first."""
    first: dict[int, Received] = {}
    for one in sorted((one for one in requests if one.accepted), key=lambda one: one.ended_s):
        first.setdefault(one.version, one)
    newest: Received | None = None
    for one in first.values():
        if newest is not None and one.version < newest.version:
            yield one, newest
        newest = one if newest is None or one.version > newest.version else newest


def _wrong_signature(one: Received, endpoint: Endpoint | None, stalls: Sequence[Delay]) -> str:
    if endpoint is None:
        return ""  # a creation without an answer: its secret was never seen
    if not one.signed_by:
        return "no secret verifies it"
    if abs(one.skew_s) > _SKEW_S:
        return f"its timestamp is {one.skew_s:.0f} s off"
    expected = sum(_delayed(stalls, secret.known_s, CONFIRMED_S) < one.began_s for secret in endpoint.secrets) - 1
    return "is signed with an older secret alone" if max(one.signed_by) < expected else ""


def _troubled(troubles: Sequence[Trouble], since_s: float, until_s: float) -> bool:
    return any(one.since_s <= until_s and since_s <= one.until_s for one in troubles)


def _takes_one(left: dict[Trouble, int], since_s: float, until_s: float) -> bool:
    """Take one from what a trouble may still explain; return False if there is none."""
    for trouble, count in left.items():
        if count and _troubled([trouble], since_s, until_s):
            left[trouble] -= 1
            return True
    return False


def _delayed(delays: Sequence[Delay], since_s: float, within_s: float) -> float:
    """Return when something is done at the latest that takes `within_s`, and longer by the delays that it meets."""
    done_s = since_s + within_s
    for one in sorted(delays, key=lambda one: one.since_s):
        if one.since_s <= done_s and since_s <= one.until_s:
            done_s += one.by_s
    return done_s


def _stalled_s(stalls: Sequence[Delay], since_s: float, until_s: float) -> float:
    return sum(max(0.0, min(one.until_s, until_s) - max(one.since_s, since_s)) for one in stalls)


def _samples(history: History, webhooks: WebhookHistory) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the seconds from commit to acceptance at the other endpoints in both times, without stalls of the machine;
    None if there are too few."""
    if webhooks.comparison is None:
        return None
    alone, beside = webhooks.comparison.alone, webhooks.comparison.beside_dead
    lasting = {one.path for one in webhooks.endpoints if one.deleted_s is None} - {webhooks.comparison.dead_path}
    samples: tuple[list[float], list[float]] = ([], [])
    accepted: Mapping[Key, list[Received]] = defaultdict(list)
    for one in webhooks.received:
        if one.accepted and one.path in lasting:
            accepted[one.payment_id, one.version].append(one)
    for key, _, committed_s in _changes(history, webhooks):
        for number, (since_s, until_s) in enumerate((alone, beside)):
            if since_s <= committed_s < until_s:
                first: dict[str, float] = {}
                for one in accepted.get(key, ()):
                    first[one.path] = min(one.ended_s, first.get(one.path, float("inf")))
                samples[number].extend(
                    ended_s - committed_s - _stalled_s(webhooks.stalls, committed_s, ended_s)
                    for ended_s in first.values()
                )
    return samples if min(map(len, samples)) >= _FEWEST else None


def _event_id(key: Key) -> str:
    return f"evt_{key[0].replace('-', '')}_{key[1]}"
