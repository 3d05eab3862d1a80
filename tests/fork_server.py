"""Start `okane` processes by fork from one that has imported everything: `python -m tests.fork_server FD`.

Importing okane takes most of the CPU time of a start, and the tests start some hundred processes. A process that is made here
is one of its own: it has its session, environment, log and signals, runs `okane ARGUMENTS` from the beginning, and ends by
itself or by kill -9. What it shares with the next one is that the modules are loaded.

Over the socket FD comes one message for each process: arguments, environment and current folder as JSON; the files for its
output and errors, and a pipe. The answer is its pid; the pipe gets its exit code once it has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from okane.cli import main as run_okane
from okane.local.parent_death import PR_SET_PDEATHSIG

LONGEST_MESSAGE = 1 << 17
MODULES = (
    *("okane.cli.api", "okane.cli.worker", "okane.cli.dispatch", "okane.cli.console", "okane.cli.provider"),
    *("okane.app.api", "okane.app.worker", "okane.app.dispatcher", "okane.app.console", "okane.app.mock_provider"),
    "uvloop",
)


@dataclass(frozen=True, slots=True)
class Request:
    """A process to start. The files are numbers of this process."""

    arguments: Sequence[str]
    env: Mapping[str, str]
    folder: str
    output: int
    errors: int
    ended: int


def serve(channel: socket.socket) -> Request | None:
    """Start processes until the other side hangs up: None. Return in each new process: its request."""
    waiting = selectors.DefaultSelector()
    waiting.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.data is not None:
                waiting.unregister(key.fileobj)
                _report(*key.data)
                continue
            request = _receive(channel)
            if request is None:
                return None
            server = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become(request, server)
                return request
            os.close(request.output)
            os.close(request.errors)
            process = os.pidfd_open(pid)
            waiting.register(process, selectors.EVENT_READ, (pid, process, request.ended))
            channel.send(str(pid).encode())


def _receive(channel: socket.socket) -> Request | None:
    message, files, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, 3)
    if not message:
        return None
    asked = json.loads(message)
    return Request(**asked, output=files[0], errors=files[1], ended=files[2])


def _report(pid: int, process: int, ended: int) -> None:
    """Write the exit code of a process to its pipe."""
    _, status = os.waitpid(pid, 0)
    os.close(process)
    with contextlib.suppress(BrokenPipeError):  # the tests have ended
        os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(ended)


def _become(request: Request, server: int) -> None:
    """Give this new process its session, environment and files. It ends with the server, as that does with the tests."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != server:
        os._exit(1)
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.folder)
    time.tzset()
    os.dup2(request.output, 1)
    os.dup2(request.errors, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    sys.argv[:] = ["okane", *request.arguments]


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()  # the collector of a child copies no page of what is loaded
    gc.enable()
    if serve(channel) is None:
        return
    channel.detach()  # it is closed in a new process
    run_okane()


if __name__ == "__main__":
    main()
