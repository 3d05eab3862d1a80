"""The checks of `okane doctor` about the servers of a DATABASE_URL that names several. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from okane.monitoring.findings import Check
from okane.store.server_facts import HostRole


def host_checks(found: Sequence[HostRole]) -> list[Check]:
    """Check the servers of a DATABASE_URL that names several: one takes writes, and a copy of each commit is elsewhere."""
    if not found:
        return []
    shown_hosts = ", ".join(f"{one.host} {one.role}{f' ({one.reason})' if one.reason else ''}" for one in found)
    primaries = [one for one in found if one.role == "primary"]
    if len(primaries) > 1:
        advice = "stop all but one at once, and find which payments the others took: each holds a part of the truth"
        return [Check("postgres hosts", "fail", shown_hosts, advice)]
    if any(one.role == "away" for one in found):
        checks = [Check("postgres hosts", "warn", shown_hosts, "start it, or take it out of DATABASE_URL")]
    else:
        checks = [Check("postgres hosts", "ok", shown_hosts)]
    for primary in primaries:
        names = ", ".join(f"{name} {state}" for name, state in sorted(primary.standbys.items())) or "none"
        if not primary.synchronous:
            advice = "set synchronous_standby_names: after a failover the standby may lack acknowledged payments"
            checks.append(Check("postgres standbys", "warn", f"{names}; no commit waits for them", advice))
        elif primary.hidden:
            advice = "GRANT pg_read_all_stats TO the user of DATABASE_URL, so that the doctor sees them"
            checks.append(Check("postgres standbys", "warn", "not shown to this login", advice))
        elif not any(state in ("sync", "quorum") for state in primary.standbys.values()):
            advice = "start one that synchronous_standby_names names: until then no commit is acknowledged"
            checks.append(Check("postgres standbys", "fail", names, advice))
        else:
            checks.append(Check("postgres standbys", "ok", names))
    return checks
