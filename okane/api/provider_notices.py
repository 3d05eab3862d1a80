"""The route of the providers' webhooks. It needs no API key: the signature of the provider is checked instead.

Nothing about a refused webhook is logged or answered in detail: this route is open to the Internet. The metric counts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from aiohttp import web

from okane.api.answer import JSON
from okane.api.problems import Problem, malformed
from okane.api.request_body import read_body
from okane.intake.provider_notices import NoticeIntake
from okane.metrics import OkaneMetrics
from okane.providers.base import InvalidNotice, Notice, NoticeParser

MAX_NOTICE_BYTES = 256 * 1024
MOST_IN_HAND = 256  # of one process: strangers may send bodies here, and must not fill its memory


class NoticeHandlers:
    """The handler of webhooks. The route is closed for a provider without a parser, and for all without an `intake`."""

    def __init__(
        self, *, parsers: Mapping[str, NoticeParser], intake: NoticeIntake | None, metrics: OkaneMetrics
    ) -> None:
        self._parsers = {} if intake is None else parsers
        self._intake = intake
        self._metrics = metrics
        self._in_hand = 0
        metrics.show_notice_zeros(self._parsers)

    async def take(self, request: web.Request) -> web.Response:
        """`POST /v1/providers/{provider}/webhook`: verify a webhook, store its notices, and wake their payments."""
        provider = request.match_info["provider"]
        parser = self._parsers.get(provider)
        if parser is None or self._intake is None:
            raise Problem(
                HTTPStatus.NOT_FOUND, "provider_not_found", "no provider of this name sends webhooks to this server"
            )
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send the body uncompressed")
        if self._in_hand >= MOST_IN_HAND:
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_notices",
                "this server has its limit of webhooks in hand: send it again",
                retryable=True,
                headers={"Retry-After": "1"},
            )
        self._in_hand += 1
        try:
            body = await read_body(request, MAX_NOTICE_BYTES)
            notices = self._parse(provider, parser, _headers(request), body)
            results = await self._intake.take(provider, notices)
        finally:
            self._in_hand -= 1
        for result in results or ("unmatched",):
            self._metrics.notices.labels(provider, result).inc()
        return web.Response(body=b'{"received":true}', content_type=JSON)

    def _parse(self, provider: str, parser: NoticeParser, headers: Mapping[str, str], body: bytes) -> Sequence[Notice]:
        try:
            # The provider signs with a time of its own clock: no clock of ours decides anything but its age.
            return parser(headers, body, now=datetime.now(UTC))
        except InvalidNotice:
            self._metrics.notices.labels(provider, "invalid").inc()
            raise malformed(
                "notice_invalid", "the signature is wrong or too old, or the body is not a webhook of this provider"
            ) from None


def _headers(request: web.Request) -> Mapping[str, str]:
    """Return the headers by lower-case name, in ASCII; repeated ones are joined, as HTTP has it."""
    return {
        name.lower(): ", ".join(request.headers.getall(name)).encode("ascii", "replace").decode()
        for name in request.headers
    }
