"""A new id is an ordinary UUID with the current time."""

from __future__ import annotations

import copy
import pickle
import time
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from okane.payment_id import PaymentId, cell_of, read_id


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


@given(st.binary(min_size=16, max_size=16))
def test_the_id_of_bytes_is_that_of_uuid(data: bytes) -> None:
    read, expected = read_id(data), UUID(bytes=data)
    assert (read, hash(read), str(read), read.is_safe) == (expected, hash(expected), str(expected), expected.is_safe)
