"""Logs: one line per event an operator needs. JSON unless on a terminal; ids are bound, secrets are removed.

Failures and repairs are logged; single payments at `debug` only. `streams` logs through the standard library, and its lines
come out the same way.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Literal
from urllib.parse import quote

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# The id of the request that is being answered. Every request sets it, hardly any logs: binding it to the loggers would cost
# more than all the rest of the API's own code around a request.
REQUEST_ID: ContextVar[str] = ContextVar("okane.request_id")

# postgresql://okane:HERE@host. The last @ counts: a password may hold an unquoted one.
_IN_URL = re.compile(r"(://[^:/\s]*):\S*@")
# ?password=HERE&…, and password=HERE or password='HERE' as libpq, Python and JSON write it. Where it is not clear where a
# password ends, more is hidden rather than less.
_NAMED = re.compile(
    r"""([?&]\w*(?:password|passwd|pwd)=)[^\s&#]*
      | ((?:password|passwd|pwd)(?:\\*["']\s*:|\s*=)\s*)
        (?: \\*'(?:\\+.|[^'\\])*'? | \\*"(?:\\+.|[^"\\])*"? )? (?:\\+.|\S)*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

# sk_test_abcdefghijkl_HERE: the part before it names the key, and may be shown.
_KEY = re.compile(r"(sk_(?:test|live)_[0-9a-z]{12}_)\w+")
# Keys of gateways, secrets of their webhooks, and the client secret of an intent: sk_live_HERE, pi_123_secret_HERE. The
# prefix of one of our own keys stays.
_GATEWAY_KEY = re.compile(
    r"""(?<![A-Za-z0-9]) ((?:sk|rk|whsec)_) (?! (?<=sk_)(?:test|live)_[0-9a-z]{12} (?:_\*\*\*|(?!\w)) ) [\w*+/=-]+
      | ((?<![A-Za-z0-9])[a-z]{2,10}_[A-Za-z0-9]+_secret_) \w+""",
    re.VERBOSE,
)
# Authorization: Bearer HERE
_CREDENTIALS = re.compile(r"\b(bearer|basic)((?:\s|%20|\+)+)[^\s\"',;]{4,}", re.IGNORECASE)

# The secrets that this process has loaded, in each spelling, and their pattern; the oldest leaves when there are too many.
_SHORTEST_SECRET = 6  # a shorter one would also be found in words that are no secret
_MAX_SPELLINGS = 1_000
_spellings: dict[str, None] = {}
_loaded: re.Pattern[str] | None = None


def configure(*, level: str, format_: Literal["auto", "json", "console"], process: str) -> None:
    """Set up structlog and the standard library's logging for this process. `process` names it in every line."""
    console = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    structlog.contextvars.bind_contextvars(process=process)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,  # tracebacks quote addresses, too
                _without_passwords,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("okane", "streams"):
        logging.getLogger(ours).setLevel(level.upper())


def name_traces(trace_id: Callable[[], str | None]) -> None:
    """Add to every line the id of the recorded trace around it, if there is one."""
    global _trace_id  # noqa: PLW0603 - logging is configured once per process
    _trace_id = trace_id


def _no_trace() -> str | None:
    return None


_trace_id = _no_trace


def _with_ids(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for name, found in (("request_id", REQUEST_ID.get(None)), ("trace_id", _trace_id())):
        if found is not None:
            event.setdefault(name, found)
    return event


def register_secret(secret: str) -> None:
    """Remove this text from every line from here on, also as an address or a JSON text spells it."""
    global _loaded  # noqa: PLW0603 - the log is one per process
    if len(secret) < _SHORTEST_SECRET:
        return
    for spelling in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1]):
        _spellings.pop(spelling, None)  # a secret that is loaded again is not the oldest
        _spellings[spelling] = None
    while len(_spellings) > _MAX_SPELLINGS:
        del _spellings[next(iter(_spellings))]
    # The longest first: a secret may begin with another one.
    _loaded = re.compile("|".join(map(re.escape, sorted(_spellings, key=len, reverse=True))))


def _without_passwords(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Take the passwords out of addresses, before the quotes in them are escaped."""
    return {name: redacted(value) for name, value in line.items()}


def redacted(value: Any) -> Any:
    """Return the value without passwords, API keys, credentials of a header, and the secrets that were registered."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return redacted_text(value)
        case dict():
            return {redacted(key): redacted(one) for key, one in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redacted(one) for one in value]
        case _:
            return redacted_text(repr(value))


def redacted_text(text: str) -> str:
    """Return a text as `redacted` does."""
    if _loaded is not None:
        text = _loaded.sub("***", text)
    # The names first: an address may carry its password in its query, with an @ in it.
    text = _IN_URL.sub(r"\1:***@", _NAMED.sub(r"\1\2***", text))
    return _CREDENTIALS.sub(r"\1\2***", _GATEWAY_KEY.sub(_hidden, _KEY.sub(r"\1***", text)))


def _hidden(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}***"
