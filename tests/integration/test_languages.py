"""JavaScript and registered languages: what a script finds, its statuses, and what it cannot reach."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from altlas.core.program import Execution, Limits, Program, ProgramStatus
from altlas_evaluator.languages import registry
from altlas_evaluator.sandbox.supervisor import Slot, Tier

LIMITS = Limits(cpu_s=0.5, wall_s=2.0, output_bytes=4096)
OK, RUNTIME = ProgramStatus.OK, ProgramStatus.RUNTIME_ERROR


@pytest.fixture(scope="module", params=["namespaces", "landlock"])
def javascript(request: pytest.FixtureRequest) -> Iterator[Slot]:
    tier: Tier = request.param
    slot = Slot(tier=tier, language="javascript")
    slot.start()
    yield slot
    slot.stop()


def run(slot: Slot, source: str | bytes, *, stdin: bytes = b"") -> Execution:
    encoded = source if isinstance(source, bytes) else source.encode()
    return slot.run(Program(source=encoded, language="javascript", stdin=stdin), LIMITS)


@pytest.mark.parametrize(
    ("source", "stdout"),
    [
        ("print('hello', 'world')", "hello world\n"),
        ("console.log([1, 'a', [2]], {a: 1, 'b-c': 'd'})", "[ 1, 'a', [ 2 ] ] { a: 1, 'b-c': 'd' }\n"),
        ("console.log(null, undefined, true, -0, 0.1 + 0.2, 10n)", "null undefined true -0 0.30000000000000004 10n\n"),
        ("console.log(new Map([[1, {}]]), new Set(['x']), [])", "Map(1) { 1 => {} } Set(1) { 'x' } []\n"),
        (
            "const a = {}; a.a = a; console.log(a); (async () => { await null; print('end') })()",
            "{ a: [Circular] }\nend\n",
        ),
        ("class P { x = 1 }; console.log(new P(), P, () => 1)", "P { x: 1 } [Function: P] [Function (anonymous)]\n"),
        ("process.stdout.write('a'); process.stdout.write('b')", "ab"),
        ("#!/usr/bin/env node\nprint('kept')", "kept\n"),
        ("console.log('\\ud800')", "\ufffd\n"),
        ("Promise.resolve(2).then(print); setTimeout(() => print(3), 1e9); print(1)", "1\n2\n3\n"),
        ("setTimeout(print, 2, 'b'); setTimeout(print, 1, 'a'); clearTimeout(setTimeout(print, 0, 'c'))", "a\nb\n"),
        ("(async () => { await null; print('later') })(); print('now')", "now\nlater\n"),
        ("return_ = 1; function f() {}; let x = 1; var y; print(typeof f, x)", "function 1\n"),
        ("print([1, 2, 3].at(-1), 'aXb'.replaceAll('X', '-'), [3, 1].toSorted())", "3 a-b [ 1, 3 ]\n"),
    ],
)
def test_a_script_finds_what_node_offers(javascript: Slot, source: str, stdout: str) -> None:
    execution = run(javascript, source)
    assert (execution.status, execution.stdout.decode(), execution.stderr) == (OK, stdout, b"")


@pytest.mark.parametrize(
    "source",
    [
        "let line; while ((line = readline()) !== null) print(line)",
        "print(require('fs').readFileSync(0, 'utf8').trimEnd())",
        "print(readline()); process.stdout.write(require('node:fs').readFileSync('/dev/stdin'))",
    ],
)
def test_a_script_reads_its_input(javascript: Slot, source: str) -> None:
    assert run(javascript, source, stdin="eins\nzwei ü\n".encode()).stdout.decode() == "eins\nzwei ü\n"


@pytest.mark.parametrize(
    ("source", "status", "last"),
    [
        ("let x = ;", ProgramStatus.SYNTAX_ERROR, "SyntaxError: unexpected token"),
        ("}); print('ran'); (() => {", ProgramStatus.SYNTAX_ERROR, "SyntaxError"),
        ("return 1", ProgramStatus.SYNTAX_ERROR, "SyntaxError"),
        ("let a; let a;", ProgramStatus.SYNTAX_ERROR, "SyntaxError"),
        (b"print('\xff')", ProgramStatus.SYNTAX_ERROR, "not UTF-8"),
        (b"print(1)\0", ProgramStatus.SYNTAX_ERROR, "NUL"),
        ("[" * 100_000, ProgramStatus.SYNTAX_ERROR, ""),
        ("throw new SyntaxError('mine')", RUNTIME, "SyntaxError: mine"),
        ("eval('let x = ;')", RUNTIME, "SyntaxError"),
        ("print(1); null.x", RUNTIME, "TypeError: cannot read property 'x' of null"),
        ("throw {a: 1}", RUNTIME, "Uncaught [object Object]"),
        ("(function f() { f() })()", RUNTIME, "RangeError: Maximum call stack"),
        ("require('child_process')", RUNTIME, "Cannot find module 'child_process'"),
        ("require('fs').readFileSync('/etc/passwd')", RUNTIME, "EACCES"),
        ("Promise.resolve().then(() => null.x); setTimeout(() => undefined_name)", RUNTIME, "ReferenceError"),
        ("process.exit(3)", RUNTIME, ""),
        ("for (;;) {}", ProgramStatus.TIMEOUT, ""),
        ("setTimeout(function again() { setTimeout(again) })", ProgramStatus.TIMEOUT, ""),
        ("/(a+)+$/.exec('a'.repeat(40) + 'b')", ProgramStatus.TIMEOUT, ""),
        ("const a = []; for (;;) a.push('x'.repeat(1e6) + a.length)", ProgramStatus.MEMORY_LIMIT, "MemoryError"),
        ("for (;;) print('x'.repeat(1000))", ProgramStatus.OUTPUT_LIMIT, ""),
    ],
)
def test_statuses_of_scripts(javascript: Slot, source: str | bytes, status: ProgramStatus, last: str) -> None:
    execution = run(javascript, source)
    assert execution.status is status
    assert last in execution.stderr.decode(errors="replace")
    assert "Traceback" not in execution.stderr.decode(errors="replace"), "our own frames are shown"
    assert run(javascript, "print(typeof leaked, 1)").stdout == b"undefined 1\n"


def test_nothing_of_the_launcher_is_in_reach(javascript: Slot) -> None:
    source = "print(typeof write, typeof readInput, typeof exit, typeof std, typeof os, Object.keys(globalThis))"
    assert run(javascript, source).stdout == b"undefined undefined undefined undefined undefined [ 'performance' ]\n"


def test_scripts_are_deterministic_and_carry_nothing_over(javascript: Slot) -> None:
    source = (
        "globalThis.leaked = 1; Array.prototype.map = null; print(Math.random(), Math.random(), performance !== null)"
    )
    first, second = run(javascript, source), run(javascript, source)
    assert first.stdout == second.stdout
    assert run(javascript, "print(typeof leaked, [1].map((n) => n + 1))").stdout == b"undefined [ 2 ]\n"
    other = Slot(tier="landlock", language="javascript")
    assert run(other, source).stdout == first.stdout
    other.stop()


def test_rejection_of_the_last_promise_is_not_lost(javascript: Slot) -> None:
    execution = run(javascript, "async function main() { print(1); await null; null.x }\nmain()")
    assert (execution.status, execution.stdout) == (RUNTIME, b"1\n")
    assert b"TypeError" in execution.stderr


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution that registers the language `shout`: it prints its source in capitals."""
    (tmp_path / "shout.py").write_text(
        "import os\n"
        "def prepare(): pass\n"
        "def warm_up(): pass\n"
        "def compile(source):\n"
        "    if b'?' in source: raise SyntaxError('no questions')\n"
        "    return source.upper()\n"
        "def run(compiled):\n"
        "    os.write(1, compiled)\n"
        "    return 0\n"
    )
    info = tmp_path / "shout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shout\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[altlas.languages]\nshout = shout\npython = shout\n")
    tmp_path.chmod(0o755)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    registry.languages.cache_clear()
    yield
    registry.languages.cache_clear()


@pytest.mark.parametrize("tier", ["namespaces", "landlock"])
def test_a_language_is_registered_by_an_entry_point(registered: None, tier: Tier) -> None:
    slot = Slot(tier=tier, language="shout")
    assert run(slot, "hey").stdout == b"HEY"
    refused = run(slot, "hey?")
    assert (refused.status, refused.stderr) == (ProgramStatus.SYNTAX_ERROR, b"SyntaxError: no questions\n")
    slot.stop()


def test_our_own_languages_are_not_replaced(registered: None) -> None:
    assert list(registry.languages()) == ["python", "javascript", "shout"]
    assert registry.languages()["python"].module == "altlas_evaluator.languages.python"
