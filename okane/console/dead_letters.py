"""The dead letters of an account: list, replay and purge, each with a dry run before it.

Guarantee: an action changes the payments that its dry run has shown, or none. If the selection has changed, it says so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Literal

from aiohttp import web

from okane.console.actions import Done, Form, Shown, perform
from okane.console.dead_letter_filter import (
    LANE_NAMES,
    MAX_IDS,
    STATUSES,
    DeadFields,
    fingerprint,
    read_place,
    read_shown,
    write_place,
)
from okane.console.dead_letter_selection import DeadLetterSelector
from okane.console.form_body import read_form
from okane.console.page_errors import PageError
from okane.console.query_fields import number_of, refused, text_of
from okane.console.rendering import PAGES, render
from okane.console.search_turns import WAIT_S, SearchTurns
from okane.console.session import session_of
from okane.errors import StoreBusy
from okane.intake.dead_letter_replay import DeadLetterReplay
from okane.store import DeadLetterFilter, DeadLetterStore, DeadPayment
from okane.store.dead_letters import TALLIED, DeadTally

PAGE = 50
MAX_BULK = 500  # payments of one action, as in the API
DEFAULT_BULK = 100
TALLY_S = 5.0  # a count is shown again for so long: an action is seen in the list at once
MAX_TALLIES = 100

Action = Literal["replay", "purge"]


class DeadLetterScreens:
    """The list, and its actions."""

    def __init__(self, dead: DeadLetterStore, replay: DeadLetterReplay, turns: SearchTurns) -> None:
        self._dead = dead
        self._selector = DeadLetterSelector(dead, turns)
        self._replay = replay
        self._tallies: dict[str, tuple[float, DeadTally]] = {}  # by filter, until when, and what

    async def show(self, request: web.Request) -> web.Response:
        """`GET /dead`: a page, the newest first."""
        fields, after = DeadFields.read(request.query), text_of(request.query, "after")
        wanted = fields.filter(session_of(request).account_id)
        page = await self._dead.search(wanted, limit=PAGE, after=read_place(after))
        return render(
            request,
            "dead.html",
            letters=page.letters,
            fields=fields,
            is_first=not after,
            next=None if page.after is None else write_place(page.after),
            reached=None if page.after is None or page.letters else page.after[0],
            tally=await self._tally(wanted),
            tallied=TALLIED,
            statuses=STATUSES,
            lanes=LANE_NAMES,
            limit=DEFAULT_BULK,
            most=MAX_BULK,
        )

    async def _tally(self, wanted: DeadLetterFilter) -> DeadTally | None:
        """Return the count of a filter, that of some seconds before if there is one; None if it takes too long."""
        key, now_s = repr(wanted), time.monotonic()
        self._tallies = {one: known for one, known in self._tallies.items() if known[0] > now_s}
        if key not in self._tallies:
            try:
                found = await self._dead.tally(wanted)
            except StoreBusy:
                return None
            if len(self._tallies) >= MAX_TALLIES:
                del self._tallies[next(iter(self._tallies))]
            self._tallies[key] = (now_s + TALLY_S, found)
        return self._tallies[key][1]

    async def preview_replay(self, request: web.Request) -> web.Response:
        """`GET /dead/replay`: what a replay would do. Changes nothing."""
        return await self._preview(request, "replay")

    async def preview_purge(self, request: web.Request) -> web.Response:
        """`GET /dead/purge`: what a purge would do. Changes nothing."""
        return await self._preview(request, "purge")

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """`POST /dead/replay`: retry the payments that the dry run has shown."""
        fields = DeadFields.read(await read_form(request))

        async def run(form: Form) -> Done | Shown:
            letters = await self._confirmed(request, fields, form)
            if isinstance(letters, Shown):
                return letters
            done = await self._replay.run(letters, dry_run=False, actor=session_of(request).actor)
            retried, kept = len(done.retried), len(done.kept)
            message = f"Retried {retried:,}." + (
                f" {kept:,} were kept: they cannot be retried, or have changed." if kept else ""
            )
            return Done(
                message, request.app[PAGES].links.dead(), answer=f"retried {retried}, kept {kept}", count=retried
            )

        return await perform(request, run, filter=fields.document())

    async def purge(self, request: web.Request) -> web.StreamResponse:
        """`POST /dead/purge`: take the payments off the list that the dry run has shown. Their status stays."""
        fields = DeadFields.read(await read_form(request))

        async def run(form: Form) -> Done | Shown:
            letters = await self._confirmed(request, fields, form)
            if isinstance(letters, Shown):
                return letters
            typed = number_of(form, "typed", least=0, most=MAX_BULK, default=0)
            if typed != len(letters):
                raise refused("typed", f"must repeat the count, {len(letters)}: nothing was purged")
            purged = await self._dead.dismiss_unchanged(letters)
            await self._replay.remove_notes(purged)
            message = f"Purged {len(purged):,}: they are no dead letters any more, and keep their status."
            return Done(message, request.app[PAGES].links.dead(), answer=f"purged {len(purged)}", count=len(purged))

        return await perform(request, run, filter=fields.document())

    async def _preview(
        self, request: web.Request, action: Action, *, changed: tuple[DeadFields, int, str] | None = None
    ) -> web.Response:
        """Return the page of a dry run; `changed`: filter, count and place of one whose selection has changed since."""
        if changed is None:
            fields, after = DeadFields.read(request.query), text_of(request.query, "after")
            limit = number_of(request.query, "limit", least=1, most=MAX_BULK, default=DEFAULT_BULK)
        else:
            fields, limit, after = changed
        limit = len(fields.ids) or limit
        session = session_of(request)
        selection = await self._selector.select(
            fields.filter(session.account_id), limit, session_id=session.id, after=read_place(after)
        )
        if selection is None:
            raise PageError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many searches run at this moment. Try again in {WAIT_S} s.",
                headers={"Retry-After": str(WAIT_S)},
            )
        chosen = selection.letters
        dry = await self._replay.run(chosen, dry_run=True, actor=session.actor)
        links = request.app[PAGES].links
        further = None
        if selection.stopped and selection.after is not None:
            place = write_place(selection.after)
            further = links.dead_dry_run(action, [*fields.pairs(), ("limit", str(limit)), ("after", place)])
        return render(
            request,
            f"dead_{action}.html",
            status=HTTPStatus.OK if changed is None else HTTPStatus.CONFLICT,
            fields=fields,
            letters=chosen[:PAGE],
            count=len(chosen),
            has_more=selection.after is not None and not selection.stopped,
            selection=selection,
            further=further,
            shown=" ".join(letter.payment.id.hex for letter in chosen),
            after=after,
            retried=len(dry.retried),
            kept=len(dry.kept),
            fingerprint=fingerprint(chosen),
            has_changed=changed is not None,
        )

    async def _confirmed(self, request: web.Request, fields: DeadFields, form: Form) -> Sequence[DeadPayment] | Shown:
        """Return the dead letters that the dry run has shown; a page with the present ones if they have changed.

        The form names them: to look for them again might not come as far in its second.
        """
        count = number_of(form, "count", least=1, most=MAX_BULK, default=0)
        ids = read_shown(form)
        if not count or not ids:
            raise refused("count", "is missing: begin with the list")
        wanted = replace(fields.filter(session_of(request).account_id), ids=ids)
        letters = await self._dead.oldest(None, wanted)
        if len(letters) == count and fingerprint(letters) == text_of(form, "fingerprint"):
            return letters
        action: Action = "purge" if request.path.endswith("/purge") else "replay"
        page = await self._preview(request, action, changed=(fields, count, text_of(form, "after")))
        return Shown(page, "refused: the dead letters have changed since the dry run")


assert MAX_IDS <= MAX_BULK
