"""The static files of the console, in memory, under addresses that have their hash: a browser keeps them for a year."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

from aiohttp import web

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}
_FOREVER = "public, max-age=31536000, immutable"


def takes_gzip(request: web.Request) -> bool:
    """Tell whether an answer to a request may be compressed."""
    return "gzip" in request.headers.get("Accept-Encoding", "").lower()


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, as it is sent."""

    body: bytes
    zipped: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """The static files. `names` maps the name of a file to the one with its hash."""

    names: Mapping[str, str]
    files: Mapping[str, Asset]

    @classmethod
    def load(cls) -> Assets:
        """Read the files of the package."""
        names, files = {}, {}
        for entry in (resources.files("okane.console") / "static").iterdir():
            stem, dot, extension = entry.name.rpartition(".")
            content_type = _TYPES.get(dot + extension)
            if content_type is None:
                continue  # notes about the files, which no page needs
            body = entry.read_bytes()
            names[entry.name] = f"{stem}.{hashlib.sha256(body).hexdigest()[:16]}.{extension}"
            files[names[entry.name]] = Asset(body, gzip.compress(body, mtime=0), content_type)
        return cls(MappingProxyType(names), MappingProxyType(files))

    def hashed_name(self, name: str) -> str:
        """Return the name with the hash. Raises KeyError for an unknown name."""
        return self.names[name]

    async def serve(self, request: web.Request) -> web.Response:
        """`GET /static/{name}`. An address without the right hash is not found: it would be kept for a year, too."""
        asset = self.files.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {"Cache-Control": _FOREVER, "Vary": "Accept-Encoding"}
        body = asset.body
        if takes_gzip(request):
            headers["Content-Encoding"] = "gzip"
            body = asset.zipped
        return web.Response(body=body, content_type=asset.content_type, charset="utf-8", headers=headers)
