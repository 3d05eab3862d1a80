"""Builds the OpenAPI 3.1 document from the endpoints, the models that validate requests, and the problem codes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from okane.api import (
    create_request,
    disputes,
    operation_requests,
    payment_ids,
    payment_method_requests,
    problems,
    webhook_requests,
)
from okane.api.access import SCHEMES
from okane.api.answer import JSON
from okane.api.contract import parameters, problem_codes, schemas, webhook_operations, webhook_schemas
from okane.api.contract.operations import Body, Endpoint, Operation, SuccessResponse
from okane.webhooks.types import EventType

Json = dict[str, Any]

_SCHEMA = "#/components/schemas/{model}"
# By the member that holds the id: the parameter that takes it, and the operations that have it.
_LINKS = {
    "payment": ("payment_id", ("getPayment", "listEvents", "listAttempts", "cancelPayment", "retryPayment")),
    "payment_method": ("payment_method_id", ("getPaymentMethod", "deletePaymentMethod")),
    "refund": ("refund_id", ("getRefund", "cancelRefund", "retryRefund")),
    "endpoint": (
        "endpoint_id",
        ("getEndpoint", "changeEndpoint", "rotateEndpoint", "disableEndpoint", "enableEndpoint", "deleteEndpoint"),
    ),
}
EVENT_ID: Json = {"type": "string", "pattern": "^evt_[0-9a-f]{32}_[0-9]{1,10}$"}
_PATH_PARAMETERS: Mapping[str, tuple[str, Json]] = {
    "payment_id": ("The payment's id; `pay_` and 32 digits are another spelling of it.", payment_ids.ID),
    "payment_method_id": ("The payment method's id.", payment_method_requests.METHOD_ID_SCHEMA),
    "dispute_id": ("The dispute's id.", disputes.DISPUTE_ID_SCHEMA),
    "refund_id": ("The refund's id.", operation_requests.OPERATION_ID_SCHEMA),
    "endpoint_id": ("The endpoint's id.", webhook_requests.ENDPOINT_ID_SCHEMA),
    "event_id": ("The event's id: `evt_`, the payment, and its version.", EVENT_ID),
    "provider": ("The provider's name in `OKANE_PROVIDERS_FILE`.", {"type": "string", "pattern": "^[^/]+$"}),
}
# The headers of a delivery (Standard Webhooks).
SIGNED: Mapping[str, Json] = {
    "webhook-id": {"description": "The event's id, the same at each attempt.", "schema": EVENT_ID},
    "webhook-timestamp": {
        "description": "When it was sent: seconds since 1970.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "webhook-signature": {
        "description": "Signatures of id, timestamp and body, by each secret that is valid: `v1,` and base64, with blanks.",
        "schema": {"type": "string"},
    },
}
_AWAY = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})

_ABOUT = """\
Payments are accepted at once and charged in the background.

