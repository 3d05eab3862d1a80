"""The refusals of new rows by table partitions: no part has the time of their ids, or a conversion has left its CHECK."""

from __future__ import annotations

import time
from datetime import timedelta
from uuid import UUID

import psycopg
import structlog

from okane.errors import StoreUnavailable
from okane.store.partition_bounds import time_of
from okane.store.partition_conversion import CHECK
from okane.timestamp_text import format_time

log = structlog.get_logger("okane.store")

LOG_INTERVAL = timedelta(minutes=1)  # between two lines about rows that are refused


class PartRefusals:
    """The refusals that one store has met. Logs one a minute."""

    def __init__(self) -> None:
        self._log_at_s = float("-inf")

    def unavailable(self, error: psycopg.errors.CheckViolation, new_id: UUID) -> StoreUnavailable | None:
        """Return the error for the client of a row with this id; None if another CHECK refused it."""
        if error.diag.constraint_name == CHECK:
            reason = "the CHECK of a conversion that did not end refuses new payments: okane partitions --undo"
        elif error.diag.constraint_name is None:  # only a missing table partition has no name
            at = format_time(time_of(new_id))
            reason = f"no table partition has the time {at}: okane partitions --create, if this host's clock is right"
        else:
            return None
        if time.monotonic() >= self._log_at_s:
            self._log_at_s = time.monotonic() + LOG_INTERVAL.total_seconds()
            log.error("payments_refused", reason=reason)
        return StoreUnavailable(reason)
