"""The command line. Each command reads its options, builds what it needs, and runs it; nothing is decided here.

Imports stand inside the commands: `okane status` must not pay for the web server, nor `okane --help` for anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from okane.api_key import ACCOUNT, Mode
from okane.commands.options import taking
from okane.providers.simulator.options import SimulatorOptions

if TYPE_CHECKING:
    from okane.commands.context import Context
    from okane.config import Settings

app = typer.Typer(
    name="okane",
    help="An asynchronous payment pipeline on Postgres and Redis Streams.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
dead = typer.Typer(help="Dead letters: payments that were given up, and why.", no_args_is_help=True)
app.add_typer(dead, name="dead")
keys = typer.Typer(help="API keys: who may use the API, and for what.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Data = Annotated[Path | None, typer.Option("--data", help="data folder of `okane up` (default: .okane)")]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of text")]
Processes = Annotated[
    int, typer.Option(min=1, max=256, help="copies on this machine: they share the port, or the consumer group")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]

_CHECKOUT = Path(__file__).resolve().parents[1]


def main() -> NoReturn:
    """The entry point. What a user can mend is one line on stderr and exit code 2; everything else is a bug."""
    try:
        app(prog_name="okane")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _fail(_mendable(error))
    sys.exit(0)


def _mendable(error: Exception) -> str:
    """What to tell a user about an error that is not a bug. Raises the error itself if it is one."""
    from pydantic import ValidationError

    from okane.errors import OkaneError
    from streams import StreamError

    match error:
        case ValidationError():
            said = [
                (".".join(map(str, one["loc"])), one["msg"].removeprefix("Value error, ")) for one in error.errors()
            ]
            return "\n".join(f"{name}: {message}" if name else message for name, message in said)
        case OkaneError() | StreamError():
            return str(error)
        case _:
            raise error


def _fail(message: str) -> NoReturn:
    typer.echo(f"okane: {message}", err=True)
    sys.exit(2)


@app.command()
def up(
    *,
    data: Data = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="worker processes")] = 2,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="the API's port (default: PORT or 8080)")] = None,
    provider_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="the mock provider's (default: 8081)")
    ] = None,
    postgres_port: Annotated[int, typer.Option(min=0, max=65535, help="the embedded Postgres'")] = 15432,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="the embedded Redis'")] = 16379,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="the API's metrics; workers take the next ones")
    ] = 9101,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="take requests without an API key, as the systems before us did")
    ] = False,
) -> None:
    """Run everything on this machine: Postgres, Redis, mock provider, API and workers. Ctrl-C drains and stops it."""
    from okane.local.plan import UpOptions
    from okane.local.up import up as run

    options = UpOptions(
        data=data,
        workers=workers,
        port=port,
        provider_port=provider_port,
        postgres_port=postgres_port,
        redis_port=redis_port,
        metrics_port=metrics_port,
    )
    sys.exit(asyncio.run(run(_settings(auth="none" if no_keys else None), options)))


@app.command()
def api(
    *,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="port to bind (default: PORT or 8080)")] = None,
    host: Annotated[str | None, typer.Option(help="address to bind (default: 127.0.0.1)")] = None,
    processes: Processes = 1,
) -> None:
    """Serve the HTTP API: accept payments and tell what became of them."""
    from okane.app import run_api

    settings = _settings(port=port, host=host)
    _logging(settings, "api")
    if processes > 1:
        from okane import copies

        sys.exit(_run(copies.run_copies(copies.of_api(settings, processes))))
    _run(run_api(settings))


@app.command()
def openapi() -> None:
    """Print the OpenAPI 3.1 document of the HTTP API, for generators of clients."""
    import json

    from okane.api.contract import document
    from okane.api.routes import SCOPES

    typer.echo(json.dumps(document.build(SCOPES), indent=2))


@app.command()
def worker(
    *,
    name: Annotated[
        str | None, typer.Option(help="this consumer's name, stable over restarts (default: host and pid)")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="payments in flight (default: WORKER_COUNT or 256)")
    ] = None,
    processes: Processes = 1,
) -> None:
    """Charge payments: read the streams, call the provider, write the outcome. Start as many as you like."""
    from okane.app import run_worker, worker_name

    settings = _settings(concurrency=concurrency)
    name = name or worker_name()
    if processes > 1:
        from okane import copies

        _logging(settings, name)
        sys.exit(_run(copies.run_copies(copies.of_worker(settings, processes, name=name))))
    _logging(settings, name)
    _run(run_worker(settings, name=name))


def _journal() -> Path:
    from okane.local.data_folder import default_path

    default_path().mkdir(mode=0o700, exist_ok=True)
    return default_path() / "provider.jsonl"


@app.command()
@taking(SimulatorOptions, port=lambda: _settings().mock_provider_port, journal=_journal)
def provider(options: SimulatorOptions) -> None:
    """Run the mock provider: a real HTTP server that keeps a journal of what it charged, and misbehaves on demand."""
    from okane.app import run_provider

    _logging(_settings(), "provider")
    _run(run_provider(options))


@app.command()
def load(
    *,
    data: Data = None,
    payments: Annotated[int, typer.Option(min=1, help="how many payments to send")] = 1000,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="payments per second (default: as fast as it goes)")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="requests in flight at most")] = 64,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, help="seconds to follow payments after the last was sent")
    ] = 120.0,
    url: Annotated[str | None, typer.Option(help="the API's base URL (default: the running one)")] = None,
    provider_url: Annotated[
        str | None,
        typer.Option(help="the mock provider's, for the check against its journal (default: the running one)"),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="the API key to send (default: OKANE_API_KEY, or that of the running one)")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the amounts")] = 0,
    json_: Json = False,
) -> None:
    """Send payments to a running API, follow each to its end, and check them against the provider's journal."""
    from rich.console import Console

    from okane.load import ApiUnreachableError, LoadOptions, run_load

    where = _context(data)
    options = LoadOptions(
        url=(url or where.api_url).rstrip("/"),
        payments=payments,
        rate=rate,
        connections=connections,
        timeout_s=timeout_s,
        provider_url=provider_url or where.provider_base_url,
        key=key or where.api_key,
        seed=seed,
        json=json_,
    )
    try:
        report = _run(run_load(options, Console(highlight=False)))
    except ApiUnreachableError as error:
        _fail(str(error))
    sys.exit(report.exit_code)


