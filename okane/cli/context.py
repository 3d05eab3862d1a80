"""The addresses of the system that a command works on, from the environment or the data folder of a running `okane up`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from okane import binding, logs
from okane.config import Settings, load
from okane.errors import SetupError
from okane.local.data_folder import DataFolder, default_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Settings and addresses. An address that neither source names is None; the `_url` properties raise SetupError then."""

    settings: Settings
    source: str
    database: str | None
    redis: str | None
    provider_base_url: str | None
    api_url: str
    api_key: str | None = field(default=None, repr=False)
    payment_method: str | None = None

    @property
    def database_url(self) -> str:
        return self._required(self.database, "DATABASE_URL")

    @property
    def redis_url(self) -> str:
        return self._required(self.redis, "REDIS_URL")

    @property
    def provider_url(self) -> str | None:
        """The provider's address without its user and password, which only workers send."""
        url = self.provider_base_url
        return None if url is None else re.sub(r"//[^/@]*@", "//", url, count=1)

    def _required(self, value: str | None, name: str) -> str:
        if value is None:
            raise SetupError(f"no address is configured: start `okane up`, name its folder with --data, or set {name}")
        return value


def open_context(data: Path | None) -> Context:
    """Return the context of an operator's command, with only warnings logged from here on."""
    logs.configure(level="warning", format_="console", process="okane")
    return find_context(data, load())


def load_settings(**options: object) -> Settings:
    """Load the settings; an option that is not None overrides the environment."""
    return load(**{name: value for name, value in options.items() if value is not None})


def find_context(data: Path | None, settings: Settings) -> Context:
    """Return the context. The environment wins; the running `okane up` of the data folder supplies the rest."""
    folder = data or default_path()
    here = DataFolder(folder).endpoints()
    if here is not None and here.providers_file is not None and settings.providers_file is None:
        settings = settings.model_copy(update={"providers_file": Path(here.providers_file)})
    return Context(
        settings=settings,
        source=f"okane up in {folder}" if here is not None else "the environment",
        database=settings.database_url or (here.database_url if here else None),
        redis=settings.redis or (here.redis_url if here else None),
        provider_base_url=settings.provider_base_url or (here.provider_base_url if here else None) or None,
        api_url=here.api_url
        if here and "port" not in settings.model_fields_set
        else f"http://{binding.netloc(binding.reached_at(settings.host), settings.port)}",
        api_key=settings.api_key or (here.api_key if here else None),
        payment_method=here.payment_method if here else None,
    )
