"""Edits of phrases: every child is a whole program, a function of its own numbers, and each kind of edit is reached."""

import functools
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import sample
from scored import batch_of, children_of, lists_of, padded, scores_of

from altlas.config.sections import (
    AlgorithmSection,
    ArchiveSection,
    Config,
    ModelSection,
    ProposalsSection,
    SamplingSection,
)
from altlas.core import mutation
from altlas.core.archive import Archive
from altlas.core.grammar import build_constraint
from altlas.core.phrases import UNIFORMS, phrases_of
from altlas.core.policy import build_policy
from altlas.core.proposals import Origin, alphabet, build_proposer, elites_to_tensors
from altlas.core.rng import uniform
from altlas.core.tokenizer import build_tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import ProtocolError
from altlas.tasks import load_vocabulary_text
from altlas_evaluator.languages import javascript

COUNT = 300
NAMES = ("python", "python-stdin", "javascript")
LOOP = "for i in range(3):\n    print(i)\n"


@functools.cache
def vocabulary_of(name):
    return parse_vocabulary(load_vocabulary_text(""), name=name)


def language_of(name):
    return name.partition("-")[0]


@functools.cache
def constraint_of(name, grammar="language"):
    return build_constraint(vocabulary_of(name), language=language_of(name), grammar=grammar)


@functools.cache
def tokenizer_of(name):
    return build_tokenizer(vocabulary_of(name), language_of(name))


def phrases_for(name):
    return phrases_of(constraint_of(name), vocabulary_of(name))


def ids_of(name, source):
    ids = tokenizer_of(name).encode_ids(source)
    assert vocabulary_of(name).unk_id not in ids, source
    return ids


def programs_of(name, count, max_tokens, *, seed):
    """Programs sampled from the grammar, without <EOS>, of fewer than `max_tokens` tokens."""
    eos = vocabulary_of(name).eos_id
    rows = sample(constraint_of(name), count, max_tokens, seed=seed).tolist()
    return [row[: row.index(eos)] for row in rows]


def draws_of(count, seed=1):
    return uniform(seed, "vary", update=0, first_index=0, count=count, per_index=UNIFORMS)


def vary(name, parents, partners=None, *, seed=1, longest=40, crossover=0.3, mean_edits=2.0):
    children = phrases_for(name).vary(
        children_of(parents),
        children_of(partners or parents[::-1]),
        draws_of(len(parents), seed),
        longest=longest,
        crossover=crossover,
        mean_edits=mean_edits,
    )
    assert children.tokens.shape == (len(parents), longest)
    assert not children.tokens[np.arange(longest) >= children.lengths[:, None]].any()
    return lists_of(children.tokens, children.lengths)


@functools.cache
def sources_from(name, parent, *, count=2000, partner=None, **settings):
    """The sources of the children of one program, each once."""
    ids, other = ids_of(name, parent), ids_of(name, partner or parent)
    return {tokenizer_of(name).decode(child) for child in vary(name, [ids] * count, [other] * count, **settings)}


def reads_before_binding(name, program):
    """The literal rule: reading from left to right, whether a name is met before one that binds it."""
    words = ["", "", "", *(vocabulary_of(name).texts[token] for token in program), ""]
    kinds = ["", "", "", *(vocabulary_of(name).kinds[token] for token in program), ""]
    bound = set()
    for place in range(3, len(words) - 1):
        word, before, after = words[place], words[place - 1], words[place + 1]
        if kinds[place] != "name" or word == "f":
            continue
        is_parameter = before == "(" and words[place - 2] == "f" and words[place - 3] in ("def", "function")
        if is_parameter or before in ("for", "var") or (name != "javascript" and after in ("=", "+=")):
            bound.add(word)
        elif word not in bound:
            return True
    return False


def assert_are_whole(name, programs, longest):
    closed = [[*program, vocabulary_of(name).eos_id] for program in programs]
    tokens, lengths = padded(closed)
    assert lengths.max() <= longest + 1
    constraint_of(name).replay(tokens, lengths, max_tokens=longest + 1)
    for program in programs:
        source = tokenizer_of(name).decode(program)
        assert not reads_before_binding(name, program), source
        assert tokenizer_of(name).encode_ids(source) == program
        if name == "javascript":
            javascript.compile(source.encode())
        else:
            compile(source, "program", "exec")


