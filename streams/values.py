"""Values of the hot path: dataclasses that are frozen for the type checker alone.

At run time `frozen=True` makes an object four times as expensive, and one message needs a dozen of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """Make the class a slotted dataclass, compared and hashed by its fields. Its instances must not be changed."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
