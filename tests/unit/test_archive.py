"""The archive against a literal reading of its rules over everything that it was ever offered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored import batch_of, lists_of, scores_of

from altlas.config.sections import ArchiveSection
from altlas.core.archive import Archive
from altlas.core.rng import uniform
from altlas.errors import CheckpointError

CASES = 3
# Few values, so that equal rewards, lengths and behaviours are common. A program's behaviour is what it scores.
BEHAVIOURS = st.lists(
    st.tuples(
        st.sampled_from([-1.0, 0.0, 0.25, 1.0]),
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=CASES, max_size=CASES),
    ),
    min_size=1,
    max_size=12,
)
OFFERS = st.lists(
    st.tuples(st.integers(0, 11), st.lists(st.integers(4, 9), min_size=1, max_size=4)), min_size=1, max_size=10
)


def offer(archive, behaviours, offers):
    """Offer (number of a behaviour, tokens) together; return the rows that are in."""
    numbers = [number % len(behaviours) for number, _ in offers]
    scores = scores_of([behaviours[n][0] for n in numbers], numbers, [behaviours[n][1] for n in numbers])
    return archive.offer(batch_of([tokens for _, tokens in offers]), scores).tolist()


def keep_literally(history, behaviours, size, per_case):
    """Return (age, tokens) of the best by reward, and of the best of each case, of all that was offered."""
    best = {}
    for age, (number, tokens) in enumerate(history):
        number %= len(behaviours)
        reward, cases = behaviours[number]
        rank = (-reward, len(tokens), age)
        if number not in best or rank < best[number][0]:
            best[number] = (rank, cases, tokens)
    ranked = sorted(best.values())
    by_case = [
        sorted(ranked, key=lambda entry: (-entry[1][case], entry[0]))[:per_case]
        for case in range(CASES if per_case else 0)
    ]
    name = lambda entry: (entry[0][2], entry[2])  # noqa: E731
    return [name(entry) for entry in ranked[:size]], [[name(entry) for entry in column] for column in by_case]


def programs_by_case(archive):
    elites = archive.elites()
    programs = lists_of(elites.tokens, elites.lengths)
    return [list(dict.fromkeys(column)) for column in elites.by_case.tolist()], programs


@given(
    behaviours=BEHAVIOURS,
    batches=st.lists(OFFERS, min_size=1, max_size=6),
    size=st.integers(1, 4),
    per_case=st.integers(0, 3),
)
def test_the_archive_is_what_its_rules_leave_of_everything(behaviours, batches, size, per_case):
    section = ArchiveSection(size=size, per_case=per_case)
    archive, history = Archive(section), []
    for offers in batches:
        first = len(history)
        history += offers
        entered = offer(archive, behaviours, offers)
        best, by_case = keep_literally(history, behaviours, size, per_case)
        assert [list(elite.tokens) for elite in archive.best] == [tokens for _, tokens in best]
        columns, programs = programs_by_case(archive)
        assert [[programs[row] for row in column] for column in columns] == [
            [tokens for _, tokens in column] for column in by_case
        ]
        kept = {*(age for age, _ in best), *(age for column in by_case for age, _ in column)}
        assert len(archive) == len(archive.members) == len(kept)
        assert entered == sorted(age - first for age in kept if age >= first)
        restored = Archive(section)
        restored.load(archive.arrays())
        assert [elite.rank for elite in restored.members] == [elite.rank for elite in archive.members]
        archive = restored  # goes on as the one that was saved


@given(behaviours=BEHAVIOURS, offers=OFFERS, cut=st.integers(1, 9))
def test_a_batch_in_parts_leaves_the_same_archive(behaviours, offers, cut):
    whole, parts = (Archive(ArchiveSection(size=2, per_case=1)) for _ in range(2))
    offer(whole, behaviours, offers)
    for part in filter(None, (offers[:cut], offers[cut:])):
        offer(parts, behaviours, part)
    for name, array in whole.arrays().items():
        assert array.tobytes() == parts.arrays()[name].tobytes(), name


def test_a_specialist_stays_however_poor_it_is_on_the_rest():
    archive = Archive(ArchiveSection(size=1, per_case=1))
    behaviours = [(0.1, [0.0, 0.0, 1.0]), (0.9, [0.8, 0.8, 0.0]), (0.8, [0.7, 0.7, 0.0])]
    assert offer(archive, behaviours, [(0, [4, 5, 6, 7]), (1, [8]), (2, [9])]) == [0, 1]
    # As good, but shorter: the bound must not keep it out, though its reward is far below the best.
    assert offer(archive, behaviours, [(0, [4, 5])]) == [0]
    assert [elite.tokens for elite in archive.members] == [(8,), (4, 5)]


def test_loading_forgets_what_was_held():
    archive = Archive(ArchiveSection(size=2, per_case=1))
    nothing = archive.arrays()
    offer(archive, [(0.5, [1.0, 0.0, 0.0])], [(0, [4])])
    archive.load(nothing)
    assert (len(archive), archive.best, len(archive.elites())) == (0, [], 0)


def test_a_part_that_is_missing_is_named():
    arrays = Archive(ArchiveSection()).arrays()
    del arrays["behaviours"]
    with pytest.raises(CheckpointError, match="the archive lacks behaviours"):
        Archive(ArchiveSection()).load(arrays)


def elites_of_five():
    archive = Archive(ArchiveSection(size=3, per_case=2))
    cases = [[0.2, 0.2, 0.2], [0.2, 0.2, 0.1], [0.2, 0.1, 0.1], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    behaviours = [(0.9 - 0.1 * row, by_case) for row, by_case in enumerate(cases)]
    offer(archive, behaviours, [(row, [4 + row]) for row in range(5)])
    return archive.elites()


def test_draws_equal_the_literal_ones():
    elites = elites_of_five()
    uniforms = uniform(1, "draw", update=0, first_index=0, count=3000, per_index=3)
    drawn = elites.draw(uniforms, case_share=0.4).tolist()
    for row, (kind, first, second) in enumerate(uniforms.tolist()):
        expected = elites.by_case[int(first * 3)][int(second * 2)] if kind < 0.4 else elites.best[int(first * 3)]
        assert drawn[row] == expected


@pytest.mark.parametrize(("case_share", "expected"), [(0.0, {0, 1, 2}), (1.0, {0, 1, 3, 4})])
def test_draws_reach_all_and_nothing_else(case_share, expected):
    elites = elites_of_five()
    uniforms = uniform(1, "draw", update=0, first_index=0, count=500, per_index=3)
    edge = 2.0**-24
    ends = np.array([[edge] * 3, [edge, 1 - edge, 1 - edge], [1 - edge] * 3], dtype=np.float32)
    assert set(elites.draw(np.concatenate([uniforms, ends]), case_share=case_share).tolist()) == expected


def test_without_elites_of_cases_all_are_drawn_from_the_best():
    archive = Archive(ArchiveSection(size=2, per_case=0))
    offer(archive, [(0.5, [0.0] * 3), (0.4, [1.0] * 3)], [(0, [4]), (1, [5])])
    uniforms = uniform(1, "draw", update=0, first_index=0, count=100, per_index=3)
    assert set(archive.elites().draw(uniforms, case_share=1.0).tolist()) == {0, 1}


def test_nothing_is_drawn_from_an_empty_archive():
    with pytest.raises(ValueError, match="empty archive"):
        Archive(ArchiveSection()).elites().draw(np.zeros((1, 3), dtype=np.float32), case_share=0.5)
