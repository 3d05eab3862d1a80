from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from okane.local.data_folder import lock_data_folder
from okane.local.processes import Stage, spawn
from okane.local.server import LocalError
from tests.local.running_endpoints import ENDPOINTS


def ignore(_: str) -> None: ...


def test_a_second_owner_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    with (
        lock_data_folder(tmp_path / "data", report=ignore),
        pytest.raises(LocalError, match=rf"already up in .* \(pid {os.getpid()}\).*--data"),
        lock_data_folder(tmp_path / "data", report=ignore),
    ):
        pass


def test_the_folder_is_free_again_afterwards_and_is_its_owners_alone(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_data_folder(tmp_path / "data", report=ignore) as folder:
            assert folder.path.stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_read_is_closed_and_that_is_said(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for mode in (0o755, 0o770, 0o777):
        with lock_data_folder(data, report=ignore):
            pass
        data.chmod(mode)
        said: list[str] = []
        with lock_data_folder(data, report=said.append):
            assert data.stat().st_mode & 0o777 == 0o700
        assert said == [f"closed {data} to other users (it had mode {mode:04o})"]


def test_an_open_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o755)
    (data / "thesis.txt").touch()
    with pytest.raises(LocalError, match="holds what is not okane's"), lock_data_folder(data, report=ignore):
        pass
    assert data.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_every_user_may_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(LocalError, match=f"chmod o-w {above}"), lock_data_folder(above / "data", report=ignore):
        pass
    (tmp_path / "link").symlink_to(above / "data")
    with pytest.raises(LocalError, match=f"chmod o-w {above}"), lock_data_folder(tmp_path / "link", report=ignore):
        pass
    above.chmod(0o1777)  # as /tmp is
    with lock_data_folder(above / "data", report=ignore):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="what only root can try")
def test_what_another_user_owns_or_has_put_there_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with lock_data_folder(data, report=ignore):
        pass
    (data / "redis").mkdir()
    os.chown(data / "redis", 65534, 65534)
    data.chmod(0o777)
    with pytest.raises(LocalError, match="another user has put redis into"), lock_data_folder(data, report=ignore):
        pass
    os.chown(data, 65534, 65534)
    with pytest.raises(LocalError, match="belongs to user"), lock_data_folder(data, report=ignore):
        pass


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "a", "file/data"])
def test_a_path_that_cannot_be_a_folder_is_a_message(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="--data"), lock_data_folder(tmp_path / name, report=ignore):
        pass


def test_endpoints_are_known_to_others_while_it_is_owned_and_published(tmp_path: Path) -> None:
    with lock_data_folder(tmp_path / "data", report=ignore) as folder:
        assert folder.endpoints() is None
        folder.publish(ENDPOINTS)
        assert folder.endpoints() == ENDPOINTS
        assert (folder.path / "endpoints.json").stat().st_mode & 0o077 == 0
    assert folder.endpoints() is None, "a file that a killed owner left says nothing"
    with lock_data_folder(tmp_path / "data", report=ignore) as folder:
        assert folder.endpoints() is None


def test_what_a_killed_owner_left_running_is_ended_before_anything_else(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()"]
    child = spawn(name="worker-1", command=command, log=tmp_path / "log", stages=(Stage(signal.SIGTERM, 5),))
    os.kill(child.pid, signal.SIGSTOP)
    code = f"""
        import os, signal
        from pathlib import Path
        from okane.local.data_folder import lock_data_folder
        from okane.local.processes import Record, Stage
        with lock_data_folder(Path({str(tmp_path / "data")!r}), report=print) as folder:
            born_at_s = {child.record.born_at_s}
            record = Record(name="worker-1", pid={child.pid}, born_at_s=born_at_s, stages=(Stage(15, 5.0),))
            folder.roster.add(record)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    said: list[str] = []
    with lock_data_folder(tmp_path / "data", report=said.append):
        assert child.exit_code() == -signal.SIGTERM
    assert said == [f"ended worker-1 (pid {child.pid}), left running by an earlier okane that was killed"]
    assert not psutil.pid_exists(child.pid)


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LocalError, match="cannot write the data folder"),
        lock_data_folder(tmp_path / "file" / "x", report=ignore),
    ):
        pass