@pytest.mark.parametrize("longest", [12, 39, 80])
@pytest.mark.parametrize("name", NAMES)
def test_every_child_is_a_whole_program_generation_after_generation(name, longest):
    javascript.prepare()
    programs = programs_of(name, 100, longest + 1, seed=longest)
    for generation in range(3):
        children = vary(name, programs, seed=generation, longest=longest, crossover=0.5, mean_edits=4.0)
        assert_are_whole(name, children, longest)
        assert np.mean([child != program for child, program in zip(children, programs, strict=True)]) > 0.5
        programs = children


@given(
    name=st.sampled_from(NAMES),
    seeds=st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
    parent_tokens=st.integers(12, 50),
    room=st.integers(0, 20),
    crossover=st.sampled_from([0.0, 0.5, 1.0]),
    mean_edits=st.sampled_from([1.0, 2.0, 8.0]),
)
@settings(max_examples=30, deadline=None)
def test_any_couple_has_whole_children(name, seeds, parent_tokens, room, crossover, mean_edits):
    javascript.prepare()
    parents, partners = (programs_of(name, 8, parent_tokens, seed=seed) for seed in seeds[:2])
    longest = max(map(len, parents + partners)) + room
    shares = {"crossover": crossover, "mean_edits": mean_edits}
    assert_are_whole(name, vary(name, parents, partners, seed=seeds[2], longest=longest, **shares), longest)


@pytest.mark.parametrize(
    ("name", "source", "expressions", "lines"),
    [
        ("python", "print(True)", [], ["print(True)\n"]),
        ("python", "print(int(input()))", ["input()", "int(input())"], ["print(int(input()))\n"]),
        ("python", "x = 3\nprint(x + 1)", ["3", "x", "1", "x + 1"], ["x = 3\n", "print(x + 1)\n"]),
        ("python", "print(1, 'hello')", ["1", "'hello'"], ["print(1, 'hello')\n"]),
        ("python", LOOP, ["3", "i"], ["print(i)\n", "for i in range(3):\n    print(i)\n"]),
        (
            "python",
            "if len(input()) < 2:\n    x = 1\nelse:\n    print('')\nprint(0)",
            ["input()", "len(input())", "2", "len(input()) < 2", "1", "''", "0"],
            ["x = 1\n", "print('')\n", "if len(input()) < 2:\n    x = 1\nelse:\n    print('')\n", "print(0)\n"],
        ),
        (
            "python",
            "def f(n):\n    return n + 1\nprint(f(2))",
            ["n", "1", "n + 1", "2", "f(2)"],
            ["def f(n):\n    return n + 1\n", "print(f(2))\n"],
        ),
        (
            "python",
            "print([1, int(input())])",
            ["1", "input()", "int(input())", "[1, int(input())]"],
            ["print([1, int(input())])\n"],
        ),
        (
            "python-stdin",
            "print(min(len(input()), 42))",
            ["input()", "len(input())", "42", "min(len(input()), 42)"],
            ["print(min(len(input()), 42))\n"],
        ),
        (
            "javascript",
            "var x = 1;\nprint(x + readline())",
            ["1", "x", "readline()", "x + readline()"],
            ["var x = 1;", "print(x + readline());"],
        ),
        (
            "javascript",
            "for (var i = 0; i < 3; i++) {\n    print(i);\n}",
            ["0", "3", "i"],
            ["print(i);", "for (var i = 0; i < 3; i++) {\n    print(i);\n}"],
        ),
    ],
)
def test_the_phrases_of_a_program_are_its_expressions_and_lines(name, source, expressions, lines):
    program = tuple(ids_of(name, source))
    parsed = phrases_for(name).parse(program)
    assert parsed.tokens[: len(program)] == program
    spans = [parsed.tokens[phrase.start : phrase.end] for phrase in parsed.phrases]
    expected = {(tuple(ids_of(name, text)), False) for text in expressions}
    expected |= {(tuple(ids_of(name, text)), True) for text in lines}
    assert {(span, phrase.is_line) for span, phrase in zip(spans, parsed.phrases, strict=True)} == expected
    places = [(phrase.start, phrase.end, phrase.is_line) for phrase in parsed.phrases]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("python", ""),
        ("python", "print(1"),
        ("python", "print(1)\n"),
        ("python", "x = 1"),
        ("python", "print(x)"),
        ("python", "x = 1\nprint(y)"),
        ("python", "print(x)\nx = 1\nprint(x)"),
        ("python", "print(f(1))"),
        ("python", "print(1 + 'hello')"),
        ("python", "if x < 1:\n    print(1)\n"),
        ("javascript", "print(x)"),
        ("javascript", "print(1);"),
        ("javascript", "x = 1;\nprint(x)"),
    ],
)
def test_what_is_no_program_has_no_phrases_and_is_its_own_child(name, source):
    program = ids_of(name, source)
    assert phrases_for(name).parse(tuple(program)) is None
    assert vary(name, [program] * 20) == [program] * 20


