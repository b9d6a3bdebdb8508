"""The settings that come with a pack of tasks, and what lies over them."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from altlas.cli.train import TrainRequest, resolve
from altlas.config.loader import config_from_json, config_to_json, load_config, preset_names
from altlas.config.sections import Config
from altlas.errors import ConfigError, TaskError
from altlas.tasks import list_tasks, load_task, pack_file, with_task_defaults

TASK = "brainf/echo-second-seq"
BUILT_IN = Path(str(resources.files("altlas.tasks")))
PACKS = sorted(path.parent.name for path in BUILT_IN.glob("*/pack.ini"))


def load(*overrides: str, task: str = TASK, preset: str | None = None, config_file: Path | None = None) -> Config:
    return load_config(
        config_file=config_file, environ={}, overrides=overrides, preset=preset, pack_file=pack_file(task)
    )


def request(task: str, run_dir: Path, *, resume: bool = False) -> TrainRequest:
    return TrainRequest(
        task=task,
        config_file=None,
        overrides=(),
        run_dir=run_dir,
        resume=resume,
        overwrite=False,
        as_json=False,
        quiet=True,
    )


def test_packs_of_brainf_bring_settings_and_others_none() -> None:
    assert PACKS == ["brainf", "brainf-64"]
    for task in list_tasks():
        assert (pack_file(task) is not None) == (task.partition("/")[0] in PACKS), task
    assert load(task="basics/hello_world") == Config()


@pytest.mark.parametrize("pack", PACKS)
def test_a_pack_varies_elites_and_lets_brackets_stand_alone(pack: str) -> None:
    task = next(name for name in list_tasks() if name.startswith(f"{pack}/"))
    config = load(task=task)
    assert config.sampling.grammar == "none"
    assert 0 < config.proposals.mutation + config.proposals.infill < 1
    assert config.objective.pqt_source == "archive"
    assert config_from_json(config_to_json(config)) == config


def test_presets_files_and_set_lie_over_the_pack(tmp_path: Path) -> None:
    file = tmp_path / "mine.ini"
    file.write_text("[proposals]\nmutation = 0.1\ninfill = 0.2\n", encoding="utf-8")
    config = load("proposals.infill=0.3", config_file=file)
    assert (config.proposals.mutation, config.proposals.infill) == (0.1, 0.3)
    assert config.sampling.batch_size == load().sampling.batch_size
    assert load(preset="paper-pqt").sampling.batch_size == 64


@pytest.mark.parametrize("preset", [name for name in preset_names() if name != "paper-ga"])
def test_published_settings_are_the_same_on_every_pack(preset: str) -> None:
    alone = load_config(config_file=None, environ={}, overrides=(), preset=preset)
    assert load(preset=preset) == alone


@pytest.mark.parametrize("task", [TASK, "basics/hello_world"])
def test_the_published_genetic_algorithm(task: str) -> None:
    config = load(preset="paper-ga", task=task)
    assert (config.algorithm.name, config.run.stuck_after) == ("ga", 0)
    assert (config.ga.crossover, config.ga.mutation) == (0.95, 0.15)
    assert (config.sampling.batch_size, config.sampling.max_tokens) == (98, 100)
    assert (config.sampling.length, config.sampling.grammar) == ("fixed", "none")
    assert with_task_defaults(config, load_task(task)[0]).sampling.max_tokens == 100


def test_a_pack_file_lies_beside_a_users_task_too_and_a_resumed_run_keeps_what_it_said(tmp_path: Path) -> None:
    shutil.copy(BUILT_IN / f"{TASK}.toml", tmp_path / "mine.toml")
    task = str(tmp_path / "mine.toml")
    assert pack_file(task) is None
    settings = tmp_path / "pack.ini"
    settings.write_text("[model]\nhidden = 17\n", encoding="utf-8")
    run_dir = tmp_path / "run"
    assert resolve(request(task, run_dir)).config.model.hidden == 17
    settings.write_text("[model]\nhidden = 18\n", encoding="utf-8")
    assert resolve(request(task, run_dir, resume=True)).config.model.hidden == 17


def test_a_wrong_pack_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "pack.ini").write_text("[model]\nhiden = 17\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"pack\.ini.*\n?.*hiden") as caught:
        load(task=str(tmp_path / "mine.toml"))
    assert "did you mean model.hidden?" in str(caught.value)


def test_an_unknown_task_has_no_settings() -> None:
    with pytest.raises(TaskError, match="did you mean brainf/"):
        pack_file("brainf/echo-secnd-seq")
