// What a script finds beside the language itself, in the manner of Node: console, print, readline, require('fs') for
// its input, process, setTimeout. `write`, `writeNul`, `readInput` and `exit` are the launcher's; they are hidden from
// the script.
'use strict';
(() => {
  const { write: writeText, writeNul, readInput, exit } = globalThis;
  // Text is cut at a NUL on its way to Python.
  const write = (stream, text) => {
    const parts = text.toWellFormed().split('\0');
    writeText(stream, parts[0]);
    for (let i = 1; i < parts.length; i++) { writeNul(stream); writeText(stream, parts[i]); }
  };
  for (const name of ['write', 'writeNul', 'readInput', 'exit']) delete globalThis[name];

  const quote = (text) => "'" + text.replace(/[\\']/g, '\\$&').replace(/\n/g, '\\n') + "'";
  const isName = (key) => /^[A-Za-z_$][\w$]*$/.test(key);
  function inspect(value, depth, seen) {
    if (typeof value === 'string') return depth ? quote(value) : value;
    if (typeof value === 'bigint') return value + 'n';
    if (typeof value === 'symbol') return value.toString();
    if (typeof value === 'function') return value.name ? `[Function: ${value.name}]` : '[Function (anonymous)]';
    if (Object.is(value, -0)) return '-0';
    if (value === null || typeof value !== 'object') return String(value);
    if (value instanceof Error) return `${value}\n${value.stack}`.trimEnd();
    if (value instanceof Date) return value.toISOString();
    if (value instanceof RegExp) return String(value);
    if (seen.includes(value)) return '[Circular]';
    if (depth > 2) return Array.isArray(value) ? '[Array]' : '[Object]';
    const inside = (item) => inspect(item, depth + 1, [...seen, value]);
    const braces = (name, open, items, close) => `${name}${open}${items.length ? ` ${items.join(', ')} ` : ''}${close}`;
    if (Array.isArray(value)) return braces('', '[', Array.from(value, inside), ']');
    if (value instanceof Set) return braces(`Set(${value.size}) `, '{', [...value].map(inside), '}');
    if (value instanceof Map) {
      return braces(`Map(${value.size}) `, '{', [...value].map(([key, item]) => `${inside(key)} => ${inside(item)}`), '}');
    }
    const name = value.constructor && value.constructor !== Object ? `${value.constructor.name} ` : '';
    const entries = Object.entries(value).map(([key, item]) => `${isName(key) ? key : quote(key)}: ${inside(item)}`);
    return braces(name, '{', entries, '}');
  }
  const line = (items) => items.map((item) => inspect(item, 0, [])).join(' ') + '\n';
  const toStdout = (...items) => { write(1, line(items)); };
  const toStderr = (...items) => { write(2, line(items)); };

  let input = null;
  let position = 0;
  const all = () => (input === null ? (input = readInput()) : input);
  function readline() {
    if (position >= all().length) return null;
    const end = input.indexOf('\n', position);
    const found = input.slice(position, end < 0 ? undefined : end);
    position = end < 0 ? input.length : end + 1;
    return found;
  }
  function readFileSync(file) {
    if (file !== 0 && file !== '/dev/stdin') throw new Error(`EACCES: permission denied, open '${file}'`);
    const rest = all().slice(position);
    position = input.length;
    return rest;
  }

  const timers = [];
  let clock = 0;
  let timerId = 0;
  function setTimeout(callback, delay = 0, ...items) {
    timers.push({ id: ++timerId, due: clock + Math.max(0, +delay || 0), callback, items });
    return timerId;
  }
  function clearTimeout(id) {
    const index = timers.findIndex((timer) => timer.id === id);
    if (index >= 0) timers.splice(index, 1);
  }
  // Timers run in their order once the script and its promises are done, without waiting for the clock. A rejection is
  // an error where the promise is what the script's last statement gave, as in `main()`; others cannot be seen.
  const rejections = [];
  function runTimer(isFirst, completion) {
    if (isFirst) {
      if (completion instanceof Promise) completion.then(undefined, (error) => { rejections.push(error); });
      return true;
    }
    if (rejections.length) throw rejections[0];
    if (!timers.length) return false;
    timers.sort((left, right) => left.due - right.due || left.id - right.id);
    const timer = timers.shift();
    clock = timer.due;
    timer.callback(...timer.items);
    return true;
  }

  let state = 0x9e3779b9;
  function random32() {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }
  const random = () => ((random32() >>> 5) * 67108864 + (random32() >>> 6)) / 9007199254740992;
  Object.defineProperty(Math, 'random', { value: random, writable: true, configurable: true });

  const fs = { readFileSync };
  const process = {
    argv: ['node', '<program>'],
    env: {},
    exit: (code = 0) => { exit(code & 255); },
    stdout: { write: (text) => { write(1, String(text)); return true; } },
    stderr: { write: (text) => { write(2, String(text)); return true; } },
  };
  function require(name) {
    if (name === 'fs' || name === 'node:fs') return fs;
    throw new Error(`Cannot find module '${name}'`);
  }
  const console = { log: toStdout, info: toStdout, debug: toStdout, error: toStderr, warn: toStderr };
  const given = { console, print: toStdout, readline, require, process, setTimeout, clearTimeout };
  for (const [name, value] of Object.entries(given)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
  return runTimer;
})();
