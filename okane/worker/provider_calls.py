"""Calls to providers: timed, counted, reported to the provider's gate, and without secrets in their results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

from okane.metrics import OkaneMetrics
from okane.providers.base import (
    Approved,
    Authorized,
    Declined,
    LookUpResult,
    NotFound,
    Pending,
    Unavailable,
    Unknown,
)
from okane.providers.redaction import without_secrets
from okane.worker.provider_set import Gateway

OUTCOME_LABELS: Mapping[type[LookUpResult], str] = {
    Approved: "approved",
    Authorized: "authorized",
    Declined: "declined",
    Pending: "pending",
    Unavailable: "unavailable",
    Unknown: "unknown",
    NotFound: "not_found",
}


class ProviderCalls:
    """The provider calls of one worker."""

    def __init__(self, metrics: OkaneMetrics) -> None:
        # Looked up once for each set of labels: `labels` costs more than the counting.
        self._attempts = cache(metrics.attempts.labels)
        self._seconds = cache(metrics.provider_seconds.labels)

    async def __call__(
        self,
        call: str,
        gateway: Gateway,
        answer: Awaitable[LookUpResult],
        *,
        log: Callable[[], Any],
        leave_open: Callable[[float], Awaitable[None]] | None = None,
    ) -> LookUpResult:
        """Return the result of a call. `log` binds the log for it. If it is broken off by a stop of the worker, `leave_open`
        gets its duration in seconds."""
        began_s = time.perf_counter()
        name = gateway.provider.name
        try:
            result = await answer
        except asyncio.CancelledError:
            if leave_open is not None:
                await leave_open(time.perf_counter() - began_s)
            raise
        except Exception as error:
            # A bug of the provider's adapter. Its request may have been sent: only a look-up can tell.
            log().exception("provider_adapter_failed", provider=name, call=call)
            result = Unknown(f"{type(error).__name__}: {error}")
        took_s = time.perf_counter() - began_s
        gateway.gate.record(result, took_s=took_s)
        self._seconds(name, call).observe(took_s)
        self._attempts(name, call, OUTCOME_LABELS[type(result)]).inc()
        return result if isinstance(result, Approved) else without_secrets(result)
