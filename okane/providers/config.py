"""The providers file (`OKANE_PROVIDERS_FILE`): TOML, checked at the start of a process and after each
change. It names secrets and holds none.

```toml
default = ["stripe", "payu"]            # in this order; all in the order of the file if absent

[providers.stripe]
kind = "stripe"
api_key = "file:/run/secrets/stripe_key"
```
Without the file, `PROVIDER_BASE_URL` is the one provider, `http`. An error names the file, the provider and the key, never
a value.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from okane.api_key import Mode
from okane.config import Count, HttpUrl, PositiveDuration, RateLimit, Settings
from okane.errors import SetupError
from okane.origin_guard import is_loopback
from okane.providers import capabilities as kinds
from okane.providers.base import POLL_DELAYS, Capability
from okane.providers.routing import MAX_ROUTES, RouteRule, route_errors
from okane.rate import Rate
from streams.values import value

MAX_FILE_BYTES = 64 * 1024
MAX_PROVIDERS = 16
MAX_SECRETS = 5  # of one kind: two are valid while one replaces the other
MAX_POLLS = 20  # the last delay repeats
HTTP = "http"  # the provider at PROVIDER_BASE_URL
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
LONGEST_FILL_S = 100 * 366 * 86_400  # of the bucket of a rate; more than its arithmetic holds is beyond it
PAYU_LIVE, PAYU_SANDBOX = "secure.payu.com", "secure.snd.payu.com"

Identifier = Annotated[
    str,
    BeforeValidator(lambda given: str(given) if type(given) is int else given),
    Field(pattern=r"^[!-~]+$", max_length=255),
]
SecretSource = Annotated[SecretStr, Field(min_length=1, max_length=4096)]
PollDelays = Annotated[
    list[PositiveDuration],
    Field(
        min_length=1,
        max_length=MAX_POLLS,
        description="between the look-ups of a payment that the gateway decides later",
    ),
]
SecretSources = Annotated[list[SecretSource], Field(max_length=MAX_SECRETS)]


class _Provider(BaseModel):
    """The keys that every kind of provider has."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    timeout: Annotated[PositiveDuration, Field(description="the deadline of one call")]
    consistency_lag: Annotated[
        PositiveDuration, Field(description='how long after a call a "not found" does not count yet')
    ]
    unknown_deadline: Annotated[PositiveDuration, Field(description="an open outcome moves to needs_review after this")]
    connections: Annotated[Count | None, Field(description="of one worker process; calls beyond it wait")] = None
    rate: Annotated[RateLimit | None, Field(description="calls of all workers together: 25/s")] = None

    def offers(self) -> frozenset[Capability]:
        """Return the provider's capabilities beyond a charge that captures at once."""
        raise NotImplementedError


class StripeConfig(_Provider):
    """A Stripe account."""

    kind: Literal["stripe"]
    base_url: HttpUrl = "https://api.stripe.com"
    api_key: Annotated[SecretSource, Field(description="sk_… or rk_…, for workers")]
    webhook_secrets: Annotated[SecretSources, Field(description="whsec_…, for API processes")] = []
    timeout: PositiveDuration = timedelta(seconds=30)
    consistency_lag: PositiveDuration = timedelta(seconds=90)
    unknown_deadline: PositiveDuration = timedelta(hours=12)
    poll_delays: PollDelays = list(POLL_DELAYS)
    rate: RateLimit | None = Rate(25, 1, 25)  # Stripe's own default for one endpoint

    def offers(self) -> frozenset[Capability]:
        return kinds.STRIPE


class PayuConfig(_Provider):
    """A point of sale at PayU."""

    kind: Literal["payu"]
    base_url: HttpUrl | None = None  # by the mode
    pos_id: Identifier
    client_id: Identifier
    client_secret: Annotated[SecretSource, Field(description="of the OAuth client, for workers")]
    second_keys: Annotated[SecretSources, Field(description="that sign notices, for API processes")] = []
    notify_url: Annotated[HttpUrl | None, Field(description="the API's address for notices")] = None
    automatic_collection: Annotated[bool, Field(description="false: paid orders wait to be captured")] = True
    timeout: PositiveDuration = timedelta(seconds=30)
    consistency_lag: PositiveDuration = timedelta(seconds=60)
    unknown_deadline: PositiveDuration = timedelta(hours=24)
    poll_delays: PollDelays = list(POLL_DELAYS)

    def address(self, mode: Mode) -> str:
        """Return the base URL: unless the file has one, that of the sandbox or of PayU's live system."""
        return self.base_url or f"https://{PAYU_SANDBOX if mode is Mode.TEST else PAYU_LIVE}"

    def offers(self) -> frozenset[Capability]:
        return kinds.PAYU if self.automatic_collection else kinds.PAYU_BY_HAND


