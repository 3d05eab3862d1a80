"""The settings, from the environment or `.env`. No other module reads the environment.

The names without a prefix come from the two systems that okane replaces (`DATABASE_URL`, `WORKER_COUNT`, ...); all others are
`OKANE_<FIELD>`. Durations are seconds (`30`, `0.5`) or in Go's notation (`30s`, `1m30s`, `250ms`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BeforeValidator, ByteSize, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from okane import addresses, binding, currencies, env_file
from okane.api_key import Mode
from okane.errors import SetupError
from okane.origin_guard import is_loopback
from okane.payment import LATE_LOOK_UPS
from okane.payment_id import CELLS
from okane.rate import Rate

_GO_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
ENV_FILE = Path(".env")
LONGEST = timedelta(days=3660)  # timers and Postgres' intervals overflow beyond it


def parse_duration(value: object) -> object:
    """Parse `"30"`, `30`, `"30s"`, `"1m30s"` or `"250ms"`. Other types are returned unchanged, for pydantic to refuse."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value <= LONGEST.total_seconds():
            raise ValueError("must be from 0 to ten years")
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", text):
        return parse_duration(float(text))
    if re.fullmatch(rf"(?:{_GO_DURATION.pattern})+", text):
        return parse_duration(sum(float(n) * _UNIT_S[unit] for n, unit in _GO_DURATION.findall(text)))
    raise ValueError("expected seconds (30, 0.5) or a duration like 30s, 1m30s, 250ms")


def _parse_durations(value: object) -> object:
    """Split `"5s,15s,1m"`; a sequence of values for `parse_duration` is returned unchanged."""
    return [parse_duration(part) for part in value.split(",")] if isinstance(value, str) else value


def _parse_host_names(value: object) -> object:
    """Split `"pay.example.com,[fd00::7]"`, in lower case and without brackets; a sequence is returned unchanged."""
    if not isinstance(value, str):
        return value
    names = [name.strip().strip("[]").removesuffix(".").lower() for name in value.split(",") if name.strip()]
    if not all(map(binding.is_host, names)):
        raise ValueError("takes names or addresses separated by commas, without scheme and port")
    return names


def _check_base_path(path: str) -> str:
    """Return the path without a slash at its end; raise ValueError for one that is not plain."""
    bare = path.rstrip("/")
    if not re.fullmatch(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*", bare, re.ASCII) or len(bare) > 200:
        raise ValueError("must be a path like /console or /ops/okane, of letters, digits and . _ ~ -")
    return bare


def _split(value: object) -> object:
    """Split a text at its commas; other types are returned unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _parse_networks(value: object) -> object:
    """Split `"10.0.0.0/8,fd00::/8"`; a sequence is returned unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return [ip_network(part.strip()) for part in value.split(",") if part.strip()]
    except ValueError:  # its message for a host's address with a prefix names no way out, and repeats the value
        raise ValueError(
            "takes networks separated by commas, like 10.0.0.0/8 or fd00::/8, with no bit set beyond the prefix"
        ) from None


def _check_rising(durations: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
    if any(after <= before for before, after in pairwise(durations)):
        raise ValueError("each must be longer than the one before it")
    return durations


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0), le=LONGEST)]
PositiveDuration = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0), le=LONGEST)]
Durations = Annotated[tuple[Duration, ...], NoDecode, BeforeValidator(_parse_durations), Field(min_length=1)]
RisingDurations = Annotated[
    tuple[PositiveDuration, ...],
    NoDecode,
    BeforeValidator(_parse_durations),
    Field(min_length=1, max_length=100),
    AfterValidator(_check_rising),
]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Slots = Annotated[int, Field(ge=1, le=100_000)]
Size = Annotated[ByteSize, Field(ge=1_000_000, le=2**62)]
Minor = Annotated[int, Field(ge=1, le=2**63 - 1)]
RateLimit = Annotated[Rate, BeforeValidator(lambda value: Rate.parse(value) if isinstance(value, str) else value)]
AmountLimits = Annotated[
    Mapping[str, Minor], NoDecode, BeforeValidator(currencies.parse_limits), AfterValidator(currencies.check_limits)
]
AmountMinor = Annotated[int, Field(gt=0, le=currencies.MAX_AMOUNT_MINOR)]
Port = Annotated[int, Field(ge=0, le=65535)]
Hosts = Annotated[str, AfterValidator(binding.checked)]
Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_parse_networks), Field(max_length=100)
]
Ports = Annotated[frozenset[Annotated[int, Field(ge=1, le=65535)]], NoDecode, BeforeValidator(_split)]
HostNames = Annotated[frozenset[str], NoDecode, BeforeValidator(_parse_host_names)]
PostgresUrl = Annotated[str, AfterValidator(addresses.check_postgres)]
RedisUrl = Annotated[str, AfterValidator(addresses.check_redis)]
RedisAddress = Annotated[str, AfterValidator(addresses.redis_of)]
HttpUrl = Annotated[str, AfterValidator(addresses.check_http)]
Name = Annotated[str, Field(pattern=r"^[^\s{}]+$", max_length=200)]


