"""What may change when a run is resumed."""

from __future__ import annotations

import pytest

from altlas.config.fields import all_keys
from altlas.config.loader import RESUMABLE_KEYS, check_resumable, load_config
from altlas.config.sections import Config
from altlas.errors import ConfigError


def load(*overrides: str) -> Config:
    return load_config(config_file=None, environ={}, overrides=overrides)


def test_resumable_keys_exist() -> None:
    assert all_keys().keys() >= RESUMABLE_KEYS


def test_keys_that_may_change_do() -> None:
    check_resumable(load(), load("run.budget=9", "run.evaluators=3", "logging.level=debug", "transport.lease_s=3"))


def test_a_fixed_key_that_differs_is_an_error_with_the_ways_out() -> None:
    with pytest.raises(ConfigError) as caught:
        check_resumable(load("run.seed=4"), load("run.seed=5", "sampling.batch_size=8", "run.budget=7"))
    message = str(caught.value)
    assert "run.seed: the run has '4', now '5'" in message
    assert "--set run.seed=4 --set sampling.batch_size=256" in message
    assert "--run-dir" in message
    assert "run.budget" not in message


@pytest.mark.parametrize("key", ["transport.shard_size", "sandbox.cpu_s", "reward.exact", "objective.name", "run.seed"])
def test_what_decides_scores_jobs_or_weights_is_fixed(key: str) -> None:
    assert key in all_keys()
    assert key not in RESUMABLE_KEYS
