"""Settings: the only reader of the environment. Every field may come from `.env` or the environment.

The names without a prefix are those of the two systems okane succeeds (`DATABASE_URL`, `WORKER_COUNT`, ...); everything
else is `OKANE_<FIELD>`. Durations take seconds (`30`, `0.5`) or Go's spelling (`30s`, `1m30s`, `250ms`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PositiveInt, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from okane import binding, currencies
from okane.api_key import Mode
from okane.origin_guard import is_loopback
from okane.rate import Rate

_GO_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> object:
    """`"30"`, `30`, `"30s"`, `"1m30s"` or `"250ms"` to a timedelta; anything else is left to pydantic to refuse."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    if not isinstance(value, str):
        return value
    text = value.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    if re.fullmatch(rf"(?:{_GO_DURATION.pattern})+", text):
        return timedelta(seconds=sum(float(n) * _UNIT_S[unit] for n, unit in _GO_DURATION.findall(text)))
    raise ValueError("expected seconds (30, 0.5) or a duration like 30s, 1m30s, 250ms")


def _parse_durations(value: object) -> object:
    """`"5s,15s,1m"`, or a sequence of anything `parse_duration` takes."""
    return [parse_duration(part) for part in value.split(",")] if isinstance(value, str) else value


def _parse_host_names(value: object) -> object:
    """`"pay.example.com,10.0.0.7"`, in lower case, or a sequence of names."""
    if not isinstance(value, str):
        return value
    names = [name.strip().removesuffix(".").lower() for name in value.split(",") if name.strip()]
    if not all(map(binding.is_host, names)):
        raise ValueError("takes names or addresses separated by commas, without scheme and port")
    return names


Duration = Annotated[timedelta, BeforeValidator(parse_duration), Field(ge=timedelta(0))]
PositiveDuration = Annotated[timedelta, BeforeValidator(parse_duration), Field(gt=timedelta(0))]
Durations = Annotated[tuple[Duration, ...], NoDecode, BeforeValidator(_parse_durations), Field(min_length=1)]
RateLimit = Annotated[Rate, BeforeValidator(lambda value: Rate.parse(value) if isinstance(value, str) else value)]
AmountLimits = Annotated[
    Mapping[str, PositiveInt], NoDecode, BeforeValidator(currencies.parse_limits), AfterValidator(currencies.check)
]
AmountMinor = Annotated[int, Field(gt=0, le=currencies.MAX_AMOUNT_MINOR)]
Port = Annotated[int, Field(ge=0, le=65535)]
Hosts = Annotated[str, AfterValidator(binding.checked)]
HostNames = Annotated[frozenset[str], NoDecode, BeforeValidator(_parse_host_names)]


def _named(name: str) -> AliasChoices:
    """An ancestor's name for a setting, beside ours."""
    return AliasChoices(f"OKANE_{name}", name)


