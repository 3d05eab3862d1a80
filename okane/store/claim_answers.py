"""The answers to the claims of one batch, of payments or of operations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from okane.errors import StoreUnavailable

C = TypeVar("C")
R = TypeVar("R")


async def answer_claims(
    ids: Sequence[UUID],
    claimed: Mapping[UUID, C],
    *,
    refuse: Callable[[Sequence[UUID]], Awaitable[Mapping[UUID, R]]],
    unknown: R,
) -> Sequence[C | R | BaseException]:
    """Return the claim of each id, its refusal, or the error of looking for one. `unknown` answers ids without a row."""
    # Of equal wake-ups in one batch, one gets the claim.
    left = dict(claimed)
    granted = [left.pop(one, None) for one in ids]
    missing = [one for one, claim in zip(ids, granted, strict=True) if claim is None]
    if not missing:
        return [claim for claim in granted if claim is not None]
    refused: Mapping[UUID, R] = {}
    absent: R | BaseException = unknown
    try:
        refused = await refuse(missing)
    except StoreUnavailable as error:
        absent = error  # only for these: the claims above are granted
    return [refused.get(one, absent) if claim is None else claim for one, claim in zip(ids, granted, strict=True)]
