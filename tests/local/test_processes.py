from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from okane.local.processes import Child, Record, Roster, Stage, end_leftover, spawn
from tests.local.waiting import wait_until

STUBBORN = "import signal,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
POLITE = "import signal,sys; print('up', flush=True); signal.pause()"
PARENT_OF_ONE = """
    import subprocess, sys, signal
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    print("up", child.pid, flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pause()
"""

Start = Callable[[str], Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def run(code: str) -> Child:
        log = tmp_path / f"child-{len(children)}.log"
        command = [sys.executable, "-c", textwrap.dedent(code)]
        children.append(spawn(name=log.stem, command=command, log=log, stages=(Stage(signal.SIGTERM, 0.3),)))
        wait_until(lambda: "up" in log.read_text())
        return children[-1]

    yield run
    for child in children:
        child.kill()


def test_a_child_is_asked_to_end_before_it_is_killed(start: Start) -> None:
    assert start(POLITE).stop() == -signal.SIGTERM


def test_a_child_that_ignores_the_request_is_killed_after_its_patience(start: Start) -> None:
    assert start(STUBBORN).stop() == -signal.SIGKILL


def test_killing_a_child_takes_its_own_children_along(start: Start) -> None:
    child = start(PARENT_OF_ONE)
    grandchild = psutil.Process(int(child.log.read_text().split()[1]))
    child.kill()
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_leftover_that_was_stopped_by_a_signal_is_ended(start: Start) -> None:
    child = start(POLITE)
    os.kill(child.pid, signal.SIGSTOP)
    assert end_leftover(child.record)
    assert child.exit_code() == -signal.SIGTERM


def test_a_stranger_that_got_a_leftovers_pid_is_left_alone(start: Start) -> None:
    child = start(POLITE)
    long_ago = replace(child.record, born_at_s=child.record.born_at_s - 3600)
    assert not end_leftover(long_ago)
    assert child.exit_code() is None


def test_a_leftover_that_has_gone_is_no_trouble(start: Start) -> None:
    child = start(POLITE)
    child.kill()
    assert not end_leftover(child.record)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = f"""
        import signal, sys
        from pathlib import Path
        from okane.local.processes import Stage, spawn
        command = [sys.executable, "-c", {POLITE!r}]
        child = spawn(name="c", command=command, log=Path({str(log)!r}), stages=(Stage(signal.SIGTERM, 5),))
        print(child.pid, flush=True)
        signal.pause()
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        child = psutil.Process(int(parent.stdout.readline()))
        wait_until(log.read_text)
        parent.kill()
        parent.wait()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_the_roster_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    record = Record(name="a", pid=4, born_at_s=1.5, stages=(Stage(15, 2.0), Stage(3, 1.0)))
    roster = Roster(tmp_path / "children.json")
    roster.add(record)
    roster.add(replace(record, name="b"))
    roster.discard("b")
    assert Roster(tmp_path / "children.json").load() == [record]


def test_a_missing_or_broken_roster_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "children.json"
    assert Roster(path).load() == []
    path.write_text('[{"name": 1')
    assert Roster(path).load() == []
