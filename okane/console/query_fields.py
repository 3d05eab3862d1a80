"""Reads fields of query strings and forms. Each is bounded; a wrong one is an error page that names it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from okane.console.page_errors import PageError

MAX_TEXT = 200

Fields = Mapping[str, object]  # of a query or a form; a field of a form that is a file counts as absent


def text_of(fields: Fields, name: str, *, longest: int = MAX_TEXT) -> str:
    """Return a text without the spaces around it, empty if it is absent. Raises PageError."""
    value = fields.get(name, "")
    text = value.strip() if isinstance(value, str) else ""
    if len(text) > longest or not text.isprintable():
        raise refused(name, f"has up to {longest} printable characters")
    return text


def choice_of(fields: Fields, name: str, choices: Collection[str]) -> str | None:
    """Return one of the choices, None if the field is absent or empty. Raises PageError."""
    text = text_of(fields, name)
    if text and text not in choices:
        raise refused(name, f"is one of {', '.join(choices)}")
    return text or None


def number_of(fields: Fields, name: str, *, least: int, most: int, default: int) -> int:
    """Return a whole number, with or without commas between its thousands. Raises PageError."""
    text = text_of(fields, name).replace(",", "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise refused(name, f"is a whole number from {least:,} to {most:,}")
    return int(text)


def moment_of(fields: Fields, name: str) -> datetime | None:
    """Return a time, in UTC where it names no offset; None if the field is absent or empty. Raises PageError."""
    text = text_of(fields, name)
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise refused(name, "is a time in UTC like 2026-11-30T08:00") from None


def refused(name: str, rule: str) -> PageError:
    """Return the error page for a field that breaks a rule."""
    return PageError(HTTPStatus.BAD_REQUEST, f"The field {name} {rule}.")
