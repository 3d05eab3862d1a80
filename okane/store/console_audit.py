"""The audit table of the console: who did what, from where, and with which answer. Rows are only added."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from okane.store import sql_files
from okane.store.session import Session
from okane.store.sql_parameters import milliseconds

SQL = sql_files.load_statements("console_audit.sql")
NEWEST = 2**63 - 1  # beyond every id
LOG_OUT, DONE = "log out", "done"
MAX_LOOKED_AT = 50_000  # rows: those of a session's eight hours, even if attempts to log in are at their limit
MAX_TEXT = 500  # characters of a target or an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """An action, and the session that it came from. `key` is empty where no keys are used."""

    key: str
    session: str
    address: str
    action: str
    target: str = ""
    filter: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One action, in the order of the statement `page`. `answer` is None while it runs, or if its process died."""

    id: int
    at: datetime
    key: str
    session: str
    address: str
    action: str
    target: str
    filter: Mapping[str, Any] | None
    count: int | None
    answer: str | None
    answered_at: datetime | None


class ConsoleAuditStore:
    """The audit table in one Postgres database. Time is the database's."""

    def __init__(self, url: str, *, timeout: timedelta = timedelta(seconds=10)) -> None:
        self._session = Session(url, name="audit", timeout=timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._session.aclose()

    async def begin(self, entry: AuditEntry) -> int:
        """Write that an action begins; return its id. Raises StoreUnavailable: then it must not begin."""
        return await self._add(entry, None)

    async def answer(self, action_id: int, answer: str, *, count: int | None = None) -> None:
        """Write the answer to an action, once. Raises StoreUnavailable."""
        parameters = {"id": action_id, "answer": _storable(answer), "count": count}
        await self._session.fetch_repeatable(SQL["answer"], parameters)

    async def note(self, entry: AuditEntry, answer: str) -> None:
        """Write something that happened at once: a log-in, a refusal. Raises StoreUnavailable."""
        await self._add(entry, answer)

    async def note_log_out(self, *, key: str, session: str, address: str) -> None:
        """Write that a session was logged out. Raises StoreUnavailable."""
        await self.note(AuditEntry(key=key, session=session, address=address, action=LOG_OUT), DONE)

    async def logged_out(self, within: timedelta) -> Sequence[str]:
        """Return the sessions that were logged out within this time, in any console. Raises StoreUnavailable."""
        parameters = {"action": LOG_OUT, "answer": DONE, "within_ms": milliseconds(within), "limit": MAX_LOOKED_AT}
        return [row[0] for row in await self._session.fetch_repeatable(SQL["logged_out"], parameters)]

    async def page(self, *, limit: int, before: int = NEWEST) -> Sequence[AuditRow]:
        """Return actions with their answers, the newest first. Raises StoreUnavailable."""
        rows = await self._session.fetch_repeatable(SQL["page"], {"before": before, "limit": limit})
        return [AuditRow(*row) for row in rows]

    async def _add(self, entry: AuditEntry, answer: str | None) -> int:
        parameters = {
            "key": entry.key,
            "session": entry.session,
            "address": entry.address,
            "action": entry.action,
            "target": _storable(entry.target),
            "filter": None if entry.filter is None else json.dumps(entry.filter, default=str),
            "answer": None if answer is None else _storable(answer),
        }
        return int((await self._session.fetch(SQL["add"], parameters))[0][0])


def _storable(text: str) -> str:
    """Return a text that Postgres takes: what a refused address names may hold anything."""
    return text[:MAX_TEXT].replace("\0", "\ufffd").encode(errors="replace").decode()
