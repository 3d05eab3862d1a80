"""The checks of `okane doctor` about table partitions."""

from __future__ import annotations

from okane.errors import SetupError, StoreUnavailable
from okane.monitoring.checked_system import CheckedSystem
from okane.monitoring.findings import Check
from okane.store.partition_bounds import MAX_PARTS
from okane.store.table_partitions import Partitioning, read_partitioning
from okane.timestamp_text import format_time

NEARLY = MAX_PARTS - 4
# Planning the request of a refund locks 17 tables and indexes of each part (measured). Enough if a quarter of all sessions do
# that in one moment: beyond it statements fail with "out of shared memory", and sessions connect again.
LOCKS_PER_PART = 4


async def check_partitions(system: CheckedSystem) -> list[Check]:
    """Check that there is a table partition for tomorrow, if there are any. No Postgres has its own line."""
    if system.database is None:
        return []
    try:
        return partition_checks(await read_partitioning(system.database))
    except (StoreUnavailable, SetupError):
        return []


def partition_checks(found: Partitioning) -> list[Check]:
    """Check the table partitions of a database. Nothing to say about one without."""
    if found.left_end is not None:
        until = format_time(found.left_end)
        advice = "okane partitions --convert goes on, --undo takes it back: from then on all payments are refused"
        return [Check("table partitions", "fail", f"a conversion has not ended, its bound is {until}", advice)]
    if found.end is None:
        return []
    told = f"{len(found.parts)}, to {format_time(found.end)}"
    if found.is_short:
        advice = "okane partitions --create: from then on all payments are refused"
        return [Check("table partitions", "fail", told, advice)]
    if found.detached:
        names = ", ".join(found.detached)
        advice = "okane archive with the folder of the run that ended there: their payments are not found until then"
        return [Check("table partitions", "warn", f"detached and not dropped: {names}", advice)]
    if len(found.parts) >= NEARLY:
        advice = f"okane archive: more than {MAX_PARTS} cannot be made"
        return [Check("table partitions", "warn", told, advice)]
    needed = LOCKS_PER_PART * len(found.parts)
    if found.max_locks < needed:
        advice = (
            f"max_locks_per_transaction = {LOCKS_PER_PART * MAX_PARTS} in postgresql.conf, and a restart of Postgres"
        )
        told = f"{len(found.parts)} with max_locks_per_transaction = {found.max_locks}, which is below {needed}"
        return [Check("table partitions", "warn", told, advice)]
    return [Check("table partitions", "ok", told)]
