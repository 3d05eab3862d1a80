"""The meanings of a text in the search box."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.console.search import MAX_SEARCH, Kind, Meaning, parse_search

ID = UUID("01a2279d-06ea-7c11-8b52-0c5b0f0f6a01")


@pytest.mark.parametrize("text", [str(ID), str(ID).upper(), ID.hex, f"pay_{ID.hex}", f"{ID}:3", f"  {ID}:0 "])
def test_an_id_and_the_key_at_the_provider_mean_their_payment(text: str) -> None:
    search = parse_search(text)
    first = search.meanings[0]
    assert (first.kind, first.payment_id) == (Kind.PAYMENT, ID)
    # A client may have chosen a UUID for its idempotency key, and a provider for its reference.
    assert [one.kind for one in search.meanings[1:]] == [Kind.KEY, Kind.REFERENCE]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("key:A-1", Meaning(Kind.KEY, "A-1")),
        ("key:ref:1", Meaning(Kind.KEY, "ref:1")),
        ("ref:ch_123", Meaning(Kind.REFERENCE, "ch_123")),
        ("ref: ch 123", Meaning(Kind.REFERENCE, "ch 123")),
        ("metadata.order=A-1001", Meaning(Kind.METADATA, "A-1001", "order")),
        ("metadata.note=a = b", Meaning(Kind.METADATA, "a = b", "note")),
        ("metadata.größe=42 µm", Meaning(Kind.METADATA, "42 µm", "größe")),
        (f"key:{ID}", Meaning(Kind.KEY, str(ID))),
    ],
)
def test_a_prefix_names_the_field(text: str, meaning: Meaning) -> None:
    assert parse_search(text).meanings == (meaning,)


def test_any_other_text_is_a_key_if_it_can_be_one_and_the_other_meanings_are_offered() -> None:
    assert [one.kind for one in parse_search("A-1001").meanings] == [Kind.KEY, Kind.REFERENCE]
    assert [one.kind for one in parse_search("order=A-1001").meanings] == [Kind.KEY, Kind.REFERENCE, Kind.METADATA]
    assert [one.kind for one in parse_search("two words").meanings] == [Kind.REFERENCE]
    assert [one.kind for one in parse_search("note=two words").meanings] == [Kind.METADATA, Kind.REFERENCE]
    assert [one.kind for one in parse_search("k" * 256).meanings] == [Kind.REFERENCE]
    assert [one.kind for one in parse_search(f"{ID}:01").meanings] == [Kind.KEY, Kind.REFERENCE]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("key:", "1 to 255 visible"),
        ("key:two words", "no spaces"),
        ("key:" + "k" * 256, "1 to 255"),
        ("ref:", "ref:ch_123"),
        ("metadata.order", "metadata.order=A-1001"),
        ("metadata.=1", "metadata.order=A-1001"),
        ("metadata.order=", "metadata.order=A-1001"),
        ("x" * (MAX_SEARCH + 1), "up to 500 characters; this one has 501"),
        ("a\0b", "NUL"),
        ("a\ud800", "UTF-8"),
    ],
)
def test_a_search_that_no_payment_can_have_says_what_is_wrong(text: str, problem: str) -> None:
    search = parse_search(text)
    assert search.meanings == ()
    assert problem in search.problem


def test_an_empty_text_is_no_search() -> None:
    assert parse_search("  ").meanings == ()
    assert parse_search("").problem == ""


@given(
    st.text(max_size=40) | st.sampled_from(["key:", "ref:", "metadata.a="]).flatmap(lambda a: st.text().map(a.__add__))
)
def test_the_text_of_a_meaning_means_that_alone(text: str) -> None:
    search = parse_search(text)
    assert (search.problem != "") == (not search.meanings and text.strip() != "")
    for meaning in search.meanings:
        if meaning.kind is not Kind.PAYMENT and len(meaning.query) <= MAX_SEARCH:
            assert parse_search(meaning.query).meanings == (meaning,)
