"""docs/webhooks.md agrees with the product: the types of events, the members of a body, and the delays of retries."""

from __future__ import annotations

import json
import re

from okane.webhooks import payload
from okane.webhooks.schedule import DELAYS_S
from okane.webhooks.types import DEFAULT_TYPES, EventType
from tests.docs.tables import ROOT
from tests.interop.requests import ENDPOINT, event_row

DOCUMENT = (ROOT / "docs" / "webhooks.md").read_text()
UNIT_S = {"s": 1, "min": 60, "h": 3600}


def _section(heading: str) -> str:
    return re.split(r"^#+ ", DOCUMENT.split(f"\n## {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def test_the_table_has_every_type_and_those_of_an_endpoint_that_names_none() -> None:
    rows = [row.strip("|").split("|") for row in _section("Event types").splitlines() if row.startswith("| `")]
    named = {name: row[-1].strip() for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    assert named.keys() == set(EventType)
    assert {name for name, by_default in named.items() if by_default == "yes"} == set(DEFAULT_TYPES)
    assert {name for name, by_default in named.items() if by_default == "always"} == {EventType.ENDPOINT_TEST}


def test_the_body_has_the_members_of_a_real_one() -> None:
    [block] = re.findall(r"^```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    shown, real = json.loads(block), json.loads(payload.body(event_row(version=2, metadata={}), ENDPOINT))
    assert list(shown) == list(real)
    assert list(shown["data"]["payment"]) == list(real["data"]["payment"])
    assert shown["id"] == f"evt_{shown['data']['payment']['id'].replace('-', '')}_2"
    assert shown["api_version"] == real["api_version"]
    assert f"webhook-id: {shown['id']}\n" in DOCUMENT


def test_the_delays_of_retries_are_those_of_the_schedule() -> None:
    [sentence] = re.findall(r"A failed event is sent again after ([^:]+?), each", " ".join(DOCUMENT.split()))
    shown = [int(number) * UNIT_S[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", sentence)]
    assert shown == list(DELAYS_S)
    assert round(sum(DELAYS_S) / 3600) == 76
