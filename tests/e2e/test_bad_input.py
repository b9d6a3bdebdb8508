"""Bad input: each case has an exit code and a message that says what was wrong, where, and what to do."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

TRAIN = ("train", "basics/hello_world", "--quiet", "--budget", "64")


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["train", "basics/helo_world"], 2, ["basics/helo_world", "basics/hello_world", "altlas tasks list"]),
        (["train", "no_such_file.toml"], 2, ["no_such_file.toml"]),
        ([*TRAIN, "--set", "sampling.batchsize=3"], 2, ["--set", "sampling.batchsize", "batch_size"]),
        ([*TRAIN, "--set", "optimizer.learning_rate=7"], 2, ["optimizer.learning_rate", "7"]),
        ([*TRAIN, "--set", "run.seed=abc"], 2, ["run.seed", "abc"]),
        ([*TRAIN, "--set", "run.seed"], 2, ["run.seed", "="]),
        ([*TRAIN, "--config", "missing.ini"], 2, ["missing.ini"]),
        ([*TRAIN, "--resume"], 2, ["--run-dir"]),
        ([*TRAIN, "--resume", "--overwrite", "--run-dir", "x"], 2, ["exclude each other"]),
        ([*TRAIN, "--resume", "--run-dir", "never"], 2, ["never", "resume"]),
        ([*TRAIN, "--redis-url", "redis://127.0.0.1:1"], 1, ["127.0.0.1:1", "redis"]),
        ([*TRAIN, "--redis-url", "http://x"], 2, ["redis://", "unix://"]),
        (["serve", "coordinator"], 2, ["redis_url"]),
        (["tasks", "show", "stdin/ech"], 2, ["stdin/echo"]),
    ],
)
def test_bad_arguments(altlas, arguments, code, parts) -> None:
    done = altlas(*arguments)
    assert done.code == code, done.stderr
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part.lower() in done.stderr.lower()


def test_environment_typo_is_named(altlas) -> None:
    done = altlas(*TRAIN, env={"ALTLAS_RUN__SEDE": "3"})
    assert done.code == 2
    assert "ALTLAS_RUN__SEDE" in done.stderr
    assert "seed" in done.stderr


def test_config_file_typo_is_named_with_its_line(altlas, tmp_path: Path) -> None:
    (tmp_path / "mine.ini").write_text("[run]\nseed = 1\nbudgte = 5\n")
    done = altlas(*TRAIN, "--config", "mine.ini")
    assert done.code == 2
    for part in ("mine.ini", "3", "budgte", "budget"):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "JSON"),
        ('{"version": 99, "special_tokens": [], "vocabularies": {}}', "version"),
        ('{"version": 1, "special_tokens": ["<PAD>", "<PAD>"], "vocabularies": {}}', "<PAD>"),
        (None, "not"),
    ],
)
def test_bad_vocabulary(altlas, tmp_path: Path, content, part) -> None:
    if content is not None:
        (tmp_path / "vocab.json").write_text(content)
    done = altlas(*TRAIN, "--set", "paths.vocabulary=vocab.json")
    assert done.code == 2
    assert "vocab.json" in done.stderr
    assert part in done.stderr


def test_bad_task_file_lists_every_problem(altlas, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "Mine"\nlanguage = "cobol"\n[[cases]]\nstdn = "1"\n')
    done = altlas("train", "mine.toml")
    assert done.code == 2
    for part in ("mine.toml", "name", "language", "description", "reference", "expected_stdout", "stdn"):
        assert part in done.stderr


def test_a_run_directory_that_exists_is_refused_with_all_ways_out(altlas, tmp_path: Path) -> None:
    assert altlas(*TRAIN, "--run-dir", "run").code in (0, 3)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    done = altlas(*TRAIN, "--run-dir", "run")
    assert done.code == 2
    for part in ("run", "--resume", "--overwrite", "--run-dir"):
        assert part in done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_directory_that_is_not_a_runs_is_never_touched(altlas, tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("mine")
    for extra in ([], ["--overwrite"], ["--resume"]):
        done = altlas(*TRAIN, "--run-dir", "papers", *extra)
        assert done.code == 2
        assert "papers" in done.stderr
        assert "--run-dir" in done.stderr
    assert [path.name for path in (tmp_path / "papers").iterdir()] == ["thesis.txt"]


@pytest.mark.timeout(240)
def test_damaged_checkpoints_fall_back_and_then_fail_loudly(altlas, tmp_path: Path) -> None:
    shared = ("--run-dir", "run", "--json", "--quiet")
    limits = ("--set", "run.checkpoint_every=1", "--set", "sampling.batch_size=32", "--set", "run.stop_on_solved=false")
    first = altlas("train", "stdin/echo", "--budget", "96", *limits, *shared)
    assert first.code in (0, 3), first.stderr
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir(), key=lambda path: int(path.name.split("_")[1]))
    assert len(checkpoints) == 3
    damage(checkpoints[-1])
    again = altlas("train", "stdin/echo", "--resume", "--budget", "128", *shared)
    assert again.code in (0, 3), again.stderr
    assert checkpoints[-1].name in (tmp_path / "run" / "training.log").read_text()
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        damage(path)
    failed = altlas("train", "stdin/echo", "--resume", "--budget", "256", *shared)
    assert failed.code == 1
    assert failed.result["stop_reason"] == "failed"
    assert "checkpoint" in failed.result["error"]


def damage(checkpoint: Path) -> None:
    victim = checkpoint / "trainer.safetensors"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)


def test_resuming_another_task_or_other_settings_is_refused(altlas, tmp_path: Path) -> None:
    assert altlas(*TRAIN, "--run-dir", "run").code in (0, 3)
    other = altlas("train", "basics/sum_loop", "--resume", "--run-dir", "run", "--budget", "999", "--quiet")
    assert other.code != 0
    assert "task" in other.stderr + other.stdout
    changed = altlas("train", "basics/hello_world", "--resume", "--run-dir", "run", "--set", "model.hidden=7")
    assert changed.code == 2
    assert "model.hidden" in changed.stderr


@pytest.mark.parametrize("role", ["coordinator", "generator", "trainer", "evaluator"])
def test_a_taken_port_is_named(altlas, role: str, redis_url: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        extra = ["--redis-url", redis_url] if role == "coordinator" else []
        done = altlas("serve", role, "--listen", address, *extra)
    assert done.code == 2, done.stderr
    assert address in done.stderr
    assert "taken" in done.stderr


def test_execute_answers_a_malformed_line_and_goes_on(altlas) -> None:
    lines = ['{"id": 1, "source": "print(6 * 7)"}', "not json", '{"id": 3}', '{"id": 4, "source": "1/0"}']
    done = altlas("execute", "--language", "python", stdin="\n".join(lines) + "\n")
    assert done.code == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(records) == 4
    assert (records[0]["id"], records[0]["status"], records[0]["stdout"]) == (1, "ok", "42\n")
    assert "error" in records[1]
    assert "source" in records[2]["error"]
    assert (records[3]["id"], records[3]["status"]) == (4, "runtime_error")
