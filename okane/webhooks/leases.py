"""The leases of a dispatcher: its fair share of the endpoint queues, their renewal, and the changes of their endpoints.

Guarantee: nothing begins in a queue after its lease, which counts from before the statement that wrote it. A change of an
endpoint is confirmed once every request that begins follows it; for a deleted one, once none begins.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import structlog

from okane.errors import StoreUnavailable
from okane.store.webhook_endpoints import Endpoint
from okane.store.webhook_events import EventRow
from okane.store.webhook_queues import EndpointChange, Hold, LeasedQueue, Share, WebhookQueueStore
from okane.webhooks.delivery import Lease
from okane.webhooks.feed import Feed
from okane.webhooks.holds import NEVER_SENT_S
from okane.webhooks.memory import QueueMemory
from okane.webhooks.metrics import DispatcherMetrics
from okane.webhooks.queue import EndpointQueue
from okane.webhooks.sender import Sender
from okane.webhooks.served_queue import ServedQueue, ServedQueues, limits_of
from okane.webhooks.types import expand

log = structlog.get_logger("okane.webhooks")

MAX_QUEUES = 10_000  # of one dispatcher
RENEWALS = 0.3  # of a lease: after three seconds of ten
REPORT_EVERY_S = 60.0
KEEP_SURPLUS_S = 60.0  # after orphans were taken: the dispatcher whose share they are does not serve them


class LeaseKeeper:
    """The leases of one dispatcher. `wake` is called with each queue that may have something to send."""

    def __init__(
        self,
        *,
        store: WebhookQueueStore,
        queues: ServedQueues,
        feed: Feed,
        new_sender: Callable[[], Sender],
        wake: Callable[[ServedQueue], None],
        metrics: DispatcherMetrics,
        clock: Callable[[], float],
        roll: Callable[[], float] = random.random,
        report_every: timedelta = timedelta(seconds=REPORT_EVERY_S),
    ) -> None:
        self.share = Share(queues=0, free=0, orphans=0, dispatchers=1, is_used=False, now_s=0.0)
        self.is_taking = False  # the queues of a lease under way come yet
        self._store = store
        self._queues = queues
        self._feed = feed
        self._new_sender = new_sender
        self._wake = wake
        self._metrics = metrics
        self._clock = clock
        self._roll = roll
        self._report_every_s = report_every.total_seconds()
        self._lease = Lease(-math.inf)
        self._lease_s = store.rules.lease.total_seconds()
        self._renew_at_s = 0.0
        self._report_at_s = clock() + self._report_every_s
        self._idle_to = -1  # the place of the idle queues that was written last
        self._not_moved: set[ServedQueue] = set()  # queues that do not have it
        self._may_own_more = False  # than it knows of: the answer to a lease was lost
        self._keep_surplus_until_s = 0.0
        self._is_stopping = False
        self._has_resigned = False
        self._gone: set[UUID] = set()
        self._dropped: list[ServedQueue] = []  # until their last request has ended

    def is_gone(self, endpoint_id: UUID) -> None:
        """Note that an endpoint has answered 410: the next run disables it."""
        self._gone.add(endpoint_id)

    async def run_once(self) -> None:
        """Renew, follow changes, disable what failed for long, and take or release queues. Raises StoreUnavailable."""
        if self._is_stopping:
            await self._resign()
        if self._queues or self._may_own_more:
            if self._clock() >= self._renew_at_s or self._may_own_more:
                await self._renew()
            await self._report()
            await self._follow_changes()
            await self.release_settled()
        self.share = await self._store.share()
        target = min(-(-self.share.queues // self.share.dispatchers), MAX_QUEUES)
        self._leave_surplus(len(self._queues) - target)
        missing = target - len(self._queues)
        wanted = min(max(missing, self.share.orphans), MAX_QUEUES - len(self._queues))
        if wanted > 0 and self.share.free and not self._is_stopping:
            self.is_taking = True
            try:
                await self._take(wanted)
            finally:
                self.is_taking = False
        if self.share.orphans > max(missing, 0):
            self._keep_surplus_until_s = self._clock() + KEEP_SURPLUS_S
        self._show()

    async def _renew(self) -> None:
        began_s = self._clock()
        position, busy = self._feed.position, set(self._queues.busy())
        # By name: a queue that is owned unknowingly, since the answer to its lease was lost, has events that were never sent.
        # Those that have this place already are left out: thousands of idle queues cost nothing while no event comes.
        moving = self._queues if position != self._idle_to else self._not_moved
        idle = [one.endpoint.id for one in moving if one not in busy and self._queues.get(one.endpoint.id) is one]
        renewed = await self._store.renew(idle_to=position, idle=idle)
        self._idle_to, self._not_moved = position, busy
        if renewed != len(self._queues) or self._may_own_more:
            await self._compare()
        self._lease.until_s = began_s + self._lease_s
        self._renew_at_s = began_s + RENEWALS * self._lease_s
        for served in self._queues.busy():  # those that stopped at the end of the lease, if it was renewed late
            self._wake(served)

    async def _compare(self) -> None:
        """Drop the queues that have another owner, and release those that are not known here."""
        owned = await self._store.owned()
        for served in [one for one in self._queues if owned.get(one.endpoint.id) != one.epoch]:
            self.drop(served)
        unknown = {one for one in owned if self._queues.get(one) is None}
        ending = unknown & {served.endpoint.id for served in self._dropped if served.queue.in_flight}
        if unknown - ending:
            await self._store.release(unknown - ending)
        self._may_own_more = bool(ending)  # released later: two requests of one payment must not be in flight

    def drop(self, served: ServedQueue) -> None:
        """Stop serving a queue that is lost: what is in flight ends, and writes nothing."""
        if not served.is_leaving:
            log.warning("webhook_queue_lost", endpoint=str(served.endpoint.id))
        self._queues.remove(served)
        self._dropped.append(served)

    def drop_all(self) -> None:
        """Drop all queues: the log has lost events that they know. They are leased anew, at their places in Postgres."""
        for served in list(self._queues):
            self._queues.remove(served)
            self._dropped.append(served)
        self._may_own_more = True

    async def _follow_changes(self) -> None:
        """Follow the changed endpoints, then confirm them. A deleted one's connections are closed before."""
        confirmed = {}
        for endpoint, epoch in await self._store.changed():
            served = self._queues.get(endpoint.id)
            if served is None:
                self._may_own_more = True
                continue
            # After a 410 the queue has stopped for good: enabled again meanwhile, it is leased anew.
            if endpoint.status != "enabled" or epoch != served.epoch or served.queue.is_gone:
                self._queues.leave(served)
                if endpoint.status == "deleted":
                    await served.sender.aclose()
            else:
                self._change(served, endpoint)
            confirmed[endpoint.id] = endpoint.version
        if confirmed:
            await self._store.confirm(confirmed)

    def _change(self, served: ServedQueue, endpoint: Endpoint) -> None:
        if served not in self._queues.behind:  # it has passed the log up to here, by its types until now
            served.queue.offer((), read_to=self._feed.position, now_s=self._clock())
        served.endpoint = endpoint
        served.types = frozenset(expand(endpoint.types))
        served.queue.change(limits_of(endpoint), self._clock())
        self._queues.set_due(served, self._clock())  # it may have been asked to send some again
        self._queues.unread_replays.add(served)
        self._wake(served)

    async def _report(self) -> None:
        """Disable endpoints that are gone at once; each minute report and disable those that fail for long."""
        now_s = self._clock()
        is_time = now_s >= self._report_at_s and bool(self._queues.failing)
        if now_s >= self._report_at_s:
            self._report_at_s = now_s + self._report_every_s
        if is_time:
            for one in await self._store.report_failing():
                _log("webhook_endpoint_failing", one, failing_s=one.reason)
        if is_time or self._gone:
            gone, self._gone = self._gone, set()
            try:
                for one in await self._store.disable(gone):
                    _log("webhook_endpoint_disabled", one, reason=one.reason)
            except BaseException:
                self._gone |= gone
                raise

    def _leave_surplus(self, surplus: int) -> None:
        """Stop serving more than the share, idle queues first: another dispatcher has come."""
        if surplus <= len(self._queues.leaving) or self.share.dispatchers == 1:
            return
        if self._clock() < self._keep_surplus_until_s:
            return
        staying = sorted((one for one in self._queues if not one.is_leaving), key=lambda one: not one.queue.is_idle)
        for served in staying[: max(0, surplus - len(self._queues.leaving))]:
            self._queues.leave(served)

    async def release_settled(self) -> None:
        """Release the queues that leave and have nothing in flight or unwritten."""
        await self._close_dropped()
        leaving = [one for one in self._queues.leaving if one.is_settled]
        if not leaving:
            return
        for served in leaving:
            self._queues.remove(served)
        try:
            await self._store.release(one.endpoint.id for one in leaving)
        except StoreUnavailable:
            self._may_own_more = True
            raise
        finally:
            for served in leaving:
                await served.sender.aclose()

    async def _close_dropped(self) -> None:
        for served in [one for one in self._dropped if one.queue.in_flight == 0]:
            self._dropped.remove(served)
            await served.sender.aclose()

    async def _take(self, wanted: int) -> None:
        async with self._feed.still:
            began_s, position = self._clock(), self._feed.position
            try:
                taken = await self._store.lease(wanted)
                holds = await self._read_holds(taken)
            except BaseException:
                self._may_own_more = True
                raise
            if not self._queues:
                self._lease.until_s = began_s + self._lease_s
                self._renew_at_s = began_s + RENEWALS * self._lease_s
            for one in taken:
                self._serve(one, position, holds.get(one.endpoint.id, ()))
            if self._is_stopping:  # since the statement began
                self._leave_all()
        self._metrics.takeovers.inc(sum(one.taken_over for one in taken))
        if taken:
            log.info(
                "webhook_queues_leased", queues=len(taken), of=self.share.queues, dispatchers=self.share.dispatchers
            )

    async def _read_holds(self, taken: Sequence[LeasedQueue]) -> Mapping[UUID, Sequence[Hold]]:
        """Return the rows of earlier owners that hold back events, by endpoint."""
        waiting = {one.endpoint.id: one.endpoint.hold_s for one in taken if one.has_waiting}
        found: dict[UUID, list[Hold]] = {}
        for hold in await self._store.holds(waiting) if waiting else ():
            found.setdefault(hold.endpoint_id, []).append(hold)
        return found

    def _serve(self, leased: LeasedQueue, position: int, holds: Sequence[Hold]) -> None:
        """Serve the queue; without a backlog it is up to date, since the feed stands still meanwhile."""
        endpoint = leased.endpoint
        now_s = self._clock()
        queue: EndpointQueue[EventRow] = EndpointQueue(
            limits_of(endpoint),
            lease=self._lease,
            done_to=leased.done_to,
            now_s=now_s,
            roll=self._roll,
            failures=leased.failures,
            memory=QueueMemory(self._queues.memory),
        )
        for hold in holds:
            until_s = NEVER_SENT_S if hold.left_s is None else now_s + hold.left_s
            queue.load_hold(hold.payment_id, hold.position, until_s=until_s)
        served = ServedQueue(
            endpoint=endpoint,
            epoch=leased.epoch,
            queue=queue,
            sender=self._new_sender(),
            may_repeat=endpoint.max_in_flight if leased.taken_over else 0,
        )
        self._queues.add(served)
        self._not_moved.add(served)
        if leased.failures:
            self._queues.failing.add(served)
        if leased.has_backlog or leased.last < position:  # of a log that went back meanwhile
            self._queues.behind.add(served)
        else:
            queue.offer((), read_to=position, now_s=now_s)
        if leased.has_waiting:
            self._queues.set_due(served, now_s)
        if leased.has_replays:
            self._queues.unread_replays.add(served)

    def _show(self) -> None:
        failing = len(self._queues.failing)
        self._metrics.set_queues(healthy=len(self._queues) - failing, failing=failing)

    async def stop(self) -> None:
        """Begin nothing any more, and leave the share to the others. Raises StoreUnavailable: `run_once` tries it again."""
        self._is_stopping = True
        self._leave_all()
        await self._resign()

    async def _resign(self) -> None:
        if not self._has_resigned:
            await self._store.resign()
            self._has_resigned = True

    def _leave_all(self) -> None:
        for served in self._queues:
            self._queues.leave(served)


def _log(event: str, change: EndpointChange, **more: object) -> None:
    error = (change.last_error or "").partition("\n")[0]
    log.warning(event, endpoint=str(change.endpoint_id), account=change.account_id, last_error=error, **more)