@app.command()
def torture(
    *,
    minutes: Annotated[float, typer.Option(min=0, help="how long at least")] = 0.0,
    kills: Annotated[int, typer.Option(min=0, help="kill -9 of processes at least (default: 50)")] = 0,
    payments: Annotated[int, typer.Option(min=0, help="payments at least (default: 5000)")] = 0,
    rate: Annotated[float, typer.Option(min=0.1, help="payments per second")] = 150.0,
    workers: Annotated[int, typer.Option(min=2, max=64, help="worker processes")] = 3,
    apis: Annotated[int, typer.Option(min=1, max=16, help="API processes")] = 2,
    faults: Annotated[str, typer.Option(help="only these, by name, separated by commas; none: not any")] = "",
    list_faults: Annotated[bool, typer.Option("--list-faults", help="say which there are, and end")] = False,
    seed: Annotated[int, typer.Option(help="of the schedule of faults and of the payments")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE in the environment of every okane process")
    ] = None,
    rest: Annotated[float, typer.Option(min=1, help="seconds to come to rest in the end")] = 120.0,
    data: Annotated[
        Path | None, typer.Option(help="folder (default: a temporary one, kept when something is wrong)")
    ] = None,
    json_: Json = False,
) -> None:
    """Torture a system of its own on this machine: kill, stop, cut off and starve it while it is paid through, then check
    every invariant over what clients, provider, Postgres and metrics say. Exit code 1 if one is violated."""
    from rich.console import Console

    from okane import logs
    from okane.torture.faults.listing import listed
    from okane.torture.options import TortureOptions
    from okane.torture.run import run_torture

    console = Console(highlight=False)
    if list_faults:
        console.out(listed(as_json=json_))
        return
    try:
        options = TortureOptions(
            minutes=minutes,
            kills=kills,
            payments=payments,
            rate=rate,
            workers=workers,
            apis=apis,
            faults=tuple(name for name in faults.split(",") if name),
            seed=seed,
            settings=dict(_named(setting) for setting in settings or ()),
            rest_s=rest,
            data=data,
            json=json_,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    logs.configure(level="error", format_="console", process="torture")  # what is lost and found is in the report
    # Not on uvloop: its closed connections are in the way of a proxy that resets them.
    sys.exit(asyncio.run(run_torture(options, console)).exit_code)


def _named(setting: str) -> tuple[str, str]:
    name, equals, value = setting.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"expected NAME=VALUE, not {setting!r}")
    return name, value


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure okane on this machine, against other ways to do the same. Only in a checkout; `--help` tells the options."""
    if not (_CHECKOUT / "bench" / "__main__.py").exists():
        _fail("the benchmarks are not installed: they stand in bench/ of a checkout, run `python3 run.py bench` there")
    from bench.__main__ import main as run

    run(context.args)


@app.command()
def migrate(*, data: Data = None) -> None:
    """Bring the database to this version's schema. Safe to repeat, and from several machines at once."""
    from okane.store import schema

    changed = _run(schema.migrate(_context(data).database_url))
    typer.echo(f"schema version {schema.VERSION}: " + ("applied" if changed else "already there"))


