"""The switch of each provider as operators see and set it: on, drain (no new charge) or off (no call)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from okane.card_numbers import holds_card_number
from okane.config import Settings
from okane.payment import MAX_REASON
from okane.providers.config import load_providers
from okane.store.providers import Mode, ProviderState, ProviderStore


@dataclass(frozen=True, slots=True)
class Switched:
    """A provider after its switch. `woken`: payments that waited and are due now, None unless it was switched on."""

    state: ProviderState
    woken: int | None


@dataclass(frozen=True, slots=True)
class SwitchedMeanwhile:
    """Nothing was switched: another one did after the state was read by which this was decided."""


@dataclass(frozen=True, slots=True)
class UnknownProvider:
    """Nothing was switched: no provider has the name. `known` are those there are."""

    known: Sequence[str]


class ProviderSwitch:
    """The providers of the configuration and of the store, and their switch."""

    def __init__(self, settings: Settings, store: ProviderStore) -> None:
        self._settings = settings
        self._store = store

    def configured(self) -> Sequence[str]:
        """Return the names of the providers file, the candidates first; without a file, of PROVIDER_BASE_URL's provider.

        Raises SetupError.
        """
        config = load_providers(self._settings)
        return [*config.default, *(name for name in config.providers if name not in config.default)]

    async def list(self) -> Sequence[ProviderState]:
        """Return the providers of the configuration in its order, then the others that have a row.

        Raises SetupError, StoreUnavailable.
        """
        names, rows = self.configured(), await self._store.read_all()
        found = {one.name: one for one in rows}
        configured = [found.get(name, ProviderState(name=name)) for name in names]
        return [*configured, *(one for one in rows if one.name not in names)]

    async def set_mode(
        self,
        name: str,
        mode: Mode,
        *,
        reason: str,
        actor: str,
        force: bool = False,
        seen: ProviderState | None = None,
    ) -> Switched | SwitchedMeanwhile | UnknownProvider:
        """Set the mode of one provider; if it is on now, wake the payments that wait. `force`: also of an unknown one.

        `seen`: the state by which this was decided. One that was switched since then is left as it is.
        """
        if not force:
            known = sorted({*self.configured(), *(one.name for one in await self._store.read_all())})
            if name not in known:
                return UnknownProvider(known)
        if not await self._store.set_mode(name, mode, reason=reason, actor=actor, seen=seen):
            return SwitchedMeanwhile()
        woken = await self._store.wake_waiting() if mode == "on" else None
        [state] = [one for one in await self._store.read_all() if one.name == name]
        return Switched(state, woken)


def reason_refusal(reason: str) -> str | None:
    """Return the rule that a reason breaks, None if it can be stored and shown."""
    if not (reason.strip() and reason.isprintable() and len(reason) <= MAX_REASON):
        return f"must have 1 to {MAX_REASON} printable characters"
    return "looks like the number of a card" if holds_card_number(reason) else None
