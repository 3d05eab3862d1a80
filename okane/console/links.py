"""Every address of the console, under one base path. Pure. Templates have it as `links`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlencode
from uuid import UUID

from okane.api_key import Scope
from okane.console.assets import Assets

MAX_ADDRESS = 3500  # bytes: the console's server takes 4096, many proxies not much more


@dataclass(frozen=True, slots=True)
class Links:
    """The addresses. `base` is empty or begins with a slash, and has none at its end; `grafana` is empty without one.

    Query parameters without a value (None, an empty text) are left out.
    """

    base: str
    assets: Assets
    grafana: str = ""

    def overview(self) -> str:
        return f"{self.base}/"

    def screens(self) -> Sequence[tuple[str, str, Scope, str]]:
        """Return the screens of the navigation, in its order: name, label, the scope that it needs, and address."""
        return (
            ("overview", "Overview", Scope.SYSTEM, self.overview()),
            ("payments", "Payments", Scope.READ, self.payments()),
            ("streams", "Streams", Scope.SYSTEM, self.streams()),
            ("dead", "Dead letters", Scope.READ, self.dead()),
            ("reviews", "Reviews", Scope.READ, self.reviews()),
            ("disputes", "Disputes", Scope.READ, self.disputes()),
            ("providers", "Providers", Scope.SYSTEM, self.providers()),
            ("webhooks", "Webhooks", Scope.READ, self.webhooks()),
            ("workers", "Workers", Scope.SYSTEM, self.workers()),
            ("keys", "Keys", Scope.SYSTEM, self.keys()),
            ("doctor", "Doctor", Scope.SYSTEM, self.doctor()),
            ("audit", "Audit", Scope.SYSTEM, self.audit()),
        )

    def login(self, next_path: str = "", *, ended: bool = False) -> str:
        """Return the address of the log-in, and from there of a path: without it where servers would find it too long.

        `ended`: the page says that the session before is none any more.
        """
        said = "1" if ended else None
        address = self._with("/login", next=next_path, ended=said)
        return address if len(address) <= MAX_ADDRESS else self._with("/login", ended=said)

    def logout(self) -> str:
        return f"{self.base}/logout"

    def static(self, name: str) -> str:
        """Return the address of a static file, which has the hash of its bytes. Raises KeyError for an unknown name."""
        return f"{self.base}/static/{self.assets.hashed_name(name)}"

    def payments(self, **query: object) -> str:
        return self._with("/payments", **query)

    def payment(self, payment_id: UUID | str) -> str:
        return f"{self.base}/payments/{quote(str(payment_id), safe='')}"

    def payment_cancel(self, payment_id: UUID | str) -> str:
        return f"{self.payment(payment_id)}/cancel"

    def payment_retry(self, payment_id: UUID | str) -> str:
        return f"{self.payment(payment_id)}/retry"

    def payment_resolve(self, payment_id: UUID | str) -> str:
        return f"{self.payment(payment_id)}/resolve"

    def payment_capture(self, payment_id: UUID | str) -> str:
        return f"{self.payment(payment_id)}/capture"

    def payment_refund(self, payment_id: UUID | str) -> str:
        return f"{self.payment(payment_id)}/refund"

    def operation_action(self, payment_id: UUID, operation_id: UUID, action: str) -> str:
        """Return the address of `cancel`, `retry` or `resolve` of a capture, void or refund."""
        return f"{self.payment(payment_id)}/operations/{operation_id}/{action}"

    def streams(self) -> str:
        return f"{self.base}/streams"

    def pending(self, lane: str, **query: object) -> str:
        return self._with(f"/streams/{quote(lane, safe='')}/pending", **query)

    def delayed(self, **query: object) -> str:
        return self._with("/streams/delayed", **query)

    def dead(self, **query: object) -> str:
        return self._with("/dead", **query)

    def dead_page(self, filter_: Sequence[tuple[str, str]], after: str | None = None) -> str:
        """Return the address of a page of the dead letters that match a filter, as its form has it."""
        pairs = [*filter_, *([] if after is None else [("after", after)])]
        return f"{self.base}/dead?{urlencode(pairs)}" if pairs else self.dead()

    def dead_action(self, action: str) -> str:
        """Return the address of `replay` or `purge`: by GET its dry run, by POST the action."""
        return f"{self.base}/dead/{action}"

    def dead_dry_run(self, action: str, query: Sequence[tuple[str, str]]) -> str:
        """Return the address of a dry run of `replay` or `purge`, over what its form or the one before it has left."""
        return f"{self.dead_action(action)}?{urlencode(query)}"

    def providers(self) -> str:
        return f"{self.base}/providers"

    def webhooks(self, **query: object) -> str:
        return self._with("/webhooks", **query)

    def endpoint(self, endpoint_id: UUID, **query: object) -> str:
        return self._with(f"/webhooks/{endpoint_id}", **query)

    def endpoint_action(self, endpoint_id: UUID, action: str) -> str:
        return f"{self.base}/webhooks/{endpoint_id}/{action}"

    def switch_provider(self, name: str) -> str:
        return f"{self.base}/providers/{quote(name, safe='')}/switch"

    def disputes(self, **query: object) -> str:
        return self._with("/disputes", **query)

    def reviews(self, **query: object) -> str:
        return self._with("/reviews", **query)

    def workers(self) -> str:
        return f"{self.base}/workers"

    def keys(self, **query: object) -> str:
        return self._with("/keys", **query)

    def revoke_key(self, key: str) -> str:
        return f"{self.base}/keys/{quote(key, safe='')}/revoke"

    def doctor(self) -> str:
        return f"{self.base}/doctor"

    def audit(self, **query: object) -> str:
        return self._with("/audit", **query)

    def dashboard(self, name: str) -> str:
        """Return the address of a dashboard of okane's, empty without a Grafana. The only address of another host."""
        return f"{self.grafana}/d/okane-{name}" if self.grafana else ""

    def part(self, address: str) -> str:
        """Return the address of the live region of a page."""
        return f"{address}{'&' if '?' in address else '?'}part=1"

    def own_path(self, text: str) -> str:
        """Return a path of the console for a redirect: `text` if it is one under the base path, else the overview.

        A text that a browser could read as another host (`//evil`, `/\\evil`, a scheme, a control character) is none.
        """
        if (
            not text.startswith(f"{self.base}/")
            or text.startswith("//")
            or not text.isascii()
            or not text.isprintable()
        ):
            return self.overview()
        steps = unquote(re.split("[?#]", text, maxsplit=1)[0]).split("/")
        return self.overview() if "\\" in text or not {".", ".."}.isdisjoint(steps) else text

    def under_base(self, path_qs: str) -> str:
        """Return the address that the browser has for a request, whether or not a proxy has removed the base path."""
        path = path_qs.partition("?")[0]
        return path_qs if path == self.base or path.startswith(f"{self.base}/") else f"{self.base}{path_qs}"

    def _with(self, path: str, **query: object) -> str:
        given = {name: value for name, value in query.items() if value is not None and value != ""}
        return f"{self.base}{path}?{urlencode(given, doseq=True)}" if given else f"{self.base}{path}"
