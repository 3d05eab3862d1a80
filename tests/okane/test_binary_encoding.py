"""The hand-written binary format against a real Postgres: values come back as they were sent."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg import pq

from okane.store.binary_encoding import UNFIT, encoder
from okane.store.prepared_statements import PreparedStatement

VALUES: Sequence[tuple[str, Sequence[object]]] = [
    ("boolean", [True, False]),
    ("bytea", [b"", b"\x00\xff", b"x" * 300]),
    ("bigint", [0, -1, 2**63 - 1, -(2**63)]),
    ("integer", [0, -1, 2**31 - 1, -(2**31)]),
    ("text", ["", "plain", "käse \U0001f4b6", "NULL", "{a,b}", "x" * 70_000]),
    ("float8", [0.0, -1.5, 1e300]),
    ("uuid", [UUID(int=0), UUID(int=2**128 - 1)]),
]


def read_back(url: str, type_name: str, data: bytes | None) -> object:
    """Return the value as psycopg loads it."""
    with psycopg.connect(url) as connection:
        result = connection.pgconn.exec_params(
            f"SELECT $1::{type_name}".encode(), [data], param_formats=[pq.Format.BINARY], result_format=pq.Format.TEXT
        )
        assert result.status == pq.ExecStatus.TUPLES_OK, result.get_error_message()
        text = result.get_value(0, 0)
        row = connection.execute(f"SELECT %s::text::{type_name}", [None if text is None else text.decode()]).fetchone()
        assert row is not None
        return row[0]


@pytest.mark.parametrize(("type_name", "values"), VALUES)
def test_what_is_packed_is_read_back(database_url: str, type_name: str, values: Sequence[object]) -> None:
    batch = [*values, None, *values]
    assert read_back(database_url, f"{type_name}[]", encoder(f"{type_name}[]")(batch)) == batch
    assert read_back(database_url, f"{type_name}[]", encoder(f"{type_name}[]")([])) == []
    for value in [*values, None]:
        assert read_back(database_url, type_name, encoder(type_name)(value)) == value
        assert read_back(database_url, f"{type_name}[]", encoder(f"{type_name}[]")([value] * 3)) == [value] * 3


def test_documents_are_packed_from_their_text(database_url: str) -> None:
    packed = encoder("jsonb[]")(['{"a": "ä"}', "{}", None])
    assert read_back(database_url, "jsonb[]", packed) == [{"a": "ä"}, {}, None]


@pytest.mark.parametrize(
    ("type_name", "value"), [("integer", 2**31), ("bigint", 2**63), ("text", "a lone surrogate: \udcff")]
)
def test_what_does_not_fit_is_said_before_anything_is_sent(type_name: str, value: object) -> None:
    with pytest.raises(UNFIT):
        encoder(f"{type_name}[]")([value])


def test_a_statement_is_numbered_by_its_names() -> None:
    prepared = PreparedStatement.of("both", "SELECT %(b)s::bigint, %(a)s::text[], %(b)s::bigint")
    assert (prepared.name, prepared.text) == (b"okane_both", b"SELECT $1::bigint, $2::text[], $1::bigint")
    assert list(prepared.encoders) == ["b", "a"]
    assert prepared.encoders["b"](5) == struct.pack(">q", 5)


@pytest.mark.parametrize("text", ["SELECT %(a)s", "SELECT 5 % 2"])
def test_a_parameter_without_a_cast_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cast"):
        PreparedStatement.of("bare", text)


def test_what_is_equal_and_not_the_same_is_written_as_it_is(database_url: str) -> None:
    """Both hours when clocks are put back, and both zeros."""
    hours = [datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin")) for fold in (0, 1)]
    assert hours[0] == hours[1]
    read = read_back(database_url, "timestamptz[]", encoder("timestamptz[]")(hours))
    assert read == [hour.astimezone(UTC) for hour in hours]
    assert encoder("float8[]")([0.0, -0.0])[-8:] == struct.pack(">d", -0.0)  # type: ignore[index]
