"""The doctor's checks, run at most once in ten seconds for all tabs, and the settings without secrets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from aiohttp import web

from okane import addresses
from okane.config import Settings
from okane.console.rendering import render
from okane.monitoring.findings import Check

INTERVAL_S = 10.0
_SERVERS = frozenset({"database_url", "redis_url", "redis_addr"})
_HTTP = frozenset({"provider_base_url", "otlp_endpoint", "otlp_traces_endpoint"})


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings at one moment."""

    at: datetime
    checks: Sequence[Check]


class Doctor:
    """Runs the checks when a page asks, at most once in ten seconds. Pages that ask at the same time share one run."""

    def __init__(
        self,
        diagnose: Callable[[], Awaitable[Sequence[Check]]],
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._diagnose = diagnose
        self._now = now
        self._clock = clock
        self._last: Diagnosis | None = None
        self._until_s = 0.0
        self._lock = asyncio.Lock()

    async def current(self) -> Diagnosis:
        """Return the newest diagnosis; check again if it is older than ten seconds."""
        async with self._lock:
            if self._last is None or self._clock() >= self._until_s:
                self._last = Diagnosis(self._now(), await self._diagnose())
                self._until_s = self._clock() + INTERVAL_S
            return self._last


@dataclass(frozen=True, slots=True)
class CheckedConsole:
    """The system that this console checks: its settings, and the addresses that it works on."""

    settings: Settings
    database: str
    redis: str
    source: str = "the environment"

    @property
    def database_url(self) -> str:
        return self.database

    @property
    def redis_url(self) -> str:
        return self.redis

    @property
    def provider_base_url(self) -> str | None:
        return self.settings.provider_base_url

    @property
    def api_url(self) -> None:
        return None  # the console runs in a container or a pod of its own, or beside them


def shown_settings(settings: Settings) -> Sequence[tuple[str, str]]:
    """Return the settings with their values. Secrets are `set` or `not set`, and addresses have no password."""
    return [(name, _shown(settings, name)) for name in sorted(Settings.model_fields)]


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if value is None:
        return "not set"
    if not Settings.model_fields[name].repr:
        return "set"
    if name in _SERVERS:
        return addresses.shown(str(value))
    if name in _HTTP:  # their user may be a key
        parts = urlsplit(str(value))
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if isinstance(value, tuple | frozenset | list):
        return ", ".join(sorted(map(str, value)))
    return str(value)


class DoctorScreen:
    """The page."""

    def __init__(self, doctor: Doctor, settings: Settings) -> None:
        self._doctor = doctor
        self._settings = shown_settings(settings)

    async def show(self, request: web.Request) -> web.Response:
        """`GET /doctor`"""
        diagnosis = await self._doctor.current()
        states = [check.state for check in diagnosis.checks]
        worst = next((state for state in ("fail", "warn") if state in states), "ok")
        return render(request, "doctor.html", diagnosis=diagnosis, worst=worst, settings=self._settings)
