"""Splits a URL that may name several hosts into its parts. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_AUTHORITY = re.compile("[^/?#]*")


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL that may name several hosts. Python's own function refuses, since a security fix in each of
    its versions, an IPv6 address that is not the first of them. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    path = _AUTHORITY.sub("", rest, count=1)
    return urlsplit(f"{scheme}{separator}{path}")._replace(netloc=rest.removesuffix(path))