@app.command()
def status(
    *,
    data: Data = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="refresh until Ctrl-C")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between refreshes")] = 2.0,
    json_: Json = False,
) -> None:
    """Show the queue and the payments: depth, pending, delayed, dead, consumers, the oldest due payment."""
    from okane.commands import status as command

    _run(command.run(_context(data), watch=timedelta(seconds=interval) if watch else None, as_json=json_))


@app.command()
def top(
    *,
    data: Data = None,
    interval: Annotated[float, typer.Option(min=0.2, help="seconds between refreshes")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="one picture, of one second, and end")] = False,
    json_: Json = False,
) -> None:
    """Watch it live: rates, latencies, lanes, workers, retries, dead letters. For machines without Grafana."""
    from okane.commands import top as command

    _run(command.run(_context(data), interval=timedelta(seconds=interval), once=once, as_json=json_))


@dead.command("ls")
def dead_ls(
    *,
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    before: Annotated[str | None, typer.Option(help="the next page: TIME,ID as the last one ends with")] = None,
    json_: Json = False,
) -> None:
    """List dead letters, newest first."""
    from okane.commands import dead as command

    _run(command.ls(_context(data), limit=limit, before=before, as_json=json_))


@dead.command("show")
def dead_show(payment_id: str, *, data: Data = None, json_: Json = False) -> None:
    """Show one dead letter and its payment's timeline."""
    from okane.commands import dead as command

    _run(command.show(_context(data), payment_id, as_json=json_))


@dead.command("replay")
def dead_replay(
    payment_ids: Annotated[list[str] | None, typer.Argument(help="from `okane dead ls`")] = None,
    *,
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="every one, oldest first")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would happen")] = False,
    json_: Json = False,
) -> None:
    """Try payments again: they become pending, and leave the list."""
    from okane.commands import dead as command

    _run(
        command.replay(
            _context(data), _chosen(payment_ids, everything=everything), limit=limit, dry_run=dry_run, as_json=json_
        )
    )