@pytest.mark.parametrize("name", NAMES)
def test_names_are_known_after_what_binds_them(name):
    source = "var x = 1; var y = x; print(y)" if name == "javascript" else "x = 1\ny = x\nprint(y)"
    program = ids_of(name, source)
    parsed = phrases_for(name).parse(tuple(program))
    x, y = vocabulary_of(name).id_of["x"], vocabulary_of(name).id_of["y"]
    first, second = program.index(x), program.index(y)
    expected = [[] if place <= first else [x] if place <= second else [x, y] for place in range(len(program))]
    assert [parsed.names_before(place) for place in range(len(program))] == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_child_depends_on_its_couple_and_its_own_numbers_alone(name):
    count = 60
    parents, partners = (children_of(programs_of(name, count, 30, seed=seed), 30) for seed in (1, 2))
    draws = draws_of(count)

    def vary_rows(rows):
        couple = [mutation.Children(programs.tokens[rows], programs.lengths[rows]) for programs in (parents, partners)]
        children = phrases_for(name).vary(*couple, draws[rows], longest=40, crossover=0.3, mean_edits=2.0)
        return lists_of(children.tokens, children.lengths)

    before = parents.tokens.copy(), partners.tokens.copy(), draws.copy()
    whole = vary_rows(np.arange(count))
    for cuts in ([1, 2, 30], [17], list(range(1, count))):
        assert [child for rows in np.split(np.arange(count), cuts) for child in vary_rows(rows)] == whole
    shuffled = np.random.default_rng(1).permutation(count)
    assert vary_rows(shuffled) == [whole[row] for row in shuffled]
    assert all(map(np.array_equal, before, (parents.tokens, partners.tokens, draws)))
    draws = draws_of(count, seed=2)
    assert np.mean([child != other for child, other in zip(vary_rows(np.arange(count)), whole, strict=True)]) > 0.5


def test_each_of_the_numbers_counts():
    program = ids_of("python", "x = int(input())\nprint(x + 1)")
    draws = np.repeat(draws_of(1), 200, axis=0)
    for column in range(UNIFORMS):
        changed = draws.copy()
        changed[:, column] = draws_of(200, seed=3)[:, column]
        parents = children_of([program] * 200)
        children = phrases_for("python").vary(parents, parents, changed, longest=40, crossover=0.3, mean_edits=2.0)
        assert len(np.unique(children.tokens, axis=0)) > 50


