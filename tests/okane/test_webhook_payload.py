"""The bodies of deliveries: their members, their bytes and their size."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from okane.store.webhook_events import EventRow, LoggedEvent
from okane.webhooks.payload import MAX_BODY_BYTES, body, event_id, parse_event_id

PAYMENT = UUID("01a2b3c4-0000-7000-8000-000000000001")
AT = datetime(2026, 11, 22, 1, 19, 52, 796174, tzinfo=UTC)


EVENT = LoggedEvent(1, "acct_1", PAYMENT, 2, "payment.succeeded", AT)
ROW = EventRow(EVENT, "success", 1, None, None, 440, "USD", "demo-key-1", AT - timedelta(seconds=2), {})


@dataclass(frozen=True, slots=True)
class Format:
    payload: Literal["snapshot", "thin"] = "snapshot"
    api_version: str = "2026-12-01"


def test_a_snapshot_has_the_payment_as_the_change_left_it() -> None:
    assert json.loads(body(ROW, Format())) == {
        "id": "evt_01a2b3c4000070008000000000000001_2",
        "type": "payment.succeeded",
        "timestamp": "2026-11-22T01:19:52.796174Z",
        "api_version": "2026-12-01",
        "account": "acct_1",
        "data": {
            "payment": {
                "id": str(PAYMENT),
                "version": 2,
                "status": "success",
                "amount": 440,
                "currency": "USD",
                "attempts": 1,
                "idempotency_key": "demo-key-1",
                "metadata": {},
                "created_at": "2026-11-22T01:19:50.796174Z",
                "updated_at": "2026-11-22T01:19:52.796174Z",
            }
        },
    }


def test_a_failure_has_its_reason_and_its_decline_code() -> None:
    row = replace(ROW, status="failed_final", reason="do not honor", decline_code="card_declined")
    payment = json.loads(body(row, Format()))["data"]["payment"]
    assert (payment["reason"], payment["decline_code"]) == ("do not honor", "card_declined")


def test_a_thin_body_has_ids_only() -> None:
    row = replace(ROW, metadata={"name": "secret"}, reason="secret")
    assert json.loads(body(row, Format("thin")))["data"] == {"payment": {"id": str(PAYMENT), "version": 2}}


def test_an_event_of_an_endpoint_has_no_payment() -> None:
    row = replace(ROW, event=replace(EVENT, type="webhook_endpoint.disabled"))
    assert json.loads(body(row, Format()))["data"] == {"endpoint": {"id": str(PAYMENT), "version": 2}}


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])), max_size=5
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_texts_come_back_as_they_were(metadata: dict[str, str], key: str) -> None:
    payment = json.loads(body(replace(ROW, metadata=metadata, idempotency_key=key), Format()))["data"]["payment"]
    assert (payment["metadata"], payment["idempotency_key"]) == (metadata, key)


def test_a_type_of_a_newer_version_is_sent_all_the_same() -> None:
    row = replace(ROW, event=replace(EVENT, type="payment.forgotten"))
    assert json.loads(body(row, Format()))["type"] == "payment.forgotten"


def test_characters_are_not_escaped() -> None:
    written = body(replace(ROW, metadata={"name": "Zoë 😀"}), Format())
    assert "Zoë 😀".encode() in written


def test_a_body_of_the_whole_size_keeps_its_metadata_and_a_longer_one_omits_it() -> None:
    empty = len(body(replace(ROW, metadata={"k": ""}), Format()))
    fits = replace(ROW, metadata={"k": "x" * (MAX_BODY_BYTES - empty)})
    assert len(body(fits, Format())) == MAX_BODY_BYTES
    assert "metadata_omitted" not in json.loads(body(fits, Format()))["data"]["payment"]

    longer = replace(ROW, metadata={"k": "x" * (MAX_BODY_BYTES - empty + 1)})
    payment = json.loads(body(longer, Format()))["data"]["payment"]
    assert payment["metadata_omitted"] is True
    assert "metadata" not in payment
    assert payment["idempotency_key"] == "demo-key-1"


def test_the_largest_members_fit_without_metadata() -> None:
    row = replace(
        ROW,
        metadata={"k": "x" * 110_000},
        idempotency_key="\x01" * 255,
        reason="\x01" * 500,
        decline_code="\x01" * 255,
    )
    assert len(body(row, Format())) < MAX_BODY_BYTES


def test_the_same_event_has_the_same_bytes_in_any_time_zone() -> None:
    there = AT.astimezone(timezone(timedelta(hours=9)))
    assert body(replace(ROW, event=replace(EVENT, at=there)), Format()) == body(ROW, Format())


@given(st.uuids(), st.integers(0, 2**31 - 1))
def test_an_event_id_leads_back_to_its_change(payment: UUID, version: int) -> None:
    assert parse_event_id(event_id(payment, version)) == (payment, version)


@pytest.mark.parametrize(
    "text",
    ["", "evt_", "evt_1_2", f"evt_{PAYMENT.hex}", f"evt_{PAYMENT.hex}_", f"evt_{PAYMENT}_2", f"evt_{PAYMENT.hex}_02",
     f"evt_{PAYMENT.hex}_2147483648", f"evt_{PAYMENT.hex}_99999999999", f"evt_{PAYMENT.hex.upper()}_2",
     f"evt_{PAYMENT.hex}_2\n", f"evt_{PAYMENT.hex}_٢"],
)  # fmt: skip
def test_other_texts_are_no_event_ids(text: str) -> None:
    assert parse_event_id(text) is None
