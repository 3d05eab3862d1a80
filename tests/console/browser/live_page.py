"""A page of the console with one live region, whose server and whose time are the test's.

The page is rendered from the real templates, with the real script, style sheet and headers; only what a server would answer
is the test's: `status` and `text`.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from okane.console.app import HEADERS
from okane.console.assets import Assets
from okane.console.links import Links
from okane.console.outages import Outages
from okane.console.rendering import Pages, compiled_templates
from okane.console.session import Session, Signer
from tests.console.browser.visitor import Visitor

if TYPE_CHECKING:
    from jinja2 import Template
    from playwright.async_api import Route

AT = datetime(2026, 11, 30, 14, 4, 55, 123000, UTC)
PATH = "/live"
_ASSETS = Assets.load()
_SIGNER = Signer()
_IMPORTS = '{% from "macros.html" import time, clock, copy, open_dialog, dialog %}'
REGION = """
<p id="state">{{ state }}</p> <p>{{ time(at) }}</p>
<details id="raw"><summary>Raw JSON</summary><pre>{}</pre></details>
<label for="note">Note</label> <input id="note">
<p>{{ copy("01a2279d-06ea") }}</p>
{% if state == "waiting" %}
{{ open_dialog("cancel", "Cancel this payment", "danger") }}
{% call dialog("cancel", "Cancel 300.42 USD?", links.payments(), csrf, "Cancel the payment", version=version) %}
<p>It will not be charged.</p>{% endcall %}
{% endif %}
"""
_PAGE = f"""{{% extends "base.html" %}}{_IMPORTS}{{% block title %}}Live{{% endblock %}}
{{% block content %}}<h1>Live</h1><section data-live="{{{{ links.base }}}}{PATH}?part=1">{REGION}</section>{{% endblock %}}"""
# Pauses between polls are noted and end when the test says so; so does the tab's visibility. axe has pauses of its own.
_TIME = """{
window.pauses = []; window.next = null; window.announced = [];
const { setTimeout, clearTimeout } = window;
window.setTimeout = (call, pause_ms, ...more) => {
  if (call.name !== "poll") return setTimeout(call, pause_ms, ...more);
  window.pauses.push(pause_ms);
  window.next = call;
  return -1;
};
window.clearTimeout = (timer) => { if (timer === -1) window.next = null; else clearTimeout(timer); };
window.isHidden = false;
Object.defineProperty(document, "hidden", { get: () => window.isHidden });
addEventListener("DOMContentLoaded", () => {
  const line = document.getElementById("away");
  new MutationObserver(() => line.textContent && window.announced.push(line.textContent)).observe(line, { childList: true });
});
}"""


@functools.cache
def _compiled(template: str) -> Template:
    return compiled_templates().from_string(template)


@dataclass
class LivePage:
    """The page, and the answers of its server from now on. `status` 0 is none: the connection fails."""

    visitor: Visitor
    state: str = "waiting"
    version: int = 3
    at: datetime = AT
    status: int = 200
    loads: int = 0
    sent_etags: list[str | None] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    @classmethod
    async def opened(cls, visitor: Visitor) -> LivePage:
        """Open the page in the visitor's window."""
        live = cls(visitor)
        await visitor.page.add_init_script(_TIME)
        await visitor.page.route(f"**{PATH}", live.serve)
        await visitor.page.route(f"**{PATH}?part=1", live.serve_part)
        await visitor.open(PATH)
        await visitor.page.wait_for_function("window.next !== null")
        return live

    async def serve(self, route: Route) -> None:
        """Answer the request for the page."""
        self.loads += 1
        await route.fulfill(status=200, headers={**HEADERS, "Content-Type": "text/html"}, body=self._render(_PAGE))

    async def serve_part(self, route: Route) -> None:
        """Answer a poll of the live region."""
        sent = await route.request.header_value("If-None-Match")
        self.sent_etags.append(sent)
        body = self._render(_IMPORTS + REGION)
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:16]}"'
        status = 304 if self.status == 200 and sent == etag else self.status
        self.statuses.append(status)
        if status == 0:
            await route.abort("connectionrefused")
        elif status == 304:
            await route.fulfill(status=304, headers={"ETag": etag})
        else:
            await route.fulfill(status=status, headers={"ETag": etag, "Content-Type": "text/html"}, body=body)

    async def poll(self) -> None:
        """End the pause, and wait until the region has its answer and the next pause has begun."""
        await self.visitor.page.evaluate("""async () => {
            const call = window.next;
            window.next = null;
            await call();
        }""")

    async def hide(self, hidden: bool) -> None:
        """Let the tab be hidden by another, or be the visible one again."""
        await self.visitor.page.evaluate(
            "(hidden) => { window.isHidden = hidden; document.dispatchEvent(new Event('visibilitychange')); }", hidden
        )

    async def pauses_ms(self) -> list[int]:
        """Return the length of every pause since the page was opened."""
        pauses: list[int] = await self.visitor.page.evaluate("window.pauses")
        return pauses

    async def announced(self) -> list[str]:
        """Return all that a screen reader has announced about the connection."""
        texts: list[str] = await self.visitor.page.evaluate("window.announced")
        return texts

    def _render(self, template: str) -> str:
        session = Session(key="sk_test_1", id="1", account_id="default", scopes=frozenset(), address="127.0.0.1")
        links = Links(self.visitor.console.base, _ASSETS)
        pages = Pages(links=links, signer=_SIGNER, read_only=False, now=_now, outages=Outages.none(_now))
        page = pages.variables(session, message=None, path=f"{links.base}{PATH}")
        return _compiled(template).render({**page, "state": self.state, "version": self.version, "at": self.at})


def _now() -> datetime:
    return AT
