"""What elites have makes new code: their rules are counted, and a share of the draws follows the counts."""

from scored import children_of, lists_of

from altlas.core.grammar import build_constraint
from altlas.core.phrases import UNIFORMS, phrases_of
from altlas.core.rng import uniform
from altlas.core.tokenizer import build_tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.tasks import load_vocabulary_text

VOCABULARY = parse_vocabulary(load_vocabulary_text(""), name="python")
PHRASES = phrases_of(build_constraint(VOCABULARY, language="python", grammar="language"), VOCABULARY)


def ids_of(source):
    return build_tokenizer(VOCABULARY, "python").encode_ids(source)


def draws_of(count):
    return uniform(1, "vary", update=0, first_index=0, count=count, per_index=UNIFORMS)


def test_rules_are_counted_as_often_as_programs_have_them():
    counts = PHRASES.count_rules(children_of([ids_of("x = 3\nprint(x * x + x)"), ids_of("print('hello')")]))
    assert counts["operator"] == {("TIMES",): 1, ("PLUS",): 1}
    assert counts["print{NAME,NEVER}"] == {("PRINT", "LPAR", "value{NAME,NEVER}", "RPAR"): 1}
    assert counts["term{NAME,NEVER}"] == {("varying{NAME,NEVER}",): 2}


def test_new_code_resembles_programs_by_the_share_that_is_learned():
    parents = children_of([ids_of("x = 3\nprint(x)")] * 3000)
    models = children_of([ids_of("x = 3\nprint(x // 7)")])
    names = VOCABULARY.id_of
    found = {}
    for learned in (0.0, 0.5, 1.0):
        children = PHRASES.vary(
            parents,
            parents,
            draws_of(3000),
            longest=30,
            crossover=0.0,
            mean_edits=1.0,
            counts=PHRASES.count_rules(models),
            learned=learned,
        )
        programs = lists_of(children.tokens, children.lengths)
        found[learned] = [sum(program.count(names[text]) for program in programs) for text in ("//", "+")]
    shares = [divided / (divided + added) for divided, added in found.values()]
    assert shares[0] < 0.3 < 0.4 < shares[1] < shares[2]
    assert shares[2] > 0.7