class OkaneHttpConfig(_Provider):
    """A provider with okane's own protocol."""

    kind: Literal["okane_http"]
    base_url: Annotated[SecretSource, Field(description="https://user:password@host:port/path, or its source")]
    timeout: PositiveDuration = timedelta(seconds=5)
    consistency_lag: PositiveDuration = timedelta(seconds=5)
    unknown_deadline: PositiveDuration = timedelta(hours=24)
    poll_delays: PollDelays = list(POLL_DELAYS)
    webhook_secrets: Annotated[SecretSources, Field(description="that sign notices, for API processes")] = []
    capabilities: Annotated[list[Capability], Field(description="what it can do beyond a charge")] = sorted(kinds.ALL)

    def offers(self) -> frozenset[Capability]:
        return frozenset(self.capabilities)


ProviderConfig = StripeConfig | PayuConfig | OkaneHttpConfig
KINDS: Mapping[str, type[ProviderConfig]] = {"stripe": StripeConfig, "payu": PayuConfig, "okane_http": OkaneHttpConfig}


class _File(BaseModel):
    """The file, before its providers are checked."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    default: Annotated[list[str], Field(min_length=1, max_length=MAX_PROVIDERS)] | None = None
    providers: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=MAX_PROVIDERS)]
    routes: Annotated[list[dict[str, Any]], Field(max_length=MAX_ROUTES)] = []

    @model_validator(mode="after")
    def _default_is_known(self) -> Self:
        if self.default is not None and len(set(self.default)) < len(self.default):
            raise ValueError("default has a name twice")
        if self.default is not None and not set(self.default) <= self.providers.keys():
            raise ValueError(f"default takes names of this file's providers: {', '.join(map(_shown, self.providers))}")
        return self


@value
class ProvidersConfig:
    """The configured providers. `path` is None without a file; `default` are the candidates of a payment that no route
    matches, the first first."""

    path: Path | None
    mode: Mode
    providers: Mapping[str, ProviderConfig]
    default: Sequence[str]
    routes: Sequence[RouteRule] = ()

    @property
    def names(self) -> frozenset[str]:
        """The names of all providers."""
        return frozenset(self.providers) or frozenset(self.default)

    @property
    def capabilities(self) -> Mapping[str, frozenset[Capability]]:
        """The capabilities of all providers beyond a charge that captures at once, by the provider's name."""
        return {name: found.offers() for name, found in self.providers.items()} or {HTTP: kinds.ALL}

    @property
    def rates(self) -> Mapping[str, Rate]:
        """The limits of the calls of all workers together, by the provider's name."""
        return {name: found.rate for name, found in self.providers.items() if found.rate is not None}

    def refusal(self, name: str, key: str, message: str) -> SetupError:
        """Return the error about one key of one provider."""
        return SetupError(f"{_place(self.path, name, key)} {message}")


def load_providers(settings: Settings) -> ProvidersConfig:
    """Read and check the providers file. No secret is loaded yet. Raises SetupError, which names everything wrong."""
    path, mode = settings.providers_file, settings.mode
    if path is None:
        return ProvidersConfig(None, mode, {}, (HTTP,))
    try:
        read = _File.model_validate(_parsed(path))
    except ValidationError as error:
        raise SetupError("\n".join(_described(path, error))) from None
    providers: dict[str, ProviderConfig] = {}
    errors: list[str] = []
    for name, entry in read.providers.items():
        try:
            providers[name] = _provider(path, name, entry)
        except ValidationError as error:
            errors += _described(path, error, "providers", name)
        except SetupError as error:
            errors.append(str(error))
        else:
            errors += [
                f"{_place(path, name, key)} {message}" for key, message in _inconsistencies(providers[name], settings)
            ]
    routes = _routes(path, read, errors)
    if errors:
        raise SetupError("\n".join(errors))
    return ProvidersConfig(path, mode, providers, tuple(read.default or providers), routes)


