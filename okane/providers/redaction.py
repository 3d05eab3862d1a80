"""Removes secrets and card numbers from the texts of a result, which go to a row, an event and an answer of the API."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeVar

from okane.card_numbers import masked
from okane.logs import redacted_text
from okane.providers.answer_text import TEXT_LIMIT
from okane.providers.base import Declined, LookUpResult, Unavailable, Unknown

_LAST_WORD = re.compile(r"\S+\Z")

R = TypeVar("R", bound=LookUpResult)


def without_secrets(result: R) -> R:
    """Return the result with clean texts. The references and the next action stay as the provider gave them."""
    match result:
        case Declined(code=code, message=message):
            return replace(result, code=clean_text(code), message=clean_text(message))
        case Unavailable(reason=reason) | Unknown(reason=reason):
            return replace(result, reason=clean_text(reason))
    return result


def clean_text(text: str) -> str:
    """Return a text of a provider without secrets and card numbers."""
    if len(text) >= TEXT_LIMIT:
        # An adapter has cut it off, perhaps within a secret, which then is like none.
        text = f"{_LAST_WORD.sub('', text)}…"
    return masked(redacted_text(text)) if text else text
