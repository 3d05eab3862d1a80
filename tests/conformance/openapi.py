"""Hold form-encoded requests against an OpenAPI document: paths, parameters and bodies, unknown names included."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from openapi_schema_validator import OAS30Validator

from tests.conformance.fault_proxy import Recorded

_SEGMENT = re.compile(r"\[([^\]]*)\]")
_FORM = "application/x-www-form-urlencoded"


class OpenApiDocument:
    """The document of a gateway. `check` raises AssertionError for a request that it does not describe."""

    def __init__(self, path: Path) -> None:
        self._document = _read(path)
        self.version: str = self._document["info"]["version"]

    def check(self, request: Recorded) -> None:
        """Check a request. Values in a form are text: each is read as the type that its schema has."""
        target = urlsplit(request.target)
        operation = self._operation(request.method, target.path)
        parameters = {one["name"]: one["schema"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        query = {"type": "object", "properties": parameters, "additionalProperties": False}
        self._validate(query, nested(parse_qsl(target.query, keep_blank_values=True)))
        if request.method == "POST":
            kind = request.headers["content-type"].partition(";")[0]
            assert kind == _FORM, f"a body of type {kind}"
            schema = operation["requestBody"]["content"][_FORM]["schema"]
            self._validate(schema, nested(parse_qsl(request.body.decode(), keep_blank_values=True)))

    def _operation(self, method: str, path: str) -> Mapping[str, Any]:
        found = [
            methods[method.lower()]
            for template, methods in self._document["paths"].items()
            if method.lower() in methods and re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", template), path)
        ]
        # A fixed path (`/search`) comes before one with a parameter in its place.
        exact = self._document["paths"].get(path, {}).get(method.lower())
        assert found, f"{method} {path} is not in the document"
        operation: Mapping[str, Any] = exact or found[0]
        return operation

    def _validate(self, schema: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        typed = self._typed(schema, values)
        errors = [f"{'.'.join(map(str, one.path))}: {one.message}" for one in OAS30Validator(schema).iter_errors(typed)]
        assert not errors, f"{typed} is not what the document describes: {errors}"

    def _typed(self, schema: Mapping[str, Any], value: Any) -> Any:
        """Return the value with its texts read as the types of the schema; a text that is none of them stays."""
        for choice in schema.get("anyOf", ()):
            typed = self._typed(choice, value)
            if OAS30Validator(choice).is_valid(typed):
                return typed
        if isinstance(value, dict):
            known, others = schema.get("properties", {}), schema.get("additionalProperties")
            rest = others if isinstance(others, dict) else {}
            return {name: self._typed(known.get(name, rest), one) for name, one in value.items()}
        if isinstance(value, list):
            return [self._typed(schema.get("items", {}), one) for one in value]
        if schema.get("type") == "boolean" and value in ("true", "false"):
            return value == "true"
        if schema.get("type") == "integer" and re.fullmatch(r"-?\d+", value):
            return int(value)
        return value


def nested(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields of a form, with `a[b][c]` as objects in objects and `a[]` as a list. Raises AssertionError for a name
    that comes twice."""
    root: dict[str, Any] = {}
    for name, value in pairs:
        first, bracket, _ = name.partition("[")
        *above, last = [first, *_SEGMENT.findall(name)] if bracket else [first]
        if above == [first] and last == "":
            root.setdefault(first, []).append(value)
            continue
        place = root
        for segment in above:
            place = place.setdefault(segment, {})
        assert last not in place, f"{name} comes twice"
        place[last] = value
    return root


@functools.cache
def _read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_bytes())
    return document
