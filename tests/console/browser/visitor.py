"""A visitor of the console: one window of Chromium, which notes all that the browser complains about."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from okane.api_key import ACCOUNT, Scope
from tests.console.served_console import Console

if TYPE_CHECKING:
    from playwright.async_api import BrowserContext, Page, Response

CHROMIUM = shutil.which("chromium")
TIMEOUT_MS = 20_000  # of every wait for an element or an address
WIDTHS = (360, 768, 1440)
MOST_STOPS = 150  # of the Tab key on a page
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_RULES_OF_COLORS = ["color-contrast", "link-in-text-block"]  # all that another scheme can violate
RULES_OF_SCHEMES = {"light": _RULES, "dark": _RULES_OF_COLORS}
_WATCH = """
addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) =>
  console.error(`policy: ${violatedDirective} ${blockedURI}`));
"""


@dataclass(slots=True)
class Visitor:
    """A window of its own: cookies, storage, zone and colours are shared with no other."""

    console: Console
    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    secret: str = ""

    async def watch(self) -> None:
        """Note messages of the browser's console, errors of scripts, violated policies and requests to other hosts."""
        await self.context.add_init_script(_WATCH)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.watch_page(self.page)

    def watch_page(self, page: Page) -> None:
        """Note the same of a further tab."""
        # Functions: Playwright writes attributes on the owner of a method, and this one has slots.
        page.on("console", lambda message: self._complain(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._note(request.url, request.method))

    def at(self, path: str) -> str:
        """Return the whole address of a path under the base path."""
        return f"{self.console.url}{self.console.base}{path}"

    async def open(self, path: str) -> Response:
        """Open a page; return its answer."""
        answer = await self.page.goto(self.at(path))
        assert answer is not None
        return answer

    async def log_in(self, *scopes: Scope, account: str = ACCOUNT) -> None:
        """Log in through the form, with a new key of these scopes (default: all)."""
        self.secret = await self.console.key(*scopes, account=account)
        if urlsplit(self.page.url).path != f"{self.console.base}/login":
            await self.open("/login")
        await self.page.get_by_label("API key").fill(self.secret)
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.get_by_role("button", name="Log out").wait_for()

    async def scrolls_sideways(self) -> list[str]:
        """Return the elements that make the page wider than the window."""
        wide: list[str] = await self.page.evaluate("""() => {
            const width = document.documentElement.clientWidth;
            if (document.documentElement.scrollWidth <= width) return [];
            return [...document.querySelectorAll("body *")]
                .filter((element) => element.getBoundingClientRect().right > width + 1 && !element.closest(".scroll table"))
                .map((element) => element.outerHTML.slice(0, 120)).concat("the page");
        }""")
        return wide

    async def violations(self, rules: Iterable[str] = _RULES) -> list[str]:
        """Return the violations of accessibility rules that axe finds on the page."""
        from axe_playwright_python.async_playwright import Axe  # noqa: PLC0415 - collected where it is not installed

        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(Axe().axe_script)
        options = {"runOnly": list(rules), "resultTypes": ["violations"]}
        violations: list[Mapping[str, Any]] = await self.page.evaluate(
            "async (options) => (await axe.run(options)).violations", options
        )
        return [
            f"{violation['id']}: {node['html'][:200]} ({node['failureSummary']})"
            for violation in violations
            for node in violation["nodes"]
        ]

    async def flaws(self) -> list[str]:
        """Return what is wrong with the look of the page at any width, light and dark: an element that is wider than the
        window, a rule of accessibility that is violated."""
        found = []
        for scheme, rules in RULES_OF_SCHEMES.items():
            await self.page.emulate_media(color_scheme=scheme)
            for width in WIDTHS:
                await self.page.set_viewport_size({"width": width, "height": 900})
                flaws = [*await self.scrolls_sideways(), *await self.violations(rules)]
                found += [f"{self.page.url}, {scheme}, {width} px: {flaw}" for flaw in flaws]
        return found

    async def tab_to(self, name: str) -> None:
        """Press Tab until the element with this text, label or name has the focus."""
        for _ in range(MOST_STOPS):
            await self.page.keyboard.press("Tab")
            if await self.focused() == name:
                return
        raise AssertionError(f"Tab does not lead to {name!r}")

    async def focused(self) -> str:
        """Return the text, the label or the name of the element that has the focus."""
        text: str = await self.page.evaluate("""() => {
            const element = document.activeElement;
            const label = element.ariaLabel || element.labels?.[0]?.textContent.trim();
            return label || element.textContent.trim() || element.name || element.tagName;
        }""")
        return text

    def _complain(self, text: str) -> None:
        # Chromium reports every answer above 399, and those of a test that are meant to be refused as well. It also says
        # that a dialog which a live region brings does not take the focus, which is as it should be.
        if not text.startswith(("Failed to load resource", "Autofocus processing was blocked")):
            self.complaints.append(text)

    def _note(self, url: str, method: str) -> None:
        self.requests.append(f"{method} {url.removeprefix(self.console.url)}")
        if not url.startswith(f"{self.console.url}/"):
            self.complaints.append(f"a request to {url}")
