"""Saved payment methods in Postgres: saved once for a key, listed, deleted, and resolved to the tokens of providers.

Guarantee: only `PaymentMethodTokens` reads tokens, for the worker that is about to charge. A deleted method keeps them, for
the payments that were accepted before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from okane.errors import PaymentMethodKeyReused
from okane.payment_method import NewSavedMethod, SavedMethod
from okane.store import sql_files
from okane.store.fair_sessions import FairSessions
from okane.store.prepared_statements import Row
from okane.store.session import Session
from streams import Coalescer

SQL = sql_files.load_statements("payment_methods.sql", blocks_of="payments.sql")

CONNECTIONS = 2  # of one process; one account uses one of them
MAX_CACHED = 1_000  # methods whose tokens a worker keeps: they never change
_LAST = UUID(int=2**128 - 1)

# An account and the id of one of its methods.
MethodKey = tuple[str, UUID]


@dataclass(frozen=True, slots=True)
class MethodPage:
    """A page of methods. `after` is the id where the next page begins, None after the last page."""

    methods: Sequence[SavedMethod]
    after: UUID | None


class PaymentMethodStore:
    """The methods of accounts, for the API. Each method raises StoreUnavailable, or AccountBusy. Time is the database's."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=5)) -> None:
        sessions = [Session(url, name="methods", timeout=timeout, in_order=True) for _ in range(CONNECTIONS)]
        self._sessions = FairSessions(sessions)
        self._accepting = Session(url, name="method check", timeout=timeout, index_only=True)
        self._finding: Coalescer[MethodKey, frozenset[str]] = Coalescer(self._providers_of)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._finding.aclose()
        await self._accepting.aclose()
        await self._sessions.aclose()

    async def create(self, new: NewSavedMethod) -> tuple[SavedMethod, bool]:
        """Save a method; return it, and whether this request has made it. The repeat of an earlier one finds its method as it
        is now. Raises PaymentMethodKeyReused."""
        parameters = {
            "account_id": new.account_id,
            "idempotency_key": new.idempotency_key,
            "id": new.id,
            "fingerprint": new.fingerprint,
            "request_id": new.request_id,
            "api_key": new.api_key,
            "providers": list(new.tokens),
            "tokens": list(new.tokens.values()),
            "customer": new.customer,
            "method_kind": new.kind,
            "brand": new.brand,
            "last4": new.last4,
            "expires_on": new.expires_on,
        }
        async with self._sessions.lend(new.account_id) as session:
            # Run again, it finds the key that it has written itself: the method has the id of this request then.
            await session.fetch_repeatable(SQL["create"], parameters)
            [row] = await session.fetch_repeatable(SQL["of_key"], parameters)
        method = _method(row[1:])
        if bytes(row[0]) != new.fingerprint:
            raise PaymentMethodKeyReused(method.id)
        return method, method.id == new.id

    async def find(self, account_id: str, idempotency_key: str, fingerprint: bytes) -> SavedMethod | None:
        """Return the method of an earlier request with this key, or None. Raises PaymentMethodKeyReused."""
        parameters = {"account_id": account_id, "idempotency_key": idempotency_key}
        async with self._sessions.lend(account_id) as session:
            found = await session.fetch_repeatable(SQL["of_key"], parameters)
        if not found:
            return None
        method = _method(found[0][1:])
        if bytes(found[0][0]) != fingerprint:
            raise PaymentMethodKeyReused(method.id)
        return method

    async def get(self, account_id: str, method_id: UUID) -> SavedMethod | None:
        """Return a method of the account, also a deleted one; None if it has no such method."""
        return await self._one("get", {"account_id": account_id, "id": method_id})

    async def delete(self, account_id: str, method_id: UUID) -> SavedMethod | None:
        """Delete a method: it takes no new payments. Return it, None if the account has no such method."""
        return await self._one("delete", {"account_id": account_id, "id": method_id})

    async def list(
        self, account_id: str, *, customer: str | None = None, limit: int, after: UUID | None = None
    ) -> MethodPage:
        """Return up to `limit` methods of an account that are not deleted, newest first, those after the id `after`."""
        statement = "newest" if customer is None else "newest_of_customer"
        parameters = {"account_id": account_id, "customer": customer, "before": after or _LAST, "limit": limit + 1}
        async with self._sessions.lend(account_id) as session:
            found = [_method(row) for row in await session.fetch_repeatable(SQL[statement], parameters)]
        return MethodPage(found[:limit], found[limit - 1].id if len(found) > limit else None)

    async def providers_of(self, methods: Sequence[MethodKey]) -> Sequence[frozenset[str] | BaseException]:
        """Return for each method the providers that it has a token at; none if the account has no such method, or it is
        deleted. In the place of a failure: its exception."""
        return await self._finding.submit_many(methods)

    async def _providers_of(self, methods: Sequence[MethodKey]) -> Sequence[frozenset[str]]:
        rows = await self._accepting.fetch_repeatable(SQL["providers_of"], _asked(methods))
        found: dict[MethodKey, set[str]] = {}
        for account_id, method_id, provider in rows:
            found.setdefault((account_id, method_id), set()).add(provider)
        return [frozenset(found.get(method, ())) for method in methods]

    async def _one(self, statement: str, parameters: Mapping[str, Any]) -> SavedMethod | None:
        async with self._sessions.lend(parameters["account_id"]) as session:
            found = await session.fetch_repeatable(SQL[statement], parameters)
        return _method(found[0]) if found else None


class PaymentMethodTokens:
    """The tokens of saved methods, for a worker. It connects when the first payment names a saved method."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="method tokens", timeout=timeout, index_only=True)
        self._reading: Coalescer[MethodKey, Mapping[str, str]] = Coalescer(self._read)
        self._known: dict[MethodKey, Mapping[str, str]] = {}

    async def aclose(self) -> None:
        """Close the connection."""
        await self._reading.aclose()
        await self._session.aclose()

    async def tokens(self, account_id: str, method_id: UUID) -> Mapping[str, str]:
        """Return the tokens of a method, by provider; none if the account has no such method. Raises StoreUnavailable."""
        method = (account_id, method_id)
        tokens = self._known.get(method)
        if tokens is None:
            tokens = await self._reading.submit(method)
            if tokens:
                while len(self._known) >= MAX_CACHED:
                    del self._known[next(iter(self._known))]
                self._known[method] = tokens
        return tokens

    async def _read(self, methods: Sequence[MethodKey]) -> Sequence[Mapping[str, str]]:
        found: dict[MethodKey, dict[str, str]] = {}
        for account_id, method_id, provider, token in await self._session.fetch_repeatable(
            SQL["tokens_of"], _asked(methods)
        ):
            found.setdefault((account_id, method_id), {})[provider] = token
        return [found.get(method, {}) for method in methods]


def _asked(methods: Sequence[MethodKey]) -> Mapping[str, Any]:
    different = list(dict.fromkeys(methods))
    return {"account_ids": [one[0] for one in different], "ids": [one[1] for one in different]}


def _method(row: Row) -> SavedMethod:
    return SavedMethod(*row)
