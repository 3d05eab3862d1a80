"""A dashboard: rows of panels, with the variables, links and annotations that all dashboards share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.panels import SOURCE, Panel

TAG = "okane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable at the top of a dashboard. `values` is a `label_values(metric, label)`, or a list of words."""

    name: str
    label: str
    values: str
    several: bool = False

    @property
    def from_prometheus(self) -> bool:
        return self.values.startswith("label_values(")


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard. `uid` is also the name of its file."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]

    def to_json(self) -> str:
        """Return the JSON that Grafana reads."""
        dashboard = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG])
            .readonly()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .time("now-1h", "now")
            .refresh("30s")
            .timezone("browser")
            .link(
                builders.DashboardLink("okane")
                .type(DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .include_vars(True)
                .keep_time(True)
            )
            .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .annotation(
                builders.AnnotationQuery()
                .name("Starts of processes")
                .datasource(SOURCE)
                .enable(True)
                .icon_color("blue")
                .expr('time() - process_start_time_seconds{job="$job"} < 60')
            )
        )
        for variable in self.variables:
            dashboard = dashboard.with_variable(_variable(variable))
        for row in self.rows:
            dashboard = dashboard.with_row(builders.Row(row.title))
            for panel in row.panels:
                dashboard = dashboard.with_panel(panel)
        built = dashboard.build()
        for number, placed in enumerate(built.panels or (), start=1):
            placed.id_val = number  # links to a panel name its id
        return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variable(variable: Variable) -> builders.QueryVariable | builders.CustomVariable:
    if not variable.from_prometheus:
        first = variable.values.split(",")[0]
        return (
            builders.CustomVariable(variable.name)
            .label(variable.label)
            .values(variable.values)
            .current(VariableOption(selected=True, text=first, value=first))
        )
    built = (
        builders.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(SOURCE)
        .query({"query": variable.values, "refId": variable.name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )
    if variable.several:
        everything = VariableOption(selected=True, text=["All"], value=["$__all"])
        built = built.multi(True).include_all(True).all_value(".*").current(everything)
    return built
