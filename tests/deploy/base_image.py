"""The image of deploy/Dockerfile, built without an image registry: on a base that is made of Debian's packages.

apt gets those from its own mirrors, and pip the packages of Python from where it is configured to get them. The build itself
has no network: it needs what the Dockerfile names, and nothing else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import pip
import pytest

from tests.deploy.container_engine import Engine, limits
from tests.deploy.files import DEPLOY, ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
# What the Dockerfile and the tests call, with what these depend on. All of Debian's base would take a minute more.
_PACKAGES = ("base-files", "base-passwd", "bash", "coreutils", "dash", "findutils", "libc-bin", "python3")
_MERGED = ("bin", "lib", "lib64", "sbin")  # as in every Debian: links into /usr
# Where pip looks in the build.
_PIP = "[global]\nno-index = true\nfind-links = /wheels\n"


def base_name() -> str:
    """Return the image that the Dockerfile begins with."""
    return re.findall(r"^FROM (\S+) AS build$", DOCKERFILE.read_text(), re.MULTILINE)[0]  # type: ignore[no-any-return]


def build(engine: Engine, folder: Path, *, tag: str) -> None:
    """Build the image as `tag`. `folder` gets some 500 MB. Skips the test where the machine lets no container run."""
    root = make_base(engine, folder / "base")
    if (why := engine.why_no_container_runs(base_name(), "/usr/bin/true")) is not None:
        pytest.skip(f"no container can run on this machine: {why}")
    wheels = folder / "wheels"
    download_wheels(wheels, python=(root / "usr/bin/python3").readlink().name.removeprefix("python"))
    (folder / "pip.conf").write_text(_PIP)
    engine.call(
        "build",
        "--pull=never",
        "--network=none",
        "--layers=false",
        "--format=docker",  # the other format has no health check
        *limits(),
        f"--volume={wheels}:/wheels:ro",
        f"--volume={folder / 'pip.conf'}:/etc/pip.conf:ro",
        f"--file={DOCKERFILE}",
        f"--tag={tag}",
        ROOT,
        timeout_s=300,
    )


def make_base(engine: Engine, folder: Path) -> Path:
    """Make a small Debian with the Python of its release, and name it as the Dockerfile's base. Return its files."""
    root = folder / "root"
    (root / "usr").mkdir(parents=True)
    for name in _MERGED:
        (root / "usr" / name).mkdir()
        (root / name).symlink_to(f"usr/{name}")
    for package in download_packages(folder / "packages"):
        # Not installed: the scripts of the packages would take most of the time, and nothing here needs what they do.
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
            _run(["tar", "--extract", "--keep-directory-symlink", "--directory", str(root)], stdin=files.stdout)
    for name in ("passwd", "group"):
        (root / "etc" / name).write_text((root / f"usr/share/base-passwd/{name}.master").read_text())
    _add_pip(root)
    with subprocess.Popen(["tar", "--create", "--directory", str(root), "."], stdout=subprocess.PIPE) as tar:
        engine.call("import", "-", f"docker.io/library/{base_name()}", stdin=tar.stdout)
    return root


def download_packages(folder: Path) -> list[Path]:
    """Get the packages, and all that they depend on, as for a machine that has none."""
    (folder / "partial").mkdir(parents=True)
    (folder / "status").touch()
    places = {"Dir::State::status": folder / "status", "Dir::Cache::archives": folder, "Debug::NoLocking": "true"}
    options = ["-qq", "--yes", "--download-only", "--no-install-recommends", "--option=APT::Sandbox::User=root"]
    options += [f"--option={name}={value}" for name, value in places.items()]
    _run(["apt-get", "install", *options, *_PACKAGES], timeout_s=300)
    return sorted(folder.glob("*.deb"))


def _add_pip(root: Path) -> None:
    """Add this environment's pip, and `python`: they are in the image that this base stands for."""
    [library] = root.glob("usr/lib/python3.*")
    (library / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    target = root / "usr/local/lib" / library.name / "dist-packages"
    shutil.copytree(Path(pip.__file__).parent, target / "pip", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    program = root / "usr/local/bin/pip"
    program.write_text("#!/usr/bin/python3\nfrom pip._internal.cli.main import main\n\nraise SystemExit(main())\n")
    program.chmod(0o755)


def download_wheels(folder: Path, *, python: str) -> None:
    """Get the packages that the Dockerfile installs, for this version of Python, checked by their hashes."""
    options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python}"]
    folder.mkdir()
    for name in ("requirements.txt", "requirements-build.txt"):
        # pip applies these markers to the Python that runs it: 3.11.2 needs a package that 3.11.3 has built in.
        (folder / name).write_text(re.sub(r" ; python_full_version [^\\\n]*", "", (DEPLOY / name).read_text()))
    files = [f"--requirement={file}" for file in folder.glob("*.txt")]
    _run([sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", *files], timeout_s=300)


def _run(command: list[str], *, timeout_s: float = 60, stdin: IO[bytes] | None = None) -> None:
    done = subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
