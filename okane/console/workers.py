"""The processes: what they hold, how much they do, and which are silent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from okane.console.rendering import render_sampled
from okane.console.sampler import Sample, Sampler


class WorkersScreen:
    """The page and its live region."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    async def show(self, request: web.Request) -> web.Response:
        """`GET /workers`"""
        sample = await self._sampler.current()
        return render_sampled(request, "workers.html", "workers_part.html", sample, lambda: _context(sample))


def _context(sample: Sample) -> Mapping[str, Any]:
    processes = sample.observation.processes
    return {
        "sample": sample,
        "rows": sample.picture.processes,
        "addresses": {one.name: one.address for one in processes},
        "silent_s": {one.name: one.silent_ms / 1000 for one in processes},
    }
