"""Compares the answers of the API with its document: status, media type, headers, and every member of the body."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
from openapi_schema_validator import OAS31Validator, oas31_format_checker

from okane.api import problems
from okane.api.contract import openapi
from okane.api.routes import ROUTES

# The headers of HTTP itself, for any operation.
_OF_HTTP = frozenset({"content-type", "content-length", "date", "server", "connection", "transfer-encoding", "allow"})


class CheckedResponse(aiohttp.ClientResponse):
    """An answer that is checked when its body has been read."""

    async def read(self) -> bytes:
        body = await super().read()
        check(self.method, self.url.raw_path, self.status, self.headers, body)
        return body


def check(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that the document has such an answer to such a request."""
    template = template_of(path)
    operation = the_document()["paths"].get(template, {}).get("get" if method == "HEAD" else method.lower())
    if operation is None:  # without an operation there are problems only
        assert status in (400, 404, 405), (method, path, status)
        _check_body({"$ref": "#/components/schemas/Problem"}, body)
        return
    said = operation["responses"].get(str(status))
    assert said is not None, f"{method} {template} is not said to answer {status}"
    said = found(said)
    _check_headers(said.get("headers", {}), headers, where=f"{method} {template} {status}")
    if not body:
        assert method == "HEAD" or "content" not in said, (method, template, status)
        return
    media_type = headers["Content-Type"].partition(";")[0]
    assert media_type in said["content"], (method, template, status, media_type)
    if media_type.endswith("json"):
        _check_body(said["content"][media_type]["schema"], body)
    if media_type == problems.JSON:
        assert json.loads(body)["code"] in said["content"][media_type]["examples"], (method, template, body)


def _check_headers(said: Mapping[str, Any], headers: Mapping[str, str], *, where: str) -> None:
    known = {name.lower() for name in said}
    sent = {name.lower() for name in headers}
    assert sent - _OF_HTTP - {"content-security-policy"} <= known, f"{where}: {sent - known}"
    for name, header in ((name, found(part)) for name, part in said.items()):
        assert name in headers or not header["required"], f"{where}: no {name}"
        if name in headers:
            value = int(headers[name]) if header["schema"].get("type") == "integer" else headers[name]
            OAS31Validator(header["schema"]).validate(value)


def _check_body(schema: Any, body: bytes) -> None:
    validator(json.dumps(schema, sort_keys=True)).validate(json.loads(body))


@functools.cache
def validator(schema: str) -> OAS31Validator:
    """Return a validator of this schema that refuses members which the schema does not name."""
    return OAS31Validator({**json.loads(schema), "components": _closed()}, format_checker=oas31_format_checker)


def template_of(path: str) -> str:
    """Return the path template of the document that a path matches, or the path itself."""
    if path in the_document()["paths"]:
        return path
    path = re.sub(r"^/v1/providers/[^/]+/", "/v1/providers/{provider}/", path)
    path = re.sub(r"^/v1/refunds/[^/]+", "/v1/refunds/{refund_id}", path)
    path = re.sub(r"^/v1/webhook-endpoints/[^/]+", "/v1/webhook-endpoints/{endpoint_id}", path)
    path = re.sub(r"^/v1/disputes/[^/]+", "/v1/disputes/{dispute_id}", path)
    path = re.sub(r"^/v1/payment-methods/[^/]+", "/v1/payment-methods/{payment_method_id}", path)
    path = re.sub(r"^/v1/events/[^/]+", "/v1/events/{event_id}", path)
    return re.sub(r"^(/v1|)/payments/[^/]+", r"\1/payments/{payment_id}", path)


def found(part: Any) -> Any:
    """Return the part that a reference leads to, or the part itself."""
    if "$ref" not in part:
        return part
    _, _, kind, name = part["$ref"].split("/")
    return the_document()["components"][kind][name]


@functools.cache
def the_document() -> Any:
    return openapi.build_document(ROUTES)


@functools.cache
def _closed() -> Any:
    components = copy.deepcopy(the_document()["components"])
    for schema in components["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    return components
