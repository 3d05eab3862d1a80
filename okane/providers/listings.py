"""Makes the list of one configured provider, for `okane reconcile`."""

from __future__ import annotations

from okane.config import Settings
from okane.errors import SetupError
from okane.providers.config import HTTP, OkaneHttpConfig, PayuConfig, ProvidersConfig, StripeConfig
from okane.providers.listing import Listing
from okane.providers.okane_http.records import OkaneHttpListing
from okane.providers.registry import base_urls
from okane.providers.secrets import CurrentSecrets


def build_listing(config: ProvidersConfig, settings: Settings, name: str, secrets: CurrentSecrets) -> Listing:
    """Return the list of a provider. Called on a running loop. Raises SetupError: there is no such provider, or it has no
    list."""
    if config.path is None:
        if name != HTTP or settings.provider_base_url is None:
            raise SetupError(f"no provider is called {name!r}: see `okane providers ls`")
        return OkaneHttpListing(settings.provider_base_url, name=HTTP, timeout=settings.provider_timeout)
    found = config.providers.get(name)
    match found:
        case None:
            known = ", ".join(config.providers)
            raise SetupError(f"no provider is called {name!r}: there are {known}")
        case PayuConfig():
            raise SetupError(f"{name}: PayU has no list of its orders, so there is nothing to compare with")
        case OkaneHttpConfig():
            return OkaneHttpListing(base_urls(config)[name], name=name, timeout=found.timeout)
        case StripeConfig():
            from okane.providers.stripe.records import StripeListing  # noqa: PLC0415 - only where it is configured

            return StripeListing(
                found.base_url, api_key=secrets.one(f"{name}.api_key"), name=name, timeout=found.timeout
            )
