"""A batch is decoded as the language's tokenizer decodes its programs one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.core.tokenizer import build_tokenizer
from altlas.core.vocabulary import parse_vocabulary
from altlas.errors import VocabularyError
from altlas.tasks import load_vocabulary_text
from altlas_generator.decoding import build_decoder


def batch_of(programs):
    lengths = np.array([len(program) for program in programs])
    tokens = np.zeros((len(programs), lengths.max()), dtype=np.int64)
    for row, program in enumerate(programs):
        tokens[row, : len(program)] = program
    return tokens, lengths


@pytest.mark.parametrize("language", ["python", "brainf"])
@given(data=st.data())
def test_a_batch_is_decoded_as_its_programs(language, data):
    vocabulary = parse_vocabulary(load_vocabulary_text(""), name=language)
    tokenizer = build_tokenizer(vocabulary, language)
    bodies = st.lists(st.integers(vocabulary.unk_id + 1, len(vocabulary) - 1), min_size=1, max_size=12)
    ends = st.sampled_from([[], [vocabulary.eos_id]])
    programs = data.draw(st.lists(st.tuples(bodies, ends).map(lambda pair: pair[0] + pair[1]), min_size=1, max_size=6))
    decode = build_decoder(vocabulary, language=language)
    assert decode(*batch_of(programs)) == [tokenizer.decode(program).encode() for program in programs]
    assert decode(*batch_of([[vocabulary.eos_id]])) == [b""]


def test_a_vocabulary_of_another_language_is_refused():
    with pytest.raises(VocabularyError, match="which brainf programs are made of"):
        build_decoder(parse_vocabulary(load_vocabulary_text("")), language="brainf")
