"""What the dashboards are made of: panels that query the provisioned Prometheus, and the frame around them.

Invariants: every panel has a title, a description that says how to read it, and a unit; every query names the
datasource that provisioning/datasources/prometheus.yml makes; the same code gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as parts
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.table import Options as TableOptions

DATASOURCE = parts.DataSourceRef(type_val="prometheus", uid="altlas-prometheus")
TAG = "altlas"
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
_ROW_STATS, _ROW_GRAPHS = 4, 8
_WIDE = 12

Panel: TypeAlias = "timeseries.Panel | stat.Panel | table.Panel"
P = TypeVar("P", timeseries.Panel, stat.Panel, table.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and what its series are called; an empty legend leaves that to Grafana."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading, from left to right; what does not fit 24 columns goes on below."""

    title: str
    panels: Sequence[Panel]


def steps(*limits: tuple[float, str], base: str = GREEN) -> dashboard.ThresholdsConfig:
    """Colours by value: `base`, and from each limit on the colour beside it."""
    colours = [parts.Threshold(value=None, color=base), *(parts.Threshold(value, colour) for value, colour in limits)]
    return dashboard.ThresholdsConfig().mode(parts.ThresholdsMode.ABSOLUTE).steps(colours)


def texts(words: Mapping[str, tuple[str, str]]) -> list[parts.ValueMapping]:
    """Words and colours instead of values."""
    return [
        parts.ValueMap(
            {
                value: parts.ValueMappingResult(text=text, color=colour, index=index)
                for index, (value, (text, colour)) in enumerate(words.items())
            }
        )
    ]


