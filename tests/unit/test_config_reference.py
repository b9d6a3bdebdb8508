"""config.ini and docs/configuration.md are what the sections say."""

from __future__ import annotations

from pathlib import Path

from altlas.config.fields import all_keys
from altlas.config.reference import generated_files, outdated_files

ROOT = Path(__file__).parents[2]


def test_the_generated_files_of_the_checkout_are_up_to_date() -> None:
    assert outdated_files(ROOT) == [], "run `python -m altlas.config.reference --write`"


def test_an_edited_or_missing_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text(generated_files()["config.ini"] + "\n", encoding="utf-8")
    assert outdated_files(tmp_path) == ["config.ini", "docs/configuration.md"]


def test_the_reference_names_every_key_once() -> None:
    text = generated_files()["docs/configuration.md"]
    for section in {key.section for key in all_keys().values()}:
        block = text.split(f"## [{section}]\n")[1].split("\n## ")[0]
        for key in all_keys().values():
            if key.section == section:
                assert block.count(f"| `{key.name}` |") == 1
