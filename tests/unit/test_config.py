"""The loader: precedence of its four sources, and errors that name the source, the key and the way out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altlas.config.fields import all_keys, section_types
from altlas.config.ini import parse_ini, render_config_ini
from altlas.config.loader import config_digest, config_from_json, config_to_json, load_config
from altlas.config.sections import Config, RunSection
from altlas.errors import ConfigError


def load(*overrides: str, config_file: Path | None = None, environ: dict[str, str] | None = None) -> Config:
    return load_config(config_file=config_file, environ=environ or {}, overrides=overrides)


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.ini"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_sources_the_shipped_file_gives_the_defaults() -> None:
    assert load() == Config()


def test_a_later_source_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "[run]\nseed = 2\nkeep_last = 2\nevaluators = 2\n")
    environ = {"ALTLAS_RUN__KEEP_LAST": "4", "ALTLAS_RUN__EVALUATORS": "4"}
    run = load("run.evaluators=5", config_file=file, environ=environ).run
    assert (run.seed, run.keep_last, run.evaluators) == (2, 4, 5)


def test_the_last_set_argument_wins() -> None:
    assert load("run.seed=2", "run.seed=3").run.seed == 3


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("run.stop_on_solved=no", ("run", "stop_on_solved"), False),
        ("optimizer.learning_rate=1e-3", ("optimizer", "learning_rate"), 0.001),
        ("transport.redis_url=redis://h:1/0?a=b", ("transport", "redis_url"), "redis://h:1/0?a=b"),
        ("paths.runs= some where ", ("paths", "runs"), "some where"),
        ("model.cell=gru", ("model", "cell"), "gru"),
    ],
)
def test_values_are_read_by_type(override: str, path: tuple[str, str], value: object) -> None:
    assert getattr(getattr(load(override), path[0]), path[1]) == value


def test_other_environment_variables_are_not_ours() -> None:
    assert load(environ={"ALTLAS_ROOT": "/x", "PATH": "/bin", "MY_ALTLAS_RUN__SEED": "x"}) == Config()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("run.sede=1", ["--set run.sede=1", "unknown key run.sede", "did you mean run.seed?"]),
        ("run.batch_size=1", ["unknown key run.batch_size", "did you mean sampling.batch_size?"]),
        ("samplin.batch_size=1", ["unknown section [samplin]", "did you mean [sampling]?"]),
        ("zzz.qqq=1", ["unknown section [zzz]", "known: run, curriculum, algorithm, model"]),
        ("run.evaluators=0", ["run.evaluators = '0' is not allowed", "a whole number from 1 to 256"]),
        ("run.evaluators=two", ["run.evaluators = 'two'", "a whole number from 1 to 256"]),
        ("sampling.temperature=0", ["sampling.temperature = '0'", "a number above 0, at most 100"]),
        ("run.wall_clock_s=inf", ["run.wall_clock_s = 'inf'", "a number at least 0"]),
        ("objective.ema_decay=nan", ["objective.ema_decay = 'nan'", "a number at least 0, below 1"]),
        ("model.cell=rnn", ["model.cell = 'rnn'", "one of lstm, gru"]),
        ("run.stop_on_solved=perhaps", ["run.stop_on_solved = 'perhaps'", "true or false"]),
        ("run.seed", ["--set run.seed: not of the form section.key=value"]),
        ("seed=1", ["--set seed=1: not of the form section.key=value"]),
    ],
)
def test_a_wrong_setting_is_named_with_the_way_out(override: str, expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(override)
    for part in expected:
        assert part in str(caught.value)


def test_all_problems_of_all_sources_are_listed_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "[run]\n# note\nsede = 2\nnonsense\n[model]\ncell = rnn\n")
    with pytest.raises(ConfigError) as caught:
        load("oops", "model.cell=x", config_file=file, environ={"ALTLAS_MODEL__LAYERS": "99"})
    message = str(caught.value)
    assert message.startswith("6 problems in the configuration:\n")
    for part in (
        f"{file}:3: unknown key run.sede",
        f"{file}:4: 'nonsense' is neither",
        f"{file}:6: model.cell = 'rnn'",
        "environment variable ALTLAS_MODEL__LAYERS: model.layers = '99'",
        "--set oops",
        "--set model.cell=x: model.cell = 'x'",
    ):
        assert part in message


def test_a_wrong_value_is_an_error_also_where_a_later_source_overrides_it() -> None:
    with pytest.raises(ConfigError, match="ALTLAS_RUN__SEED"):
        load("run.seed=3", environ={"ALTLAS_RUN__SEED": "many"})


def test_values_that_are_wrong_together_name_who_set_them() -> None:
    overrides = [f"reward.{weight}=0" for weight in ("syntax", "runs", "similarity", "exact")]
    with pytest.raises(ConfigError, match="at least one must be above 0") as caught:
        load(*overrides)
    assert "exact from --set reward.exact=0" in str(caught.value)


def test_a_missing_config_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config .*nowhere\.ini: no such file"):
        load(config_file=tmp_path / "nowhere.ini")


def test_an_unreadable_config_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "binary.ini").write_bytes(b"[run]\nseed = \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read as UTF-8 text"):
        load(config_file=tmp_path / "binary.ini")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(config_file=tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seed = 1\n", "mine.ini:1: seed stands before the first [section]"),
        ("[run]\nseed = 1\nseed = 2\n", "mine.ini:3: run.seed is set a second time; line 2 sets it too"),
        ("[run\nseed = 1\n", "mine.ini:1: '[run' is neither"),
        ("[run]\n= 1\n", "mine.ini:2: '= 1' is neither"),
    ],
)
def test_a_malformed_line_is_named(text: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in parse_ini(text, where="mine.ini")[1])


def test_json_round_trip_and_digest() -> None:
    config = load("run.seed=7", "transport.redis_url=unix:///tmp/x", "run.wall_clock_s=0.1")
    assert config_from_json(config_to_json(config)) == config
    assert config_digest(config) == config_digest(config_from_json(config_to_json(config)))
    assert config_digest(config) != config_digest(Config())


@pytest.mark.parametrize("text", ["", "[]", '{"run": {"sede": 1}}', '{"run": {"seed": -1}}'])
def test_json_of_another_shape_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="another version of altlas"):
        config_from_json(text)


@given(
    seed=st.integers(0, 2**63 - 1),
    wall_clock_s=st.floats(0, 1e12, allow_nan=False),
    stop_on_solved=st.booleans(),
    on_stuck=st.sampled_from(["stop", "reinitialise"]),
)
def test_rendering_and_reading_back_gives_an_equal_configuration(
    seed: int, wall_clock_s: float, stop_on_solved: bool, on_stuck: str
) -> None:
    run = RunSection.model_validate(
        {"seed": seed, "wall_clock_s": wall_clock_s, "stop_on_solved": stop_on_solved, "on_stuck": on_stuck}
    )
    settings, problems = parse_ini(render_config_ini(Config(run=run)), where="x")
    assert problems == []
    values: dict[str, dict[str, str]] = {section: {} for section in section_types()}
    for setting in settings:
        values[setting.section][setting.key] = setting.text
    assert Config.model_validate(values) == Config(run=run)
    assert {f"{setting.section}.{setting.key}" for setting in settings} == all_keys().keys()


def test_every_key_says_what_it_means() -> None:
    assert [key.path for key in all_keys().values() if not key.description.endswith(".")] == []
