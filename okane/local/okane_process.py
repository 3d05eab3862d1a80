"""Our own processes under the supervisor: `okane api`, `okane worker`, `okane provider`."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from okane.local.ports import LOOPBACK
from okane.local.processes import Child, Stage, spawn
from okane.local.server import Server

# -P: a folder named okane where the command was given is not ours.
OKANE = (sys.executable, "-P", "-m", "okane")
# Nothing stands in front of an API that we supervise: no proxy has to notice that it leaves.
_ALONE = {"OKANE_LAME_DUCK": "0s"}
_CHECKOUT = str(Path(__file__).resolve().parents[2])


class OkaneProcess(Server):
    """`okane ARGUMENTS` with `env` on top of our environment, ready once `probe` says so.

    SIGTERM drains it; it may take `drain_s`, and a little more for closing, before it is killed. `program` is what is run
    with ARGUMENTS: the okane that runs here, unless another one is given.
    """

    def __init__(
        self,
        *,
        name: str,
        arguments: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        probe: Callable[[], bool],
        drain_s: float,
        program: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.name = name
        self._program = tuple(program) or OKANE
        self._arguments = tuple(arguments)
        self._env = dict(env)
        self._log = log
        self._probe = probe
        self._stages = (Stage(signal.SIGTERM, drain_s + 5),)

    def _spawn(self) -> Child:
        return spawn(
            name=self.name,
            command=[*self._program, *self._arguments],
            log=self._log,
            stages=self._stages,
            env={**_ALONE, **os.environ, **self._env, **own_path(self._env.get("PYTHONPATH")), "PYTHONUNBUFFERED": "1"},
        )

    def ready(self) -> bool:
        return self._probe()


def own_path(before: str | None = None) -> Mapping[str, str]:
    """The environment of a child that runs the okane that runs here, wherever it is started from."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (before, _CHECKOUT, os.environ.get("PYTHONPATH"))))}


def answers_http(port: int, path: str, host: str = LOOPBACK) -> Callable[[], bool]:
    """A probe: GET `path` is answered 200."""

    def probe() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return probe


def listens(port: int, host: str = LOOPBACK) -> Callable[[], bool]:
    """A probe: somebody takes connections on `port`."""

    def probe() -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True

    return probe
