"""Check `.env` before it is read: a line that the parser skips silently would be a setting without effect."""

from __future__ import annotations

import io
from pathlib import Path

from dotenv.parser import parse_stream

from okane.errors import SetupError


def check(path: Path) -> None:
    """Raise SetupError for a file that cannot be read, or has a line other than NAME=VALUE. The file may be absent."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return
    except UnicodeDecodeError:
        raise SetupError(f"{path} is not in UTF-8") from None
    except OSError as error:
        raise SetupError(f"{path} cannot be read: {error.strerror}") from error
    for line in parse_stream(io.StringIO(text)):
        if line.error or (line.key is not None and line.value is None) or "\0" in line.original.string:
            raise SetupError(f"{path}, line {line.original.line}: not NAME=VALUE, or a quote that is not closed")