def graph(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> timeseries.Panel:
    """Lines over time."""
    panel = timeseries.Panel().line_width(1).fill_opacity(0).show_points(looks.VisibilityMode.AUTO)
    return (
        _filled(panel, title, description, unit, _targets(queries), span=span, height=_ROW_GRAPHS)
        .color_scheme(dashboard.FieldColor().mode(parts.FieldColorModeId.PALETTE_CLASSIC))
        .legend(_legend(span))
        .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    )


def stacked(title: str, description: str, unit: str, *queries: Query, span: int = 12) -> timeseries.Panel:
    """Areas over time, one on the other."""
    return (
        graph(title, description, unit, *queries, span=span)
        .fill_opacity(45)
        .stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
        .min(0)
    )


def shares(title: str, description: str, query: Query, span: int = 12) -> timeseries.Panel:
    """Areas over time, each as its share of all that the query gives."""
    share = Query(f"({query.expr}) / scalar(sum({query.expr}))", query.legend)
    return stacked(title, description, "percentunit", share, span=span).max(1)


def number(title: str, description: str, unit: str, *queries: Query, span: int = 4) -> stat.Panel:
    """The newest figure of each query; blue, since no value is good or bad unless the caller says which."""
    return (
        _filled(stat.Panel(), title, description, unit, _targets(queries), span=span, height=_ROW_STATS)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .graph_mode(looks.BigValueGraphMode.AREA)
        .color_mode(looks.BigValueColorMode.VALUE)
        .thresholds(steps(base=BLUE))
    )


def name_of(title: str, description: str, unit: str, query: Query, span: int = 4) -> stat.Panel:
    """The name of the one series that a query gives now, with its value beside it."""
    panel = number(title, description, unit, query, span=span)
    return (
        panel.targets([_target(query, "A").instant()])
        .text_mode(looks.BigValueTextMode.VALUE_AND_NAME)
        .graph_mode(looks.BigValueGraphMode.NONE)
    )


def rows(
    title: str,
    description: str,
    unit: str,
    columns: Mapping[str, str],
    *queries: Query,
    span: int = 24,
    height: int = _ROW_GRAPHS,
) -> table.Panel:
    """A table of what the queries give now, joined on the labels that they share.

    Args:
        title: of the panel.
        description: how to read it.
        unit: of the columns that have none of their own.
        columns: names of labels and of the queries' values ("Value #A"), in order, with their headings; all others
            are hidden.
        queries: A, B, C and so on.
        span: columns of the grid, of 24.
        height: rows of the grid.
    """
    targets = [target.instant().format(PromQueryFormat.TABLE) for target in _targets(queries)]
    panel = _filled(table.Panel(), title, description, unit, targets, span=span, height=height)
    for transformation in (
        # Before they are joined, which rows are only where all that the queries share is equal, time included.
        parts.DataTransformerConfig("filterFieldsByName", options={"include": {"names": list(columns)}}),
        parts.DataTransformerConfig("merge", options={}),
        parts.DataTransformerConfig(
            "organize",
            options={
                "indexByName": {name: index for index, name in enumerate(columns)},
                "renameByName": dict(columns),
                "excludeByName": {},
            },
        ),
    ):
        panel.with_transformation(transformation)
    return panel.cell_height(looks.TableCellHeight.SM).filterable(True)


def column(panel: table.Panel, heading: str, **properties: object) -> table.Panel:
    """Give one column of a table a unit, mappings or thresholds of its own."""
    return panel.override_by_name(
        heading, [parts.DynamicConfigValue(name, value) for name, value in properties.items()]
    )


def limit_line(panel: timeseries.Panel, legend: str) -> timeseries.Panel:
    """Draw a series as a dashed red line without an area: what the others should stay away from."""
    return panel.override_by_name(
        legend,
        [
            parts.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
            parts.DynamicConfigValue("custom.fillOpacity", 0),
            parts.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": RED}),
        ],
    )


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable whose values are those of a label; several may be chosen, and all are at first."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
        .refresh(parts.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(parts.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(parts.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def assemble(
    name: str, description: str, content: Sequence[Row], *variables: dashboard.QueryVariable
) -> parts.Dashboard:
    """Lay out a dashboard; its uid is `altlas-` and the name in lower case, and each panel's id its place."""
    frame = (
        dashboard.Dashboard(f"AltLAS / {name}")
        .uid(f"altlas-{name.lower()}")
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .tooltip(parts.DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("10s")
        .variables(list(variables))
        .link(dashboard.DashboardLink("AltLAS").type(parts.DashboardLinkType.DASHBOARDS).tags([TAG]).keep_time(True))
        .annotation(
            dashboard.AnnotationQuery()
            .name("Alerts that fire")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(RED)
            .expr('ALERTS{alertstate="firing", alertname=~"Altlas.+"}')
        )
    )
    identity = 0
    for row in content:
        identity += 1
        frame.with_row(dashboard.Row(row.title).id(identity))
        for panel in row.panels:
            identity += 1
            frame.with_panel(panel.id(identity))
    return _without_leftovers(frame.build())


def _without_leftovers(built: parts.Dashboard) -> parts.Dashboard:
    """Leave out defaults of the SDK that the schema of Grafana 12 knows nothing of."""
    for variable in (built.templating and built.templating.list_val) or ():
        variable.auto = variable.auto_min = variable.auto_count = None  # those of an interval
    for panel in built.panels or ():
        if isinstance(panel, parts.Panel) and isinstance(panel.options, TableOptions):
            panel.options.footer = None
    return built


def _legend(span: int) -> common.VizLegendOptions:
    """A wide panel has room for the newest values beside it; a narrow one shows names below."""
    legend = common.VizLegendOptions().show_legend(True)
    if span < _WIDE:
        return legend.display_mode(looks.LegendDisplayMode.LIST).placement(looks.LegendPlacement.BOTTOM).calcs([])
    table_of = legend.display_mode(looks.LegendDisplayMode.TABLE).placement(looks.LegendPlacement.RIGHT)
    return table_of.calcs(["lastNotNull"])


def _filled(
    panel: P,
    title: str,
    description: str,
    unit: str,
    targets: Sequence[prometheus.Dataquery],
    *,
    span: int,
    height: int,
) -> P:
    return (
        panel.title(title)
        .description(description)
        .unit(unit)
        .datasource(DATASOURCE)
        .targets(list(targets))
        .span(span)
        .height(height)
    )


def _targets(queries: Sequence[Query]) -> list[prometheus.Dataquery]:
    return [_target(query, chr(ord("A") + index)) for index, query in enumerate(queries)]


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(ref_id).datasource(DATASOURCE).range()
    return target.legend_format(query.legend or "__auto")
