// Bundles panels.tsx with data.json into one page, out/index.html#learning.
import { build } from 'esbuild';
import { mkdirSync, readFileSync, writeFileSync } from 'fs';

// Its module has a form that the bundler does not take; a picture needs no scroll bars.
const scrollbars = `import React from 'react';
export class Scrollbars extends React.Component {
  render() { return React.createElement('div', { style: { height: '100%', ...this.props.style } }, this.props.children); }
}
export default Scrollbars;`;
const plugin = {
  name: 'scrollbars',
  setup(bundle) {
    bundle.onResolve({ filter: /^react-custom-scrollbars-2$/ }, () => ({ path: 'scrollbars', namespace: 'ours' }));
    bundle.onLoad({ filter: /./, namespace: 'ours' }, () => ({ contents: scrollbars, resolveDir: process.cwd() }));
  },
};
const inlined = ['.svg', '.ttf', '.woff2', '.png', '.gif'].map((extension) => [extension, 'dataurl']);
await build({
  entryPoints: ['panels.tsx'],
  bundle: true,
  outfile: 'out/panels.js',
  plugins: [plugin],
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { ...Object.fromEntries(inlined), '.css': 'empty' },
  mainFields: ['module', 'browser', 'main'],
  logLevel: 'error',
});
mkdirSync('out', { recursive: true });
const plots = readFileSync('node_modules/uplot/dist/uPlot.min.css', 'utf8');
const page = '*{box-sizing:border-box} body{background:#111217;margin:0;color:#ccccdc;font:13px sans-serif} '
  + 'button{background:none;border:0;color:#ccccdc;font:inherit;padding:0} table{font-size:13px} h2,h6{margin:0}';
writeFileSync(
  'out/index.html',
  `<!doctype html><meta charset="utf-8"><style>${plots}${page}</style><div id="root"></div><script src="panels.js"></script>`,
);
