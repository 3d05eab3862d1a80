"""The one account of Stripe World in this process, kept in a folder from one run to the next.

Promise: an account that was saved is complete. What happened after the last save is gone when the process is killed.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_FROZEN = "account-"


class Account:
    """The account, and two tables of names beside it: `cards` and `return_urls`. Its calls block."""

    def __init__(self, folder: Path | None) -> None:
        from seahaven_stripe_world import world

        self._folder = folder
        self._world = world
        self.cards: dict[str, str] = {}
        self.return_urls: dict[str, str] = {}
        self._number = 0
        self._instance = self._open()

    def respond(self, method: str, path: str, query: str, headers: tuple[tuple[str, str], ...], body: bytes) -> Any:
        """Return Stripe World's answer: `status`, `headers`, `body_bytes`. One request is one transaction."""
        from seahaven.http import HttpRequest
        from seahaven.http.runtime import dispatch
        from seahaven_stripe_world.http_api import handle

        return dispatch(self._instance, handle, HttpRequest(method, path, query, headers, body))

    def save(self) -> None:
        """Write the account, then remove the older ones. Does nothing without a folder."""
        if self._folder is None:
            return
        self._number += 1
        self._instance.freeze(f"{_FROZEN}{self._number}", "okane up --stripe")
        draft = self._names.with_suffix(".new")
        draft.write_text(json.dumps({"cards": self.cards, "return_urls": self.return_urls}))
        draft.replace(self._names)
        for number in range(1, self._number):
            shutil.rmtree(self._folder / f"{_FROZEN}{number}", ignore_errors=True)

    def close(self) -> None:
        self._instance.destroy()

    @property
    def _names(self) -> Path:
        assert self._folder is not None
        return self._folder / "names.json"

    def _open(self) -> Any:
        """Return the account that was saved last; an empty one if there is none, or if another version saved it."""
        from seahaven.errors import SeahavenError

        if self._folder is not None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._world.fixtures_dir = self._folder
            saved = [path.name.removeprefix(_FROZEN) for path in self._folder.glob(f"{_FROZEN}*")]
            self._number = max((int(number) for number in saved if number.isdecimal()), default=0)
        if self._number:
            try:
                instance = self._instance_of(f"{_FROZEN}{self._number}")
                names: Mapping[str, dict[str, str]] = json.loads(self._names.read_text())
            except (SeahavenError, OSError, ValueError) as error:
                sys.stderr.write(f"the saved account cannot be used, beginning with an empty one: {error}\n")
            else:
                self.cards, self.return_urls = names["cards"], names["return_urls"]
                return instance
        return self._instance_of(None)

    def _instance_of(self, saved: str | None) -> Any:
        # A seed of its own: ids of two accounts differ.
        return self._world.instance(
            saved, seed=secrets.randbelow(2**31), clock_mode="wall", startup={"livemode": False}
        )
