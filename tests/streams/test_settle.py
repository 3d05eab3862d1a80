from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from streams import Draft, Inspector, Metrics, Producer, Stream, scripts
from tests.streams.running import GROUP, consumer, done


class Sizes(Metrics):
    def __init__(self) -> None:
        self.settled_by_call: list[int] = []

    def batch(self, step: str, size: int) -> None:
        if step == "settle":
            self.settled_by_call.append(size)


async def test_what_is_settled_together_is_cut_into_calls_that_do_not_hold_the_server_for_long(
    client: Redis, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Producer(client, stream).publish_many([Draft(b"x")] * 300)
    trips = []
    settle = scripts.settle

    async def counted(*arguments: Any, **options: Any) -> Any:
        trips.append(len(options["settlements"]))
        return await settle(*arguments, **options)

    monkeypatch.setattr(scripts, "settle", counted)
    sizes = Sizes()
    assert await consumer(client, stream, done, concurrency=300, metrics=sizes).run_once() == 300
    assert sizes.settled_by_call == [128, 128, 44]
    assert trips == [3]
    assert (await Inspector(client, stream, group=GROUP).stats()).pending == 0
