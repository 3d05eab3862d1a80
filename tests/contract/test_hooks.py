"""The hooks of the generated requests: a request that is right stays right in the eyes of the checks."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from schemathesis.core import NOT_SET
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation import GenerationMode
from schemathesis.generation.meta import (
    CaseMetadata,
    ComponentInfo,
    GenerationInfo,
    PhaseInfo,
    TestPhase,
    build_phase_data,
)

from okane.api.answer import JSON
from tests.contract import hooks
from tests.contract.answers import the_document

OPTIONAL = [
    (path, method)
    for path, methods in the_document()["paths"].items()
    for method, operation in methods.items()
    if not operation.get("requestBody", {"required": True})["required"]
]


def right_case(path: str, method: str, body: Any) -> schemathesis.Case[Any]:
    phase = PhaseInfo(name=TestPhase.STATEFUL, data=build_phase_data(TestPhase.STATEFUL, "Positive test case"))
    components = {ParameterLocation.BODY: ComponentInfo(mode=GenerationMode.POSITIVE)}
    generation = GenerationInfo(time=0.0, mode=GenerationMode.POSITIVE)
    operation = schemathesis.openapi.from_dict(the_document())[path][method.upper()]
    meta = CaseMetadata(generation=generation, components=components, phase=phase)
    return operation.Case(media_type=JSON, body=body, _meta=meta)


@pytest.mark.parametrize("body", [NOT_SET, {}], ids=["no body", "an empty object"])
@pytest.mark.parametrize(("path", "method"), OPTIONAL)
def test_a_request_without_its_optional_body_is_no_violation(path: str, method: str, body: Any) -> None:
    case = right_case(path, method, body)
    hooks.before_call(schemathesis.HookContext(operation=case.operation), case, {})
    assert case.meta is not None
    assert case.meta.generation.mode.is_positive
    if not path.endswith("/capture"):
        assert case.body == body
    elif body is NOT_SET:  # needs no body, but a key
        assert (case.body, "Idempotency-Key" in case.headers) == (NOT_SET, True)
    else:
        assert isinstance(case.body, dict)
        assert case.body.keys() == {"idempotency_key"}
