"""The kinds of panels. Each has a description: its meaning, and the remedy when it is red."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import heatmap as heatmap_models
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, AMBER, RED = "green", "orange", "red"
PER_S = "suffix:/s"  # of payments: Grafana's own units for rates name requests

# One meaning, one colour, on every panel.
COLOURS = {
    "success": GREEN,
    "failed_final": AMBER,
    "failed_retryable": "yellow",
    "unknown": "purple",
    "needs_review": RED,
    "pending": "light-blue",
    "processing": "blue",
    "requires_action": "semi-dark-yellow",
    "submitted": "dark-blue",
    "authorized": "light-green",
}

Panel = timeseries.Panel | stat.Panel | table.Panel | heatmap.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and the names of its series (`{{label}}` is replaced). `exemplars` shows traces as dots."""

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelText:
    """The title and the description of a panel."""

    title: str
    means: str
    do: str

    @property
    def description(self) -> str:
        return f"{self.means}\n\n**When it is red:** {self.do}"


def lines(
    text: PanelText,
    unit: str,
    *queries: Query,
    red: float | None = None,
    to_red: bool = False,
    width: int = 8,
    stacked: bool = False,
    colours: Mapping[str, str] = {},
) -> timeseries.Panel:
    """Return a panel of values over time, with a red background from `red` on. `to_red` makes the scale reach `red`, for
    values that are normally 0: with a scale that Grafana chooses for zeros, the whole panel would be red."""
    panel = (
        timeseries.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .min(0)
        .span(width)
        .height(8)
        .line_width(0 if stacked else 1)  # a line of zeros on top of the others would draw their sum in its colour
        .fill_opacity(60 if stacked else 8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            common_builders.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if red is not None:
        panel = panel.thresholds(_steps(None, red)).thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED_AND_AREA)
        )
    if red is not None and to_red:
        panel = panel.axis_soft_max(red)
    for name, colour in colours.items():
        panel = panel.override_by_name(name, [_property("color", {"mode": "fixed", "fixedColor": colour})])
    for number, query in enumerate(queries):
        panel = panel.with_target(_target(query, number))
    return panel


def number(
    text: PanelText,
    unit: str,
    query: Query,
    *,
    red: float | None = None,
    amber: float | None = None,
    red_below: bool = False,
    whole: bool = False,
    words_for: Mapping[int, str] = {},
    width: int = 4,
) -> stat.Panel:
    """Return a panel of the current value, with its past behind it. It is red from `red` on, or below it, and always green
    without `red`. `whole` hides the fractions of Prometheus' increase(); `words_for` has words for values."""
    panel = (
        stat.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .unit(unit)
        .span(width)
        .height(5)
        .thresholds(_steps_down(amber, red) if red_below else _steps(amber, red))
        .color_mode(common.BigValueColorMode.BACKGROUND)
        .graph_mode(common.BigValueGraphMode.AREA)
        .reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(_target(query, 0))
    )
    if whole:
        panel = panel.decimals(0)
    if words_for:
        meant = {str(value): ValueMappingResult(text=text) for value, text in words_for.items()}
        panel = panel.mappings([ValueMap(options=meant)])
    return panel


def heat(text: PanelText, unit: str, query: Query, *, width: int = 12) -> heatmap.Panel:
    """Return a heat map of the buckets of a histogram over time."""
    return (
        heatmap.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .calculate(False)
        .color(heatmap.HeatmapColorOptions().mode(heatmap_models.HeatmapColorMode.SCHEME).scheme("Blues").steps(32))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .unit(unit)
        .with_target(_target(query, 0, format_=PromQueryFormat.HEATMAP))
    )


def rows(
    text: PanelText, *columns: tuple[str, str, Query], by: str, hide: tuple[str, ...] = (), width: int = 24
) -> table.Panel:
    """Return a table of current values: a row for each value of the label `by`; columns are (name, unit, query)."""
    panel = (
        table.Panel()
        .title(text.title)
        .description(text.description)
        .datasource(SOURCE)
        .span(width)
        .height(8)
        .with_transformation(DataTransformerConfig(id_val="joinByField", options={"byField": by, "mode": "outer"}))
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {f"Time {at}": True for at in range(1, len(columns) + 1)}
                    | {"Time": True}
                    | dict.fromkeys(hide, True),
                    "renameByName": {f"Value #{_ref(at)}": name for at, (name, _, _) in enumerate(columns)},
                },
            )
        )
    )
    for at, (name, unit, query) in enumerate(columns):
        panel = panel.with_target(_target(query, at, format_=PromQueryFormat.TABLE, instant=True))
        panel = panel.override_by_name(name, [_property("unit", unit)])
    return panel


def _property(name: str, value: object) -> DynamicConfigValue:
    return DynamicConfigValue(id_val=name, value=value)


def _target(
    query: Query, number: int, *, format_: PromQueryFormat = PromQueryFormat.TIME_SERIES, instant: bool = False
) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(_ref(number)).format(format_).datasource(SOURCE)
    if query.legend:
        target = target.legend_format(query.legend)
    if query.exemplars:
        target = target.exemplar(True)
    return target.instant() if instant else target.range()


def _ref(number: int) -> str:
    return chr(ord("A") + number)


def _steps(amber: float | None, red: float | None) -> dashboards.ThresholdsConfig:
    return _thresholds(GREEN, (amber, AMBER), (red, RED))


def _steps_down(amber: float | None, red: float | None) -> dashboards.ThresholdsConfig:
    if amber is None:
        return _thresholds(RED, (red, GREEN))
    return _thresholds(RED, (red, AMBER), (amber, GREEN))


def _thresholds(lowest: str, *steps: tuple[float | None, str]) -> dashboards.ThresholdsConfig:
    above = [Threshold(value=value, color=color) for value, color in steps if value is not None]
    return (
        dashboards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(value=None, color=lowest), *above])
    )