def _named(name: str) -> AliasChoices:
    """Return the aliases of a setting whose name may go without `OKANE_`; with it, the setting wins."""
    return AliasChoices(f"OKANE_{name}", name)


class Settings(BaseSettings):
    """The settings of every process, read at its start."""

    model_config = SettingsConfigDict(
        env_prefix="OKANE_",
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",  # editors on Windows begin a file with a byte order mark
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # addresses hold passwords
    )

    # Addresses. `okane up` starts its own servers for those that are unset.
    database_url: PostgresUrl | None = Field(
        None, validation_alias=_named("DATABASE_URL"), description="Postgres, as a URL"
    )
    redis_url: RedisUrl | None = Field(
        None, validation_alias=_named("REDIS_URL"), description="Redis or Valkey, as a URL"
    )
    redis_addr: RedisAddress | None = Field(
        None, validation_alias=_named("REDIS_ADDR"), description="host:port, or a URL"
    )
    provider_base_url: HttpUrl | None = Field(None, validation_alias=_named("PROVIDER_BASE_URL"))
    host: Hosts = Field("127.0.0.1", description="the hosts that the API binds, separated by commas")
    port: Port = Field(8080, validation_alias=_named("PORT"), description="the API's port")
    share_port: bool = Field(False, description="let other API processes bind the same port: set by `api --processes`")
    mock_provider_port: Port = Field(8081, validation_alias=_named("MOCK_PROVIDER_PORT"))
    metrics_host: Hosts = "127.0.0.1"
    metrics_port: Port = Field(0, description="this process's /metrics; 0 takes the first free one from 9101 up")
    metrics_advertise: str | None = Field(
        None,
        description="host of /metrics for scrapers: a name or an address; unset: the bound address, or the host's name",
    )

    # Access to the API
    auth: Literal["keys", "none"] = Field("keys", description="none: no authentication; the port must be on loopback")
    allowed_hosts: HostNames | None = Field(
        None, description="without keys: accepted `Host` names beside those of loopback"
    )
    mode: Mode = Field(Mode.TEST, description="the keys that are accepted: test (no real money) or live")
    cell: int = Field(
        0, ge=0, lt=CELLS, description="the number of this system among several behind one router, written into its ids"
    )
    rate_limit: RateLimit | None = Field(None, description="requests of one key: 100/s, 6000/m, 100/s burst 500")
    api_key: Annotated[str, Field(pattern="^[!-~]+$")] | None = Field(
        None, repr=False, description="for clients (`okane load`): the key they send"
    )

    # Limits of the HTTP servers
    max_connections: Count = Field(
        10_000, description="open connections to one API process, within its limit of open files"
    )
    head_timeout: PositiveDuration = Field(
        timedelta(seconds=5), description="for the whole head of a request to arrive"
    )
    keep_alive_timeout: PositiveDuration = Field(
        timedelta(seconds=75), description="between two requests; longer than that of a load balancer in front"
    )
    write_timeout: PositiveDuration = Field(timedelta(seconds=10), description="for a client to read its answers")

    max_due_age: PositiveDuration | None = Field(
        None, description="new payments are refused while one has been due for longer"
    )
    lame_duck: Duration = Field(
        timedelta(seconds=5),
        description="after SIGTERM: how long an API process serves on, not ready, while load balancers stop sending requests",
    )
    fast_lane: bool = Field(True, description="answer plain requests for payments without aiohttp")

    # Logs and traces
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias=_named("LOG_LEVEL"))
    failpoint: str | None = Field(
        None, description="for tests: name:kill|stop|raise|delay[:nth], see docs/guarantees.md"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON unless on a terminal")
    tracing: bool = Field(False, description="send spans as the OTEL_* variables say; needs the extra okane[otel]")
    otlp_endpoint: str | None = Field(None, validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"))
    otlp_traces_endpoint: str | None = Field(None, validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))

    # The stream
    stream: Name = Field("okane:payments", description="prefix of every Redis key, and their hash tag")
    operations_stream: Name | None = Field(
        None, description="the same of captures, voids and refunds; unset: OKANE_STREAM, with :operations at its end"
    )
    group: Name = Field("workers", description="the consumer group")
    max_stream_length: Count = Field(100_000, description="beyond it payments wait in Postgres for the sweep")
    critical_from_minor: AmountMinor = Field(10_000, description="amounts from here on take the critical lane")
    low_below_minor: AmountMinor = Field(1_000, description="amounts below take the low lane")

    # Workers
    concurrency: Slots = Field(
        256, validation_alias=_named("WORKER_COUNT"), description="payments in flight in one worker process"
    )
    operations_concurrency: Slots = Field(
        128, description="captures, voids and refunds in flight in one worker process"
    )
    lease: Duration = Field(
        timedelta(seconds=30),
        validation_alias=_named("VISIBILITY_TIMEOUT"),
        description="how long a claim holds without renewal before another worker may look the payment up",
    )
    drain: Duration = Field(timedelta(seconds=25), description="how long a stopping process may finish what it holds")
    max_retries: Annotated[int, Field(ge=0, le=1000)] = Field(
        7, validation_alias=_named("MAX_RETRIES"), description="retries after the first attempt, then failed_final"
    )
    max_deliveries: Count = Field(5, description="deliveries of one stream entry before it counts as poison")
    retry_base: PositiveDuration = timedelta(seconds=1)
    retry_cap: PositiveDuration = timedelta(minutes=5)
    sweep_interval: PositiveDuration = timedelta(seconds=1)
    check_eviction: bool = Field(
        True,
        description="check maxmemory-policy (noeviction) at the start; false: if Redis does not allow INFO",
    )
    sweep_grace: Duration = Field(
        timedelta(seconds=10), description="how late a wake-up may be before it counts as lost"
    )
    redis_patience: Duration = Field(
        timedelta(seconds=2),
        description="how long a worker's consumer may fail to read before direct runs from Postgres begin",
    )

    # The providers
    providers_file: Path | None = Field(
        None, description="gateways in TOML, in place of PROVIDER_BASE_URL: docs/providers.md"
    )
    provider_timeout: Annotated[Duration, Field(ge=timedelta(milliseconds=1))] = Field(
        timedelta(seconds=5), description="deadline of one provider call"
    )
    consistency_lag: Duration = Field(
        timedelta(seconds=5), description="how long after a call a `not found` of the provider does not count"
    )
    look_up_delays: Durations = Field(
        tuple(timedelta(seconds=s) for s in (5, 15, 60, 300, 900, 3600)),
        description="delays between the look-ups of an open outcome; the last one repeats",
    )
    late_look_ups: RisingDurations = Field(
        LATE_LOOK_UPS,
        description="delays from the close of a payment without a charge to its late look-ups",
    )
    unknown_deadline: Duration = Field(
        timedelta(hours=24), description="an open outcome moves to needs_review after this"
    )

    # Events and webhooks
    webhook_master: str | None = Field(
        None,
        repr=False,
        description="the secrets of endpoints derive from it: 32 characters or more, or file:PATH; older ones after a comma",
    )
    webhook_allow: Networks | None = Field(
        None, description="networks beside the public addresses that endpoints may be in, also by http: 10.8.0.0/16"
    )
    webhook_deny_ports: Ports | None = Field(None, description="ports that no endpoint may have")
    webhook_keep: PositiveDuration = Field(
        timedelta(days=30),
        description="how long events and their deliveries are kept at least, unless they grow too large",
    )
    keys_kept: PositiveDuration = Field(
        timedelta(days=30),
        description="how long an idempotency key is valid at least: `okane archive` takes no younger payment",
    )
    webhook_max_bytes: Size | None = Field(
        None, description="the oldest events and deliveries are dropped before their age beyond this size: 200GB"
    )

    # The console
    console_host: Hosts = Field("127.0.0.1", description="the hosts that the console binds, separated by commas")
    console_port: Port = Field(8082, description="the console's port")
    console_base: Annotated[str, AfterValidator(_check_base_path)] = Field(
        "/console", description="the path under which browsers see the console; empty or / for none"
    )
    console_secret: str | None = Field(
        None,
        repr=False,
        description="signs sessions: 32 characters or more, or file:PATH; older ones after a comma; unset: new at each start",
    )
    console_read_only: bool = Field(False, description="the console shows everything and changes nothing")
    console_proxies: Networks | None = Field(
        None, description="networks of proxies whose X-Forwarded-For, -Proto and -Host count: 10.0.0.0/8"
    )
    console_grafana: Annotated[str, AfterValidator(partial(addresses.check_http, userinfo=False))] | None = Field(
        None, description="the address of Grafana with okane's dashboards: the console's charts link there"
    )

    # Money
    amount_limits: AmountLimits | None = Field(
        None, description="the largest amount by currency, in minor units: EUR=1000000,JPY=500000"
    )
    default_currency: Annotated[str, AfterValidator(currencies.check_code)] = "USD"

    @model_validator(mode="before")
    @classmethod
    def _log_level_in_any_case(cls, data: object) -> object:
        if isinstance(data, dict):
            for name in ("log_level", "LOG_LEVEL", "OKANE_LOG_LEVEL"):
                if isinstance(data.get(name), str):
                    data[name] = {"warn": "warning"}.get(data[name].lower(), data[name].lower())
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.low_below_minor > self.critical_from_minor:
            raise ValueError("OKANE_LOW_BELOW_MINOR must not exceed OKANE_CRITICAL_FROM_MINOR")
        if self.stream == self.operations_stream:
            raise ValueError("OKANE_OPERATIONS_STREAM must not be OKANE_STREAM")
        if self.lease <= self.provider_timeout:
            raise ValueError("VISIBILITY_TIMEOUT (the lease) must be longer than OKANE_PROVIDER_TIMEOUT")
        if self.metrics_advertise is not None and not binding.is_host(self.metrics_advertise):
            raise ValueError("OKANE_METRICS_ADVERTISE must be a host name or an address, without port or scheme")
        if self.auth == "none" and not all(map(is_loopback, binding.hosts(self.host))):
            raise ValueError("OKANE_AUTH=none needs OKANE_HOST on loopback: use keys, or bind 127.0.0.1")
        if self.tracing:  # without it they may be for another program
            self._check_otlp_endpoints()
        if self.retry_cap < self.retry_base:
            raise ValueError("OKANE_RETRY_CAP must not be shorter than OKANE_RETRY_BASE")
        return self

    def _check_otlp_endpoints(self) -> None:
        for name in ("otlp_endpoint", "otlp_traces_endpoint"):
            try:
                addresses.check_http(getattr(self, name) or "http://localhost")
            except ValueError as error:
                raise ValueError(f"OTEL_EXPORTER_{name.upper()}: it {error}") from None

    @property
    def operations_stream_name(self) -> str:
        """The name of the operations' stream family, from `OKANE_OPERATIONS_STREAM` or `OKANE_STREAM`."""
        return self.operations_stream or f"{self.stream.removesuffix(':payments')}:operations"

    @property
    def redis(self) -> str | None:
        """The Redis URL, from `REDIS_URL` or `REDIS_ADDR`."""
        return self.redis_url or self.redis_addr


def load(**options: object) -> Settings:
    """Read the settings, overridden by `options`. Raise SetupError, which names every wrong setting.

    Its text repeats no value: a password may be in the wrong setting.
    """
    env_file.check(ENV_FILE)
    try:
        return Settings(**options)  # type: ignore[arg-type] # pydantic refuses what does not fit
    except ValidationError as error:
        raise SetupError("\n".join(map(_described, error.errors(include_input=False)))) from None


def environment_variable(name: str) -> str | None:
    """Return a variable that another file names, from the environment or `.env`; None if neither has it."""
    found = os.environ.get(name)
    return dotenv_values(ENV_FILE, interpolate=False, encoding="utf-8-sig").get(name) if found is None else found


def _described(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return message  # about several settings, which it names
    return f"{_setting(str(error['loc'][0]))}: {message}"


def _setting(where: str) -> str:
    """Return the documented name of a setting, by its field or any of its names."""
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        names = [f"OKANE_{name.upper()}"] if alias is None else alias.choices  # type: ignore[union-attr] # every alias is AliasChoices
        if where == name or where in names:
            return str(names[-1])
    return where
