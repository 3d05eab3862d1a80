"""Logs: one line per event an operator wants. JSON unless on a terminal; ids are bound, secrets never get in.

The pipeline says what went wrong and what was repaired; single payments are `debug`. `streams` logs through the standard
library and comes out the same way.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, Literal

import structlog
from structlog.typing import Processor, WrappedLogger

_PASSWORD_IN_URL = re.compile(r"(\w+://[^:/@\s]*):[^@\s]+@")


def configure(*, level: str, format_: Literal["auto", "json", "console"], process: str) -> None:
    """Set up structlog and the standard library's logging for this process. `process` names it in every line."""
    console = format_ == "console" or (format_ == "auto" and sys.stderr.isatty())
    structlog.contextvars.bind_contextvars(process=process)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
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
    renderers: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
                _without_passwords,  # last: tracebacks quote addresses, too
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("okane", "streams"):
        logging.getLogger(ours).setLevel(level.upper())


def _without_passwords(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Take the password out of any URL in a finished line."""
    return _PASSWORD_IN_URL.sub(r"\1:***@", line) if "://" in line else str(line)
