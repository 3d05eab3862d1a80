#!/usr/bin/env python3
"""Run okane from a fresh clone: create `.venv` once, install the hash-pinned requirements, execute `okane`.

Standard library only. Promises: `.venv` is complete or is created again, also after a kill or a move; two starts at once
create it once; nothing is installed that is not in the requirements file with its hash.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

# This file has no syntax newer than Python 3.6 before this point: an old Python must get as far as this message.
if sys.version_info < (3, 11):  # noqa: UP036 - ruff assumes the required version; the user's machine may have an older one

    def works(python: str) -> bool:
        # pyenv has commands for Pythons that are not selected: they exist, and fail.
        null = subprocess.DEVNULL
        return shutil.which(python) is not None and subprocess.call([python, "-c", ""], stdout=null, stderr=null) == 0

    newer = next(filter(works, ("python3.14", "python3.13", "python3.12", "python3.11")), None)
    sys.exit(
        "okane needs Python 3.11 or newer, this is {}.{}.{} ({}).\n{}".format(
            *sys.version_info[:3],
            sys.executable,
            f"Try: {newer} {' '.join(sys.argv)}" if newer else "Install a newer one and run it again with that.",
        )
    )

from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "okane-setup.json"  # written last: without it the set-up was interrupted
OURS = VENV / "made-by-run.py"  # written first: without it run.py did not create the folder
RUNTIME, DEVELOPMENT = "requirements.txt", "requirements-dev.txt"  # the second has all of the first
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("mypy", "run.py"),
    ("lint-imports",),
)

HELP = """\
okane: an asynchronous payment pipeline on Postgres and Redis Streams.

  python3 run.py up              start everything on this machine: servers, API, workers, web console, a mock provider
  python3 run.py test [ARGS]     run the tests (ARGS go to pytest)
  python3 run.py test --quick    the checks below, and the tests that need no server: under two minutes
  python3 run.py check           lint, format, types and import rules
  python3 run.py COMMAND [ARGS]  any other okane command: api, worker, console, status, load, ...
  python3 run.py --help          all of them

The first run makes .venv beside this file and installs what is pinned in requirements.txt."""


def main(words: list[str]) -> None:
    """Set up what `words` need, then become the program they name."""
    if not words:
        print(HELP)
        return
    if words[0] in ("test", "check"):
        set_up(DEVELOPMENT)
        os.chdir(ROOT)
        if words[0] == "check" or "--quick" in words:
            check()
        if words[0] == "check":
            return
        keep_bytecode()
        command = ["-m", "pytest", *parallel(words[1:]), *words[1:]]
    else:
        set_up(RUNTIME)
        command = ["-P", "-m", "okane", *words]  # -P: a folder named okane where you stand is not ours
    if "PYTHONPATH" in os.environ:  # it comes before what .venv holds, and may lead to another okane
        os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ['PYTHONPATH']}"
    sys.stdout.flush()
    os.execv(PYTHON, [str(PYTHON), *command])


def keep_bytecode() -> None:
    """Keep compiled modules in `.venv` where the environment forbids to write them beside the sources.

    The tests start hundreds of processes, and each would compile the whole of okane again."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        os.environ["PYTHONPYCACHEPREFIX"] = str(VENV / "bytecode")


def parallel(arguments: list[str]) -> list[str]:
    """Return the options for one pytest process more than cores, since tests wait for a fifth of their time.

    Return none if the arguments set the number themselves, or ask for a single test or a debugger."""
    alone = ("-n", "--numprocesses", "--pdb", "--trace", "-s", "--capture=no", "--collect-only", "--co", "-h", "--help")
    if any(word.startswith("-n") or word in alone or "::" in word for word in arguments):
        return []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Idle workers take tests from the others: the simulation, hundreds of long tests in a row, would be left to one.
    return ["-n", str(min(8, cores + 1)), "--dist", "worksteal"]


def check() -> None:
    """Run lint, format, types and import rules. Exit with the code of the first that fails."""
    for command in CHECKS:
        print("==", *command, flush=True)
        program, *arguments = command
        code = subprocess.call([str(VENV / "bin" / program), *arguments])
        if code != 0:
            sys.exit(code)


def set_up(requirements: str) -> None:
    """Make `.venv` hold exactly what `requirements` pins, unless it does already."""
    if is_complete(requirements):
        return
    if os.name != "posix":
        sys.exit("okane runs on Linux and macOS; on Windows use WSL.")
    with one_at_a_time() as lock:
        if is_complete(requirements):
            return
        try:
            reason = why_anew()
            if reason is not None:
                create(reason, lock)
            STAMP.unlink(missing_ok=True)
            install(requirements, lock)
        except KeyboardInterrupt:
            sys.exit("\nInterrupted. The next run begins the set-up again.")
        except OSError as error:
            sys.exit(f"okane cannot write its virtual environment {VENV}: {error.strerror}.")


