"""Values of the hot path: dataclasses that the type checker keeps from being changed, and nothing else.

What `frozen=True` does at run time makes an object four times as dear, and one message makes a dozen of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots whose instances are compared and hashed by their fields, and never changed."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
