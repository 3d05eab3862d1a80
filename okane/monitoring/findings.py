"""The findings of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding, with `advice` where `state` is not ok."""

    name: str
    state: State
    found: str
    advice: str = ""
