"""The system that the doctor checks: its settings and addresses."""

from __future__ import annotations

from typing import Protocol

from okane.config import Settings


class CheckedSystem(Protocol):
    """Settings and addresses. The `_url` properties raise SetupError where an address is missing."""

    @property
    def settings(self) -> Settings: ...

    @property
    def source(self) -> str:
        """The source of the addresses: `okane up in FOLDER`, or the environment."""
        ...

    @property
    def database(self) -> str | None: ...

    @property
    def database_url(self) -> str: ...

    @property
    def redis_url(self) -> str: ...

    @property
    def provider_base_url(self) -> str | None: ...

    @property
    def api_url(self) -> str | None:
        """The API on this machine. None: APIs and workers may run elsewhere, with secrets and ways to the gateways that this
        process has not; the APIs are on the list of processes."""
        ...
