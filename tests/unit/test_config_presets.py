"""Presets: what they say, where they stand among the sources, and that a run records them resolved."""

from __future__ import annotations

from pathlib import Path

import pytest

from altlas.cli.train import TrainRequest, resolve
from altlas.config.loader import load_config, preset_names
from altlas.config.sections import Config
from altlas.errors import ConfigError


def load(*overrides: str, preset: str | None, config_file: Path | None = None) -> Config:
    return load_config(config_file=config_file, environ={}, overrides=overrides, preset=preset)


def request(run_dir: Path, *, preset: str | None, resume: bool = False) -> TrainRequest:
    return TrainRequest(
        task="basics/hello_world",
        preset=preset,
        config_file=None,
        overrides=(),
        run_dir=run_dir,
        resume=resume,
        overwrite=False,
        as_json=False,
        quiet=True,
    )


@pytest.mark.parametrize(
    ("name", "policy", "entropy", "pqt"),
    [("paper-pg", 1.0, 0.05, 0.0), ("paper-pqt", 0.0, 0.01, 200.0), ("paper-pg-pqt", 1.0, 0.01, 50.0)],
)
def test_published_settings(name: str, policy: float, entropy: float, pqt: float) -> None:
    config = load(preset=name)
    objective, optimizer, model, sampling = config.objective, config.optimizer, config.model, config.sampling
    assert (objective.policy_weight, objective.entropy_weight, objective.pqt_weight) == (policy, entropy, pqt)
    assert (objective.loss_scale, objective.entropy_sum, objective.entropy_target) == (64.0, "sum_per_program", 0.0)
    assert (objective.baseline, objective.ema_kind, objective.ema_decay) == ("ema", "program", 0.99)
    assert (objective.pqt_size, objective.pqt_unique, objective.pqt_offer) == (10, "tokens", "batch_best")
    assert (objective.pqt_draw, objective.pqt_normalise) == ("one", "sum")
    assert (optimizer.name, optimizer.learning_rate, optimizer.decay) == ("rmsprop_tf", 1e-4, 0.99)
    assert (optimizer.epsilon, optimizer.gradient_clip) == (1e-10, 50.0)
    assert (model.cell, model.layers, model.hidden, model.embedding) == ("lstm", 2, 35, 10)
    assert (model.initialisation, model.init_factor, model.output_bias) == ("glorot", 0.5, False)
    assert (sampling.batch_size, sampling.max_tokens, sampling.length, sampling.grammar) == (64, 100, "fixed", "none")
    assert (config.run.stuck_after, config.algorithm.name) == (0, "policy")
    assert (config.proposals.mutation, config.proposals.infill) == (0.0, 0.0)


def test_a_preset_lies_over_the_defaults_and_under_everything_else(tmp_path: Path) -> None:
    file = tmp_path / "mine.ini"
    file.write_text("[model]\nhidden = 8\nlayers = 1\n", encoding="utf-8")
    model = load("model.layers=3", preset="paper-pqt", config_file=file).model
    assert (model.embedding, model.hidden, model.layers) == (10, 8, 3)
    assert load(preset=None) == Config()


def test_an_unknown_preset_is_an_error_that_lists_them() -> None:
    assert list(preset_names()) == ["paper-ga", "paper-pg", "paper-pg-pqt", "paper-pqt"]
    with pytest.raises(ConfigError, match=r"--preset paper: .* paper-pg, paper-pg-pqt, paper-pqt"):
        load(preset="paper")


def test_a_run_records_the_resolved_preset_and_goes_on_with_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    config = resolve(request(run_dir, preset="paper-pqt")).config
    assert config.model == load(preset="paper-pqt").model
    assert load(preset=None, config_file=run_dir / "config.ini") == config
    assert resolve(request(run_dir, preset=None, resume=True)).config == config
    with pytest.raises(ConfigError, match="--preset cannot be given with --resume"):
        resolve(request(run_dir, preset="paper-pqt", resume=True))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["sampling.length=fixed"], "grammar to none"),
        (["proposals.mutation=0.7", "proposals.infill=0.4"], "sum must be at most 1"),
        (["objective.entropy_weight_min=0.5", "objective.entropy_weight_max=0.1"], "entropy_weight_min is above"),
    ],
)
def test_values_that_do_not_go_together_are_refused(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(*overrides, preset=None)
