"""What the documents name is there: make targets, altlas commands and options, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from altlas.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("services/*/*.md")})
_CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def commands_in(text: str, program: str) -> list[str]:
    """The arguments of every call of `program` in the code of a Markdown text, one string each."""
    code = [(block or inline).replace("\\\n", " ") for block, inline in _CODE.findall(text)]
    lines = [line.strip() for part in code for line in part.splitlines()]
    call = re.compile(rf"(?:^|[|&] *|\.venv/bin/){program}(?: ([^|#]*))?(?:$|[|#])")
    return [(match[1] or "").strip() for line in lines for match in call.finditer(line)]


def problem_with(arguments: list[str]) -> str | None:
    """Say what the command line does not know of the arguments of one call; capitals stand for anything."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name.isupper() or "|" in name:
            return None
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    unknown = [word for word in arguments if word.startswith("-") and word.partition("=")[0] not in known]
    return f"no option {', '.join(unknown)} of {command.name}" if unknown else None


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = [link.partition("#")[0] for link in _LINK.findall(text) if "://" not in link]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_commands_and_options_exist(document: Path) -> None:
    calls = commands_in(document.read_text(encoding="utf-8"), "altlas")
    problems = {call: problem_with(shlex.split(call)) for call in calls}
    assert {call: problem for call, problem in problems.items() if problem} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_make_targets_exist(document: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    calls = commands_in(document.read_text(encoding="utf-8"), "make")
    words = [word for call in calls for word in shlex.split(call) if "=" not in word]
    assert [word for word in words if word not in targets] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {"run", "test"} <= set(commands_in(text, "make"))
    assert any(call.startswith("train ") for call in commands_in(text, "altlas"))


@pytest.mark.parametrize("arguments", ["trian x", "train x --sede 1", "serve trainers"])
def test_a_command_that_does_not_exist_is_found(arguments: str) -> None:
    assert problem_with(shlex.split(arguments)) is not None
