"""The limit of open files of this process, which is raised as far as its connections need it."""

from __future__ import annotations

import resource

SPARE_FILES = 256  # for Postgres, Redis, logs, and a burst of connections that are turned away


def room_for(connections: int) -> int:
    """Return how many of these connections the process may hold, after raising its limit of open files as far as needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    # Half of the files if there are very few: a server without connections is of no use.
    return max(granted - SPARE_FILES, granted // 2)
