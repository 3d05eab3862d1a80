"""Renders the OpenAPI document as a page without scripts and external resources, readable without a network."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from okane.api.contract import curl
from okane.api.contract.problem_codes import ANYWHERE, CODES, Code

Json = Mapping[str, Any]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24;
  overflow-wrap: anywhere }
h2 { margin-top: 3rem; border-bottom: 1px solid #d8dee4 } h3 { margin-top: 2rem }
code, pre { font: 13px/1.5 ui-monospace, monospace; background: #f3f5f7; border-radius: 4px; padding: .1em .3em }
pre { padding: .8em; white-space: pre-wrap } nav ul { padding-left: 1.2rem }
b.method { color: #0b6bcb } a { color: #0b6bcb; text-decoration: none }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 }
td:first-child { width: 11rem } td:nth-child(2) { width: 14rem }
td { border-top: 1px solid #d8dee4; padding: .3em .8em .3em 0; vertical-align: top }
small { color: #59636e }
@media (max-width: 40rem) {
  table, tbody, tr, td, td:first-child, td:nth-child(2) { display: block; width: auto }
  td { border: 0; padding: .1em 0 } tr { border-top: 1px solid #d8dee4; padding: .4em 0 }
}
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #dde2e7 } code, pre { background: #23282d } h2, td, tr { border-color: #343b42 }
  a, b.method { color: #6cb2f5 } small { color: #98a2ac }
}
"""


def render(document: Json) -> str:
    """Return the page."""
    info = document["info"]
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_plain(info['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{_plain(info['title'])}</h1>{_text(info['description'])}",
        '<p>For machines: <a href="/v1/openapi.json">openapi.json</a></p>',
        _contents(document),
        f"<h2>Authentication</h2>{_text(_AUTHENTICATION)}<pre>{_plain(curl.SETUP)}</pre>",
        *_operations(document),
        f"<h2>Sent to webhook endpoints</h2>{_table(_sent(document))}",
        "<h2>Documents</h2>",
        *(_schema(name, schema) for name, schema in document["components"]["schemas"].items()),
        f"<h2>Problems</h2><p>Any request may meet {_codes(ANYWHERE)}.</p>",
        f"<table>{''.join(_problem(name, code) for name, code in CODES.items())}</table>",
    ]
    return "\n".join(parts) + "</html>\n"


_AUTHENTICATION = """\
A request carries an API key, as `Authorization: Bearer sk_…`, or as the user of HTTP Basic without a password \
(`curl -u "$OKANE_API_KEY:"`). `okane up` prints one, `okane keys create` makes others. A key sees the payments of its \
account, and may do what its scopes allow: `read`, `write`, `operate`, `webhooks`. A request without one is refused as \
`key_missing`, one with a wrong key as `key_invalid`, and one that its scopes do not cover as `scope_missing`. A server with \
`OKANE_AUTH=none`, on loopback only, asks for none.

The commands below run as they are, in a shell with the address of the server and a key:"""


def _contents(document: Json) -> str:
    """Return the table of contents."""
    lists = [(tag["name"], _links_of(document, tag["name"])) for tag in document["tags"]]
    documents = ", ".join(f'<a href="#{name}">{name}</a>' for name in document["components"]["schemas"])
    lists += [("Documents", documents), ("Problems", f'<a href="#{next(iter(CODES))}">all codes</a>')]
    written = "".join(f"<li>{_plain(name)}: {links}" for name, links in lists)
    return f"<nav><h2>Contents</h2><ul>{written}</ul></nav>"


def _links_of(document: Json, tag: str) -> str:
    links = [
        f'<a href="#{operation["operationId"]}">{method.upper()} {_plain(path)}</a>'
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    ]
    return f"<ul>{''.join(f'<li>{link}' for link in links)}</ul>"


def _operations(document: Json) -> Iterator[str]:
    for tag in document["tags"]:
        yield f"<h2>{_plain(tag['name'])}</h2>"
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if tag["name"] in operation["tags"]:
                    yield _operation(document, method.upper(), path, operation)


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    scopes = [scope for one in operation["security"][:1] for names in one.values() for scope in names]
    responses = operation["responses"].items()
    body = operation.get("requestBody", {"content": {}})["content"]
    takes = [(" or ".join(body), _type(next(iter(body.values()))["schema"]), "the body")] if body else []
    return "".join(
        (
            f'<h3 id="{operation["operationId"]}"><b class="method">{method}</b> <code>{_plain(path)}</code></h3>',
            f"<p>{_plain(operation['summary'])}. <small>{_scope(scopes)}</small></p>",
            _text(operation.get("description", "")),
            f"<pre>{_plain(curl.line(method, path, operation))}</pre>",
            _table([*(_parameter(_resolved(document, one)) for one in operation.get("parameters", ())), *takes]),
            _table(_answer(status, _resolved(document, one)) for status, one in responses if status < "400"),
            _refusals(_resolved(document, one) for status, one in responses if status >= "400"),
        )
    )


def _sent(document: Json) -> Iterator[tuple[str, str, str]]:
    for name, methods in document["webhooks"].items():
        operation = methods["post"]
        [content] = operation["requestBody"]["content"].values()
        yield name, _type(content["schema"]["allOf"][0]), _inline(operation["summary"])


def _scope(scopes: Sequence[str]) -> str:
    return f"Needs a key with the scope <code>{scopes[0]}</code>." if scopes else "Needs no key."


def _parameter(parameter: Json) -> tuple[str, str, str]:
    return parameter["name"], _type(parameter["schema"]), _inline(parameter.get("description", parameter["in"]))


def _answer(status: str, answer: Json) -> tuple[str, str, str]:
    content: Json = next(iter(answer.get("content", {}).values()), {})
    return status, _type(content.get("schema", {})), _inline(answer["description"])


def _refusals(answers: Iterator[Json]) -> str:
    """Return the problems of an operation's own: those of any request are listed once."""
    bodies = [next(iter(answer["content"].values())) for answer in answers]
    own = [code for body in bodies for code in body["examples"] if code not in ANYWHERE]
    return f'<p>Refuses with a <a href="#Problem">Problem</a>: {_codes(own)}.</p>' if own else ""


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f'<a href="#{name}"><code>{name}</code></a>' for name in names)


