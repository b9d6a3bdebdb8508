"""The entropy weight: still without a target, moved by the formula and within its bounds with one."""

import json
import math

import pytest

from altlas.config.sections import ObjectiveSection
from altlas.core.entropy_target import EntropyWeight
from altlas.errors import CheckpointError

SECTION = ObjectiveSection(
    entropy_weight=0.1, entropy_target=1.5, entropy_rate=0.2, entropy_weight_min=0.01, entropy_weight_max=0.5
)


def test_without_a_target_the_weight_is_the_configured_one():
    weight = EntropyWeight(ObjectiveSection(entropy_weight=0.0, entropy_target=0.0))
    weight.update(0.0)
    assert weight.weight == 0.0


def test_the_weight_follows_the_formula():
    weight, expected = EntropyWeight(SECTION), 0.1
    for entropy in (1.0, 2.0, 1.5, 0.2):
        weight.update(entropy)
        expected = min(max(expected * math.exp(0.2 * (1.5 - entropy)), 0.01), 0.5)
        assert weight.weight == pytest.approx(expected)


@pytest.mark.parametrize(("entropy", "bound"), [(0.0, 0.5), (20.0, 0.01)])
def test_the_weight_stays_within_its_bounds(entropy, bound):
    weight = EntropyWeight(SECTION)
    for _ in range(100):
        weight.update(entropy)
    assert weight.weight == bound


def test_a_weight_of_nothing_begins_at_the_least_so_that_it_can_grow():
    assert EntropyWeight(SECTION.model_copy(update={"entropy_weight": 0.0})).weight == 0.01


def test_the_state_survives_json():
    weight = EntropyWeight(SECTION)
    weight.update(0.3)
    restored = EntropyWeight(SECTION)
    restored.load(json.loads(json.dumps({"updates": 1, **weight.meta()})))
    assert restored.weight == weight.weight
    with pytest.raises(CheckpointError, match="entropy_weight"):
        restored.load({"updates": 1})