def _parsed(path: Path) -> Mapping[str, Any]:
    """Return the tables of the file. Raises SetupError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SetupError(f"OKANE_PROVIDERS_FILE: {path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SetupError(f"OKANE_PROVIDERS_FILE: {path} has more than {MAX_FILE_BYTES // 1024} kB")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SetupError(f"OKANE_PROVIDERS_FILE: {path} is not in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The message of the parser may quote the line.
        place = re.search(r"\((at [a-z0-9 ,]+)\)", str(error))
        raise SetupError(f"OKANE_PROVIDERS_FILE: {path} is not TOML{f' {place[1]}' if place else ''}") from None


def _provider(path: Path, name: str, entry: Mapping[str, Any]) -> ProviderConfig:
    """Return one checked provider. Raises ValidationError or SetupError."""
    if not NAME.fullmatch(name):
        raise SetupError(f"{path}: providers.{_shown(name)} is no name: a small letter, then up to 31 of a-z 0-9 _ -")
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise SetupError(f"{_place(path, name, 'kind')} must be one of {', '.join(KINDS)}")
    return KINDS[kind].model_validate(entry)


def _routes(path: Path, read: _File, errors: list[str]) -> Sequence[RouteRule]:
    """Return the routes, and append all that is wrong with them."""
    routes: list[RouteRule] = []
    for number, entry in enumerate(read.routes, 1):
        try:
            routes.append(RouteRule.model_validate(entry))
        except ValidationError as error:
            errors += _described(path, error, "routes", number)
    if len(routes) == len(read.routes):
        errors += [f"{path}: routes.{number}: {message}" for number, message in route_errors(routes, read.providers)]
    return routes


def _inconsistencies(found: ProviderConfig, settings: Settings) -> Sequence[tuple[str, str]]:
    """Return the key and the message of everything that does not fit together."""
    errors: list[tuple[str, str]] = []
    if found.rate is not None and found.rate.burst > found.rate.per_s * LONGEST_FILL_S:
        errors.append(("rate", "has a burst that takes a century to come back"))
    if isinstance(found, OkaneHttpConfig):
        if found.timeout >= settings.lease:
            errors.append(("timeout", "must be shorter than VISIBILITY_TIMEOUT (the lease)"))
        return errors
    # The lease of a call that lasts is renewed. Only a worker that has lost Postgres cannot renew it: the look-up of the
    # next one then comes while the call lasts, and must not take "not found" for an answer.
    if found.consistency_lag < found.timeout:
        errors.append(("consistency_lag", "must not be shorter than timeout"))
    url = urlsplit(found.base_url or "")
    if url.username is not None or url.password is not None:
        errors.append(("base_url", "takes no user and no password: the keys of this provider are its secrets"))
    if settings.mode is Mode.LIVE and url.scheme == "http" and not is_loopback(url.hostname or ""):
        errors.append(("base_url", "must be https in mode live: secrets travel over it"))
    if isinstance(found, PayuConfig) and url.hostname == (PAYU_LIVE if settings.mode is Mode.TEST else PAYU_SANDBOX):
        errors.append(("base_url", f"is not that of OKANE_MODE={settings.mode}"))
    return errors


def _described(path: Path, error: ValidationError, *above: object) -> Sequence[str]:
    lines = []
    for one in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(map(_shown, (*above, *one["loc"])))
        message = one["msg"].removeprefix("Value error, ")
        if one["type"] == "extra_forbidden":
            message = "is unknown"
        lines.append(f"{path}: {place}{': ' if place else ''}{message}")
    return lines


def _place(path: Path | None, name: str, key: str) -> str:
    return f"{path or 'PROVIDER_BASE_URL'}: providers.{_shown(name)}.{key}"


def _shown(name: object) -> str:
    """Return a key of the file, shortened and printable: someone may have put a value in its place."""
    text = str(name)[:40]
    return text if re.fullmatch(r"[\w-]+", text, re.ASCII) else ascii(text)
