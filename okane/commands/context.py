"""Where the commands of an operator find the system: in the environment, or in the data folder of a running `okane up`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from okane import binding
from okane.config import Settings, load
from okane.errors import SetupError
from okane.local.data_folder import DataFolder, default_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The settings and the addresses in use. Any address may be None for a `lenient` context (the doctor's)."""

    settings: Settings
    source: str
    database: str | None
    redis: str | None
    provider_base_url: str | None
    api_url: str
    api_key: str | None = field(default=None, repr=False)

    @property
    def database_url(self) -> str:
        return self._needed(self.database, "DATABASE_URL")

    @property
    def redis_url(self) -> str:
        return self._needed(self.redis, "REDIS_URL")

    @property
    def provider_url(self) -> str | None:
        """The provider's address without its user and password, which only workers send."""
        url = self.provider_base_url
        return None if url is None else re.sub(r"//[^/@]*@", "//", url, count=1)

    def _needed(self, value: str | None, name: str) -> str:
        if value is None:
            raise SetupError(f"nothing is known here: start `okane up`, name its folder with --data, or set {name}")
        return value


def find(data: Path | None, settings: Settings | None = None) -> Context:
    """What the environment says wins; what it leaves open comes from the running `okane up` of the data folder."""
    settings = settings or load()
    folder = data or default_path()
    here = DataFolder(folder).endpoints()
    return Context(
        settings=settings,
        source=f"okane up in {folder}" if here is not None else "the environment",
        database=settings.database_url or (here.database_url if here else None),
        redis=settings.redis or (here.redis_url if here else None),
        provider_base_url=settings.provider_base_url or (here.provider_base_url if here else None),
        api_url=here.api_url
        if here and "port" not in settings.model_fields_set
        else f"http://{binding.netloc(binding.reached_at(settings.host), settings.port)}",
        api_key=settings.api_key or (here.api_key if here else None),
    )
