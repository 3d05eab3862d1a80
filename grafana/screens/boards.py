"""A dashboard with its data: the JSON is read as Grafana reads it, and the queries are sent to Prometheus."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana.screens.prometheus import Prometheus, QueryError, Series, Span

_VARIABLE = re.compile(r"\$\{?(\w+)\}?")
_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a panel, in units of the grid: 24 to the width."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True, slots=True)
class Named:
    """A series under the name that the legend gives it; `column` is its query's, in a table."""

    name: str
    series: Series
    column: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel with the data of its queries. `steps` are its thresholds: from this value on, this colour. `words` replace
    values, `colours` belong to names of series."""

    kind: str
    title: str
    place: Place
    unit: str
    units: Mapping[str, str]  # of the columns of a table
    steps: Sequence[tuple[float, str]]
    stacked: bool
    soft_max: float
    whole: bool
    words: Mapping[float, str]
    colours: Mapping[str, str]
    by: str  # the label that the rows of a table go by
    answers: Sequence[Named]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A dashboard with its data. `marks` are the series of its annotations."""

    uid: str
    title: str
    chosen: Mapping[str, str]
    panels: Sequence[Panel]
    marks: Sequence[Series]
    span: Span


def read(file: Path) -> Mapping[str, Any]:
    board: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return board


async def fetch_board(prometheus: Prometheus, board: Mapping[str, Any], span: Span) -> Board:
    """Fetch the data of a dashboard, with its variables as Grafana opens it."""
    chosen = await _choose(prometheus, board, span)
    values = {**chosen, "__rate_interval": f"{span.rate_s:g}s"}
    panels = await asyncio.gather(*(_panel(prometheus, one, values, span) for one in board["panels"]))
    marks = [
        series
        for one in board["annotations"]["list"]
        for series in await prometheus.over(span, substitute(one["expr"], values))
    ]
    return Board(uid=board["uid"], title=board["title"], chosen=chosen, panels=panels, marks=marks, span=span)


async def _choose(prometheus: Prometheus, board: Mapping[str, Any], span: Span) -> dict[str, str]:
    """Return the first value of each variable, or all of them where it takes several."""
    chosen: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        match variable["type"]:
            case "custom":
                chosen[variable["name"]] = variable["query"].split(",")[0]
            case "query":
                query = substitute(variable["query"]["query"], chosen)
                selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(",")
                found = await prometheus.label_values(selector.strip(), label.strip(), span)
                if not found:
                    raise QueryError(f"{board['title']}: no value to choose for {variable['name']}: {query}")
                chosen[variable["name"]] = variable["allValue"] if variable["includeAll"] else found[0]
    return chosen


async def _panel(prometheus: Prometheus, raw: Mapping[str, Any], values: Mapping[str, str], span: Span) -> Panel:
    fields = raw.get("fieldConfig", {"defaults": {}, "overrides": []})
    defaults = fields["defaults"]
    custom = defaults.get("custom", {})
    columns, by = _columns(raw)
    answers = [
        named
        for target in raw.get("targets", ())
        for named in await _answers(prometheus, target, values, span, columns)
    ]
    steps = defaults.get("thresholds", {}).get("steps", ())
    return Panel(
        kind=raw["type"],
        title=raw["title"],
        place=Place(**{name: raw["gridPos"][name] for name in "xywh"}),
        unit=defaults.get("unit", "short"),
        units=dict(_overridden(fields["overrides"], "unit")),
        steps=[(float("-inf") if step["value"] is None else step["value"], step["color"]) for step in steps],
        stacked=custom.get("stacking", {}).get("mode") == "normal",
        soft_max=custom.get("axisSoftMax", 0.0),
        whole=defaults.get("decimals") == 0,
        words={
            float(value): meant["text"]
            for mapping in defaults.get("mappings", ())
            for value, meant in mapping["options"].items()
        },
        colours={name: one["fixedColor"] for name, one in _overridden(fields["overrides"], "color")},
        by=by,
        answers=answers,
    )


async def _answers(
    prometheus: Prometheus, target: Mapping[str, Any], values: Mapping[str, str], span: Span, columns: Mapping[str, str]
) -> list[Named]:
    query = substitute(target["expr"], values)
    asked = prometheus.at(span.to_s, query) if target["instant"] else prometheus.over(span, query)
    column = columns.get(target["refId"], "")
    return [Named(_name(target, one.labels), one, column) for one in await asked]


def _name(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    legend = target.get("legendFormat") or ", ".join(labels.values())
    return _LABEL.sub(lambda found: labels.get(found[1], ""), legend).strip()


def _columns(raw: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Return the column name of each query of a table, and the label that joins them."""
    columns: dict[str, str] = {}
    by = ""
    for transformation in raw.get("transformations", ()):
        options = transformation["options"]
        by = options.get("byField", by)
        names = options.get("renameByName", {})
        columns |= {value.removeprefix("Value #"): name for value, name in names.items()}
    return columns, by


def _overridden(overrides: Sequence[Mapping[str, Any]], what: str) -> Iterator[tuple[str, Any]]:
    """Yield the names that override a property, with its value."""
    for override in overrides:
        for one in override["properties"]:
            if one["id"] == what:
                yield override["matcher"]["options"], one["value"]


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Return the text with its variables replaced."""
    return _VARIABLE.sub(lambda found: values[found[1]], text)
