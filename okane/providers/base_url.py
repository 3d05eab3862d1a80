"""The base URL of a provider, and the lines of a request head that follow from it."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from yarl import URL

# The characters of a request head. A line end would begin another header, or another request.
VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """An absolute http(s) URL in parts. `path` has no slash at its end; `authorization` is made of a user and password."""

    host: str
    port: int
    authority: str
    path: str
    is_tls: bool
    authorization: str | None = field(repr=False)

    def common_headers(self) -> str:
        """Return the headers of every request for JSON, each with its line end."""
        lines = [
            f"Host: {self.authority}",
            "Accept: application/json",
            "Accept-Encoding: identity",
            "User-Agent: okane",
        ]
        if self.authorization is not None:
            lines.append(f"Authorization: {self.authorization}")
        return "".join(f"{line}\r\n" for line in lines)


def parse_base_url(text: str) -> BaseUrl:
    """Parse an absolute http(s) URL. Raises ValueError with no more of a bad one than its scheme and host: the rest may
    hold a password."""
    shape = "the provider's base URL must look like https://host[:port][/path]"
    try:
        url = URL(text)
    except ValueError:
        raise ValueError(shape) from None
    if url.scheme not in ("http", "https") or not url.host or url.query_string or url.fragment:
        raise ValueError(f"{shape}; this one has the scheme {url.scheme!r} and the host {url.host!r}")
    authority = url.host_port_subcomponent or ""
    if not VISIBLE.fullmatch(authority):
        raise ValueError(f"the provider's base URL has an invalid host: {authority!r}")
    has_password = url.user is not None or url.password is not None
    return BaseUrl(
        host=url.raw_host or "",
        port=url.port or 0,
        authority=authority,
        path=url.raw_path.rstrip("/"),
        is_tls=url.scheme == "https",
        authorization=basic_authorization(url.user or "", url.password or "") if has_password else None,
    )


def basic_authorization(user: str, password: str) -> str:
    """Return the value of an Authorization header (RFC 7617), in Latin-1, as most servers read it.

    Raises UnicodeEncodeError for other characters.
    """
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode('latin-1')).decode()}"
