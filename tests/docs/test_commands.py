"""Every command in the documents for operators runs: those of okane are parsed, those for the servers are executed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from okane.cli import COMMANDS, load_command
from okane.lanes import operations_stream, payments_stream
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from tests.deploy.files import DEPLOY, ROOT, loaded

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "console.md",
    ROOT / "docs" / "providers.md",
    ROOT / "docs" / "reconcile.md",
    ROOT / "docs" / "webhooks.md",
    *sorted((ROOT / "docs").glob("operations*.md")),
    DEPLOY / "README.md",
]


def _lines(document: Path) -> Iterator[str]:
    """Yield the commands: every line of a block, or the lines after a prompt in a block that shows a session."""
    for kind, block in re.findall(r"^```(|console)\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if not kind or line.startswith("$ "):
                yield line.removeprefix("$ ").strip()


LINES = sorted({line for document in DOCUMENTS for line in _lines(document)})


def commands_with_prefix(prefix: str) -> list[list[str]]:
    """Return the words of each command with this prefix, without its comment."""
    return [shlex.split(line, comments=True) for line in LINES if line.startswith(prefix)]


def okane_commands() -> Iterator[list[str]]:
    """Yield the words after `okane` or `python3 run.py`, in blocks of commands and in the text."""
    for line in LINES:
        if found := re.search(r"(?:^|exec api |-- |bin/)okane (\S.*)|^python3 run\.py (\S.*)", line):
            yield shlex.split(found[1] or found[2], comments=True)
    for document in [*DOCUMENTS, ROOT / "docs" / "webhooks.md"]:  # its blocks are in other languages
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for words in re.findall(r"`okane ([a-z][^`|\[…]*)`", text):
            yield words.split()


def check(command: Any, words: list[str]) -> None:
    """Check that the command has this subcommand, and that subcommand these options."""
    if hasattr(command, "commands"):
        assert words
        assert words[0] in command.commands, words
        check(command.commands[words[0]], words[1:])
    elif not command.context_settings.get("ignore_unknown_options"):
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert options <= {*known, "--help", "-h"}, words


def test_the_commands_of_okane_exist() -> None:
    found = [words for words in okane_commands() if words[0] not in ("test", "WORD")]
    assert len(found) > 20
    for words in found:
        assert words[0] in COMMANDS, words
        check(load_command(words[0]), words[1:])


def test_postgres_executes_every_statement(private_postgres: PostgresServer) -> None:
    statements = [words[3] for words in commands_with_prefix("psql ")]
    assert len(statements) > 8
    assert all(
        words[:3] == ["psql", "$DATABASE_URL", "-c"] and len(words) == 4 for words in commands_with_prefix("psql ")
    )
    with psycopg.connect(private_postgres.url, autocommit=True) as connection:
        for statement in sorted(statements, key=lambda text: "ALTER SYSTEM" in text or "reload" in text):  # these last
            connection.execute(statement.encode())


def test_redis_executes_every_command(private_redis: RedisServer) -> None:
    commands = [words[3:] for words in commands_with_prefix("redis-cli ")]
    assert len(commands) > 8
    assert all(words[:3] == ["redis-cli", "-u", "$REDIS_URL"] for words in commands_with_prefix("redis-cli "))
    with redis.Redis.from_url(private_redis.url) as client:
        client.response_callbacks.clear()  # the answers do not matter, only that the server accepts the commands
        for stream in (payments_stream("okane:payments"), operations_stream("okane:operations")):
            for key in stream.lane_keys:
                client.xgroup_create(key, "workers", id="0", mkstream=True)
        for words in commands:
            client.execute_command(*words)


def test_the_services_of_compose_and_the_units_exist() -> None:
    services = set(loaded(DEPLOY / "compose.yaml")["services"])
    for words in commands_with_prefix("docker compose "):
        assert words[2:4] == ["-f", "deploy/compose.yaml"]
        if words[4] == "-f":  # a file on top of it
            assert (ROOT / words[5]).exists()
            del words[4:6]
        named = {word.partition("=")[0] for word in words[5:] if re.fullmatch(r"[a-z]+(=\d+)?", word)}
        assert named - {"okane", "status", "doctor", "keys", "create", "ana"} <= services, words
    units = {path.name for path in (DEPLOY / "systemd").glob("*.service")}
    named = set(
        re.findall(
            r"okane-(?:api|console|dispatcher|migrate|worker)(?:@\d)?", " ".join(w for w in LINES if "systemctl" in w)
        )
    )
    assert len(named) == 6
    assert {re.sub(r"@\d", "@", name) + ".service" for name in named} == units


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(Path(path).relative_to(ROOT)))
def test_files_in_commands_exist(document: Path) -> None:
    for block in re.findall(r"^```\w*\n(.*?)^```$", document.read_text(), re.DOTALL | re.MULTILINE):
        for path in re.findall(r"(?<![\w/.])(?:deploy|grafana|docs|tests)/[\w./*-]+", block):
            assert path == "deploy/.env" or list(ROOT.glob(path)), path
