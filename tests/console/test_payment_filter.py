"""The filter of the list of payments."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from okane.console.payment_filter import FIELDS, FilterForm, parse_filter
from okane.console.search import Kind, Meaning
from okane.payment import Status
from okane.store import PaymentFilter

ID = UUID("01a2279d-06ea-7c11-8b52-0c5b0f0f6a01")


def parsed(*pairs: tuple[str, str]) -> FilterForm:
    return parse_filter(MultiDict(pairs))


def test_an_empty_form_is_the_whole_list() -> None:
    form = parsed(("q", " "), ("currency", ""), ("nonsense", "x"))
    assert form.filter == PaymentFilter()
    assert (form.problems, form.active(), form.after) == ({}, [], None)


def test_amounts_are_in_the_units_of_their_currency() -> None:
    for code, text, minor in (
        ("USD", "12", 1200),
        ("USD", "12.3", 1230),
        ("USD", "1,234.50", 123_450),
        ("JPY", "1,234", 1234),
        ("BHD", "1.234", 1234),
        ("USD", "0", 0),
    ):
        assert parsed(("currency", code), ("amount_from", text)).filter.amount_min == minor, (code, text)
    for text in ("12.345", "1,23", "1.2.3", "-1", "1e3", "٣", "12,", ".5", "1 000"):
        assert "amount_to" in parsed(("currency", "USD"), ("amount_to", text)).problems, text


def test_times_are_utc_unless_they_name_a_zone() -> None:
    for text, moment in (
        ("2026-11-30", datetime(2026, 11, 30, tzinfo=UTC)),
        ("2026-11-30T08:15", datetime(2026, 11, 30, 8, 15, tzinfo=UTC)),
        ("2026-11-30 08:15:01.5", datetime(2026, 11, 30, 8, 15, 1, 500_000, tzinfo=UTC)),
        ("2026-11-30T08:15:00Z", datetime(2026, 11, 30, 8, 15, tzinfo=UTC)),
        ("2026-11-30T14:00+05:45", datetime(2026, 11, 30, 8, 15, tzinfo=UTC)),
    ):
        form = parsed(("from", text), ("to", text))
        assert (form.filter.created_from, form.filter.created_before) == (moment, moment), text
    for text in ("now", "0001-01-01T00:00+23:00", "30.11.2026", "2026-02-30"):
        assert "from" in parsed(("from", text)).problems, text


def test_an_address_keeps_the_fields_and_drops_the_page() -> None:
    form = parsed(
        ("q", "key:a b"), ("status", "success"), ("status", "pending"), ("provider", "http"), ("after", str(ID))
    )
    assert form.after == ID
    assert form.query() == {"q": "key:a b", "status": ["pending", "success"], "provider": "http", "after": None}
    assert form.query(without="status") == {"q": "key:a b", "provider": "http", "after": None}
    assert form.query(q="ref:x", after=ID)["after"] == ID
    assert form.active() == [("q", "search"), ("status", "status"), ("provider", "provider")]
    assert form.statuses == {Status.PENDING, Status.SUCCESS}


def test_a_search_joins_the_other_fields() -> None:
    form = parsed(("provider", "http"))
    assert form.wanted(None) == PaymentFilter(provider="http")
    assert form.wanted(Meaning(Kind.KEY, "k")) == PaymentFilter(provider="http", idempotency_key="k")
    assert form.wanted(Meaning(Kind.REFERENCE, "r")) == PaymentFilter(provider="http", provider_ref="r")
    assert form.wanted(Meaning(Kind.METADATA, "v", "n")) == PaymentFilter(provider="http", metadata={"n": "v"})


@given(st.lists(st.tuples(st.sampled_from([*FIELDS, "after", "other"]), st.text(max_size=30)), max_size=8))
def test_any_address_is_a_filter_or_says_what_is_wrong(pairs: list[tuple[str, str]]) -> None:
    form = parsed(*pairs)
    again = parse_filter(MultiDict((name, str(one)) for name, one in form.fields.items()))
    if not form.problems:
        assert again.filter == PaymentFilter(
            **{name: getattr(form.filter, name) for name in PaymentFilter.__slots__ if name != "statuses"}
        )
    assert set(form.problems) <= {*FIELDS, "after"}
