"""The programs of `okane up`, their ports, and the addresses that each gets of the others. Starts nothing.

Promise: a port that is taken is found here, before the first program starts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from okane import binding
from okane.api_key import Mode
from okane.config import Settings
from okane.local.data_folder import DataFolder, Endpoints
from okane.local.kept_secrets import console_environment, webhook_environment
from okane.local.okane_process import OkaneProcess, answers_http, listens
from okane.local.options import UpOptions
from okane.local.ports import LOOPBACK, free_port, is_taken, owner_of
from okane.local.postgres import PostgresServer
from okane.local.redis_server import RedisServer
from okane.local.server import LocalError, Server
from okane.local.stripe_simulator.configuration import TEST_CARD, write_configuration
from okane.local.stripe_simulator.server import stripe_simulator

# It answers at once; only a charge with a configured delay takes longer.
_PROVIDER_DRAIN_S = 2.0
DISPATCHER = "dispatcher"  # the name of the only one
CONSOLE = "console"


class Programs:
    """The programs of one run. `postgres`, `redis` and `provider` are None where the settings name others."""

    def __init__(
        self,
        *,
        settings: Settings,
        options: UpOptions,
        folder: DataFolder,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._report = report
        self.worker_names = tuple(f"worker-{number}" for number in range(1, options.workers + 1))
        self._chosen: set[int] = set()
        names = ("api", *self.worker_names, DISPATCHER, CONSOLE)
        self._api_host = binding.reached_at(settings.host)
        self._metrics_host = binding.reached_at(settings.metrics_host)
        self._api_port = self._port("--port", settings.port if options.port is None else options.port, settings.host)
        self._console_host = binding.reached_at(settings.console_host)
        self._console_port = self._port(
            "--console-port",
            settings.console_port if options.console_port is None else options.console_port,
            settings.console_host,
        )
        self._metrics_ports = {
            name: self._port(
                "--metrics-port", options.metrics_port and options.metrics_port + offset, settings.metrics_host
            )
            for offset, name in enumerate(names)
        }
        self.postgres = self._postgres(options) if settings.database_url is None else None
        self.redis = self._redis(options) if settings.redis is None else None
        self._provider_url = settings.provider_base_url
        self._provider_env: dict[str, str] = {}
        self._payment_method: str | None = None
        self.provider: Server | None = None
        if options.stripe:
            self.provider = self._stripe(options)
        elif settings.providers_file is not None:
            self._provider_url = None
            self._provider_env["OKANE_PROVIDERS_FILE"] = str(settings.providers_file.resolve())
        else:
            if settings.provider_base_url is None:
                self.provider = self._provider(options)
            self._provider_env["OKANE_PROVIDER_BASE_URL"] = self._provider_url or ""

    def endpoints(self) -> Endpoints:
        """Return all addresses. The embedded servers must be prepared: that creates their passwords."""
        database_url = self._settings.database_url if self.postgres is None else self.postgres.url
        redis_url = self._settings.redis if self.redis is None else self.redis.url
        return Endpoints(
            database_url=database_url or "",
            redis_url=redis_url or "",
            provider_base_url=self._provider_url or "",
            api_url=f"http://{binding.netloc(self._api_host, self._api_port)}",
            metrics_urls={
                name: f"http://{binding.netloc(self._metrics_host, port)}/metrics"
                for name, port in self._metrics_ports.items()
            },
            payment_method=self._payment_method,
            providers_file=self._provider_env.get("OKANE_PROVIDERS_FILE"),
            console_url=f"{self._console_server}{self._settings.console_base}/",
        )

    @property
    def _console_server(self) -> str:
        return f"http://{binding.netloc(self._console_host, self._console_port)}"

    def api(self) -> OkaneProcess:
        """Return the API process. The embedded servers must be prepared, as for `workers`."""
        health = answers_http(self._api_port, "/v1/health", self._api_host)
        return self._process(
            "api",
            ["api"],
            health,
            {"OKANE_PORT": str(self._api_port), "OKANE_AUTH": self._settings.auth, **self._webhook_environment},
        )

    @cached_property
    def _webhook_environment(self) -> Mapping[str, str]:
        return webhook_environment(self._settings, self._folder.webhook_master)

    def dispatcher(self) -> OkaneProcess:
        """Return the process that sends events to webhook endpoints."""
        probe = listens(self._metrics_ports[DISPATCHER], self._metrics_host)
        return self._process(DISPATCHER, ["dispatch", "--name", DISPATCHER], probe, self._webhook_environment)

    def console(self) -> OkaneProcess:
        """Return the process that serves the console."""
        probe = answers_http(self._console_port, "/healthz", self._console_host)
        env = {
            "OKANE_CONSOLE_PORT": str(self._console_port),
            "OKANE_AUTH": self._settings.auth,
            **console_environment(self._settings, self._folder.console_secret),
            **self._webhook_environment,
        }
        return self._process(CONSOLE, ["console"], probe, env)

    def workers(self) -> list[OkaneProcess]:
        return [
            self._process(name, ["worker", "--name", name], listens(self._metrics_ports[name], self._metrics_host), {})
            for name in self.worker_names
        ]

    def _process(
        self, name: str, arguments: list[str], probe: Callable[[], bool], env: Mapping[str, str]
    ) -> OkaneProcess:
        where = self.endpoints()
        return OkaneProcess(
            name=name,
            arguments=arguments,
            env={
                "OKANE_DATABASE_URL": where.database_url,
                "OKANE_REDIS_URL": where.redis_url,
                **self._provider_env,
                "OKANE_METRICS_PORT": str(self._metrics_ports[name]),
                "OKANE_LOG_FORMAT": "json",
                **env,
            },
            log=self._folder.log(name),
            probe=probe,
            drain_s=(self._settings.lame_duck + self._settings.drain).total_seconds(),
        )

    def _postgres(self, options: UpOptions) -> PostgresServer:
        port = self._port("--postgres-port", options.postgres_port)
        return PostgresServer(
            folder=self._folder.postgres, log=self._folder.log("postgres"), port=port, report=self._report
        )

    def _redis(self, options: UpOptions) -> RedisServer:
        port = self._port("--redis-port", options.redis_port)
        return RedisServer(folder=self._folder.redis, log=self._folder.log("redis"), port=port)

    def _stripe(self, options: UpOptions) -> Server:
        """Return the Stripe simulator, after writing the providers file that makes API and workers use it."""
        for name in ("provider_base_url", "providers_file"):
            if getattr(self._settings, name) is not None:
                raise LocalError(f"--stripe brings its own provider: unset {name.upper()}, or leave --stripe out")
        if self._settings.mode is not Mode.TEST:
            raise LocalError("--stripe charges at a simulator, and OKANE_MODE is live: unset it, or leave --stripe out")
        port = self._provider_port(options)
        written = write_configuration(self._folder.stripe, base_url=self._provider_url or "")
        self._provider_env["OKANE_PROVIDERS_FILE"] = str(written.providers_file)
        self._payment_method = TEST_CARD
        return stripe_simulator(
            port=port,
            log=self._folder.log("stripe"),
            data=self._folder.stripe / "account",
            webhook_url=f"http://{binding.netloc(self._api_host, self._api_port)}/v1/providers/stripe/webhook",
            webhook_secret=written.webhook_secret,
            report=self._report,
        )

    def _provider_port(self, options: UpOptions) -> int:
        requested = self._settings.mock_provider_port if options.provider_port is None else options.provider_port
        port = self._port("--provider-port", requested)
        self._provider_url = f"http://{LOOPBACK}:{port}"
        return port

    def _provider(self, options: UpOptions) -> OkaneProcess:
        port = self._provider_port(options)
        return OkaneProcess(
            name="provider",
            arguments=["provider", "--journal", str(self._folder.journal), "--port", str(port)],
            env={"OKANE_LOG_FORMAT": "json"},
            log=self._folder.log("provider"),
            probe=answers_http(port, "/health"),
            drain_s=_PROVIDER_DRAIN_S,
        )

    def _port(self, option: str, requested: int, host: str = LOOPBACK) -> int:
        """Return `requested`, or a free port if it is 0. Raises LocalError if it is taken, or given twice."""
        port = requested or free_port(besides=self._chosen)
        if port in self._chosen:
            raise LocalError(f"port {port} is given twice: give another one with {option}")
        if is_taken(port, host):
            raise LocalError(f"port {port} is taken{owner_of(port)}: give another one with {option} (0: any free one)")
        self._chosen.add(port)
        return port
