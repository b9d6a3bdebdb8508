"""What a comparison's command line asks for, and what is wrong with it, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from altlas.cli.bench import BenchRequest, parse_seeds, plan
from altlas.config.loader import preset_names
from altlas.errors import AltlasError, ConfigError
from altlas.report.algorithms import Algorithm, parse_algorithms

FORM = "is not of the form"


def request(**changes: Any) -> BenchRequest:
    return BenchRequest(**{"name": "x", "out": Path("out"), "tasks": "basics/hello_world", **changes})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy", Algorithm(label="policy", name="policy")),
        ("net=policy", Algorithm(label="net", name="policy")),
        (
            "policy:model.hidden=8",
            Algorithm(label="policy:model.hidden=8", name="policy", overrides=("model.hidden=8",)),
        ),
        (
            "small=policy:model.hidden=8; run.stuck_after=0",
            Algorithm(label="small", name="policy", overrides=("model.hidden=8", "run.stuck_after=0")),
        ),
    ],
)
def test_an_algorithm_has_a_label_and_settings(text: str, expected: Algorithm) -> None:
    assert parse_algorithms(f"{text},random") == (expected, Algorithm(label="random", name="random"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names none"),
        ("policy,policy", "'policy' is there twice"),
        ("x=policy,x=random", "'x' is there twice"),
        ("polcy", "there is no 'polcy'; algorithms: policy"),
        ("=policy", FORM),
        ("x=", FORM),
        ("policy:", FORM),
        ("policy:hidden", FORM),
    ],
)
def test_a_wrong_list_of_algorithms_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_algorithms(text)


def test_a_preset_is_an_algorithm() -> None:
    (algorithm,) = parse_algorithms(preset_names()[0])
    assert algorithm.arguments == ("--preset", preset_names()[0])
    (run,) = plan(request(algorithms=preset_names()[0], seeds="7,", budget=9))
    assert run.settings == f"preset {preset_names()[0]}"


@pytest.mark.parametrize(("text", "seeds"), [("3", [1, 2, 3]), ("3,7", [3, 7]), ("7,", [7])])
def test_seeds_are_a_number_or_a_list(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "x", "1,x", "2,2", "-1"])
def test_wrong_seeds_are_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds(text)


def test_a_run_has_all_its_settings_in_its_arguments_and_its_key() -> None:
    runs = plan(
        request(algorithms="small=policy:model.hidden=8,random", seeds="2", budget=500, overrides=("model.layers=2",))
    )
    assert [(run.seed, run.algorithm.label) for run in runs] == [
        (1, "small"),
        (1, "random"),
        (2, "small"),
        (2, "random"),
    ]
    assert runs[0].key == ("basics/hello_world", "policy;model.layers=2;model.hidden=8", 1, 500)
    arguments = " ".join(runs[0].arguments(Path("DIR")))
    assert arguments == (
        "basics/hello_world --seed 1 --budget 500 --json --quiet --run-dir DIR --overwrite --set run.evaluators=1 "
        "--set algorithm.name=policy --set model.layers=2 --set model.hidden=8"
    )


def test_a_configuration_file_is_part_of_the_key_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.ini"
    keys = []
    for hidden in (8, 16, 8):
        file.write_text(f"[model]\nhidden = {hidden}\n[run]\nbudget = 77\n")
        (run,) = plan(request(seeds="1", config_file=file))
        keys.append(run.key)
        assert run.budget == 77
    assert keys[0] == keys[2] != keys[1]


def test_a_pack_is_all_its_tasks_with_their_own_budgets() -> None:
    runs = plan(request(tasks=None, pack="basics", seeds="1"))
    assert len(runs) >= 7
    assert {run.task.partition("/")[0] for run in runs} == {"basics"}
    assert all(run.budget > 0 for run in runs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": None}, "either --pack PACK or --tasks"),
        ({"pack": "basics"}, "either --pack PACK or --tasks"),
        ({"tasks": None, "pack": "basic"}, "no pack 'basic'; there are basics"),
        ({"tasks": "basics/hello"}, "no task 'basics/hello'"),
        ({"tasks": "basics/hello_world,basics/hello_world"}, "a task twice"),
        ({"overrides": ("run.seed=3",)}, "give --seeds instead of run.seed"),
        ({"algorithms": "policy:run.budget=3"}, "give --budget instead of run.budget"),
        ({"overrides": ("model.hiden=3",)}, "did you mean model.hidden"),
        ({"algorithms": "policy:model.hiden=3"}, "did you mean model.hidden"),
    ],
)
def test_what_cannot_run_is_said_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AltlasError, match=message):
        plan(request(**changes))
