"""The dashboards are what the code makes, complete, and ask for nothing that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grafana.__main__ import written
from grafana.metrics_page import families, registries
from tests.grafana.boards import FILES, GRAFANA, Panel, marks, panels, read, used, variables

PANELS = [panel for file in FILES for panel in panels(file)]
# Shown by nobody: of no use to an operator.
UNSHOWN = {"process_virtual_memory_bytes"}
BY_GRAFANA = {"__rate_interval"}
_WORD = re.compile(r"(?<![\w\"=~|{,.-])(?:\$\{prefix\}|okane|process|job|job_status)[_:][\w:]+")


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_what_is_made_of_code_is_as_the_code_makes_it(path: Path) -> None:
    assert path.read_text() == written()[path], "run python -m grafana"


def test_nothing_else_lies_among_them() -> None:
    assert set(FILES) == {path for path in written() if path.suffix == ".json"}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_every_panel_says_what_it_shows_and_what_to_do(panel: Panel) -> None:
    means, _, do = panel.description.partition("**When it is red:**")
    assert len(means.strip()) > 20
    assert len(do.strip()) > 20
    assert panel.unit
    assert panel.sources == {"${datasource}"}
    assert panel.queries


def names() -> dict[str, str]:
    """Every series there may be, with the metric it belongs to."""
    found: dict[str, str] = {}
    for registry in registries():
        for name, kind, _labels, _meaning in families(registry):
            series = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
            found |= dict.fromkeys(series, name)
    return found


def series_in(query: str) -> set[str]:
    return {word.replace("${prefix}", "okane") for word in _WORD.findall(query)}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_every_query_asks_for_what_there_is(panel: Panel) -> None:
    recorded = set(re.findall(r"record: (\S+)", (GRAFANA / "prometheus" / "rules.yml").read_text()))
    for query in panel.queries:
        asked = series_in(query)
        assert asked or query.startswith(("sum(up{", "max by (process, role, instance) (up{")), query
        assert asked <= names().keys() | recorded


def test_every_metric_is_shown_somewhere() -> None:
    known = names()
    queries = [query for panel in PANELS for query in panel.queries]
    queries += [query for file in FILES for query in marks(file).values()]
    shown = {known[word] for query in queries for word in series_in(query) if word in known}
    assert set(known.values()) - shown == UNSHOWN


def test_every_time_that_names_traces_shows_them() -> None:
    with_exemplars = {word for panel in PANELS for query in panel.exemplars for word in series_in(query)}
    assert with_exemplars == {
        f"okane_{name}_seconds_bucket"
        for name in ("http_request", "payment_settle", "provider_call", "message_wait", "handler")
    }


def test_rules_ask_for_what_there_is() -> None:
    rules = (GRAFANA / "prometheus" / "rules.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    asked = set(re.findall(r"\bokane_\w+(?=[{\[)\s])", rules)) | set(re.findall(r"\b(?:job|job_status):\w+:\w+", rules))
    assert asked
    assert asked <= names().keys() | recorded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variable_is_there_and_used(file: Path) -> None:
    known = variables(file)
    queries = [query for panel in panels(file) for query in panel.queries] + list(marks(file).values())
    asked = set().union(*map(used, queries)) - BY_GRAFANA
    for variable in known.values():
        query = variable.get("query")
        asked |= used(query["query"] if isinstance(query, dict) else "")
    assert asked | {"datasource"} == set(known)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_lie_beside_each_other(file: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in read(file)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) is panel["title"]


def test_dashboards_lead_to_each_other() -> None:
    boards = [read(file) for file in FILES]
    assert len({board["uid"] for board in boards}) == len(boards)
    for board in boards:
        [link] = board["links"]
        assert link["type"] == "dashboards"
        assert link["keepTime"]
        assert link["includeVars"]
        assert set(link["tags"]) <= set(board["tags"])
