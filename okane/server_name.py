"""The `Server` header of every HTTP server of ours: a name without versions.

aiohttp has no setting for it, and sends its own version and Python's also in answers to what is no HTTP request, which no
middleware or signal sees. So its constant is replaced, for whatever is imported after this.
"""

from __future__ import annotations

from aiohttp import web_response

SERVER = "okane"

web_response.SERVER_SOFTWARE = SERVER  # type: ignore[attr-defined]  # a test notices if aiohttp renames it
