from __future__ import annotations

from typing import get_args

from okane.providers.base import LookUpResult
from okane.worker.provider_calls import OUTCOME_LABELS


def test_every_result_of_a_call_has_a_label_of_its_own() -> None:
    assert set(OUTCOME_LABELS) == set(get_args(LookUpResult))
    assert len(set(OUTCOME_LABELS.values())) == len(OUTCOME_LABELS)
