"""Every setting and every option of every command, with typical mistakes: a message that names the mistake, exit code 2, no
traceback, and no secret on the terminal."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from okane import cli
from okane.app import process as lifecycle
from okane.app.api import run_api
from okane.app.console import run_console
from okane.app.worker import run_worker
from okane.config import Settings, load
from okane.errors import SetupError
from okane.load.client import HttpClient
from okane.load.options import LoadOptions
from okane.local.ports import free_port
from okane.logs import redacted

SECRET = "hunter2"
GARBAGE = [
    " ",
    "  x  ",
    SECRET,
    f"'{SECRET}'",
    "-1",
    "0",
    "1e999",
    "9" * 30,
    "9" * 5000,
    "nan",
    "inf",
    "-inf",
    "1.5",
    "true",
    "null",
    "{}",
    '{"a": 1}',
    "[1]",
    "[::1",
    "٣",  # a digit, for Python
    "é\u202e\u2028",
    "a,b",
    ",",
    "%zz",
    "x" * 5000,
    "\x1b[31m",
    "\udcff",  # a byte that is not UTF-8
    "99999d",
    "1h" * 3000,
    f"postgres://u:{SECRET}@h:x/d",
    f"redis://:{SECRET}@a:1,b:2/0",
    f"http://u:{SECRET}@h:x",
    f"sk_test_{'a' * 12}_{SECRET}",
]


def _setting(field: str) -> str:
    alias = Settings.model_fields[field].validation_alias
    return f"OKANE_{field.upper()}" if alias is None else str(alias.choices[-1])  # type: ignore[union-attr]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A temporary folder, and an environment with servers that are down; reset after the test."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    os.environ.update(
        DATABASE_URL=f"postgresql://okane:{SECRET}@127.0.0.1:{free_port()}/okane",
        REDIS_URL=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0",
        PROVIDER_BASE_URL=f"http://127.0.0.1:{free_port()}",
        PORT="0",
        OKANE_AUTH="none",
        COLUMNS="200",
    )
    yield before
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_setting_that_cannot_be_is_named_and_not_repeated(field: str, elsewhere: dict[str, str]) -> None:
    name = _setting(field)
    before = os.environ.get(name)
    for value in (*GARBAGE, "' '", ""):
        os.environ[name] = value
        if field.startswith("otlp"):
            os.environ["OKANE_TRACING"] = "true"
        said = name
        try:
            load()
        except SetupError as error:
            said = str(error)
        assert name in said, (name, value, said)
        assert SECRET not in said, (name, value, said)
    os.environ.pop(name) if before is None else os.environ.update({name: before})


# The others are compared with, or printed.
USED = (
    "host metrics_host stream group concurrency max_connections drain lease retry_cap sweep_interval provider_timeout"
    " look_up_delays tracing failpoint rate_limit max_due_age"
)


OF_CONSOLE = "console_host console_base console_secret console_proxies"
STARTS = [
    *((process, field) for process in ("api", "worker") for field in USED.split()),
    *(("console", field) for field in OF_CONSOLE.split()),
]


@pytest.mark.parametrize(("process", "field"), STARTS)
async def test_a_process_starts_with_every_value_that_is_taken_or_says_why_not(
    field: str, process: str, elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begin to stop at once."""
    stopping = lifecycle.StopSignal()
    stopping.set()
    monkeypatch.setattr(lifecycle, "stop_on_signals", lambda: stopping)
    monkeypatch.setattr(lifecycle, "tune_gc", lambda: None)
    extreme = ["3660d", "87840h", "0.000001", "1ms", "100000", "2147483647", "1/h burst 999999999"]
    for value in (*GARBAGE, *extreme):
        os.environ[_setting(field)] = value
        said = ""
        try:
            settings = load(metrics_port=free_port(), console_port=0)
            async with asyncio.timeout(20):
                match process:
                    case "api":
                        await run_api(settings)
                    case "worker":
                        await run_worker(settings, name="w")
                    case "console":
                        await run_console(settings)
        except SetupError as error:
            said = str(error)
        assert f":{SECRET}@" not in redacted(said), (field, value)


def typed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["okane", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int), arguments
    return ended.value.code


