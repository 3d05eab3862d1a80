"""Parses the search box: what its text may mean, the likeliest meaning first. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from okane.payment_id import parse_id

MAX_SEARCH = 500  # characters; an idempotency key has up to 255, a name or a value of metadata up to 500
MAX_KEY = 255

_KEY = re.compile(rf"[!-~]{{1,{MAX_KEY}}}")  # what an idempotency key can be
_PROVIDER_KEY = re.compile(r"(.+):(0|[1-9][0-9]{0,9})")  # of a payment that was retried after a decline
_PAIR = re.compile(r"([^=]+)=(.+)", re.DOTALL)


class Kind(StrEnum):
    """The field that a search looks at."""

    PAYMENT = "payment"
    KEY = "key"
    REFERENCE = "reference"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One meaning of a search. `name` is that of the metadata. `payment_id` is given for `PAYMENT` alone."""

    kind: Kind
    text: str
    name: str = ""
    payment_id: UUID | None = None

    @property
    def query(self) -> str:
        """The text that means this alone."""
        match self.kind:
            case Kind.PAYMENT:
                return self.text
            case Kind.KEY:
                return f"key:{self.text}"
            case Kind.REFERENCE:
                return f"ref:{self.text}"
            case Kind.METADATA:
                return f"metadata.{self.name}={self.text}"


@dataclass(frozen=True, slots=True)
class Search:
    """The meanings of a text, none if `problem` says what is wrong with it. An empty text has neither."""

    meanings: tuple[Meaning, ...] = ()
    problem: str = ""


def parse_search(text: str) -> Search:
    """Return the meanings of a text, the likeliest first: a payment's id, what a prefix names, a key, the others."""
    text = text.strip()
    if not text:
        return Search()
    if len(text) > MAX_SEARCH:
        return Search(problem=f"A search has up to {MAX_SEARCH} characters; this one has {len(text):,}.")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        return Search(problem="This text is not UTF-8, or has a NUL character: no payment can have it.")
    prefixed = _prefixed(text)
    if isinstance(prefixed, Search):
        return prefixed
    meanings = [Meaning(Kind.PAYMENT, text, payment_id=payment_id)] if (payment_id := _payment_id(text)) else []
    if _KEY.fullmatch(text):
        meanings.append(Meaning(Kind.KEY, text))
    meanings.append(Meaning(Kind.REFERENCE, text))
    if pair := _PAIR.fullmatch(text):
        meanings.append(Meaning(Kind.METADATA, pair[2], pair[1]))
    if " " in text and len(meanings) == 2:
        meanings.reverse()  # neither a key nor a reference: the pair
    return Search(tuple(meanings))


def _prefixed(text: str) -> Search | None:
    """Return the search that a prefix names, None without one."""
    name, colon, rest = text.partition(":")
    if colon and name == "key":
        if _KEY.fullmatch(rest):
            return Search((Meaning(Kind.KEY, rest),))
        return Search(problem=f"An idempotency key has 1 to {MAX_KEY} visible ASCII characters, and no spaces.")
    if colon and name == "ref":
        if rest.strip():
            return Search((Meaning(Kind.REFERENCE, rest.strip()),))
        return Search(problem="A search for the provider's reference looks like ref:ch_123.")
    if text.startswith("metadata."):
        if pair := _PAIR.fullmatch(text.removeprefix("metadata.")):
            return Search((Meaning(Kind.METADATA, pair[2], pair[1]),))
        return Search(problem="A search for metadata looks like metadata.order=A-1001.")
    return None


def _payment_id(text: str) -> UUID | None:
    """Return the payment of an id or of a key at the provider: the id, and `:n` after a retry."""
    provider_key = _PROVIDER_KEY.fullmatch(text)
    return parse_id(text if provider_key is None else provider_key[1])
