"""The OpenAPI document: valid, complete, the same for every client, and neither stricter nor laxer than the validation."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shutil

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from typer.testing import CliRunner
from yarl import URL

from okane.api.contract import operation_schemas, problem_codes, schemas, webhook_schemas
from okane.api.contract.dispute_operations import DISPUTE_ID
from okane.api.contract.method_operations import METHOD_ID
from okane.api.problems import JSON
from okane.api.routes import ROUTES
from okane.cli import app
from tests.contract.answers import the_document, validator
from tests.okane.api_requests import BAD, get
from tests.okane.served_api import Api

# To JSON Schema these are whole numbers, and to us they are not: what another parser makes of them is not known.
WHOLE_TO_OTHERS = {'{"amount": 10.0, "idempotency_key": "k"}', '{"amount": 1e2, "idempotency_key": "k"}'}


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(the_document()).validate()


async def test_every_route_is_described_and_every_description_has_a_route(api: Api) -> None:
    described = {(method.upper(), path) for path, methods in the_document()["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    for route in ROUTES:
        async with api.client.request("OPTIONS", re.sub(r"{\w+}", "x", route.path)) as response:
            assert route.method in response.headers["Allow"].split(",")


def test_names_are_not_given_twice() -> None:
    names = [route.operation.name for route in ROUTES]
    assert len(names) == len(set(names))


def test_every_problem_stands_where_it_may_be_met() -> None:
    refusals = [found["content"][JSON] for found in the_document()["components"]["responses"].values()]
    named = {code for refusal in refusals for code in refusal["examples"]}
    assert named == set(problem_codes.CODES) - problem_codes.NOWHERE


def test_examples_are_what_they_are_examples_of() -> None:
    schemas = the_document()["components"]["schemas"]
    examples = [(name, one) for name, schema in schemas.items() for one in schema.get("examples", ())]
    assert len(examples) > 3
    for response in the_document()["components"]["responses"].values():
        examples += [("Problem", one["value"]) for one in response["content"][JSON]["examples"].values()]
    for name, example in examples:
        validator(json.dumps({"$ref": f"#/components/schemas/{name}"})).validate(example)


@pytest.mark.parametrize("body", [body for body, status, _ in BAD if status == 422])
def test_a_refused_body_is_not_valid_by_the_document(body: str) -> None:
    schema = {**the_document()["components"]["schemas"]["CreatePayment"], "components": the_document()["components"]}
    assert OAS31Validator(schema).is_valid(json.loads(body)) == (body in WHOLE_TO_OTHERS)


async def test_it_is_served_to_everybody_and_printed(api: Api) -> None:
    response, served = await get(api, "/v1/openapi.json")
    assert (response.status, response.content_type) == (200, "application/vnd.oai.openapi+json")
    assert served == the_document() == json.loads(CliRunner().invoke(app, ["openapi"]).stdout)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the commands are curl's")
@pytest.mark.parametrize("api", [{"providers": ("http", "stripe", "payu")}], indirect=True)
async def test_the_commands_of_the_page_can_be_run(api: Api) -> None:
    async with api.client.get("/docs") as response:
        page = await response.text()
    lines = [html.unescape(text) for text in re.findall(r"<pre>(curl .*?)</pre>", page)]
    assert len(lines) == len(ROUTES)
    env = {**os.environ, "OKANE_URL": URL(api.url).authority, "OKANE_API_KEY": "sk_test_any"}
    for line in lines:
        command = line.replace("curl ", "curl -s -o /dev/null -w '%{http_code}' ", 1)
        process = await asyncio.create_subprocess_shell(command, env=env, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        # The payment, method, dispute, endpoint, event and provider of the examples do not exist.
        examples = (
            schemas.PAYMENT["id"],
            METHOD_ID,
            DISPUTE_ID,
            operation_schemas.OPERATION["id"],
            webhook_schemas.ENDPOINT_ID,
            webhook_schemas.EVENT_ID,
            "providers/stripe",
        )
        is_missing = any(f"/{one}" in line for one in examples) or f'"payment": "{schemas.PAYMENT["id"]}"' in line
        assert said.decode() in ({"404"} if is_missing else {"200", "201", "202", "207"}), line


async def test_the_page_begins_with_contents_and_how_to_send_a_key(api: Api) -> None:
    async with api.client.get("/docs") as response:
        head = (await response.text()).partition('<h3 id="')[0]
    for route in ROUTES:
        assert f'href="#{route.operation.name}"' in head
    assert "Authorization: Bearer" in head


async def test_the_page_has_all_of_it_and_needs_nothing_else(api: Api) -> None:
    async with api.client.get("/docs") as response:
        page = await response.text()
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not re.search(
        r"<script|<link|<img|https?://|@import|url\(", page.replace("https://shop.example", "")
    )  # of an example
    anchors = set(re.findall(r' id="([^"]+)"', page))
    named = {route.operation.name for route in ROUTES} | set(problem_codes.CODES)
    assert anchors == named | set(the_document()["components"]["schemas"])
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors
    assert all(page.count(f"<code>{code}</code>") > 1 for code in set(problem_codes.CODES) - problem_codes.NOWHERE)