def test_another_process_makes_the_same_children():
    """Sets and hashes of texts are ordered otherwise in another process; workers must not differ."""
    code = (
        "import numpy as np\n"
        "from altlas.core.grammar import GrammarConstraint\n"
        "from altlas.core.mutation import Children\n"
        "from altlas.core.phrases import UNIFORMS, phrases_of\n"
        "from altlas.core.rng import uniform\n"
        "from altlas.core.vocabulary import parse_vocabulary\n"
        "from altlas.tasks import load_vocabulary_text\n"
        "vocabulary = parse_vocabulary(load_vocabulary_text(''))\n"
        "phrases = phrases_of(GrammarConstraint(vocabulary), vocabulary)\n"
        "words = ['print', '(', 'int', '(', 'input', '(', ')', ')', ')']\n"
        "tokens = np.array([[vocabulary.id_of[word] for word in words]] * 100)\n"
        "parents = Children(tokens, np.full(100, len(words)))\n"
        "draws = uniform(1, 'vary', update=0, first_index=0, count=100, per_index=UNIFORMS)\n"
        "print(phrases.vary(parents, parents, draws, longest=40, crossover=0.3, mean_edits=4.0).tokens.tolist())\n"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    program = ids_of("python", "print(int(input()))")
    tokens, _ = padded(vary("python", [program] * 100, mean_edits=4.0), 40)
    assert printed[0] == f"{tokens.tolist()}\n"


@pytest.mark.parametrize(
    ("name", "parent", "child"),
    [
        ("python", "print(int(input()))", r"x = int\(input\(\)\)\nprint\(x\)"),
        ("python", "print(int(input()))", r"x = input\(\)\nprint\(int\(x\)\)"),
        ("python", LOOP.replace("(i)", "(i + 1)"), r"for i in range\(3\):\n    x = i \+ 1\n    print\(x\)\n"),
        ("javascript", "print(Number(readline()))", r"var x = Number\(readline\(\)\);\nprint\(x\)"),
        ("python", "print(input())", r"for \w in range\(.+\):\n    print\(input\(\)\)\n"),
        ("python", "print(input())", r"if .+:\n    print\(input\(\)\)\n(else:\n(    .*\n)+)?"),
        ("javascript", "print(readline())", r"if \(.+\) {\n    print\(readline\(\)\);\n}( else .+)?"),
        ("python", "x = 1\nprint(x + 1)", r"x = 1\nprint\(x\)"),
        ("python", LOOP.replace("(i)", "(1)"), r"print\(1\)"),
        ("javascript", "var x = 1;\nprint(x + 1)", r"var x = 1;\nprint\(x\)"),
        ("python", "print(input())", r"print\(input\(\)\)\nprint\(.+\)"),
        ("python", "print(input())", r"print\(.+\)\nprint\(input\(\)\)"),
        ("python", "print(input())", r"[xyin] = .+\nprint\(input\(\)\)"),
        ("javascript", "print(readline())", r"var [xyin] = .+;\nprint\(readline\(\)\)"),
        ("python", "print(1)\nprint(2)\nprint(3)", r"print\(1\)\nprint\(3\)"),
        ("python", "print(1)\nprint(2)\nprint(3)", r"print\(1\)\nprint\(2\)"),
        ("javascript", "print(1);\nprint(2)", r"print\(1\)"),
        ("python", "print(len(input()) + 1)", r"print\(len\(input\(\)\) % 1\)"),
        ("python", "print(len(input()) + 1)", r"print\(len\(input\(\)\) \+ 9\)"),
        ("python-stdin", "print(max(len(input()), 2))", r"print\(min\(len\(input\(\)\), 2\)\)"),
        ("javascript", "print(readline() + 'hello')", r"print\(readline\(\) \+ 'world'\)"),
        ("python", "print(int(input()))", r"print\(int\(input\(\)\) [-+*/%]+ [^ ]+\)"),
        ("python", "x = 1\nprint(x + 1)", r"x = 1\nprint\(\(x \+ 1\) [-+*/%]+ [^ ]+\)"),
        ("javascript", "print(Number(readline()))", r"print\(Number\(readline\(\)\) [-+*/%] [^ ]+\)"),
        ("python", "print('hello')", r"print\(input\(\)\)"),
    ],
)
def test_each_kind_of_edit_is_reached_from_a_program_by_one(name, parent, child):
    found = sources_from(name, parent, crossover=0.0, mean_edits=1.0)
    assert any(re.fullmatch(child, source) for source in found)


def test_a_function_is_written_once_and_then_called():
    found = sources_from("python", "print(1)", count=6000, crossover=0.0, mean_edits=1.0)
    assert any(re.fullmatch(r"def f\([xyin]\):\n    return .+\nprint\(.*\)", source) for source in found)
    parent = "def f(n):\n    return n + 1\nprint(2)"
    found = sources_from("python", parent, crossover=0.0, mean_edits=4.0)
    assert any("print(f(" in source for source in found)
    assert max(source.count("def") for source in found) == 1


def test_a_partner_gives_its_phrases_to_the_child():
    parent, partner = "x = 1\nprint(2)", "y = int(input())\nprint('hello')"
    given = {
        "x = int(input())\nprint(2)",
        "x = input()\nprint(2)",
        "x = 'hello'\nprint(2)",
        "x = 1\nprint(int(input()))",
        "x = 1\nprint('hello')",
        "y = int(input())\nprint(2)",
    }
    crossed = sources_from("python", parent, partner=partner, crossover=1.0)
    assert crossed >= given
    assert not sources_from("python", parent, crossover=1.0, count=500) >= given


def test_a_partner_counts_only_where_it_is_crossed_with():
    first, second = (
        sources_from("python", "print(1)", partner=partner, crossover=0.0, count=300)
        for partner in ("print(1)", "print(len(input()))")
    )
    assert first == second


@pytest.mark.parametrize("partner", ["print(True)", "print(x)", ""])
def test_a_partner_without_a_phrase_to_give_is_no_error(partner):
    assert sources_from("python", "print(int(input()))", partner=partner, crossover=1.0, count=300)


@pytest.mark.parametrize("crossover", [0.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_children_of_the_longest_program_are_not_longer(name, crossover):
    parent = max(programs_of(name, 100, 30, seed=5), key=len)
    children = vary(name, [parent] * 300, longest=len(parent), crossover=crossover, mean_edits=8.0)
    assert_are_whole(name, children, len(parent))
    assert len({tuple(child) for child in children}) > 50


@pytest.mark.parametrize(
    ("name", "grammar"), [("python", "none"), ("python", "syntax"), ("brainf", "language"), ("brainf", "none")]
)
def test_there_are_no_phrases_without_a_grammar_of_lines(name, grammar):
    assert phrases_of(constraint_of(name, grammar), vocabulary_of(name)) is None


def test_phrases_are_built_once_and_never_another_grammars():
    assert phrases_for("python") is phrases_for("python")
    for _ in range(2):
        for name in NAMES:
            assert phrases_for(name).automaton is constraint_of(name).automaton


def propose(name, edits, *, grammar="language"):
    """A batch whose every program is varied from one elite, and the elite."""
    elite = ids_of(name, "print(readline() + 'hello')" if name == "javascript" else "print(int(input()) + 1)")
    config = Config(
        algorithm=AlgorithmSection(name="ga_archive"),
        model=ModelSection(embedding=6, hidden=12),
        sampling=SamplingSection(max_tokens=24, grammar=grammar),
        archive=ArchiveSection(size=1, per_case=1),
        proposals=ProposalsSection(edits=edits, crossover=0.3, mean_edits=2.0),
    )
    archive = Archive(config.archive)
    archive.offer(batch_of([[*elite, vocabulary_of(name).eos_id]]), scores_of([1.0], [1], [[1.0]]))
    policy = build_policy(config.model, len(vocabulary_of(name)), seed=1)
    snapshot = {f"policy.{key}": tensor for key, tensor in policy.state_dict().items()}
    proposer = build_proposer(
        snapshot | elites_to_tensors(archive.elites()),
        config,
        vocabulary=vocabulary_of(name),
        constraint=constraint_of(name, grammar),
        device=torch.device("cpu"),
    )
    batch = proposer.propose(seed=7, update=3, first_index=0, count=COUNT, policy_version=0)
    return batch, elite


def mutated_tokens(name, elite):
    """The first draw of what `mutate` makes of an elite; what comes before its numbers draws parent and partner."""
    draws = uniform(7, "vary0", update=3, first_index=0, count=COUNT, per_index=6 + mutation.UNIFORMS)[:, 6:]
    parents = children_of([elite] * COUNT)
    children = mutation.mutate(
        parents, parents, draws, alphabet=alphabet(vocabulary_of(name)), longest=23, crossover=0.3, mean_edits=2.0
    )
    return lists_of(children.tokens, children.lengths)


@pytest.mark.parametrize("edits", ["tokens", "phrases"])
@pytest.mark.parametrize("grammar", ["none", "syntax"])
def test_without_phrases_tokens_are_mutated(grammar, edits):
    batch, elite = propose("python", edits, grammar=grammar)
    expected = mutated_tokens("python", elite)
    is_first = np.ones(len(expected), dtype=np.bool_) if grammar == "none" else are_legal("python", grammar, expected)
    found = [program[:-1] for program in lists_of(batch.tokens, batch.lengths)]
    assert is_first.sum() > 3
    assert [found[row] for row in np.flatnonzero(is_first)] == [expected[row] for row in np.flatnonzero(is_first)]


@pytest.mark.parametrize("name", NAMES)
def test_the_setting_tells_what_a_mutation_edits(name):
    by_token, elite = propose(name, "tokens")
    expected = mutated_tokens(name, elite)
    legal = np.flatnonzero(are_legal(name, "language", expected))
    assert len(legal) > 2
    rows = lists_of(by_token.tokens, by_token.lengths)
    assert [rows[row][:-1] for row in legal] == [expected[row] for row in legal]
    by_phrase, _ = propose(name, "phrases")
    draws = uniform(7, "vary0", update=3, first_index=0, count=COUNT, per_index=6 + mutation.UNIFORMS)
    parents = children_of([elite] * COUNT)
    learned = {"counts": phrases_for(name).count_rules(children_of([elite])), "learned": 0.5}
    children = phrases_for(name).vary(
        parents, parents, draws[:, 6 : 6 + UNIFORMS], longest=23, crossover=0.3, mean_edits=2.0, **learned
    )
    found = [program[:-1] for program in lists_of(by_phrase.tokens, by_phrase.lengths)]
    assert found == lists_of(children.tokens, children.lengths)
    assert set(by_phrase.origins.tolist()) == {Origin.MUTATED}


def are_legal(name, grammar, programs):
    """Which programs the constraint lets be written, bool [B]."""

    def is_legal(program):
        try:
            constraint_of(name, grammar).replay(*padded([[*program, vocabulary_of(name).eos_id]]), max_tokens=24)
        except ProtocolError:
            return False
        return True

    return np.array([is_legal(program) for program in programs])
