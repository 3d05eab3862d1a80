"""The tables of the documents are complete: every setting with its default, every problem code, every line of the log."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import get_args

from okane.api.contract.problem_codes import CODES
from okane.config import Settings
from okane.errors import RefusalCode
from tests.docs.tables import OPERATIONS, ROOT, _section, _setting, setting_names, table_names

ERRORS = (ROOT / "docs" / "errors.md").read_text()


def _calls(folder: Path, names: set[str]) -> Iterator[str]:
    """Yield the first string argument of every call of these functions or methods."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if called in names and texts:
                yield texts[0]


def _problems(folder: Path) -> Iterator[ast.Call]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"Problem", "malformed"}:
                yield node


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", _section(OPERATIONS, "Settings"), re.MULTILINE))
    assert set(rows) == setting_names()
    documented = {field: default for field in Settings.model_fields if (default := rows[_setting(field)])}
    settings = Settings.model_validate(documented)
    for field, info in Settings.model_fields.items():
        assert getattr(settings, field) == info.default, _setting(field)
        assert (field in documented) == (info.default is not None), _setting(field)


def test_every_problem_code_stands_in_the_table() -> None:
    codes = set(_calls(ROOT / "okane" / "api", {"Problem", "malformed"}))
    assert len(codes) > 20
    aiohttps = {"route_not_found", "method_not_allowed", "body_too_large", "expectation_failed"}
    assert set(CODES) == codes | aiohttps | set(get_args(RefusalCode))
    documented = {
        (code, int(status), {"yes": True, "no": False}[retryable])
        for status, named, retryable in re.findall(r"^\| (\d+) \| ([^|]+) \| (\w+) \|", ERRORS, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", named)
    }
    assert documented == {(name, code.status.value, code.retryable) for name, code in CODES.items()}


def test_codes_are_documented_with_the_status_they_are_raised_with() -> None:
    checked = 0
    for call in _problems(ROOT / "okane" / "api"):
        match call.args:
            case [ast.Attribute(attr=status), ast.Constant(value=str(name)), *_]:
                retryable = any(keyword.arg == "retryable" for keyword in call.keywords)
                assert (CODES[name].status, CODES[name].retryable) == (getattr(HTTPStatus, status), retryable), name
                checked += 1
            case [ast.Constant(value=str(name)), *_]:  # malformed
                assert (CODES[name].status, CODES[name].retryable) == (HTTPStatus.BAD_REQUEST, False), name
                checked += 1
    assert checked > 30


def test_every_warning_and_error_of_the_log_stands_in_the_table() -> None:
    """Compare the events of the processes that an operator runs, with `…` for the parts that differ."""
    levels = {"warning", "error", "exception"}
    folders = [ROOT / "streams", *(ROOT / "okane" / name for name in ("api", "intake", "worker", "store", "providers"))]
    events = {line for folder in folders for line in _calls(folder, levels)}
    events |= {line for line in _calls(ROOT / "okane", levels) if re.fullmatch(r"[a-z]+(_[a-z]+)+", line)}
    assert len(events) > 20
    lines = {re.sub(r"%(\.\d)?[a-z]", "…", line).replace("%r", "…") for line in events}
    assert lines <= table_names(OPERATIONS, "Lines of the log")
