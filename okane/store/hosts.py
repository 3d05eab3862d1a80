"""The order in which the hosts of DATABASE_URL are tried, where it names several.

Guarantee: a host that is silent costs one connection `SECONDS_PER_HOST` at most, as long as another host works: the one that
worked last is tried first, and processes begin with different ones.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SECONDS_PER_HOST: Final = 2  # libpq's shortest time-out
_LISTS: Final = ("host", "hostaddr", "port")  # libpq takes the first of each together, then the second, ...

_orders: dict[str, list[int]] = {}  # of this process, by URL: the places of the hosts in it


def hosts_of(url: str) -> Sequence[str]:
    """Return a connection string for each host of `url`."""
    return [make_conninfo(url, **one) for one in _split(url)]


def in_order(url: str) -> str:
    """Return `url`, or if it names several hosts a connection string with them in the order in which to try them, for the one
    that takes writes unless `target_session_attrs` says otherwise."""
    found = _split(url)
    if len(found) == 1:
        return url
    order = _order(url, len(found))
    names = {name: ",".join(found[place][name] for place in order) for name in _LISTS if name in found[0]}
    if "target_session_attrs" not in conninfo_to_dict(url) and "PGTARGETSESSIONATTRS" not in os.environ:
        names["target_session_attrs"] = "read-write"  # else a process may begin with a standby, and stay there
    return make_conninfo(url, **names)


def timeout_s(url: str, seconds: int) -> int:
    """Return the time-out of a connection, which counts for each host by itself."""
    return seconds if len(_split(url)) == 1 else min(seconds, SECONDS_PER_HOST)


def worked(url: str, connection: psycopg.AsyncConnection[object]) -> None:
    """Remember the host that this connection leads to, to try it first."""
    found = _split(url)
    place = _place_of(connection, found)
    if place is not None:
        order = _order(url, len(found))
        order.remove(place)
        order.insert(0, place)


def of_connection(url: str, connection: psycopg.AsyncConnection[object]) -> str:
    """Return a connection string for the host that this connection leads to, and no other one."""
    found = _split(url)
    place = _place_of(connection, found)
    return in_order(url) if place is None else make_conninfo(url, **found[place])


def _place_of(connection: psycopg.AsyncConnection[object], found: Sequence[Mapping[str, str]]) -> int | None:
    """Return the place of its host among several, None for a single one."""
    if len(found) == 1:
        return None
    info = connection.info
    reached = {"host": info.host, "hostaddr": info.hostaddr, "port": str(info.port)}
    places = (at for at, one in enumerate(found) if all(reached[name] == value for name, value in one.items() if value))
    return next(places, None)


def _order(url: str, count: int) -> list[int]:
    return _orders.setdefault(url, random.sample(range(count), count))


def _split(url: str) -> list[Mapping[str, str]]:
    known = conninfo_to_dict(url)
    lists = {name: str(known[name]).split(",") for name in _LISTS if known.get(name) is not None}
    count = max((len(values) for name, values in lists.items() if name != "port"), default=1)
    if count == 1:
        return [{}]
    return [{name: values[place % len(values)] for name, values in lists.items()} for place in range(count)]
