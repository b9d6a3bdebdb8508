"""Whatever the bytes, there is an answer: records of the command line and of launchers, and programs that nobody wrote.

The examples are the same each time, so that a failure here is a failure anywhere.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altlas.config.sections import SandboxSection
from altlas.core.program import Limits, Program, ProgramStatus
from altlas.core.vocabulary import parse_vocabulary
from altlas.tasks import load_vocabulary_text
from altlas_evaluator.engine import MIN_MEMORY_BYTES, MIN_OPEN_FILES, Executor
from altlas_evaluator.line_records import ExecuteRecord, RecordError, ScoreRecord, parse_record
from altlas_evaluator.sandbox import records
from altlas_evaluator.sandbox.supervisor import Slot
from altlas_evaluator.stream import stream_execute

LIMITS = Limits(cpu_s=0.1, wall_s=0.3, memory_bytes=32 << 20, output_bytes=2048)
KNOWN = Program(source=b"import sys\nprint(sys.stdin.read().upper())", stdin=b"known")
KNOWN_SCRIPT = Program(source=b"print(readline().toUpperCase())", stdin=b"known", language="javascript")


def repeatable(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 10**30, 1e308, 5e-324])
texts = st.text(max_size=20) | st.text(st.characters(), max_size=5) | st.sampled_from(["\ud800", "\0", "\u2028"])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
names = st.sampled_from([*ExecuteRecord.model_fields, *ScoreRecord.model_fields, "cpu_s", "sauce"])
plain = {"source": st.sampled_from(["print(1)", "", "x = ("]), "stdin": texts, "id": texts | numbers}
objects = st.dictionaries(names, values, max_size=4) | st.fixed_dictionaries(plain, optional={"limits": values})


raw = [
    b"[" * 10_000,
    b'{"a": ' * 10_000,
    *(b'{"id": ' + b"9" * n + b', "source": ""}' for n in (4299, 4300, 4301, 9999)),
]
lines = (
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b""))
    | (objects | values).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(raw)
)


@repeatable(400)
@given(line=lines, kind=st.sampled_from([ExecuteRecord, ScoreRecord]))
def test_a_line_is_a_record_or_an_error_with_an_id_that_can_be_written(line: bytes, kind: Any) -> None:
    try:
        record_id = parse_record(kind, line).id
    except RecordError as error:
        record_id = error.record_id
    assert json.loads(json.dumps(record_id, ensure_ascii=False, allow_nan=False).encode()) == record_id


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor(SandboxSection(slots=2)) as running:
        yield running


@repeatable(150)
@given(sent=st.lists(lines, max_size=6))
def test_every_line_is_answered_once_and_in_order(executor: Executor, sent: list[bytes]) -> None:
    output = io.BytesIO()
    stream_execute(io.BytesIO(b"".join(line + b"\n" for line in sent)), output, executor)
    answers = [json.loads(line) for line in output.getvalue().splitlines()]
    assert len(answers) == len(sent)
    for number, (line, answer) in enumerate(zip(sent, answers, strict=True), start=1):
        if "error" in answer:
            assert answer["line"] == number
        else:
            assert answer["id"] == parse_record(ExecuteRecord, line.rstrip(b"\r")).id
            assert answer["status"] != "sandbox_error"


@repeatable(500)
@given(data=st.binary(max_size=80) | st.binary(min_size=records.RESULT_BYTES, max_size=records.RESULT_BYTES))
@pytest.mark.parametrize(
    ("unpack", "pack", "magic"),
    [
        (records.unpack_request, records.pack_request, records._MAGIC_REQUEST),
        (records.unpack_result, records.pack_result, records._MAGIC_RESULT),
    ],
)
def test_bytes_are_a_whole_record_or_a_value_error(unpack: Any, pack: Any, magic: bytes, data: bytes) -> None:
    for packet in (data, magic + data[4:]):
        try:
            record = unpack(packet)
        except ValueError:
            continue
        assert pack(record) == packet


@pytest.fixture(scope="module")
def slots() -> Iterator[dict[str, Slot]]:
    made = {name: Slot(tier="landlock", language=name) for name in ("python", "javascript")}
    for slot in made.values():
        slot.start()
    yield made
    for slot in made.values():
        slot.stop()


def check_program(slot: Slot, program: Program, limits: Limits = LIMITS) -> None:
    """Run a program, and see that it has an ending of its own and the next one is run as if it had not been."""
    execution = slot.run(program, limits)
    assert execution.status is not ProgramStatus.SANDBOX_ERROR, execution
    assert max(len(execution.stdout), len(execution.stderr)) <= limits.output_bytes
    known = KNOWN if program.language == "python" else KNOWN_SCRIPT
    assert slot.run(known, LIMITS).stdout == b"KNOWN\n"
    assert (slot.counters.starts, slot.counters.faults) == (1, 0)


languages = st.sampled_from(["python", "javascript"])


@repeatable(150)
@given(source=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="surrogatepass")))
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_any_bytes_are_a_program(slots: dict[str, Slot], language: str, source: bytes) -> None:
    check_program(slots[language], Program(source=source, language=language))


VOCABULARY = parse_vocabulary(load_vocabulary_text(""))
LAYOUT = {"newline": "\n", "indent": "\n    ", "dedent": "\n"}
TOKENS = [
    LAYOUT.get(str(kind), text + " ")
    for text, kind in zip(VOCABULARY.texts, VOCABULARY.kinds, strict=True)
    if not text.startswith("<") or str(kind) in LAYOUT
]


@repeatable(200)
@given(tokens=st.lists(st.sampled_from(TOKENS), max_size=30))
def test_any_tokens_are_a_program(slots: dict[str, Slot], tokens: list[str]) -> None:
    check_program(slots["python"], Program(source="".join(tokens).encode(), stdin=b"5\n"))


WRITTEN = {
    "python": (
        b"n = int(input())\nfor i in range(n):\n    if i % 2 == 0:\n        print(i, 'hello' * i)\n    else:\n"
        b"        pass\n",
        b"def f(n):\n    return 1 if n < 2 else n * f(n - 1)\nprint(f(int(input())), [x ** 2 for x in range(9)])\n",
        b"class A:\n    def __init__(self, x): self.x = x\n    def __str__(self): return f'{self.x:>5}'\n"
        b"try:\n    print(A(3), {**{'a': 1}}, sorted({3, 1}), 0x1f, 1e5, '''b\nc''')\nexcept ValueError as e:\n"
        b"    raise e\n",
    ),
    "javascript": (
        b"const n = +readline();\nfor (let i = 0; i < n; i++) { if (i % 2 === 0) console.log(i, "
        b"'hello'.repeat(i)); }\n",
        b"function f(n) { return n < 2 ? 1 : n * f(n - 1); }\n"
        b"print(f(+readline()), [1, 2].map((x) => x ** 2), `${f(3)}`);\n",
        b"class A { constructor(x) { this.x = x } }\n"
        b"try { print(new A(3), {...{a: 1}}, /a+/.test('a')) } catch (e) { throw e }\n",
    ),
}


@st.composite
def mutated(draw: st.DrawFn, language: str) -> bytes:
    """A program that somebody wrote, with a few pieces cut out, doubled, moved or overwritten."""
    source = draw(st.sampled_from(WRITTEN[language]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(source)))
        end = draw(st.integers(start, min(len(source), start + 20)))
        place = draw(st.integers(0, len(source)))
        piece = draw(
            st.sampled_from([b"", source[start:end], source[start:end] * 2, b"\xff", b"(", b"\n", b"  ", b"9" * 30])
        )
        source = source[:start] + source[end:] if draw(st.booleans()) else source[:place] + piece + source[place:]
    return source


@repeatable(150)
@given(data=st.data())
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_any_mutation_is_a_program(slots: dict[str, Slot], language: str, data: st.DataObject) -> None:
    source = data.draw(mutated(language))
    check_program(slots[language], Program(source=source, language=language, stdin=b"5\n"))


@repeatable(200)
@given(
    language=languages,
    limits=st.builds(
        Limits,
        cpu_s=st.floats(1e-9, 0.1),
        wall_s=st.floats(1e-9, 0.1),
        memory_bytes=st.integers(MIN_MEMORY_BYTES, 64 << 20),
        output_bytes=st.integers(1, 999),
        open_files=st.integers(MIN_OPEN_FILES, 64),
    ),
)
def test_any_limits_are_the_programs_own(slots: dict[str, Slot], language: str, limits: Limits) -> None:
    check_program(slots[language], Program(source=WRITTEN[language][1], language=language, stdin=b"5\n"), limits)
