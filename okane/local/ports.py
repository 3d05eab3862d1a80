"""Find free loopback ports, and the owners of taken ones."""

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

# Descriptors of the ports returned last, enough for several systems and far below the limit of open files. Detached,
# because a socket that is open at exit raises a ResourceWarning.
_held: deque[int] = deque(maxlen=64)


def is_taken(port: int, host: str = LOOPBACK) -> bool:
    """Return True if a server cannot listen on `port` now."""
    try:
        for one in binding.bind(host, port):
            one.close()
    except OSError:
        return True
    return False


def free_port(*, besides: Container[int] = ()) -> int:
    """Return a free loopback port outside `besides`; on Linux it stays reserved until this process has taken many more.

    It is below the range of outgoing connections (Linux: 32768 and up): under load one of those would take it before a
    server that is still starting binds it.
    """
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        if port not in besides and _reserve(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _reserve(port: int) -> bool:
    """Reserve `port` for a server that still has to start or restart. Return False if it is taken.

    Without it, one in 300 groups of four systems that started at once drew the same number twice.
    """
    if sys.platform != "linux":  # elsewhere no server could listen there while this process holds it
        return not is_taken(port)
    holder = socket.socket()
    try:
        holder.bind((LOOPBACK, port))  # refused where another holds it, listening or not
    except OSError:
        holder.close()
        return False
    # Bound but not listening: a server that sets the same option before binding can still listen there.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if len(_held) == _held.maxlen:
        os.close(_held.popleft())
    _held.append(holder.detach())
    return True


def owner_of(port: int) -> str:
    """Return the listener on `port` for a message: ` by pid 123 (python)`, or an empty text if it is hidden."""
    try:
        for connection in psutil.net_connections("tcp"):
            listening = connection.status == psutil.CONN_LISTEN and connection.laddr
            if listening and listening.port == port and connection.pid is not None:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""