def _problem(name: str, code: Code) -> str:
    again = "Repeat it." if code.retryable else ""
    return f'<tr id="{name}"><td><code>{name}</code><td>{code.status.value}<td>{_inline(code.means)} {again}'


def _schema(name: str, schema: Json) -> str:
    needed = schema.get("required", ())
    rows = [
        (member if member in needed else f"{member}?", _type(one), _inline(one.get("description", "")))
        for member, one in schema.get("properties", {}).items()
    ]
    example = "".join(f"<pre>{_plain(json.dumps(one, indent=2))}</pre>" for one in schema.get("examples", ()))
    values = "" if rows else f"<p>{_type(schema)}</p>"
    return f'<h3 id="{name}">{name}</h3>{_text(schema.get("description", ""))}{_table(rows)}{values}{example}'


def _type(schema: Json) -> str:
    """Return the type of a schema in a few words."""
    match schema:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            return f'<a href="#{name}">{name}</a>'
        case {"anyOf": [*some]}:
            return " or ".join(map(_type, some))
        case {"enum": [*values]}:
            return " ".join(f"<code>{_plain(str(value))}</code>" for value in values)
        case {"const": value}:
            return f"<code>{_plain(str(value))}</code>"
        case {"type": "array", "items": items}:
            return f"list of {_type(items)}"
        case {"type": kind}:
            return " ".join((_plain(schema.get("format", kind)), *_bounds(schema)))
    return ""


def _bounds(schema: Json) -> Iterator[str]:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "maxLength": "up to"}
    for name, word in words.items():
        if name in schema:
            yield f"{word} {schema[name]:,}"


def _resolved(document: Json, one: Json) -> Json:
    """Return the part that a reference leads to, or the part itself."""
    if "$ref" not in one:
        return one
    _, _, kind, name = one["$ref"].split("/")
    found: Json = document["components"][kind][name]
    return found


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    """Return a table of names, types and meanings; the latter two are HTML already."""
    written = "".join(f"<tr><td><code>{_plain(name)}</code><td>{kind}<td>{means}" for name, kind, means in rows)
    return f"<table>{written}</table>" if written else ""


def _text(markdown: str) -> str:
    """Render the Markdown of descriptions: paragraphs and code."""
    return "".join(f"<p>{_inline(paragraph)}</p>" for paragraph in markdown.split("\n\n") if paragraph)


def _inline(markdown: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _plain(markdown))


def _plain(text: str) -> str:
    return html.escape(text)
