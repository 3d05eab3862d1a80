"""Ports for servers that start later stay reserved, and servers can listen there, also after a restart."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
import pytest

from okane.local.ports import LOOPBACK, free_port, is_taken


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets two bind one port before either listens")
def test_a_port_is_given_to_one_process_only() -> None:
    port = free_port()
    program = f"import random; random.randrange = lambda *_: {port}\nfrom okane.local.ports import free_port"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; print(free_port())"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) != port


def test_a_server_may_listen_there_and_again_after_its_end() -> None:
    port = free_port()
    for _ in range(2):
        assert not is_taken(port)
        with socket.create_server((LOOPBACK, port)):
            assert is_taken(port)


def test_however_many_are_asked_for_few_files_are_held() -> None:
    for _ in range(64):
        free_port()
    before = psutil.Process().num_fds()
    for _ in range(64):
        free_port()
    assert psutil.Process().num_fds() == before
