"""The dashboards as Grafana reads them: panels, their queries, and the variables to choose first."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAFANA = Path(__file__).resolve().parents[2] / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel. `board` is the name of its file."""

    board: str
    row: str
    title: str
    type: str
    description: str
    unit: str
    sources: frozenset[str]
    queries: tuple[str, ...]
    exemplars: tuple[str, ...]  # the queries with exemplars

    def __str__(self) -> str:
        return f"{self.board}: {self.row}: {self.title}"


def read(file: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(file.read_text())
    return board


def panels(file: Path) -> Iterator[Panel]:
    """Yield the panels of a dashboard in order, without its rows."""
    row = ""
    for one in read(file)["panels"]:
        if one["type"] == "row":
            row = one["title"]
            continue
        yield Panel(
            board=file.stem,
            row=row,
            title=one["title"],
            type=one["type"],
            description=one.get("description", ""),
            unit=_unit(one),
            sources=frozenset(each["datasource"]["uid"] for each in (one, *one["targets"])),
            queries=tuple(target["expr"] for target in one["targets"]),
            exemplars=tuple(target["expr"] for target in one["targets"] if target.get("exemplar")),
        )


def _unit(panel: Mapping[str, Any]) -> str:
    """Return the unit of a panel; for a table those of its columns."""
    config = panel["fieldConfig"]
    columns = [
        one["value"] for override in config["overrides"] for one in override["properties"] if one["id"] == "unit"
    ]
    return str(config["defaults"].get("unit") or " ".join(columns))


def variables(file: Path) -> Mapping[str, dict[str, Any]]:
    return {one["name"]: one for one in read(file)["templating"]["list"]}


def marks(file: Path) -> Mapping[str, str]:
    """Return the queries of its annotations, by name."""
    return {one["name"]: one["expr"] for one in read(file)["annotations"]["list"]}


def variables_in(query: str) -> set[str]:
    """Return the names of the variables in a query."""
    return set(_VARIABLE.findall(query))


def substitute(query: str, values: Mapping[str, str]) -> str:
    """Return the query with its variables replaced, as Grafana does it."""
    return _VARIABLE.sub(lambda found: values[found[1]], query)
