"""Loopback ports: which are taken, and which are free."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections import deque
from collections.abc import Container

import psutil

from okane import binding

LOOPBACK = "127.0.0.1"

# Files of the ports given out last: some systems' worth, far from the limit of open ones. They are held until the process
# ends, which a socket would complain about then.
_held: deque[int] = deque(maxlen=64)


def is_taken(port: int, host: str = LOOPBACK) -> bool:
    """Could a server not listen on `port` now?"""
    try:
        for one in binding.bind(host, port):
            one.close()
    except OSError:
        return True
    return False


def free_port(*, besides: Container[int] = ()) -> int:
    """A loopback port that nobody has, and on Linux nobody else is given before this process has asked for many more. Not
    one of `besides`, which are to be taken yet.

    From below the range that outgoing connections get theirs from (Linux: 32768 on): under load one of those would have it
    before a server that is still starting binds it.
    """
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        if port not in besides and _reserve(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _reserve(port: int) -> bool:
    """Keep `port` for a server that still has to start, or start again. False if somebody has it.

    Two systems that start at once would otherwise draw the same number now and then: one in 300 of four at a time did.
    """
    if sys.platform != "linux":  # elsewhere nobody could listen there as long as we hold it
        return not is_taken(port)
    holder = socket.socket()
    try:
        holder.bind((LOOPBACK, port))  # refused where another holds it, listening or not
    except OSError:
        holder.close()
        return False
    # Bound but not listening: who says this before binding, as servers do, may listen there all the same.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if len(_held) == _held.maxlen:
        os.close(_held.popleft())
    _held.append(holder.detach())
    return True


def owner_of(port: int) -> str:
    """Who listens on `port`, for a message: ` by pid 123 (python)`, or nothing if the system won't tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listening and listening.port == port and connection.pid is not None:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""
