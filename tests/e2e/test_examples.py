"""The examples as their readers run them: the command blocks of the README, and the functions imported."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altlas.client import Evaluator
from altlas.errors import AltlasError, TaskError, TransientError
from altlas.rpc.channel import wait_until_serving

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "reward_function"
PORT = 50054


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def commands(port: int) -> list[str]:
    """The README's commands, with the environment that runs the tests and a free port."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLE / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    bin_directory = shlex.quote(str(Path(sys.executable).parent))
    return [block.replace(".venv/bin/", f"{bin_directory}/").replace(str(PORT), str(port)) for block in blocks]


@pytest.fixture(scope="module")
def served(commands: list[str], port: int) -> Iterator[str]:
    """The first command, running; the address that it serves on."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ALTLAS_")}
    process = subprocess.Popen(
        ["bash", "-c", f"exec {commands[0]}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment,
    )
    address = f"127.0.0.1:{port}"
    try:
        asyncio.run(wait_until_serving(address, role="evaluator", timeout_s=60))
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        finally:
            process.kill()


@pytest.fixture
def reward(served: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """reward.py as verl loads it: by its path."""
    monkeypatch.setenv("ALTLAS_EVALUATOR", served)
    spec = importlib.util.spec_from_file_location("reward", EXAMPLE / "reward.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    evaluator = module.EVALUATOR
    yield module
    evaluator.close()


def test_the_commands_of_the_readme_score_a_thousand_programs(served: str, commands: list[str]) -> None:
    assert len(commands) == 2
    done = subprocess.run(
        ["bash", "-euc", commands[1]], capture_output=True, text=True, cwd=ROOT, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^1000 programs in [\d.]+ s: [\d,]+ programs/s$", done.stdout, re.M)
    rows = dict(re.findall(r"^reward (\S+) to \S+ +(\d+)$", done.stdout, re.M))
    assert len(rows) == 10
    assert sum(map(int, rows.values())) == 1000
    assert rows["0.9"] == "250"
    assert "statuses  ok 620, runtime_error 245, syntax_error 125, timeout 10" in done.stdout
    assert "solved 250 of 1000" in done.stdout


ADD = "Here:\n```python\nprint('draft')\n```\nor rather\n```python\nprint(int(input()) + int(input()))\n```\nDone."


def test_rewards_for_trl(reward: ModuleType) -> None:
    """Called as GRPOTrainer calls it: by keyword, with columns as lists."""
    completions = [ADD, "print('hello world')", "print(", "Sorry, I cannot."]
    task = ["stdin/add_input", "basics/hello_world", "basics/hello_world", "stdin/add_input"]
    columns = {"completion_ids": [[1]] * 4, "trainer_state": None, "difficulty": ["easy"] * 4}
    rewards = reward.reward(prompts=["?"] * 4, completions=completions, task=task, **columns)
    assert [type(value) for value in rewards] == [float] * 4
    assert rewards == [1.0, 1.0, 0.0, 0.0]
    chats = [[{"role": "assistant", "content": text}] for text in completions]
    assert reward.reward(prompts=[[]] * 4, completions=chats, task=task, **columns) == rewards
    with pytest.raises(ValueError, match="zip"):
        reward.reward(completions=completions, task=task[:3])


def test_rewards_for_verl(reward: ModuleType) -> None:
    extra_info = {"num_turns": 2, "rollout_reward_scores": {}}
    value = reward.compute_score(
        data_source="mine", solution_str=ADD, ground_truth="stdin/add_input", extra_info=extra_info
    )
    assert value == 1.0
    assert 0 < reward.compute_score("mine", "print(3)", "stdin/add_input") < 1
    assert reward.compute_score("mine", "```python\nprint(", "stdin/add_input", None, reward_router_address="x") == 0.0


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("print(1)", "print(1)"),
        ("a\n```python\nprint(1)\n```\nb", "print(1)\n"),
        ("```python\nprint(1)\n```\n```py\nprint(2)\n```", "print(2)\n"),
        ("```python\nprint(1)\n", "print(1)\n"),
        ("```Python title=x\r\nprint(1)\n```", "print(1)\n"),
        ("```sh\nls\n```", "```sh\nls\n```"),
        ("```python\n```", ""),
    ],
)
def test_the_program_in_a_completion(reward: ModuleType, completion: str, program: str) -> None:
    assert reward.extract_program(completion) == program


def test_a_failure_is_never_a_reward(reward: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TaskError):
        reward.reward(completions=["print(1)"], task=["basics/nothing"])
    with Evaluator(f"127.0.0.1:{free_port()}", away_s=0.2) as nobody:
        monkeypatch.setattr(reward, "EVALUATOR", nobody)
        with pytest.raises(TransientError):
            reward.compute_score("mine", ADD, "stdin/add_input")
    with pytest.raises(AltlasError, match="closed"):
        reward.reward(completions=[ADD], task=["stdin/add_input"])


def test_the_code_of_the_client_page(served: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "client.md").read_text(encoding="utf-8").replace(f"127.0.0.1:{PORT}", served)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        exec(block, names)
    assert capsys.readouterr().out.splitlines()[:2] == ["ok b'42\\n'", "[1.0, 0.21]"]
    assert names["task"].cases[1].stdin == "-3\n"
