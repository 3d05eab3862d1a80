from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from okane.local.ports import free_port as find_free_port
from okane.local.redis_server import RedisServer, find_binary
from okane.local.server import StartError


def ask(server: RedisServer, *commands: str, password: bool = True) -> list[str]:
    """Send inline commands, answer the reply lines."""
    secret, _, address = server.url.removeprefix("redis://:").partition("@")
    host, port = address.removesuffix("/0").split(":")
    lines = [*([f"AUTH {secret}"] if password else []), *commands, "QUIT"]
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer.decode().split("\r\n")


def test_what_was_written_survives_a_restart(private_redis: RedisServer) -> None:
    assert "+OK" in ask(private_redis, "SET kept yes")
    private_redis.stop()
    private_redis.start()
    assert "yes" in ask(private_redis, "GET kept")


def test_it_starts_again_after_a_kill(private_redis: RedisServer) -> None:
    private_redis.kill()
    private_redis.start()
    assert private_redis.ready()


def test_a_log_that_the_server_cannot_read_again_is_set_aside_at_the_next_start(
    private_redis: RedisServer, tmp_path: Path
) -> None:
    assert "+OK" in ask(private_redis, "SET kept yes")
    private_redis.kill()
    [increment] = (tmp_path / "private-redis").glob("*/appendonlydir/*.incr.aof")
    increment.write_bytes(b"no command\r\n" + increment.read_bytes())
    with pytest.raises(StartError, match="Bad file format"):
        private_redis.start()
    private_redis.start()
    assert "$-1" in ask(private_redis, "GET kept")
    [aside] = (tmp_path / "private-redis").glob("*.unreadable-*")
    assert list(aside.rglob("*.aof"))


def test_the_server_inherits_nothing_but_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OKANE_API_KEY", "DATABASE_URL", "AWS_SECRET_ACCESS_KEY", "HOME"):
        monkeypatch.setenv(name, "canary")
    server = RedisServer(folder=tmp_path / "redis", log=tmp_path / "redis.log", port=find_free_port())
    server.start()
    assert server.child is not None
    assert "canary" not in psutil.Process(server.child.pid).environ().values()
    server.stop()


def test_nothing_is_ever_evicted_and_every_write_is_logged(private_redis: RedisServer) -> None:
    assert "noeviction" in ask(private_redis, "CONFIG GET maxmemory-policy")
    assert "yes" in ask(private_redis, "CONFIG GET appendonly")


def test_nobody_gets_in_without_the_password(private_redis: RedisServer, tmp_path: Path) -> None:
    assert ask(private_redis, "GET kept", password=False)[0].startswith("-NOAUTH")
    private = tmp_path / "private-redis"
    assert (private / "password").stat().st_mode & 0o077 == 0
    assert (private / "redis.conf").stat().st_mode & 0o077 == 0


def test_a_data_folder_with_quotes_and_spaces_in_its_name_works(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" \\ folder'
    server = RedisServer(folder=folder, log=tmp_path / "redis.log", port=find_free_port())
    try:
        server.start()
        assert ask(server, "PING")[1] == "+PONG"
    finally:
        server.stop()


def test_a_taken_port_is_reported_with_the_servers_own_words(private_redis: RedisServer, tmp_path: Path) -> None:
    port = int(private_redis.url.rpartition(":")[2].removesuffix("/0"))
    second = RedisServer(folder=tmp_path / "second", log=tmp_path / "second.log", port=port)
    with pytest.raises(StartError, match="Address already in use"):
        second.start()


def test_an_old_server_on_the_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc bits=64 build=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert find_binary().path != old


def test_a_new_server_on_the_path_is_preferred_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = tmp_path / "redis-server"
    new.write_text("#!/bin/sh\necho 'Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc bits=64 build=0'\n")
    new.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_binary()
    assert (found.path, found.make, found.version) == (new, "redis", (7, 2, 4))
