"""The dashboards are those that the code generates, show every metric, and query only series that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grafana.__main__ import generated_files
from grafana.metrics_page import families, registries
from tests.grafana.boards import FILES, GRAFANA, Panel, marks, panels, read, variables, variables_in

PANELS = [panel for file in FILES for panel in panels(file)]
# On no dashboard: of no use to an operator, or of use to an alert alone (with one table it is +Inf).
UNSHOWN = {"process_virtual_memory_bytes", "okane_partitions_ahead_seconds"}
BY_GRAFANA = {"__rate_interval"}
_WORD = re.compile(r"(?<![\w\"=~|{,.-])(?:\$\{prefix\}|okane|process|job|job_status)[_:][\w:]+")


@pytest.mark.parametrize("path", generated_files(), ids=lambda path: path.name)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert path.read_text() == generated_files()[path], "run python -m grafana"


def test_every_dashboard_is_generated() -> None:
    assert set(FILES) == {path for path in generated_files() if path.suffix == ".json"}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_every_panel_has_its_meaning_and_a_remedy(panel: Panel) -> None:
    means, _, do = panel.description.partition("**When it is red:**")
    assert len(means.strip()) > 20
    assert len(do.strip()) > 20
    assert panel.unit
    assert panel.sources == {"${datasource}"}
    assert panel.queries


def names() -> dict[str, str]:
    """Return every series that may exist, with its metric."""
    found: dict[str, str] = {}
    for registry in registries():
        for name, kind, _labels, _meaning in families(registry):
            series = [f"{name}_{part}" for part in ("bucket", "sum", "count")] if kind == "histogram" else [name]
            found |= dict.fromkeys(series, name)
    return found


def series_in(query: str) -> set[str]:
    return {word.replace("${prefix}", "okane") for word in _WORD.findall(query)}


@pytest.mark.parametrize("panel", PANELS, ids=str)
def test_every_query_reads_series_that_exist(panel: Panel) -> None:
    recorded = set(re.findall(r"record: (\S+)", (GRAFANA / "prometheus" / "rules.yml").read_text()))
    for query in panel.queries:
        queried = series_in(query)
        assert queried or query.startswith(("sum(up{", "max by (process, role, instance) (up{")), query
        assert queried <= names().keys() | recorded


def test_every_metric_is_shown_somewhere() -> None:
    known = names()
    queries = [query for panel in PANELS for query in panel.queries]
    queries += [query for file in FILES for query in marks(file).values()]
    shown = {known[word] for query in queries for word in series_in(query) if word in known}
    assert set(known.values()) - shown == UNSHOWN


def test_every_histogram_with_exemplars_shows_them() -> None:
    with_exemplars = {word for panel in PANELS for query in panel.exemplars for word in series_in(query)}
    assert with_exemplars == {
        f"okane_{name}_seconds_bucket"
        for name in ("http_request", "payment_settle", "provider_call", "message_wait", "handler")
    }


def test_rules_read_series_that_exist() -> None:
    rules = (GRAFANA / "prometheus" / "rules.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    queried = set(re.findall(r"\bokane_\w+(?=[{\[)\s])", rules)) | set(
        re.findall(r"\b(?:job|job_status):\w+:\w+", rules)
    )
    assert queried
    assert queried <= names().keys() | recorded


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_variable_exists_and_is_used(file: Path) -> None:
    known = variables(file)
    queries = [query for panel in panels(file) for query in panel.queries] + list(marks(file).values())
    queried = set().union(*map(variables_in, queries)) - BY_GRAFANA
    for variable in known.values():
        query = variable.get("query")
        queried |= variables_in(query["query"] if isinstance(query, dict) else "")
    assert queried | {"datasource"} == set(known)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_panels_do_not_overlap(file: Path) -> None:
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
