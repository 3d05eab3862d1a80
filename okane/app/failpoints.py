"""The failpoints of okane: importing the modules of the processes declares them."""

from __future__ import annotations

from collections.abc import Mapping

import okane.app.api
import okane.app.dispatcher
import okane.app.worker  # noqa: F401 - imported for the failpoints that its modules declare
from streams import failpoints


def all_failpoints() -> Mapping[str, failpoints.Failpoint]:
    """Return every failpoint of an API, a worker or a dispatcher by its name."""
    return failpoints.declared()