A client creates a payment under an idempotency key of its own. A request that got no answer is repeated with the same \
key, and creates no second payment. Errors are `application/problem+json` (RFC 9457) with a `code` that stays the same \
between versions; `retryable` says whether the same request may succeed later. A client may send an `X-Request-Id`, under \
which the logs have its request. Routes under `/v1` only gain members: ignore unknown members."""

_STATUS = (
    "Where a payment stands. `success`, `failed_final` and `canceled` are final, and `needs_review` waits for a human. "
    "`requires_action` waits for the customer (`next_action`), and `submitted` for the provider. `authorized` is held at the "
    "provider until it is captured or voided."
)


def build_document(endpoints: Sequence[Endpoint]) -> Json:
    """Return the document of these endpoints, in their order."""
    return _Document(endpoints).build()


class _Plain(GenerateJsonSchema):
    """Generates schemas without a title for each member, which would repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Document:
    """The document while it is built."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._operations = [endpoint.operation for endpoint in endpoints]
        wanted = [response.body for one in self._operations for response in one.responses if response.body is not None]
        wanted += [one.body.schema for one in self._operations if one.body is not None]
        wanted += [schemas.Problem, webhook_schemas.PaymentEvent, webhook_schemas.EndpointEvent]
        inputs = [(number, "validation", TypeAdapter(one)) for number, one in enumerate(wanted)]
        found, definitions = TypeAdapter.json_schemas(inputs, ref_template=_SCHEMA, schema_generator=_Plain)  # type: ignore[arg-type]  # "validation" is inferred as str
        self._schemas = {id(one): found[number, "validation"] for number, one in enumerate(wanted)}
        self._definitions: Json = definitions["$defs"]
        self._definitions["Status"]["description"] = _STATUS
        self._refusals: dict[str, Json] = {}

    def build(self) -> Json:
        paths: dict[str, Json] = {}
        for endpoint in self._endpoints:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = self._operation(endpoint)
        document = {
            "openapi": "3.1.0",
            "info": {"title": "okane", "version": "1", "description": _ABOUT},
            "servers": [{"url": "/"}],
            "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in self._operations)],
            "paths": paths,
            "webhooks": {one.value: {"post": self._sent(one)} for one in EventType},
            "components": {
                "schemas": dict(sorted(self._definitions.items()))
                | {"CurrencyCode": {**create_request.CURRENCY, "title": "Currency"}},
                "responses": dict(sorted(self._refusals.items())),
                "parameters": {name: _header(name) for name in parameters.PARAMETERS},
                "headers": {
                    name: {**header, "required": name in parameters.ALWAYS}
                    for name, header in parameters.HEADERS.items()
                },
                "securitySchemes": {name: dict(scheme) for name, scheme in SCHEMES.items()},
            },
        }
        return {name: _named(part) for name, part in document.items()}

    def _operation(self, endpoint: Endpoint) -> Json:
        operation, scope = endpoint.operation, endpoint.scope
        document: Json = {
            "operationId": operation.name,
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": operation.details,
            "parameters": [*_in_path(endpoint.path), *_in_query(operation), *map(_parameter, operation.headers)],
            "requestBody": None if operation.body is None else self._body(operation.body),
            "security": [] if scope is None else [{name: [scope.value]} for name in SCHEMES],
            "responses": {
                **{
                    str(response.status.value): self._success(response, keyed=scope is not None)
                    for response in operation.responses
                },
                **self._refused(operation, keyed=scope is not None),
            },
        }
        return {name: value for name, value in document.items() if value or name == "security"}

    def _sent(self, type_: EventType) -> Json:
        """Return the request that an endpoint gets for an event of this type."""
        model = webhook_schemas.EndpointEvent if type_.is_of_endpoint else webhook_schemas.PaymentEvent
        schema = {
            "allOf": [self._schemas[id(model)], {"properties": {"type": {"const": type_.value}}}],
        }
        return {
            "operationId": f"receive{''.join(word.capitalize() for word in re.findall('[a-z]+', type_.value))}",
            "tags": [webhook_operations.EVENTS],
            "summary": webhook_schemas.MEANINGS[type_],
            "parameters": [{"name": name, "in": "header", "required": True, **one} for name, one in SIGNED.items()],
            "requestBody": {"required": True, "content": {JSON: {"schema": schema}}},
            "security": [],
            "responses": {"2XX": {"description": "It is delivered. Any other answer is a failure: it is sent again."}},
        }

    def _body(self, body: Body) -> Json:
        schema = self._schemas[id(body.schema)]
        content = {media_type: {"schema": schema, "example": body.example} for media_type in body.media_types}
        return {"required": body.required, "content": content}

    def _success(self, response: SuccessResponse, *, keyed: bool) -> Json:
        document: Json = {"description": response.means, "headers": _headers(response.headers, keyed=keyed)}
        if response.body is not None:
            document["content"] = {response.media_type: {"schema": self._schemas[id(response.body)]}}
        if response.follows is not None:
            parameter, names = _LINKS[response.follows.rpartition("/")[0].rpartition("/")[2]]
            parameters = {parameter: f"$response.body#{response.follows}"}
            document["links"] = {name: {"operationId": name, "parameters": parameters} for name in names}
        return document

    def _refused(self, operation: Operation, *, keyed: bool) -> Json:
        by_status: dict[HTTPStatus, list[str]] = {}
        for code in dict.fromkeys(
            (*operation.problems, *(problem_codes.OF_KEYS if keyed else ()), *problem_codes.ANYWHERE)
        ):
            by_status.setdefault(problem_codes.CODES[code].status, []).append(code)
        return {
            str(status.value): {"$ref": f"#/components/responses/{self._refusal(status, known)}"}
            for status, known in sorted(by_status.items())
        }

    def _refusal(self, status: HTTPStatus, known: Sequence[str]) -> str:
        """Return the name of the response that refuses with this status, for one of these reasons."""
        means = "\n".join(f"* `{code}`: {problem_codes.CODES[code].means}" for code in known)
        examples = {code: _example(code) for code in known}
        more = ["WWW-Authenticate"] if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) else []
        more += ["Retry-After"] if status in _AWAY else []
        response = {
            "description": means,
            "headers": _headers(more, keyed=status in (HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)),
            "content": {problems.JSON: {"schema": {"$ref": _SCHEMA.format(model="Problem")}, "examples": examples}},
        }
        name = "".join(word.capitalize() for word in re.findall("[a-z]+", status.phrase.lower()))
        for number in range(1, 100):
            found = self._refusals.setdefault(numbered := f"{name}{number}", response)
            if found == response:
                return numbered
        raise AssertionError(name)


def _example(code: str) -> Json:
    """Return an example of the problem with this code."""
    known = problem_codes.CODES[code]
    document = problems.Problem(known.status, code, known.means, retryable=known.retryable).document()
    return {"summary": known.means, "value": document | {"request_id": "3f2a8c"}}


def _named(part: Any) -> Any:
    """Replace each copy of the list of currencies by a reference to one."""
    if part == create_request.CURRENCY:
        return {"$ref": _SCHEMA.format(model="CurrencyCode")}
    if isinstance(part, dict):
        return {name: _named(member) for name, member in part.items()}
    return [_named(member) for member in part] if isinstance(part, list) else part


def _in_path(path: str) -> Sequence[Json]:
    """Return the parameter of the path, if it has one."""
    for name, (about, schema) in _PATH_PARAMETERS.items():
        if f"{{{name}}}" in path:
            return [{"name": name, "in": "path", "required": True, "description": about, "schema": schema}]
    return []


def _in_query(operation: Operation) -> Sequence[Json]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(ref_template=_SCHEMA, schema_generator=_Plain)
    return [_filter(name, member) for name, member in schema["properties"].items()]


def _filter(name: str, member: Json) -> Json:
    """Return a parameter of a query. `null`, which stands for an absent member in the model, cannot be sent in one."""
    member = next((one for one in member.get("anyOf", ()) if one != {"type": "null"}), member)
    member = {key: value for key, value in member.items() if key != "uniqueItems" and (key != "default" or value)}
    style = {"style": "deepObject", "explode": True} if member["type"] == "object" else {}
    return {"name": name, "in": "query", "description": parameters.FILTERS[name], **style, "schema": member}


def _header(name: str) -> Json:
    return {"name": name, "in": "header", **parameters.PARAMETERS[name]}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _headers(names: Sequence[str], *, keyed: bool) -> Json:
    limits = ("RateLimit-Policy", "RateLimit") if keyed else ()
    return {
        name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-Id", "Cache-Control", *names, *limits)
    }