LOAD = "--payments 1 --timeout 0 --url http://127.0.0.1:9"
# For each command the arguments before the value. Several are separated by `|`.
COMMANDS = {
    "up": "--workers|--port|--console-port|--provider-port|--postgres-port|--redis-port|--metrics-port",
    "api": "--port|--processes|--processes 2 --host|--host",
    "console": "--port|--host",
    "worker": "--concurrency|--processes|--name",
    "provider": "--port|--host|--journal|--latency-ms|--hang-s|--success|--seed|--retry-after|--lookup-lag-ms",
    "migrate": "|--data",
    "status": "--interval|--data|",
    "top": "--once --interval|--once",
    "doctor": "--data|",
    "load": f"--payments|--rate|--connections|--timeout|--url|--seed|--data|{LOAD} --key|{LOAD} --provider-url",
    "dead": "ls --before|ls --limit|show|replay|replay --all --limit|purge|purge --all --yes --older-than-h",
    "keys": "create --account|create --scopes|create --name|create --expires|create --rate-limit|create --mode"
    "|ls --account|revoke|rotate|rotate sk_test_abcdefghijkl --overlap",
    "torture": "--minutes|--kills|--payments|--rate|--workers|--apis|--faults|--set|--rest|--seed",
    "": "",
}


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make long-running commands end at once."""

    async def ended(*_arguments: object, **_named: object) -> int:
        return 0

    for name in ("okane.local.up.up", "okane.app.copies.run_copies", "torture.run.run_torture"):
        monkeypatch.setattr(name, ended if "torture" not in name else _ended_well)
    stopping = lifecycle.StopSignal()
    stopping.set()
    monkeypatch.setattr(lifecycle, "stop_on_signals", lambda: stopping)
    monkeypatch.setattr(lifecycle, "tune_gc", lambda: None)
    monkeypatch.setattr("okane.load.run_load", _no_load)


class Report:
    exit_code = 0


async def _ended_well(*_arguments: object) -> Report:
    return Report()


async def _no_load(options: object, _console: object) -> Report:
    assert isinstance(options, LoadOptions)
    assert math.isfinite(options.timeout_s)
    async with HttpClient(api_key=options.key, timeout_s=1) as http:
        await http.get(f"{options.url}/v1/health")
        if options.provider_url is not None:
            await http.get(f"{options.provider_url}/journal")
    return Report()


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_ends_in_a_traceback_or_tells_a_secret_whatever_is_typed(
    command: str,
    elsewhere: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    database_url: str,
    redis_url: str,
) -> None:
    if command in ("dead", "keys"):  # these connect to a server
        os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = database_url, redis_url
    a_file = tmp_path / "file"
    a_file.write_text("")
    # One option gets all values, the others those that they parse themselves: the settings parse the rest.
    for number, options in enumerate(COMMANDS[command].split("|")):
        values = GARBAGE[::2] if number == 0 else ["-1", "9" * 30, "nan", "inf", "\udcff", *GARBAGE[-4:]]
        for value in (*values, "", str(a_file), "/" + "x" * 5000):
            arguments = [*command.split(), *options.split(), value]
            code = typed(arguments, monkeypatch)
            said = "".join(capfd.readouterr())
            assert "Traceback" not in said, (arguments, said[-2000:])
            assert f":{SECRET}@" not in said, (arguments, said)
            assert code in (0, 1, 2), (arguments, code)
            if SECRET in said:  # repeated only as a name, never as a password
                assert code == 0 or value in (SECRET, f"'{SECRET}'"), (arguments, said)


def test_a_password_in_the_wrong_place_is_not_repeated(
    elsewhere: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"postgres://okane:{SECRET}@h/d"
    key = f"sk_test_{'a' * 12}_{'0f' * 31}g"  # with a slip in it
    for arguments in (
        ["migrate", url],
        [url],
        ["dead", url],
        ["status", f"--database-url={url}"],
        ["load", "--payments", url],
        ["load", "--url", url],
        ["torture", "--set", url],
        ["keys", "revoke", key],
        ["keys", "rotate", key],
    ):
        assert typed(arguments, monkeypatch) == 2
        said = "".join(capfd.readouterr())
        assert SECRET not in said, (arguments, said)
        assert "0f0f" not in said, (arguments, said)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PORT=8080\nthis is no setting\n", "line 2"),
        (b"DATABASE_URL\n", "line 1"),
        (f"DATABASE_URL='postgres://u:{SECRET}@h/d\n".encode(), "line 1"),
        (b"PORT=\xff\xfe\n", "UTF-8"),
        (b"PORT=80\x0080\n", "line 1"),
    ],
)
def test_an_env_file_with_a_line_that_would_be_skipped_is_refused(
    content: bytes, message: str, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SetupError, match=message) as refused:
        load()
    assert SECRET not in str(refused.value)


def test_an_env_file_that_is_a_folder_is_refused(elsewhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(SetupError, match=r"\.env cannot be read"):
        load()


def test_an_env_file_of_windows_is_read(elsewhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("\ufeffOKANE_DRAIN=7s\r\n# a comment\r\nexport MAX_RETRIES=2\r\n".encode())
    settings = load()
    assert (settings.drain.total_seconds(), settings.max_retries) == (7, 2)


@pytest.mark.may_skip
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_env_file_that_may_not_be_read_is_named(elsewhere: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".env").touch(mode=0o000)
    with pytest.raises(SetupError, match=r"\.env cannot be read: Permission denied"):
        load()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"'http://u:{SECRET}@h'"}, "OTEL_EXPORTER_OTLP_ENDPOINT: it has quotes"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "h:4318"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: it must begin"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, r"OTEL_\*"),
    ],
)
async def test_tracing_that_is_set_wrong_is_said_at_the_start(
    variables: dict[str, str], message: str, elsewhere: dict[str, str]
) -> None:
    os.environ.update(variables, OKANE_TRACING="true")
    with pytest.raises(SetupError, match=message) as refused:
        await run_api(load())
    assert SECRET not in str(refused.value)