def is_complete(requirements: str) -> bool:
    """Was `.venv` set up here, for this Python, with these requirements?"""
    stamp = read_stamp()
    return stamp.get(requirements) == fingerprint(requirements) and why_anew() is None


def read_stamp() -> dict[str, str]:
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def fingerprint(requirements: str) -> str:
    return hashlib.sha256((ROOT / requirements).read_bytes()).hexdigest()


def identity() -> dict[str, str]:
    """Return the facts whose change breaks a virtual environment: its path, and the Python it was created from."""
    return {
        "place": str(VENV),
        "version": "{}.{}".format(*sys.version_info[:2]),
        "python": os.path.realpath(PYTHON),
    }


def why_anew() -> str | None:
    """Return the reason to create `.venv` (again), or None. Exits if run.py did not create the one that is there."""
    if not VENV.exists():
        return "making"
    if not OURS.exists():
        sys.exit(f"{VENV} was not made by run.py. Move it away, or use it yourself: .venv/bin/python -m okane ...")
    stamp, now = read_stamp(), identity()
    if not stamp:
        return "the set-up was not finished, making it again"
    if stamp.get("place") != now["place"]:
        return f"it was made in {stamp.get('place')}, making it again here"
    if stamp.get("version") != now["version"]:
        return f"it was made for Python {stamp.get('version')}, making it again for {now['version']}"
    if stamp.get("python") != now["python"] or not PYTHON.exists():
        return "its Python is gone or has changed, making it again"
    return None


def create(reason: str, lock: int) -> None:
    """Create an empty `.venv` with pip, which also finds okane in this checkout."""
    try:
        import ensurepip  # noqa: F401, PLC0415 - Debian and Ubuntu leave these two to a package of their own
        import venv  # noqa: F401, PLC0415 - see above
    except ImportError as error:
        version = "{}.{}".format(*sys.version_info[:2])
        sys.exit(
            f"This Python cannot make virtual environments (no module {error.name}).\n"
            f"Debian, Ubuntu: apt install python3-venv (or python{version}-venv). Elsewhere: a complete Python."
        )
    if VENV.exists():
        shutil.rmtree(VENV)
    VENV.mkdir()
    OURS.touch()
    run_quietly(f"{reason} with Python {sys.version.split()[0]}", [sys.executable, "-m", "venv", str(VENV)], lock)
    library = next(VENV.glob("lib/python*/site-packages"))
    (library / "okane-checkout.pth").write_text(f"{ROOT}\n")
    script = VENV / "bin" / "okane"
    script.write_text(f'#!/bin/sh\nexec "{PYTHON}" -P -m okane "$@"\n')
    script.chmod(0o755)


def install(requirements: str, lock: int) -> None:
    """Install the pinned packages, then write the stamp."""
    count = sum("==" in line for line in (ROOT / requirements).read_text().splitlines())
    # These are meant for other installations: here they would make pip install outside the virtual environment.
    env = {name: value for name, value in os.environ.items() if name not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX")}
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--require-hashes", "--no-deps"]
    command = [str(PYTHON), "-m", "pip", "install", *options, "-r", str(ROOT / requirements)]
    run_quietly(f"installing {count} packages from {requirements}", command, lock, env)
    done = [RUNTIME, DEVELOPMENT] if requirements == DEVELOPMENT else [RUNTIME]
    draft = STAMP.with_suffix(".new")
    draft.write_text(json.dumps({**identity(), **{name: fingerprint(name) for name in done}}, indent=1))
    draft.replace(STAMP)


def run_quietly(what: str, command: list[str], lock: int, env: dict[str, str] | None = None) -> None:
    """Run `command` with a dot every two seconds. If it fails, print its output and exit.

    It inherits `lock`: if this process is killed, the next one waits until the command has ended.
    """
    print(f".venv: {what} ", end="", file=sys.stderr, flush=True)
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, pass_fds=(lock,)
        )
        shown_at = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.2)
                break
            if time.monotonic() - shown_at > 2:
                shown_at = time.monotonic()
                print(".", end="", file=sys.stderr, flush=True)
        if code != 0:
            output.seek(0)
            sys.exit(f"failed:\n\n{output.read().decode(errors='replace').strip()}")
    print("done", file=sys.stderr)


@contextlib.contextmanager
def one_at_a_time() -> Iterator[int]:
    """Wait for another set-up of this checkout. The lock is on the folder itself, and dies with its holder."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(".venv: another run.py is setting it up, waiting for it", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main(sys.argv[1:])
