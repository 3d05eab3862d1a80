"""The process of a gateway simulator, in the virtual environment of its own that `prepare` makes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from okane.local.okane_process import answers_http
from okane.local.processes import Child, Stage, server_environment, spawn
from okane.local.server import Server
from okane.local.simulator_environment import SimulatorPackages

_STAGES = (Stage(signal.SIGTERM, 5.0),)


class SimulatorServer(Server):
    """`python -I ARGUMENTS` in the simulator's environment; ready once GET `health` answers 200 on `port`."""

    def __init__(
        self,
        *,
        name: str,
        packages: SimulatorPackages,
        arguments: Sequence[str | os.PathLike[str]],
        port: int,
        log: Path,
        health: str,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        super().__init__()
        self.name = name
        self._packages = packages
        self._arguments = tuple(arguments)
        self._log = log
        self._probe = answers_http(port, health)
        self._report = report
        self._python: Path | None = None

    def prepare(self) -> None:
        """Make the virtual environment if it is missing. Raises NoPythonError, and LocalError when pip fails."""
        self._python = self._packages.prepare(self._report)

    def _spawn(self) -> Child:
        assert self._python is not None, "prepare comes first"
        return spawn(
            name=self.name,
            command=[self._python, "-I", *self._arguments],
            log=self._log,
            stages=_STAGES,
            env=server_environment(),
        )

    def ready(self) -> bool:
        return self._probe()
