"""A new id is an ordinary UUID with the current time."""

from __future__ import annotations

import copy
import pickle
import time
from uuid import UUID

from okane.payment_id import PaymentId, cell_of


def test_it_is_the_uuid_that_its_text_says() -> None:
    made = PaymentId()
    same = UUID(str(made))
    assert (made, hash(made), made.bytes, made.hex, f"{made}", repr(same)) == (
        same,
        hash(same),
        same.bytes,
        same.hex,
        f"{same}",
        f"UUID('{made}')",
    )
    assert {made} == {same}
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == made


def test_ids_sort_by_the_time_at_which_they_were_made() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = [PaymentId() for _ in range(1_000)]
    after_ms = time.time_ns() // 1_000_000
    assert made == sorted(made)
    assert len(set(made)) == 1_000
    assert {(one.version, one.variant) for one in made} == {(7, UUID(int=2 << 62).variant)}
    assert all(before_ms <= one.int >> 80 <= after_ms for one in made)


def test_an_id_names_its_cell_and_leaves_the_last_byte_random() -> None:
    for cell in (0, 1, 512, 1023):
        made = [PaymentId(cell) for _ in range(200)]
        assert {cell_of(one) for one in made} == {cell_of(UUID(str(one))) for one in made} == {cell}
        assert made == sorted(made)
        assert len({one.bytes[-1] for one in made}) > 50
