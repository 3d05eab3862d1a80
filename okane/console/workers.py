"""The processes: what they hold, how much they do, and which are silent."""

from __future__ import annotations

from aiohttp import web

from okane.console.rendering import render_live
from okane.console.sampler import Sampler


class WorkersScreen:
    """The page and its live region."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def show(self, request: web.Request) -> web.Response:
        """`GET /workers`"""
        sample = await self._sampler.current()
        processes = sample.observation.processes
        return render_live(
            request,
            "workers.html",
            "workers_part.html",
            sample=sample,
            rows=sample.picture.processes,
            addresses={one.name: one.address for one in processes},
            silent_s={one.name: one.silent_ms / 1000 for one in processes},
        )
