from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from okane.local import ownership, postgres_binaries
from okane.local.ports import free_port as find_free_port
from okane.local.postgres import PostgresServer
from okane.local.server import LocalError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="what only root can try")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """Not started. Its data are under a folder that only its owner may enter."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    made = make_server(home)
    yield made
    made.stop()


def make_server(home: Path) -> PostgresServer:
    return PostgresServer(folder=home / "postgres", log=home / "logs" / "postgres.log", port=find_free_port())


def query(server: PostgresServer, statement: str) -> object:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row[0] if row is not None else None


def test_what_was_committed_survives_a_kill(private_postgres: PostgresServer) -> None:
    with psycopg.connect(private_postgres.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    private_postgres.kill()
    private_postgres.start()
    assert query(private_postgres, "SELECT answer FROM kept") == 42


def test_it_stops_in_good_order_although_somebody_is_connected(server: PostgresServer, tmp_path: Path) -> None:
    server.start()
    with contextlib.closing(psycopg.connect(server.url)) as connection:
        connection.execute("SELECT 1")
        server.stop()
    log = (tmp_path / "home" / "logs" / "postgres.log").read_text()
    assert "received fast shutdown request" in log
    assert "received immediate shutdown request" not in log  # which comes when its patience is at an end


def test_a_session_that_crashes_does_not_take_the_server_down(server: PostgresServer) -> None:
    server.start()
    with contextlib.closing(psycopg.connect(server.url, autocommit=True)) as connection:
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    deadline = time.monotonic() + 20
    while not server.ready():
        assert time.monotonic() < deadline
    assert query(server, "SELECT 1") == 1


def test_every_acknowledged_write_is_on_disk_and_only_loopback_is_served(server: PostgresServer) -> None:
    server.start()
    assert query(server, "SHOW fsync") == "on"
    assert query(server, "SHOW synchronous_commit") == "on"
    assert query(server, "SHOW listen_addresses") == "127.0.0.1"
    assert query(server, "SHOW unix_socket_directories") == ""


def test_nobody_gets_in_without_the_password(server: PostgresServer, tmp_path: Path) -> None:
    server.start()
    user, _, rest = server.url.partition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"{user.rpartition(':')[0]}:wrong@{rest}")
    assert (tmp_path / "home" / "postgres" / "password").stat().st_mode & 0o077 == 0


def test_the_folders_above_the_data_are_not_opened_to_others(server: PostgresServer, tmp_path: Path) -> None:
    server.start()
    for folder in (tmp_path / "home", tmp_path / "home" / "postgres", tmp_path / "home" / "postgres" / "cluster"):
        assert folder.stat().st_mode & 0o077 == 0, folder


@pytest.mark.may_skip
@as_root
def test_for_root_it_runs_as_another_user(server: PostgresServer) -> None:
    server.start()
    assert server.child is not None
    own = pwd.getpwnam(ownership.POSTGRES_USER).pw_uid
    assert own not in (0, pwd.getpwnam("nobody").pw_uid)
    process = psutil.Process(server.child.pid)
    assert set(process.uids()) == {own}
    owners = set[int]()
    for child in process.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # its sessions and helpers come and go
            owners.update(child.uids())
    assert owners == {own}


@as_root
def test_without_a_user_of_its_own_it_runs_as_nobody_and_says_so(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "POSTGRES_USER", "okane-unmade")
    monkeypatch.setattr(ownership, "_SYSTEM_PATH", "/nowhere")  # where there is no useradd
    said: list[str] = []
    monkeypatch.setattr(server, "_report", said.append)
    server.start()
    assert server.child is not None
    assert psutil.Process(server.child.pid).uids()[0] == pwd.getpwnam("nobody").pw_uid
    assert [line for line in said if "Postgres runs as nobody" in line and "no useradd" in line]


@as_root
@pytest.mark.parametrize("cut_short", [False, True])
def test_a_cluster_of_an_earlier_version_is_given_to_its_own_user(
    server: PostgresServer, tmp_path: Path, cut_short: bool
) -> None:
    server.start()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    cluster = tmp_path / "home" / "postgres" / "cluster"
    nobody = pwd.getpwnam("nobody")
    for path in (cluster, *cluster.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    if cut_short:  # in the middle of the hand-over
        os.chown(cluster, 0, 0)
        own = pwd.getpwnam(ownership.POSTGRES_USER)
        os.chown(cluster / "PG_VERSION", own.pw_uid, own.pw_gid)
    server.start()
    assert query(server, "SELECT answer FROM kept") == 42
    own_uid = pwd.getpwnam(ownership.POSTGRES_USER).pw_uid
    assert {path.lstat().st_uid for path in (cluster, *cluster.rglob("*"))} == {own_uid}
    assert cluster.stat().st_mode & 0o077 == 0


@as_root
@pytest.mark.parametrize("how", ["hardlink", "symlink"])
def test_what_another_user_may_have_linked_into_a_cluster_is_not_given_away(
    server: PostgresServer, tmp_path: Path, how: str
) -> None:
    server.prepare()
    cluster = tmp_path / "home" / "postgres" / "cluster"
    secret = tmp_path / "secret"
    secret.write_text("root's")
    (cluster / "planted").hardlink_to(secret) if how == "hardlink" else (cluster / "planted").symlink_to(secret)
    os.chown(cluster, pwd.getpwnam("nobody").pw_uid, 0)
    with pytest.raises(LocalError, match="planted"):
        server.prepare()
    assert secret.stat().st_uid == 0


def test_tls_that_it_does_not_speak_is_said_and_not_waited_for(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    with pytest.raises(LocalError, match="PGSSLMODE"):
        server.start()


def test_the_server_inherits_nothing_but_what_it_needs(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OKANE_API_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "PGOPTIONS", "LD_PRELOAD_", "HOME"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.delenv("PGOPTIONS")
    server.start()
    assert server.child is not None
    environment = psutil.Process(server.child.pid).environ()
    assert "canary" not in environment.values()
    ours = {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "TZDIR", "LC_ALL"}
    postgres_own = {name for name in environment if name.startswith(("PG", "LC_"))}
    assert set(environment) <= ours | postgres_own


def _reachable_python() -> Path:
    """An interpreter like ours that any user can run, with packages that any user can read, or a skip."""
    packages = [Path(entry) for entry in sys.path if entry.endswith("site-packages")]
    for python in (Path(sys.executable).resolve(), Path("/usr/local/bin/python3"), Path("/usr/bin/python3")):
        folders = [*python.parents, *(folder for path in packages for folder in [path, *path.parents])]
        if not python.exists() or not all(folder.stat().st_mode & 0o001 for folder in folders):
            continue
        answer = subprocess.run(
            [python, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if answer.stdout.strip() == str(sys.version_info[:2]):
            return python
    pytest.skip("no Python of this version that an ordinary user can reach")


@pytest.mark.may_skip
@as_root
def test_an_ordinary_user_runs_it_as_himself(tmp_path: Path) -> None:
    """In a process of its own: a user cannot become root again."""
    python = _reachable_python()
    nobody = pwd.getpwnam("nobody")
    home = Path("/tmp") / f"okane-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    code = """
        import os, sys
        from pathlib import Path
        from tests.local.test_postgres import make_server, query
        home = Path(sys.argv[1])
        server = make_server(home)
        server.start()
        print(os.geteuid(), query(server, "SELECT 1"), (home / "postgres" / "cluster").stat().st_uid)
        server.stop()
    """
    try:
        done = subprocess.run(
            [python, "-c", textwrap.dedent(code), str(home)],
            env={**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join(sys.path)},
            cwd=Path(__file__).parents[2],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.split() == [str(nobody.pw_uid), "1", str(nobody.pw_uid)], done.stderr
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


@pytest.mark.may_skip
@as_root
def test_root_copies_programs_that_the_other_user_cannot_reach(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as top:
        Path(top).chmod(0o755)
        cache = Path(top) / "okane"
        monkeypatch.setattr(postgres_binaries, "_CACHE", cache)
        monkeypatch.setattr(postgres_binaries, "_reachable", lambda _: False)
        server.start()
        assert query(server, "SELECT 1") == 1
        server.stop()
        assert server.child is not None
        (copy,) = cache.iterdir()
        copied_at = copy.stat().st_ctime_ns
        server.start()
        assert copy.stat().st_ctime_ns == copied_at, "copied once"
        server.stop()
        copy.chmod(0o777)
        with pytest.raises(LocalError, match="not a folder that only root can write to"):
            server.start()


def test_a_set_up_that_was_killed_is_done_again(server: PostgresServer, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "postgres"
    half = folder / "draft-half"
    (half / "base").mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server.start()
    assert not half.exists()
    assert query(server, "SELECT 1") == 1


def test_data_of_another_postgres_version_are_refused(server: PostgresServer, tmp_path: Path) -> None:
    server.prepare()
    version = tmp_path / "home" / "postgres" / "cluster" / "PG_VERSION"
    version.write_text("17\n")
    with pytest.raises(LocalError, match=r"made by Postgres 17, this is 18: give another --data folder"):
        server.start()


def test_a_pid_file_whose_number_is_now_a_strangers_does_not_stop_the_start(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.start()
    server.kill()
    lock = tmp_path / "home" / "postgres" / "cluster" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    # As after the restart of a container: our parent, which Postgres would not recognise as one of its own ancestors.
    with subprocess.Popen(["/bin/sleep", "60"], user=lock.stat().st_uid if os.geteuid() == 0 else None) as stranger:
        lock.write_text("\n".join([str(stranger.pid), lines[1], str(int(lines[2]) - 3600), *lines[3:]]) + "\n")
        server.start()
        assert query(server, "SELECT 1") == 1
        stranger.kill()
