// A dashboard as deploy/grafana makes it: the types of @grafana/schema, with what depends on a panel's plugin filled in.
// dashboard.schema.json is made from this: see docs/dashboards.md.
import type { DataQuery, GraphFieldConfig, TableFieldOptions } from '@grafana/schema';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';
import type {
  AnnotationQuery,
  Dashboard,
  FieldConfig,
  Panel,
  RowPanel,
} from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';

interface PrometheusQuery extends Omit<DataQuery, 'datasource'> {
  datasource: { type: 'prometheus'; uid: string };
  expr: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  legendFormat?: string;
  range?: boolean;
}

type PanelOf<Type, Options, Custom> = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  options: Partial<Options>;
  targets: PrometheusQuery[];
  fieldConfig: {
    defaults: Omit<FieldConfig, 'custom'> & { custom?: Partial<Custom> };
    overrides: Array<{ matcher: { id: string; options?: unknown }; properties: Array<{ id: string; value?: unknown }> }>;
  };
};

export type AltlasDashboard = Omit<Dashboard, 'annotations' | 'panels'> & {
  annotations: { list: Array<AnnotationQuery & { expr: string }> };
  panels: Array<
    RowPanel | PanelOf<'stat', Stat, {}> | PanelOf<'table', Table, TableFieldOptions> | PanelOf<'timeseries', TimeSeries, GraphFieldConfig>
  >;
};
