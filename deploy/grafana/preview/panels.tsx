// A dashboard drawn with Grafana's own components, from what take.py has asked Prometheus.
import {
  applyFieldOverrides,
  createTheme,
  dateTime,
  FieldConfigOptionsRegistry,
  FieldType,
  getFieldDisplayValues,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  toDataFrame,
  transformDataFrame,
} from '@grafana/data';
import { BigValue, PanelChrome, Table, TimeSeries } from '@grafana/ui';
import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import data from './data.json';

const WIDTH = 1600, ROW = 38, GAP = 8;
const theme = createTheme({ colors: { mode: 'dark' } });
const [from, to] = [Math.round(data.from), Math.round(data.to)];
const timeRange: any = { from: dateTime(from * 1000), to: dateTime(to * 1000), raw: { from: 'now-1h', to: 'now' } };
const unchanged = (text: string) => text;

standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((one: any) => [one.id, one])).values()].map(
    (one) => ({ id: one.id, name: one.name, transformation: one, editor: () => null }) as any
  )
);

// What a panel's plugin declares and sets by itself.
const TIME_SERIES = { drawStyle: 'line', lineInterpolation: 'linear', axisPlacement: 'auto', spanNulls: false };
const STANDARD = ['unit', 'min', 'max', 'decimals', 'color', 'thresholds', 'mappings', 'noValue'];
const CUSTOM = ['lineWidth', 'lineStyle', 'fillOpacity', 'showPoints', 'stacking', 'axisSoftMax', 'cellOptions'];
const registry = new FieldConfigOptionsRegistry();
for (const id of [...STANDARD, ...[...CUSTOM, ...Object.keys(TIME_SERIES)].map((id) => `custom.${id}`)]) {
  const path = id.replace('custom.', '');
  const property = { id, path, name: id, isCustom: path !== id, process: (value: unknown) => value, shouldApply: () => true };
  registry.register(property as any);
}

function withDefaults({ type, fieldConfig }: any) {
  const custom = { ...(type === 'timeseries' ? TIME_SERIES : {}), ...fieldConfig.defaults.custom };
  return { ...fieldConfig, defaults: { ...fieldConfig.defaults, custom } };
}

function tableFrame(target: any, series: any[], isAlone: boolean) {
  const labels = [...new Set(series.flatMap((one) => Object.keys(one.metric)))].sort();
  const strings = labels.map((name) => ({ name, type: FieldType.string, values: series.map((one) => one.metric[name] ?? '') }));
  const name = isAlone ? 'Value' : `Value #${target.refId}`;
  const time = { name: 'Time', type: FieldType.time, values: series.map((one) => one.value[0] * 1000) };
  return toDataFrame({ fields: [time, ...strings, { name, type: FieldType.number, values: series.map((one) => +one.value[1]) }] });
}

function seriesFrame(target: any, { metric, values, value }: any) {
  const known = new Map((values ?? [value]).map(([time, number]: any) => [Math.round(time), +number]));
  const times = values ? Array.from({ length: to - from + 1 }, (_, second) => from + second) : [...known.keys()];
  const displayNameFromDS = target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_: string, label: string) => metric[label] ?? '');
  const numbers = times.map((time) => known.get(time) ?? null);
  return toDataFrame({
    fields: [
      { name: 'Time', type: FieldType.time, values: times.map((time: any) => time * 1000) },
      { name: 'Value', type: FieldType.number, labels: metric, config: { displayNameFromDS }, values: numbers },
    ],
  });
}

async function framesOf(panel: any, answers: any[]) {
  const frames = answers.flatMap(({ target, series }) =>
    target.format === 'table'
      ? [tableFrame(target, series, answers.length === 1)]
      : series.map((one: any) => seriesFrame(target, one))
  );
  const shaped = panel.transformations
    ? await lastValueFrom(transformDataFrame(panel.transformations, frames, { interpolate: unchanged }))
    : frames;
  const fieldConfig = withDefaults(panel);
  return applyFieldOverrides({ data: shaped, fieldConfig, fieldConfigRegistry: registry, replaceVariables: unchanged, theme });
}

function Body({ panel, frames, width, height }: any) {
  const { options, type } = panel;
  const common: any = { width, height };
  if (!frames.length) return <p>No data</p>;
  if (type === 'table') return <Table {...common} data={frames[0]} cellHeight={options.cellHeight} />;
  if (type === 'timeseries') {
    const plot: any = { ...common, frames, timeRange, timeZone: 'browser', legend: options.legend, options, structureRev: 1 };
    return <TimeSeries {...plot} replaceVariables={unchanged}>{() => null}</TimeSeries>;
  }
  const asked: any = { data: frames, fieldConfig: panel.fieldConfig, reduceOptions: options.reduceOptions, theme };
  const values = getFieldDisplayValues({ ...asked, replaceVariables: unchanged, sparkline: options.graphMode !== 'none' });
  const textMode = options.textMode === 'auto' && values.length === 1 ? 'value' : options.textMode;
  return (
    <div style={{ display: 'flex' }}>
      {values.map(({ display, sparkline }: any, index) => (
        <BigValue key={index} {...common} {...options} theme={theme} value={display} sparkline={sparkline}
          width={width / values.length} count={values.length} textMode={textMode} />
      ))}
    </div>
  );
}

async function draw() {
  const { board, answers } = (data.boards as any)[location.hash.slice(1)];
  const drawn = board.panels.map(async (panel: any) => {
    const { x, y, w, h } = panel.gridPos;
    const [width, height] = [(w * WIDTH) / 24 - GAP, h * ROW - GAP];
    const style: React.CSSProperties = { position: 'absolute', left: (x * WIDTH) / 24, top: y * ROW, width, height };
    if (panel.type === 'row') return <h2 key={panel.id} style={style}>{panel.title}</h2>;
    const frames = await framesOf(panel, answers[panel.id]);
    return (
      <div key={panel.id} style={style}>
        <PanelChrome title={panel.title} description={panel.description} width={width} height={height}>
          {(innerWidth, innerHeight) => <Body panel={panel} frames={frames} width={innerWidth} height={innerHeight} />}
        </PanelChrome>
      </div>
    );
  });
  const root = createRoot(document.getElementById('root')!);
  root.render(<ThemeContext.Provider value={theme}>{await Promise.all(drawn)}</ThemeContext.Provider>);
}

draw().catch((error) => (document.body.innerText = error.stack));
