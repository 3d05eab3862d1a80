"""Makes the providers of a process from their configuration. An adapter is imported only where its kind is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from okane import addresses, logs
from okane.api_key import Mode
from okane.config import Settings
from okane.errors import SetupError
from okane.providers.base import NoticeParser, Provider
from okane.providers.config import HTTP, OkaneHttpConfig, PayuConfig, ProviderConfig, ProvidersConfig, StripeConfig
from okane.providers.secrets import BadSecret, CurrentSecrets, Secret


def build_providers(
    config: ProvidersConfig,
    settings: Settings,
    *,
    connections: int,
    more_header: Callable[[], str] | None = None,
    secrets: CurrentSecrets | None = None,
) -> Mapping[str, Provider]:
    """Return the adapters by their names, for workers. Called on a running loop.

    `connections` is the size of a provider's pool that the file does not set. `secrets` are those of `charge_secrets`, and
    loaded here if there are none. Raises SetupError.
    """
    if config.path is None:
        return {HTTP: _http_of_settings(settings, connections=connections, more_header=more_header)}
    secrets = secrets or CurrentSecrets(charge_secrets(config))
    built: dict[str, Provider] = {}
    for name, found in config.providers.items():
        try:
            built[name] = _provider(
                config, name, found, connections=connections, more_header=more_header, secrets=secrets
            )
        except ValueError as error:
            # An adapter's own rules, like a deadline beyond the life of its keys.
            raise SetupError(f"{config.path}: providers.{name}: {error}") from None
    return built


def build_notice_parsers(
    config: ProvidersConfig, *, secrets: CurrentSecrets | None = None
) -> Mapping[str, NoticeParser]:
    """Return the parsers of the providers that have secrets for notices, for API processes. `secrets` are those of
    `load_notice_secrets`, and loaded here if there are none. Raises SetupError."""
    secrets = secrets or CurrentSecrets(load_notice_secrets(config))
    return {
        name: _notice_parser(found, secrets.all(name))
        for name, found in config.providers.items()
        if name in secrets.places
    }


def _notice_parser(found: ProviderConfig, secrets: Callable[[], Sequence[str]]) -> NoticeParser:
    match found:
        case StripeConfig():
            from okane.providers.stripe.webhook import StripeNoticeParser  # noqa: PLC0415 - only where it is configured

            return StripeNoticeParser(secrets)
        case PayuConfig():
            from okane.providers.payu.webhook import notice_parser  # noqa: PLC0415 - as above

            return notice_parser(secrets)
        case OkaneHttpConfig():
            from okane.providers.okane_http.webhook import OkaneHttpNoticeParser  # noqa: PLC0415 - as above

            return OkaneHttpNoticeParser(secrets)


def load_charge_secrets(config: ProvidersConfig) -> Mapping[str, Secret]:
    """Load all secrets of charges, by `NAME.KEY`, and those that are a base URL. Raises SetupError."""
    for name, found in config.providers.items():
        if isinstance(found, OkaneHttpConfig):
            _base_url(config, name, found)
    return {place: one for place, (one,) in charge_secrets(config).items()}


def charge_secrets(config: ProvidersConfig, kept: Iterable[Secret] = ()) -> Mapping[str, tuple[Secret, ...]]:
    """Load the secrets of charges by `NAME.KEY`, but those of the same source that are `kept`. Raises SetupError."""
    loaded: dict[str, tuple[Secret, ...]] = {}
    for name, found in config.providers.items():
        for key, source in _charge_secrets(found):
            loaded[f"{name}.{key}"] = (_secret(config, name, key, source, kept),)
    return loaded


def _charge_secrets(found: ProviderConfig) -> Sequence[tuple[str, SecretStr]]:
    match found:
        case StripeConfig():
            return [("api_key", found.api_key)]
        case PayuConfig():
            return [("client_secret", found.client_secret)]
        case OkaneHttpConfig():
            return []


def load_notice_secrets(config: ProvidersConfig, kept: Iterable[Secret] = ()) -> Mapping[str, tuple[Secret, ...]]:
    """Load the secrets of notices by the name of their provider, but those of the same source that are `kept`. Raises
    SetupError."""
    loaded: dict[str, tuple[Secret, ...]] = {}
    for name, found in config.providers.items():
        key, sources = _notice_secrets(found)
        if sources:
            loaded[name] = tuple(_secret(config, name, f"{key}[{n}]", one, kept) for n, one in enumerate(sources))
    return loaded


def _notice_secrets(found: ProviderConfig) -> tuple[str, Sequence[SecretStr]]:
    match found:
        case StripeConfig() | OkaneHttpConfig():
            return "webhook_secrets", found.webhook_secrets
        case PayuConfig():
            return "second_keys", found.second_keys


def base_urls(config: ProvidersConfig) -> Mapping[str, str]:
    """Return the address of each provider in the file. Raises SetupError."""
    urls = {}
    for name, found in config.providers.items():
        match found:
            case StripeConfig():
                urls[name] = found.base_url
            case PayuConfig():
                urls[name] = found.address(config.mode)
            case OkaneHttpConfig():
                urls[name] = _base_url(config, name, found)
    return urls


def _http_of_settings(settings: Settings, *, connections: int, more_header: Callable[[], str] | None) -> Provider:
    """Return the provider at PROVIDER_BASE_URL."""
    from okane.providers.okane_http.provider import OkaneHttpProvider  # noqa: PLC0415 - only where it is configured

    if settings.provider_base_url is None:
        raise SetupError(
            "PROVIDER_BASE_URL is not set, nor is OKANE_PROVIDERS_FILE. `okane up` runs everything on this machine and "
            "sets it by itself"
        )
    _register_password(settings.provider_base_url)
    return OkaneHttpProvider(
        settings.provider_base_url,
        timeout=settings.provider_timeout,
        consistency_lag=settings.consistency_lag,
        unknown_deadline=settings.unknown_deadline,
        connections=connections,
        more_header=more_header,
    )


def _provider(
    config: ProvidersConfig,
    name: str,
    found: ProviderConfig,
    *,
    connections: int,
    more_header: Callable[[], str] | None,
    secrets: CurrentSecrets,
) -> Provider:
    match found:
        case OkaneHttpConfig():
            from okane.providers.okane_http.provider import OkaneHttpProvider  # noqa: PLC0415 - as above

            return OkaneHttpProvider(
                _base_url(config, name, found),
                name=name,
                timeout=found.timeout,
                consistency_lag=found.consistency_lag,
                unknown_deadline=found.unknown_deadline,
                poll_delays=found.poll_delays,
                capabilities=found.offers(),
                connections=found.connections or connections,
                more_header=more_header,
            )
        case PayuConfig():
            return _payu(config, name, found, connections=connections, secrets=secrets)
        case StripeConfig():
            return _stripe(name, found, connections=connections, secrets=secrets)


def _payu(
    config: ProvidersConfig, name: str, found: PayuConfig, *, connections: int, secrets: CurrentSecrets
) -> Provider:
    from okane.providers.payu.provider import PayuProvider  # noqa: PLC0415 - only where it is configured

    return PayuProvider(
        base_url=found.address(config.mode),
        pos_id=found.pos_id,
        client_id=found.client_id,
        client_secret=secrets.one(f"{name}.client_secret"),
        notify_url=found.notify_url,
        automatic_collection=found.automatic_collection,
        name=name,
        timeout=found.timeout,
        connections=found.connections or connections,
        consistency_lag=found.consistency_lag,
        unknown_deadline=found.unknown_deadline,
        poll_delays=found.poll_delays,
    )


def _stripe(name: str, found: StripeConfig, *, connections: int, secrets: CurrentSecrets) -> Provider:
    from okane.providers.stripe.provider import StripeProvider  # noqa: PLC0415 - only where it is configured

    place = f"{name}.api_key"
    return StripeProvider(
        found.base_url,
        api_key=secrets.one(place),
        on_unauthorized=partial(secrets.reread, place),
        name=name,
        timeout=found.timeout,
        connections=found.connections or connections,
        consistency_lag=found.consistency_lag,
        unknown_deadline=found.unknown_deadline,
        poll_delays=found.poll_delays,
    )


def _base_url(config: ProvidersConfig, name: str, found: OkaneHttpConfig) -> str:
    """Return the address of a provider of okane's own protocol, which may hold a password."""
    given = found.base_url.get_secret_value()
    sourced = given.startswith(("file:", "env:"))
    url = _secret(config, name, "base_url", found.base_url)() if sourced else given
    try:
        addresses.check_http(url)
    except ValueError as error:
        raise config.refusal(name, "base_url", str(error)) from None
    if config.mode is Mode.LIVE and not sourced and urlsplit(url).password is not None:
        raise config.refusal(name, "base_url", "has a password: in mode live write file:PATH or env:NAME")
    _register_password(url)
    return url


def _register_password(url: str) -> None:
    password = urlsplit(url).password
    if password:
        logs.register_secret(password)
        logs.register_secret(unquote(password))


def _secret(config: ProvidersConfig, name: str, key: str, source: SecretStr, kept: Iterable[Secret] = ()) -> Secret:
    assert config.path is not None
    given, where = source.get_secret_value(), f"{name}.{key}"
    for secret in kept:
        if secret.is_from(given, where=where):
            return secret
    try:
        return Secret(given, where=where, mode=config.mode, folder=config.path.parent)
    except BadSecret as error:
        raise config.refusal(name, key, str(error)) from None