class Settings(BaseSettings):
    """What every process reads at its start. Each field says what it is for."""

    model_config = SettingsConfigDict(
        env_prefix="OKANE_",
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,  # addresses hold passwords
    )

    # Where things are. Unset means: `okane up` brings its own.
    database_url: str | None = Field(None, validation_alias=_named("DATABASE_URL"), description="Postgres, as a URL")
    redis_url: str | None = Field(None, validation_alias=_named("REDIS_URL"), description="Redis or Valkey, as a URL")
    redis_addr: str | None = Field(None, validation_alias=_named("REDIS_ADDR"), description="host:port, or a URL")
    provider_base_url: str | None = Field(None, validation_alias=_named("PROVIDER_BASE_URL"))
    host: Hosts = Field("127.0.0.1", description="what the API binds: hosts, separated by commas")
    port: Port = Field(8080, validation_alias=_named("PORT"), description="the API's port")
    share_port: bool = Field(False, description="let other API processes bind the same port: set by `api --processes`")
    mock_provider_port: Port = Field(8081, validation_alias=_named("MOCK_PROVIDER_PORT"))
    metrics_host: Hosts = "127.0.0.1"
    metrics_port: Port = Field(0, description="this process's /metrics; 0 takes the first free one from 9101 up")
    metrics_advertise: str | None = Field(
        None, description="where others reach /metrics: a name or an address; unset: what it binds, or the host's name"
    )

    # Who may use the API
    auth: Literal["keys", "none"] = Field(
        "keys", description="none: whoever reaches the port may, which must be on loopback"
    )
    allowed_hosts: HostNames | None = Field(
        None, description="without keys: names beside loopback's under which the API is reached (`Host`)"
    )
    mode: Mode = Field(Mode.TEST, description="which keys are let in: those for play money, or those for somebody's")
    rate_limit: RateLimit | None = Field(None, description="requests of one key: 100/s, 6000/m, 100/s burst 500")
    api_key: str | None = Field(None, repr=False, description="for clients (`okane load`): the key they send")

    # What the clients of the HTTP servers are given
    max_connections: PositiveInt = Field(
        10_000, description="open connections to one API process, as far as its limit of open files lets it"
    )
    head_timeout: PositiveDuration = Field(timedelta(seconds=5), description="for the head of a request to come whole")
    keep_alive_timeout: PositiveDuration = Field(
        timedelta(seconds=75), description="between two requests; longer than a load balancer in front keeps its own"
    )
    write_timeout: PositiveDuration = Field(timedelta(seconds=10), description="for a client to read its answers")

    max_due_age: PositiveDuration | None = Field(
        None, description="no new payments are taken while one has been due for longer"
    )
    lame_duck: Duration = Field(
        timedelta(seconds=5),
        description="after SIGTERM: how long an API goes on serving, not ready, while what is in front of it turns away",
    )
    fast_lane: bool = Field(True, description="answer requests for payments beside aiohttp where they come whole")

    # Logs and traces
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", validation_alias=_named("LOG_LEVEL"))
    failpoint: str | None = Field(
        None, description="for tests: name:kill|stop|raise|delay[:nth], see docs/guarantees.md"
    )
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: JSON unless on a terminal")
    tracing: bool = Field(False, description="send spans as the OTEL_* variables say; needs the extra okane[otel]")

    # The stream
    stream: str = Field("okane:payments", description="prefix of every Redis key, and their hash tag")
    group: str = Field("workers", description="the consumer group")
    max_stream_length: PositiveInt = Field(100_000, description="beyond it payments wait in Postgres for the sweep")
    critical_from_minor: AmountMinor = Field(10_000, description="amounts from here on take the critical lane")
    low_below_minor: AmountMinor = Field(1_000, description="amounts below take the low lane")

    # Workers
    concurrency: PositiveInt = Field(
        256, validation_alias=_named("WORKER_COUNT"), description="payments in flight in one worker process"
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
    max_deliveries: PositiveInt = Field(5, description="deliveries of one stream entry before it counts as poison")
    retry_base: Duration = timedelta(seconds=1)
    retry_cap: Duration = timedelta(minutes=5)
    sweep_interval: Duration = timedelta(seconds=1)
    sweep_grace: Duration = Field(
        timedelta(seconds=10), description="how late a wake-up may be before it counts as lost"
    )

    # The provider
    provider_timeout: Duration = Field(timedelta(seconds=5), description="deadline of one provider call")
    consistency_lag: Duration = Field(
        timedelta(seconds=5), description="how long after a call the provider's `not found` is not yet believed"
    )
    look_up_delays: Durations = Field(
        tuple(timedelta(seconds=s) for s in (5, 15, 60, 300, 900, 3600)),
        description="when an open outcome is looked up, each counted from the last time; the last one repeats",
    )
    unknown_deadline: Duration = Field(timedelta(hours=24), description="an open outcome needs a human after this")

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
        if self.lease <= self.provider_timeout:
            raise ValueError("VISIBILITY_TIMEOUT (the lease) must be longer than OKANE_PROVIDER_TIMEOUT")
        if self.database_url is not None and re.match(r"[^/?#]*://[^/?#]*@[^/?#]*@", self.database_url):
            raise ValueError("DATABASE_URL: an @ in the user or the password is written %40")
        if self.redis is not None and not self.redis.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("REDIS_URL must begin with redis://, rediss:// or unix://")
        if self.metrics_advertise is not None and not binding.is_host(self.metrics_advertise):
            raise ValueError("OKANE_METRICS_ADVERTISE must be a host name or an address, without port or scheme")
        if self.provider_base_url is not None and not re.match(r"https?://[^/?#]", self.provider_base_url):
            raise ValueError("PROVIDER_BASE_URL must look like https://host[:port][/path]")
        if self.auth == "none" and not all(map(is_loopback, binding.hosts(self.host))):
            raise ValueError(f"OKANE_AUTH=none lets in whoever reaches {self.host}: use keys, or bind 127.0.0.1")
        return self

    @property
    def redis(self) -> str | None:
        """The Redis URL, from `REDIS_URL` or the older `REDIS_ADDR`."""
        if self.redis_url is not None or self.redis_addr is None:
            return self.redis_url
        return self.redis_addr if "://" in self.redis_addr else f"redis://{self.redis_addr}"
