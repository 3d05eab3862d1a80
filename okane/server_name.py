"""The `Server` header of all HTTP servers of okane: a name without versions.

aiohttp has no setting for it, and sends its own version and Python's, also in answers to bytes that are not a request, which
no middleware or signal sees. So its constant is replaced here, before modules that use it are imported.
"""

from __future__ import annotations

from aiohttp import web_response

SERVER = "okane"

web_response.SERVER_SOFTWARE = SERVER  # type: ignore[attr-defined]  # a test notices if aiohttp renames it
