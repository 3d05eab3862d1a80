"""The supervised processes of okane: `okane api`, `okane worker`, `okane dispatch`, `okane provider`."""

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

# -P: a folder named okane in the current folder is not this package.
OKANE = (sys.executable, "-P", "-m", "okane")
# No load balancer stands in front of a supervised API, so none has to notice that it leaves.
_ALONE = {"OKANE_LAME_DUCK": "0s"}
_CHECKOUT = str(Path(__file__).resolve().parents[2])


class OkaneProcess(Server):
    """`okane ARGUMENTS` with `env` on top of the environment, ready once `probe` returns True.

    SIGTERM drains it; it has `drain_s`, and a little more for closing, before it is killed. `program` replaces the okane of
    this process.
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
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """Return the environment in which it runs."""
        own = own_path(self._env.get("PYTHONPATH"))
        return {**_ALONE, **os.environ, **self._env, **own, "PYTHONUNBUFFERED": "1"}

    def ready(self) -> bool:
        return self._probe()


def own_path(before: str | None = None) -> Mapping[str, str]:
    """Return the environment in which a child imports the okane of this process, from any current folder."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (before, _CHECKOUT, os.environ.get("PYTHONPATH"))))}


def answers_http(port: int, path: str, host: str = LOOPBACK) -> Callable[[], bool]:
    """Return a probe: GET `path` answers 200."""

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
    """Return a probe: a server accepts connections on `port`."""

    def probe() -> bool:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            return False
        return True

    return probe
