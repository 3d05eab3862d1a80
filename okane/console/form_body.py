"""The body of a form: read once, within its limits of size and time, as text. What cannot be read is a page that says why."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from okane.console.page_errors import PageError

FORM = "application/x-www-form-urlencoded"
BODY_TIMEOUT_S = 5.0  # the largest form takes longer only over a very slow line, or on purpose
_UTF_8 = frozenset({"utf-8", "utf8"})


async def read_form(request: web.Request) -> MultiMapping[Any]:
    """Return the fields of a form. aiohttp keeps them: who asks the request for them afterwards does not wait.

    Raises PageError for a body that is not a form, is too large or does not come in time.
    """
    if (request.charset or "utf-8").lower() not in _UTF_8:
        raise PageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The console takes forms in UTF-8 only.")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.post()
    except web.HTTPRequestEntityTooLarge as error:
        raise PageError(error.status, "This form holds more than the console takes. Nothing was changed.") from None
    except TimeoutError:
        raise PageError(HTTPStatus.REQUEST_TIMEOUT, "The form did not come in time. Nothing was changed.") from None
    except (web.RequestPayloadError, ValueError):  # it broke off, or is not the text that it says it is
        raise PageError(HTTPStatus.BAD_REQUEST, "The form cannot be read. Nothing was changed.") from None
