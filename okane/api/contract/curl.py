"""Renders an operation as a curl command that runs as it is, with `OKANE_URL` and `OKANE_API_KEY` set. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from okane.api.contract.dispute_operations import DISPUTE_ID
from okane.api.contract.method_operations import METHOD_ID
from okane.api.contract.operation_schemas import OPERATION
from okane.api.contract.schemas import PAYMENT
from okane.api.contract.webhook_schemas import ENDPOINT_ID, EVENT_ID

_EXAMPLES = {
    "payment_id": str(PAYMENT["id"]),
    "payment_method_id": METHOD_ID,
    "dispute_id": DISPUTE_ID,
    "refund_id": str(OPERATION["id"]),
    "endpoint_id": ENDPOINT_ID,
    "event_id": EVENT_ID,
    "provider": "stripe",
}

Json = Mapping[str, Any]

SETUP = "export OKANE_URL=127.0.0.1:8080 OKANE_API_KEY=sk_test_…"


def line(method: str, path: str, operation: Json) -> str:
    """Return the command, with the example of the operation's body."""
    url = path
    for name, example in _EXAMPLES.items():
        url = url.replace(f"{{{name}}}", example)
    words = ["curl", f'"$OKANE_URL{url}"']
    if operation["security"]:
        words.append('-H "Authorization: Bearer $OKANE_API_KEY"')
    content = operation.get("requestBody", {"content": {}})["content"]
    for media_type, body in list(content.items())[:1]:
        words += ["-H", shlex.quote(f"Content-Type: {media_type}"), "-d", shlex.quote(json.dumps(body["example"]))]
    if method not in {"GET", "POST"} or (method == "POST" and not content):
        words[1:1] = ["-X", method]
    return " ".join(words)
