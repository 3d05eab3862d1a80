"""Reads the providers file again after a change, and gives a running process the new secrets, rates and routes.

Guarantees: a new file takes effect as a whole or, if it is wrong or one of its secrets cannot be loaded, not at all. All else
that differs is named in one line of the log, and takes effect with a restart. No line repeats a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

import structlog

from okane.config import Settings
from okane.errors import SetupError
from okane.pausing import pause
from okane.providers.config import ProviderConfig, ProvidersConfig, load_providers
from okane.providers.registry import charge_secrets, load_notice_secrets
from okane.providers.routing import RouteRule
from okane.providers.secrets import CurrentSecrets, Identity, Secret, identity_of
from okane.rate import Rate

log = structlog.get_logger("okane.providers")

LOOK_EVERY_S = 1.0
_ABSENT: Identity = (0, 0, 0, 0)

_OF_CHARGES = frozenset({"api_key", "client_secret", "rate"})
_OF_NOTICES = frozenset({"webhook_secrets", "second_keys"})

_Loaded = Mapping[str, tuple[Secret, ...]]


class ConfigReload:
    """Keeps what a process uses of the providers file up to date."""

    def __init__(
        self,
        config: ProvidersConfig,
        settings: Settings,
        *,
        secrets: CurrentSecrets,
        keys: frozenset[str],
        load: Callable[[ProvidersConfig, Iterable[Secret]], _Loaded],
        set_rates: Callable[[Mapping[str, Rate]], None] = lambda _: None,
        set_routes: Callable[[Sequence[RouteRule]], None] | None = None,
    ) -> None:
        """`config` is in use. `keys` of a provider take effect without a restart; `load` returns the secrets among them.

        Without `set_routes` the process uses no routes.
        """
        assert config.path is not None
        self._path = config.path
        self._config = config
        self._settings = settings
        self._secrets = secrets
        self._keys = keys
        self._load = load
        self._set_rates = set_rates
        self._set_routes = set_routes
        self._seen: Identity | None = None  # at the last look
        self._read: Identity | None = None  # the file whose content is known
        self._failure: str | None = None  # the last one that was logged
        self._named: Sequence[str] = ()  # the keys that a restart is needed for, as last logged

    @classmethod
    def of_charges(
        cls,
        config: ProvidersConfig,
        settings: Settings,
        secrets: CurrentSecrets,
        *,
        set_rates: Callable[[Mapping[str, Rate]], None],
    ) -> Self:
        """Return the one of a worker."""
        return cls(config, settings, secrets=secrets, keys=_OF_CHARGES, load=charge_secrets, set_rates=set_rates)

    @classmethod
    def of_api(
        cls,
        config: ProvidersConfig,
        settings: Settings,
        secrets: CurrentSecrets,
        *,
        set_routes: Callable[[Sequence[RouteRule]], None],
    ) -> Self:
        """Return the one of an API process."""
        return cls(config, settings, secrets=secrets, keys=_OF_NOTICES, load=load_notice_secrets, set_routes=set_routes)

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the file once a second until `stop`."""
        while not stop.is_set():
            try:
                await self.look()
            except Exception:
                log.exception("providers_file_failed")
            await pause(LOOK_EVERY_S, stop)

    async def look(self) -> None:
        """Take a file that differs from the known one, and is as it was at the look before: it may be half written."""
        identity = self._identity()
        settled = identity == self._seen
        self._seen = identity
        if identity == self._read or not settled:
            return
        try:
            # In a thread: to read TOML takes milliseconds, and a disk may take longer.
            new, config, loaded = await asyncio.to_thread(self._loaded)
        except SetupError as error:
            self._log_failure(str(error))  # and try again: a secret's file may be on its way
            return
        self._failure, self._read = None, identity
        self._secrets.replace(loaded)
        self._set_rates(config.rates)
        if self._set_routes is not None and config.routes != self._config.routes:
            self._set_routes(config.routes)
        taken = self._differences(self._config, config)
        self._config = config
        if taken:
            log.info("providers_file_changed", taken=taken)
        named = self._differences(config, new)
        if named and named != self._named:
            log.warning("providers_file_needs_restart", file=str(self._path), changed=named)
        self._named = named

    def _identity(self) -> Identity:
        try:
            return identity_of(self._path.stat())
        except OSError:
            return _ABSENT

    def _loaded(self) -> tuple[ProvidersConfig, ProvidersConfig, _Loaded]:
        """Return the file, the configuration to use from now on, and its secrets. Raises SetupError."""
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(self._path.stat().st_mode):  # to open a pipe would block
                raise SetupError(f"{self._path} is not a regular file")
        new = load_providers(self._settings)
        providers = {
            name: self._merged(name, old, new.providers.get(name)) for name, old in self._config.providers.items()
        }
        routes = new.routes if self._takes_routes(new) else self._config.routes
        config = ProvidersConfig(self._path, self._config.mode, providers, self._config.default, routes)
        return new, config, self._load(config, self._secrets.loaded)

    def _takes_routes(self, new: ProvidersConfig) -> bool:
        """Return True if new routes take effect now. Those that lead to a new provider wait, like the provider, for a
        restart."""
        return self._set_routes is not None and self._config.names.issuperset(
            name for rule in new.routes for name in rule.names
        )

    def _merged(self, name: str, old: ProviderConfig, new: ProviderConfig | None) -> ProviderConfig:
        """Return the old one with the keys of the new one that take effect now."""
        if type(new) is not type(old):
            return old
        return old.model_copy(update={key: getattr(new, key) for key in self._live(name) if hasattr(new, key)})

    def _live(self, name: str) -> frozenset[str]:
        """Return the keys that take effect now. A webhook route without secrets opens at a start only."""
        if self._keys == _OF_NOTICES and name not in self._secrets.places:
            return frozenset()
        return self._keys

    def _differences(self, one: ProvidersConfig, other: ProvidersConfig) -> Sequence[str]:
        """Return the names of what differs, but for the secrets and rates that this process does not use."""
        found = ["default"] if one.default != other.default else []
        if self._set_routes is not None and one.routes != other.routes:
            found.append("routes")
        unused = (_OF_CHARGES | _OF_NOTICES) - self._keys
        for name in sorted(one.providers.keys() | other.providers.keys()):
            before, after = one.providers.get(name), other.providers.get(name)
            if before is None or after is None:
                found.append(f"providers.{name}")
            elif type(before) is not type(after):
                found.append(f"providers.{name}.kind")
            else:
                keys = type(before).model_fields.keys() - unused
                found += [
                    f"providers.{name}.{key}" for key in sorted(keys) if getattr(before, key) != getattr(after, key)
                ]
        return found

    def _log_failure(self, reason: str) -> None:
        if reason != self._failure:
            log.error("providers_file_unusable", file=str(self._path), reason="; ".join(reason.splitlines()))
        self._failure = reason
