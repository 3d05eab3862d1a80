"""A container engine of the tests' own: podman, with images, containers and volumes in one folder, on this machine's network.

It runs a service of a Compose file as Docker would: user, read-only root, capabilities, limits, health check. Two things
differ: the network (no bridge has to be made), and restarts (a process that dies is a failed test).
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

PROGRAMS = ("podman", "runc", "catatonit")  # each in a Debian package of its name
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/libexec/podman"
_PROCESSES = 4096
_LIFE_S = 900  # of a container: what a pytest that was killed leaves ends by itself


def missing_programs() -> list[str]:
    """Return the programs that are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=_PATH) is None]


class Engine:
    """One podman. As a context manager it ends its containers, and leaves a folder that can be deleted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        overlay = "overlay" in Path("/proc/filesystems").read_text()
        options = {
            "root": str(folder / "store"),
            "runroot": str(folder / "run"),
            "tmpdir": str(folder / "tmp"),
            "storage-driver": "overlay" if overlay else "vfs",
            "runtime": "runc",
            "cgroup-manager": "cgroupfs",
            "events-backend": "none",
        }
        self._program = ["podman", *(f"--{name}={value}" for name, value in options.items())]

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.call("rm", "--all", "--force", "--time=0", check=False)
        for mount in reversed(psutil.disk_partitions(all=True)):
            if Path(mount.mountpoint).is_relative_to(self._folder):
                subprocess.run(["umount", mount.mountpoint], check=False)

    def call(self, *arguments: str | Path, timeout_s: float = 120, check: bool = True, stdin: Any = None) -> str:
        """Return what podman prints. Raises AssertionError if it fails and `check` is True."""
        done = self.run(*arguments, timeout_s=timeout_s, stdin=stdin)
        assert not check or done.returncode == 0, f"podman {arguments[0]} failed:\n{done.stdout}{done.stderr}"
        return done.stdout

    def run(
        self, *arguments: str | Path, timeout_s: float = 120, stdin: Any = None
    ) -> subprocess.CompletedProcess[str]:
        # There is no systemd in a container that builds containers: the test asks for the health itself.
        env = {**os.environ, "PATH": _PATH, "DISABLE_HC_SYSTEMD": "true"}
        command = [*self._program, *map(str, arguments)]
        return subprocess.run(
            command,
            env=env,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def why_no_container_runs(self, image: str, program: str) -> str | None:
        """Return why this machine lets no container run, None if one does: `program` of `image`, which does nothing."""
        done = self.run("run", "--rm", "--pull=never", "--network=none", *limits(), f"--entrypoint={program}", image)
        return None if done.returncode == 0 else (done.stderr.strip() or f"{program} ended with {done.returncode}")

    def inspect(self, container: str) -> Mapping[str, Any]:
        [found] = json.loads(self.call("inspect", container))
        return dict(found)

    def logs(self, container: str) -> str:
        done = self.run("logs", container)
        return done.stdout + done.stderr

    def healthy(self, container: str) -> bool:
        """Run the command of the container's health check, without its time-out: the machine may be busy."""
        command = self.inspect(container)["Config"]["Healthcheck"]["Test"][1:]
        return self.run("exec", container, *command).returncode == 0

    def processes(self, container: str) -> list[psutil.Process]:
        """Return the processes of a running container, the first one first."""
        first = psutil.Process(self.inspect(container)["State"]["Pid"])
        return [first, *first.children(recursive=True)]


def limits(wanted: int | None = None) -> Iterable[str]:
    """Return options for open files and processes. podman's own are higher than those of this process may be, and only a
    process with CAP_SYS_RESOURCE can raise a limit."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = files if wanted is None else min(wanted, files)
    return [f"--ulimit=nofile={files}:{files}", f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}"]


def options_of(service: Mapping[str, Any]) -> list[str]:
    """Return the options of `podman run` for the part of a Compose service that is not about addresses."""
    assert service["read_only"] is True
    options = [
        "--network=host",
        "--read-only",
        "--read-only-tmpfs=false",
        f"--timeout={_LIFE_S}",
        "--log-driver=k8s-file",
    ]
    options += [f"--cap-drop={name}" for name in service["cap_drop"]]
    options += [f"--security-opt={option}" for option in service["security_opt"]]
    options += [
        f"--pids-limit={service['pids_limit']}",
        f"--memory={service['deploy']['resources']['limits']['memory']}",
    ]
    options += [f"--stop-timeout={service['stop_grace_period'].removesuffix('s')}"]
    options += ["--init"] if service["init"] else []
    options += [f"--volume={volume}" for volume in service.get("volumes", [])]
    options += limits(service.get("ulimits", {}).get("nofile"))
    return options
