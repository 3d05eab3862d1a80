"""The providers of one worker: those that a claim may choose from now, and the one that a payment names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from okane.payment import LEGACY_PROVIDER, Payment
from okane.providers.base import LookUpResult, Provider
from okane.store import UsableProvider


class Gate(Protocol):
    """The circuit breaker and the rate limit of one provider, in one worker."""

    def may_be_chosen(self) -> bool:
        """Return True if a claim may choose the provider now."""
        ...

    async def permit(self) -> timedelta | None:
        """Take the permit of one charge. Return None, or the time to wait where the circuit breaker or the rate limit holds
        it back."""
        ...

    def give_back(self) -> None:
        """Take back a permit whose call was not made."""
        ...

    def record(self, result: LookUpResult, *, took_s: float) -> None:
        """Count the result of a call."""
        ...


class OpenGate:
    """A gate that is always open: no breaker, no rate limit."""

    def may_be_chosen(self) -> bool:
        return True

    async def permit(self) -> timedelta | None:
        return None

    def give_back(self) -> None:
        pass

    def record(self, result: LookUpResult, *, took_s: float) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Gateway:
    """One provider of a worker, and the gate in front of it."""

    provider: Provider
    gate: Gate


class ProviderSet:
    """The providers of one worker. `defaults` names those that charge payments which ask for none, in their order; every
    other one charges only payments that ask for it."""

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        defaults: Sequence[str] | None = None,
        gates: Mapping[str, Gate] | None = None,
    ) -> None:
        first = [one.name for one in providers] if defaults is None else defaults
        ordered = sorted(providers, key=lambda one: first.index(one.name) if one.name in first else len(first))
        self._gateways: Mapping[str, Gateway] = {
            one.name: Gateway(one, OpenGate() if gates is None else gates[one.name]) for one in ordered
        }
        self._usable = [(gateway.gate, UsableProvider(name, name in first)) for name, gateway in self._gateways.items()]

    def usable(self) -> Sequence[UsableProvider]:
        """Return the providers that a claim may choose from now."""
        return [one for gate, one in self._usable if gate.may_be_chosen()]

    def of(self, payment: Payment) -> Gateway | None:
        """Return the provider of a claimed or closed payment, None if this worker does not have it."""
        return self.named(payment.provider or LEGACY_PROVIDER)

    def named(self, name: str) -> Gateway | None:
        """Return the provider of this name, None if this worker does not have it."""
        return self._gateways.get(name)
