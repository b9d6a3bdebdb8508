"""The same in JavaScript, where a script has no way to the kernel of its own."""

from __future__ import annotations

from hostile_programs import MEMORY, OK, OUTPUT, RUNTIME, SYNTAX, TIMEOUT, WAS_HERE, Hostile, ProgramStatus


def _script(source: str, statuses: set[ProgramStatus], stdout: bytes | None = b"") -> Hostile:
    return Hostile(source, statuses, stdout, "javascript")


_SCRIPTS = {
    "loop": _script("for (;;) {}", {TIMEOUT}),
    "loop that catches everything": _script("for (;;) { try { for (;;) null.x } catch {} }", {TIMEOUT}),
    "loop of promises": _script("(async function f() { for (;;) await null })()", {TIMEOUT}),
    "loop in the text of an error": _script("throw { toString() { for (;;); } }", {TIMEOUT}),
    "loop in the trace of an error": _script("Error.prepareStackTrace = () => { for (;;); }; throw Error()", {TIMEOUT}),
    "waits for itself": _script("Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)", {RUNTIME}),
    "memory at once": _script("new ArrayBuffer(1 << 30)", {MEMORY}),
    "memory in small objects": _script("const a = []; for (;;) a.push({})", {MEMORY}),
    "memory in a function's small objects": _script("(() => { const a = []; for (;;) a.push([]) })()", {MEMORY}),
    "memory in promises": _script("let p = Promise.resolve(); for (;;) p = p.then(() => 1)", {MEMORY}),
    "memory in a chain": _script("let a = {}; for (;;) a = { a }", {MEMORY}),
    "memory by a string": _script("let s = 'x'; for (;;) s += s", {MEMORY, RUNTIME}),
    "memory by fill": _script("Array(4294967295).fill(1)", {MEMORY}),
    "memory caught": _script(
        "try { new ArrayBuffer(1 << 30) } catch (e) { print('caught', e instanceof Error) }", {OK}, b"caught true\n"
    ),
    "huge number": _script("print(2n ** (2n ** 40n))", {RUNTIME}),
    "length without content": _script("const a = []; a[4294967294] = 1; print(a.length)", {OK}, b"4294967295\n"),
    "output flood": _script("for (;;) print('x'.repeat(100))", {OUTPUT}, None),
    "error flood": _script("for (;;) console.error('x'.repeat(100))", {OUTPUT}),
    "deep recursion": _script("(function f() { f() })()", {RUNTIME}),
    "deep generators": _script("function* g() { yield* g() }; [...g()]", {RUNTIME, OUTPUT}),
    "deep text": _script("let a = []; for (let i = 0; i < 1e5; i++) a = [a]; String(a)", {RUNTIME}),
    "deep JSON": _script("JSON.parse('['.repeat(1e6))", {RUNTIME}),
    "deep expression": _script("new RegExp('(?:'.repeat(1e4) + ')'.repeat(1e4))", {RUNTIME}),
    "deep binding": _script("let g = () => 1; for (let i = 0; i < 1e5; i++) g = g.bind(null); g()", {RUNTIME, MEMORY}),
    "deep prototypes": _script(
        "let p = {}; for (let i = 0; i < 1e5; i++) p = Object.create(p); print(p.x)", {OK}, None
    ),
    "deep brackets": _script("x = " + "(" * 5000 + "1" + ")" * 5000, {SYNTAX}),
    "deep blocks": _script("{" * 50_000 + "}" * 50_000, {SYNTAX}),
    "many signs": _script("x = " + "- " * 50_000 + "1", {SYNTAX}),
    "many conditions": _script("x = " + "a ? b : " * 50_000 + "1", {SYNTAX}),
    "many templates": _script("x = `" + "${`" * 5000 + "`}" * 5000 + "`", {SYNTAX}),
    "many functions": _script("(() => " * 5000 + "1" + ")" * 5000, {SYNTAX}),
    "many sums": _script("print(1" + "+1" * 100_000 + ")", {OK}, b"100001\n"),
    "long name": _script("var " + "a" * 1_000_000 + " = 1; print(2)", {OK}, b"2\n"),
    "long comment": _script("/*" + "x" * 1_000_000 + "*/ print(3)", {OK}, b"3\n"),
    "lone surrogate in an error": _script("print('kept'); throw '\\ud800'", {RUNTIME}, b"kept\n"),
    "error without a text": _script("print('kept'); throw { toString() { throw 1 } }", {RUNTIME}, b"kept\n"),
    "error that is a symbol": _script("print('kept'); throw Symbol('x')", {RUNTIME}, b"kept\n"),
    "error that is null": _script("print('kept'); throw null", {RUNTIME}, b"kept\n"),
    "error that is a proxy": _script("print('kept'); throw new Proxy({}, { get() { throw 2 } })", {RUNTIME}, b"kept\n"),
    "error that pretends": _script("console.error('MemoryError'); null.x", {RUNTIME}),
    "exits with NaN": _script("process.exit(NaN)", {OK}),
    "exits with -1": _script("process.exit(-1)", {RUNTIME}),
    "exits with 3n": _script("process.exit(3n)", {RUNTIME}),
    "exits at once": _script("print('kept'); process.exit(0); null.x", {OK}, b"kept\n"),
    "strict mode alone finds it": _script("'use strict'; with ({}) {}", {SYNTAX}),
    "strict mode after a comment": _script('/* x */ // y\n"use strict"; delete x', {SYNTAX}),
    "names of the warm-up": _script(
        "let f = 1, x = 2, i = 3, n = 4, items = 5, item = 6, a = 7, b = 8; print(f + x)", {OK}, b"3\n"
    ),
    "NUL in its output": _script("print('a\\0b'); process.stdout.write('\\0')", {OK}, b"a\0b\n\0"),
    "escapes in its output": _script("print('\\u001b[2J')", {OK}, b"\x1b[2J\n"),
    "imports a module": _script("import('fs').then(print, () => print('refused'))", {OK}, b"refused\n"),
    "imports a file": _script("import('@FILE@').then(print, () => print('refused'))", {OK}, b"refused\n"),
    "is a module": _script("import x from 'fs'", {SYNTAX}),
    "reads a file": _script("print(require('fs').readFileSync('@FILE@'))", {RUNTIME}),
    "writes a file": _script(f"require('fs').writeFileSync('/tmp/{WAS_HERE}', 'x')", {RUNTIME}),
    "asks for processes and sockets": _script(
        "const names = ['child_process', 'net', 'os', 'worker_threads', 'vm', 'http'];\n"
        "print(names.filter((name) => { try { return require(name) } catch { return false } }))",
        {OK},
        b"[]\n",
    ),
    "looks for the launcher's functions": _script(
        "const global = new Function('return this')();\n"
        "print(['write', 'writeNul', 'readInput', 'exit', 'std', 'os', 'Worker', "
        "'scriptArgs'].filter((name) => name in global))",
        {OK},
        b"[]\n",
    ),
    "reads the environment": _script("print(process.env, process.argv.length)", {OK}, b"{} 2\n"),
    "changes what printing is made of": _script(
        "Array.prototype.map = () => ['changed']; print(1)", {OK}, b"changed\n"
    ),
    "removes what it was given": _script("globalThis.print = console.log = process.exit = null", {OK}),
    "leaves names behind": _script("globalThis.leaked = 1; Object.prototype.leaked = 1; var kept = 1", {OK}),
    "finalises what it leaves": _script(
        "new FinalizationRegistry(() => { for (;;); }).register({}, 1); print(1)", {OK}, b"1\n"
    ),
}
PROGRAMS = {f"script: {name}": hostile for name, hostile in _SCRIPTS.items()}
