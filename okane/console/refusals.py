"""The pages for what the console's server refuses below every route: an address that is too long, a head that is no HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Protocol

from okane.console.page_errors import heading_of
from okane.console.rendering import Pages

_TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "target_too_long": "The address of this page is too long. A search takes up to 500 characters: shorten it.",
        "head_too_large": "The browser sent more than the console takes, often because of many or long cookies. "
        "Delete the cookies of this site, and log in again.",
        "head_too_slow": "The request did not come in time. Try again.",
        "too_many_connections": "The console has as many connections as it takes. Try again in a second.",
        "internal": "This is a fault of the console. Its log has the reason.",
    }
)
_UNREADABLE = "The console cannot read this request."


class Refusal(Protocol):
    """A refusal: its status, the code of its reason, and the headers that go with it."""

    @property
    def status(self) -> HTTPStatus: ...

    @property
    def code(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


def refusal_pages(pages: Pages, common: Mapping[str, str]) -> Callable[[Refusal], tuple[Mapping[str, str], bytes]]:
    """Return the function that writes the headers (`common` ones among them) and the page of a refusal.

    Each page is rendered once: a console with too many connections must not spend time on those it refuses.
    """
    written: dict[str, bytes] = {}

    def write(refusal: Refusal) -> tuple[Mapping[str, str], bytes]:
        body = written.get(refusal.code)
        if body is None:
            text = f"{_TEXTS.get(refusal.code, _UNREADABLE)} Nothing was changed."
            body = written[refusal.code] = pages.error_text(title=heading_of(refusal.status), text=text).encode()
        return {"Content-Type": "text/html; charset=utf-8", **common, **refusal.headers}, body

    return write
