"""Checkpoints and run directories: whole or not there, and never in somebody's way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altlas.checkpoint import store as store_module
from altlas.checkpoint.manifest import (
    FORMAT_VERSION,
    decode_manifest,
    encode_manifest,
    git_commit,
    library_versions,
)
from altlas.checkpoint.run_directory import MARKER, hold_run_dir, prepare_run_dir
from altlas.checkpoint.store import CheckpointStore
from altlas.errors import CheckpointError, ConfigError, FencedError

FILES = {"weights.safetensors": b"w" * 100, "state.json": b'{"a": 1}'}


def saved(root: Path, *updates: int, keep_last: int = 10) -> CheckpointStore:
    store = CheckpointStore(root, keep_last)
    for update in updates:
        store.save(update, {**FILES, "update": str(update).encode()}, {"config": {"seed": 1}})
    return store


def truncate(step: Path) -> None:
    (step / "weights.safetensors").write_bytes(b"w" * 99)


def flip_byte(step: Path) -> None:
    (step / "weights.safetensors").write_bytes(b"w" * 50 + b"x" + b"w" * 49)


def lose_file(step: Path) -> None:
    (step / "state.json").unlink()


def lose_manifest(step: Path) -> None:
    (step / "manifest.json").unlink()


def break_json(step: Path) -> None:
    text = (step / "manifest.json").read_text()
    (step / "manifest.json").write_text(text[: len(text) // 2])


def other_json(step: Path) -> None:
    (step / "manifest.json").write_text("[1, 2]")


def change_manifest(step: Path) -> None:
    path = step / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))


def wrong_step(step: Path) -> None:
    older = step.with_name("step_1")
    shutil.rmtree(step)
    shutil.copytree(older, step)


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (truncate, "weights.safetensors has 99 bytes instead of 100"),
    (flip_byte, "weights.safetensors does not match its SHA-256"),
    (lose_file, "state.json cannot be read: No such file"),
    (lose_manifest, "manifest.json cannot be read: No such file"),
    (break_json, "manifest.json is not JSON"),
    (other_json, "not the manifest of a checkpoint"),
    (change_manifest, "does not match its own digest"),
    (wrong_step, "manifest is of update 1"),
]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path / "checkpoints", 3).save(7, FILES, {"config": {"seed": 1}})
    assert path == tmp_path / "checkpoints" / "step_7"
    loaded = CheckpointStore(tmp_path / "checkpoints", 3).load_newest()
    assert (loaded.path, loaded.update, loaded.files, loaded.warning) == (path, 7, FILES, "")
    assert loaded.manifest["extra"] == {"config": {"seed": 1}}
    assert loaded.manifest["format_version"] == FORMAT_VERSION
    assert loaded.manifest["versions"] == library_versions()
    assert loaded.manifest["git_commit"] == git_commit()
    assert sorted(entry.name for entry in path.iterdir()) == ["manifest.json", "state.json", "weights.safetensors"]


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True), st.binary(max_size=200), max_size=4
    ),
    extra=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8) | st.booleans(), max_size=4),
)
def test_any_content_survives(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], extra: dict[str, object]
) -> None:
    store = CheckpointStore(tmp_path_factory.mktemp("store"), 1)
    store.save(0, files, extra)
    loaded = store.load_newest()
    assert loaded.files == files
    assert loaded.manifest["extra"] == extra


@pytest.mark.parametrize(("damage", "why"), DAMAGES)
def test_a_damaged_newest_checkpoint_is_passed_over_loudly(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    store = saved(tmp_path, 1, 2, 10)
    damage(tmp_path / "step_10")
    loaded = store.load_newest()
    assert (loaded.update, loaded.files["update"]) == (2, b"2")
    assert "not the newest" in loaded.warning
    assert "step_10: " in loaded.warning
    assert why in loaded.warning
    assert [(entry.update, bool(entry.problem)) for entry in store.list()] == [(1, False), (2, False), (10, True)]
    assert why in store.list()[-1].problem


def test_with_nothing_valid_every_problem_is_told(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    truncate(tmp_path / "step_1")
    lose_manifest(tmp_path / "step_2")
    with pytest.raises(CheckpointError, match=r"step_2: manifest.*step_1: weights.*--overwrite"):
        store.load_newest()


@pytest.mark.parametrize("is_there", [True, False])
def test_with_nothing_there_resuming_is_an_error(tmp_path: Path, is_there: bool) -> None:
    root = tmp_path if is_there else tmp_path / "missing"
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*without --resume"):
        CheckpointStore(root, 1).load_newest()
    assert list(CheckpointStore(root, 1).list()) == []


def test_another_format_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    path = tmp_path / "step_2" / "manifest.json"
    manifest = {**decode_manifest(path.read_bytes()), "format_version": FORMAT_VERSION + 1}
    path.write_bytes(encode_manifest(manifest))
    with pytest.raises(
        CheckpointError, match=rf"step_2 is in format {FORMAT_VERSION + 1}, .*reads 1 to {FORMAT_VERSION}"
    ):
        store.load_newest()
    assert f"format {FORMAT_VERSION + 1}" in store.list()[-1].problem
    saved(tmp_path, 1, keep_last=1)
    assert path.is_file()  # whoever can read it may want it


def test_a_flipped_byte_in_the_format_is_damage_and_no_newer_format(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2)
    path = tmp_path / "step_2" / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 3'))
    loaded = store.load_newest()
    assert loaded.update == 1
    assert "does not match its own digest and tells of format 3" in loaded.warning


# As the first format wrote it, by hand: the digest is of the same content without blanks and without itself.
FORMAT_1 = """{
  "extra": {
    "task": "basics/hello_world"
  },
  "files": {
    "state.json": {
      "sha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
      "size_bytes": 3
    }
  },
  "format_version": 1,
  "git_commit": null,
  "manifest_sha256": "0d566056833d9bf5ab092219f05f3b8d918fc759d89726b0cf8a0dc923679625",
  "update": 7,
  "versions": {
    "python": "3.11.9"
  }
}
"""


def test_a_checkpoint_of_the_first_format_is_read_with_defaults(tmp_path: Path) -> None:
    (tmp_path / "step_7").mkdir()
    (tmp_path / "step_7" / "state.json").write_bytes(b"{}\n")
    (tmp_path / "step_7" / "manifest.json").write_text(FORMAT_1)
    store = CheckpointStore(tmp_path, 3, keep_best=1)
    loaded = store.load_newest()
    assert (loaded.update, loaded.files, loaded.warning) == (7, {"state.json": b"{}\n"}, "")
    assert (loaded.manifest["fence"], loaded.manifest["mean_reward"]) == (0, None)
    assert loaded.manifest["extra"] == {"task": "basics/hello_world"}
    store.save(8, FILES, {}, mean_reward=0.5, fence=4)
    assert [(entry.update, entry.problem) for entry in store.list()] == [(7, ""), (8, "")]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2, 9, 10, 11, keep_last=3)
    assert [entry.update for entry in store.list()] == [9, 10, 11]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_10", "step_11", "step_9"]


def test_a_damaged_newer_checkpoint_never_costs_the_valid_ones(tmp_path: Path) -> None:
    saved(tmp_path, 50, 100)
    truncate(tmp_path / "step_100")
    store = saved(tmp_path, 60, keep_last=1)
    assert [(entry.update, entry.problem) for entry in store.list()] == [(60, "")]
    assert store.load_newest().warning == ""


def test_leftovers_are_removed_by_the_next_save(tmp_path: Path) -> None:
    for name in ("step_3.tmp", "step_1.gone.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "junk").write_bytes(b"junk")
    assert saved(tmp_path, 3).load_newest().update == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step_3"]


def test_saving_an_update_again_replaces_it(tmp_path: Path) -> None:
    store = saved(tmp_path, 3, 3)
    store.save(3, {"other": b"content"}, {})
    assert store.load_newest().files == {"other": b"content"}
    assert [path.name for path in tmp_path.iterdir()] == ["step_3"]


def test_a_crash_while_replacing_the_only_checkpoint_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = saved(tmp_path, 3)
    whole_rename = Path.rename

    def crash_at_the_second_rename(path: Path, target: Path) -> Path:
        if path.name == "step_3.tmp":
            raise OSError("pulled the plug")
        return whole_rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_at_the_second_rename)
        with pytest.raises(CheckpointError, match="pulled the plug"):
            store.save(3, {"new": b""}, {})
    assert store.load_newest().files["update"] == b"3"
    store.save(4, {"new": b""}, {})
    assert [entry.update for entry in store.list()] == [3, 4]
    store.save(3, {"new": b""}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_3", "step_4"]


def test_a_write_that_fails_leaves_the_earlier_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = saved(tmp_path, 1)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_write_durably", full)
        with pytest.raises(CheckpointError, match=r"step_2 could not be written: .*No space left"):
            store.save(2, FILES, {})
    assert store.load_newest().update == 1
    assert store.save(2, FILES, {}).name == "step_2"


@pytest.mark.parametrize("name", ["../up", "a/b", "manifest.json", "", ".hidden"])
def test_a_file_name_cannot_leave_the_checkpoint(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not names"):
        CheckpointStore(tmp_path, 1).save(1, {name: b""}, {})


def test_a_pickle_in_a_checkpoint_is_bytes_like_any_other(tmp_path: Path) -> None:
    bomb = tmp_path / "exploded"
    # A pickle that touches the file when it is loaded.
    pickle_bytes = b"cpathlib\nPath.touch\n(cpathlib\nPath\n(V" + str(bomb).encode() + b"\ntRtR."
    store = CheckpointStore(tmp_path / "store", 1)
    store.save(1, {"weights.safetensors": pickle_bytes}, {})
    assert store.load_newest().files["weights.safetensors"] == pickle_bytes
    assert not bomb.exists()


def steps(root: Path) -> list[int]:
    """The updates that have a checkpoint, oldest first."""
    return [entry.update for entry in CheckpointStore(root, 1).list()]


def test_a_later_line_is_newer_than_what_it_left_behind(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 5)
    for update in (10, 20, 30):
        store.save(update, FILES, {}, fence=1)
    # A kill between the rename and the removal leaves both lines.
    shutil.copytree(tmp_path / "step_30", tmp_path / "kept_30")
    store.save(15, FILES, {}, fence=2)
    assert steps(tmp_path) == [10, 15]
    (tmp_path / "kept_30").rename(tmp_path / "step_30")
    loaded = store.load_newest()
    assert (loaded.update, loaded.manifest["fence"], loaded.warning) == (15, 2, "")
    store.save(16, FILES, {}, fence=2)
    assert steps(tmp_path) == [10, 15, 16]


def test_under_one_fence_a_later_valid_checkpoint_stays_the_newest(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 1)
    for update in (30, 10):
        store.save(update, FILES, {}, fence=3)
    assert store.load_newest().update == 30
    assert steps(tmp_path) == [10, 30]


def test_who_leads_no_longer_saves_no_more(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2)
    store.save(10, FILES, {}, fence=5)
    with pytest.raises(FencedError, match=r"fence 4 is not wanted .* one of fence 5 is"):
        store.save(11, FILES, {}, fence=4)
    assert steps(tmp_path) == [10]


def test_one_that_hides_its_fence_is_passed_over_loudly(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 5)
    store.save(10, FILES, {}, fence=1)
    store.save(20, FILES, {}, fence=2)
    lose_manifest(tmp_path / "step_20")
    loaded = store.load_newest()
    assert loaded.update == 10
    assert "step_20: manifest.json cannot be read" in loaded.warning
    store.save(12, FILES, {}, fence=3)
    assert steps(tmp_path) == [10, 12]


def test_one_without_a_manifest_takes_nobodys_place(tmp_path: Path) -> None:
    store = saved(tmp_path, 1, 2, keep_last=2)
    lose_manifest(tmp_path / "step_2")
    store.save(3, FILES, {})
    assert steps(tmp_path) == [1, 3]


def test_the_best_and_the_periodic_are_kept_besides(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 2, keep_best=1, keep_every=4)
    for update, mean_reward in enumerate([0.1, 0.9, 0.2, 0.3, 0.4, 0.5, 0.6], start=1):
        store.save(update, FILES, {}, mean_reward=mean_reward)
    assert steps(tmp_path) == [2, 4, 6, 7]
    assert store.load_newest().manifest["mean_reward"] == 0.6
    with pytest.raises(ValueError, match="mean_reward of update 8 is nan"):
        store.save(8, FILES, {}, mean_reward=float("nan"))
    assert steps(tmp_path) == [2, 4, 6, 7]


def test_the_store_imports_no_pickle_and_no_torch() -> None:
    code = "import sys, altlas.checkpoint.store; sys.exit(sum(m in sys.modules for m in ('pickle', 'torch', 'numpy')))"
    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_a_new_run_directory_is_made_and_an_empty_one_taken(tmp_path: Path) -> None:
    made = prepare_run_dir(tmp_path / "runs" / "new", resume=False, overwrite=False)
    assert (made / MARKER).is_file()
    (tmp_path / "empty").mkdir()
    prepare_run_dir(tmp_path / "empty", resume=False, overwrite=False)
    prepare_run_dir(tmp_path / "other", resume=False, overwrite=True)
    assert (tmp_path / "empty" / MARKER).is_file()


def test_an_existing_run_directory_is_refused_with_all_ways_out(tmp_path: Path) -> None:
    prepare_run_dir(tmp_path / "run", resume=False, overwrite=False)
    with pytest.raises(CheckpointError, match=r"exists.*--resume.*--overwrite.*another --run-dir"):
        prepare_run_dir(tmp_path / "run", resume=False, overwrite=False)


def test_resume_accepts_a_run_and_touches_nothing(tmp_path: Path) -> None:
    run = prepare_run_dir(tmp_path / "run", resume=False, overwrite=False)
    (run / "training.log").write_text("kept")
    assert prepare_run_dir(run, resume=True, overwrite=False) == run
    assert (run / "training.log").read_text() == "kept"


def test_resume_of_what_is_no_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing: nothing to resume"):
        prepare_run_dir(tmp_path / "missing", resume=True, overwrite=False)
    assert not (tmp_path / "missing").exists()
    with pytest.raises(CheckpointError, match="is empty: nothing to resume"):
        prepare_run_dir(tmp_path, resume=True, overwrite=False)
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(CheckpointError, match="not a run directory"):
        prepare_run_dir(tmp_path, resume=True, overwrite=False)


def test_overwrite_empties_a_run_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("kept")
    run = prepare_run_dir(tmp_path / "run", resume=False, overwrite=False)
    saved(run / "checkpoints", 1)
    (run / "link").symlink_to(tmp_path / "elsewhere")
    prepare_run_dir(run, resume=False, overwrite=True)
    assert [path.name for path in run.iterdir()] == [MARKER]
    assert (tmp_path / "elsewhere" / "precious").read_text() == "kept"


def test_overwrite_never_touches_what_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(CheckpointError, match=r"not a run directory.*not even with"):
        prepare_run_dir(tmp_path, resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    with pytest.raises(CheckpointError, match="is a file"):
        prepare_run_dir(tmp_path / "thesis.tex", resume=False, overwrite=True)


def test_resume_and_overwrite_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude each other"):
        prepare_run_dir(tmp_path, resume=True, overwrite=True)


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_a_directory_in_use_is_nobody_elses(tmp_path: Path, flag: str) -> None:
    run = prepare_run_dir(tmp_path / "run", resume=False, overwrite=False)
    flags = {"resume": flag == "resume", "overwrite": flag == "overwrite"}
    with hold_run_dir(run), pytest.raises(CheckpointError, match="in use"):
        prepare_run_dir(run, **flags)
    prepare_run_dir(run, **flags)