@dead.command("purge")
def dead_purge(
    payment_ids: Annotated[list[str] | None, typer.Argument(help="from `okane dead ls`")] = None,
    *,
    data: Data = None,
    everything: Annotated[bool, typer.Option("--all", help="every one")] = False,
    older_than_h: Annotated[float | None, typer.Option(min=0, help="only those older than so many hours")] = None,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Strike payments off the list. They stay as they are: failed_final, or needs_review."""
    from okane.commands import dead as command

    older_than = None if older_than_h is None else timedelta(hours=older_than_h)
    chosen = None if older_than is not None and not payment_ids else _chosen(payment_ids, everything=everything)
    if chosen is None and not yes:
        typer.confirm("Strike all of these off the list?", abort=True, err=True)
    _run(command.purge(_context(data), chosen, older_than=older_than, as_json=json_))


@keys.command("create")
def keys_create(
    *,
    data: Data = None,
    account: Annotated[str, typer.Option(help="whose payments it is for")] = ACCOUNT,
    scopes: Annotated[
        str, typer.Option(help="what it may do: read, write, operate, separated by commas")
    ] = "read,write",
    mode: Annotated[Mode | None, typer.Option(help="for play money, or somebody's (default: OKANE_MODE)")] = None,
    name: Annotated[str, typer.Option(help="what it is for, in your words")] = "",
    expires: Annotated[str | None, typer.Option(help="it ends after so long: 30m, 720h (default: never)")] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="requests: 100/s, 6000/m, 100/s burst 500 (default: OKANE_RATE_LIMIT)")
    ] = None,
    json_: Json = False,
) -> None:
    """Make a key. Its secret is printed once."""
    from okane.commands import keys as command

    wanted = command.Wanted(
        account=account,
        scopes=scopes,
        mode=mode,
        name=name,
        lifetime=None if expires is None else _duration(expires),
        rate=rate_limit,
    )
    _run(command.create(_context(data), wanted, as_json=json_))


@keys.command("ls")
def keys_ls(
    *,
    data: Data = None,
    account: Annotated[str | None, typer.Option(help="only this one's")] = None,
    everything: Annotated[bool, typer.Option("--all", help="those that were revoked or have expired, too")] = False,
    json_: Json = False,
) -> None:
    """List keys: whose, what for, and when they were last used."""
    from okane.commands import keys as command

    _run(command.ls(_context(data), account=account, everything=everything, as_json=json_))


@keys.command("revoke")
def keys_revoke(key: str, *, data: Data = None, json_: Json = False) -> None:
    """Let a key in no more, named as `okane keys ls` does. Every API knows it within 5 s."""
    from okane.commands import keys as command

    _run(command.revoke(_context(data), key, as_json=json_))


@keys.command("rotate")
def keys_rotate(
    key: str,
    *,
    data: Data = None,
    overlap: Annotated[str, typer.Option(help="the old one ends after so long: 30m, 24h")] = "24h",
    json_: Json = False,
) -> None:
    """Make a key that may do the same as this one, which ends after the overlap."""
    from okane.commands import keys as command

    _run(command.rotate(_context(data), key, overlap=_duration(overlap), as_json=json_))


def _duration(text: str) -> timedelta:
    from okane.config import parse_duration

    try:
        parsed = parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    assert isinstance(parsed, timedelta)
    if not parsed:
        raise typer.BadParameter("must be longer than nothing")
    return parsed


@app.command()
def doctor(
    *,
    data: Data = None,
    failpoints: Annotated[bool, typer.Option("--failpoints", help="list the failpoints instead")] = False,
    json_: Json = False,
) -> None:
    """Check versions, configuration, schema, clocks and ports, and say what to do. Exit code 1 if something is wrong."""
    if failpoints:
        from okane.commands import failpoints as listing

        listing.run(as_json=json_)
        return
    from okane.commands import doctor as command

    healthy = _run(command.run(_context(data), as_json=json_))
    sys.exit(0 if healthy else 1)


def _chosen(payment_ids: list[str] | None, *, everything: bool) -> list[str] | None:
    """The payments named, or None for all of them."""
    if bool(payment_ids) == everything:
        raise typer.BadParameter("name payments, or say --all")
    return payment_ids


def _context(data: Path | None) -> Context:
    from okane import logs
    from okane.commands.context import find

    logs.configure(level="warning", format_="console", process="okane")
    return find(data)


def _settings(**options: object) -> Settings:
    """The settings from the environment, with what the command line says on top."""
    from okane.config import Settings

    return Settings(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]


def _logging(settings: Settings, process: str) -> None:
    from okane import logs

    logs.configure(level=settings.log_level, format_=settings.log_format, process=process)


def _run(main_: Coroutine[Any, Any, Any]) -> Any:
    """Run on uvloop where there is one."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main_)
