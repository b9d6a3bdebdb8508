"""Who saves checkpoints is killed with SIGKILL, has no room, sees files decay: what it had acknowledged is there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from altlas.checkpoint.store import CheckpointStore
from altlas.errors import CheckpointError

KILLS = 200
LONGEST_WAIT_S = 0.04
KEEP_EVERY = 10

# Forks a saver for every line "fence first_update": imports cost more than a life lasts.
NURSERY = """
import itertools, os, sys
from pathlib import Path
from altlas.checkpoint.manifest import build_manifest
from altlas.checkpoint.store import CheckpointStore
def save(fence, first):
    store = CheckpointStore(Path(sys.argv[1]), 2, keep_best=1, keep_every=int(sys.argv[2]))
    for update in itertools.count(first):
        files = {"a": b"%d" % update * 5000, "b": b"%d %d" % (fence, update)}
        store.save(update, files, {}, mean_reward=update % 5 / 5, fence=fence)
        if update % 3 == 0:
            store.save(update, {**files, "a": b"again"}, {}, fence=fence)
        os.write(1, b"%d\\n" % update)
build_manifest(0, {}, {}, fence=0, mean_reward=None)  # looks versions and commit up, once for all
for line in sys.stdin:
    child = os.fork()
    if not child:
        save(*map(int, line.split()))
    os.write(1, b"pid %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"ended\\n")
"""


def live_and_die(nursery: subprocess.Popen[str], *, fence: int, first: int, saves: int, wait_s: float) -> list[int]:
    """Let a saver save so often and live so long after it, kill it, and return the updates that it acknowledged."""
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    nursery.stdin.write(f"{fence} {first}\n")
    nursery.stdin.flush()
    said = [next(nursery.stdout) for _ in range(1 + saves)]  # one line is the pid, not always the first
    while not (pids := [line for line in said if line.startswith("pid")]):
        said.append(next(nursery.stdout))
    # The moment of the kill is the point of this test.
    time.sleep(wait_s)
    os.kill(int(pids[0].removeprefix("pid")), signal.SIGKILL)
    while (line := next(nursery.stdout)) != "ended\n":
        said.append(line)
    return [int(line) for line in said if line != pids[0]]


def test_after_every_kill_the_newest_is_what_was_acknowledged_or_the_one_after(tmp_path: Path) -> None:
    luck = random.Random(3)
    store = CheckpointStore(tmp_path, 2)
    acknowledged: tuple[int, int] | None = None  # fence and update
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(tmp_path), str(KEEP_EVERY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:
        for fence in range(1, KILLS + 1):
            reached = acknowledged[1] if acknowledged else 0
            # Some lives begin behind checkpoints that a life before has left.
            first = max(reached - luck.randint(1, 4), 1) if luck.random() < 0.1 else reached + 1
            said = live_and_die(
                nursery,
                fence=fence,
                first=first,
                saves=luck.choice((0, 1, 1)),
                wait_s=luck.uniform(0, LONGEST_WAIT_S),
            )
            after = (fence, said[-1] + 1 if said else first)
            if said:
                acknowledged = (fence, said[-1])
            if acknowledged is None and not store.list():
                continue
            loaded = store.load_newest()
            found = (loaded.manifest["fence"], loaded.update)
            assert found in (acknowledged, after)
            assert loaded.warning == ""
            assert loaded.files["b"] == b"%d %d" % found
            acknowledged = found  # durable, if perhaps not told
    assert not [entry for entry in store.list() if entry.problem]
    assert {entry.update for entry in store.list()} >= set(range(KEEP_EVERY, found[1] + 1, KEEP_EVERY))


def test_whatever_byte_of_the_newest_decays_the_one_before_is_taken(tmp_path: Path) -> None:
    luck = random.Random(5)
    store = CheckpointStore(tmp_path, 3)
    for update in (1, 2, 3):
        store.save(update, {"weights": bytes(range(256)), "state.json": b"{}"}, {"seed": 12345}, mean_reward=0.125)
    for file in sorted((tmp_path / "step_3").iterdir()):
        whole = file.read_bytes()
        for position in range(0, len(whole), 2):
            decayed = bytearray(whole)
            decayed[position] ^= luck.randint(1, 255)
            file.write_bytes(decayed)
            loaded = store.load_newest()
            assert loaded.update == 2, (file.name, position, decayed[position])
            assert f"going on from {tmp_path / 'step_2'}, which is not the newest" in loaded.warning
            assert f"step_3: {file.name}" in loaded.warning
        file.write_bytes(whole)
    assert store.load_newest().warning == ""


def test_when_all_have_decayed_the_error_says_what_to_do(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, 3)
    for update in (1, 2, 3):
        store.save(update, {"weights": bytes(range(256))}, {})
        weights = tmp_path / f"step_{update}" / "weights"
        weights.write_bytes(weights.read_bytes()[::-1])
    with pytest.raises(CheckpointError, match=r"step_3: weights.*step_1: .*from a backup, or start anew with --over"):
        store.load_newest()


# Leaves a bit more room at every try, by a file that takes the rest, or lets every file be a bit longer.
SAVER_WITHOUT_ROOM = """
import os, resource, sys
from pathlib import Path
from altlas.checkpoint.store import CheckpointStore
from altlas.errors import CheckpointError
root, failed = Path(sys.argv[1]), 0
store = CheckpointStore(root / "checkpoints", 2)
files = {"a": b"a" * 15000, "b": b"b" * 9000}
store.save(0, files, {})
newest = 0
for update, room in enumerate(range(0, 49152, 2048), start=1):
    if sys.argv[2] == "full disk":
        free = os.statvfs(root).f_bavail * os.statvfs(root).f_bsize
        with open(root / "filler", "wb") as filler:
            if free > room:
                os.posix_fallocate(filler.fileno(), 0, free - room)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        store.save(update, files, {})
        newest = update
    except CheckpointError as error:
        assert "could not be written" in str(error) and "Free space" in str(error), error
        failed += 1
    loaded = store.load_newest()
    assert (loaded.update, loaded.files, loaded.warning) == (newest, files, ""), (loaded, newest)
    assert not list((root / "checkpoints").glob("*.tmp"))
    (root / "filler").unlink(missing_ok=True)
print(failed, update - failed)
"""


def ways_to_run_out_of_room() -> list[str]:
    """A full disk where this machine lets us mount one of our own, and a limit to the length of files anywhere."""
    unshare = shutil.which("unshare")
    mounted = unshare and subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True)
    return ["full disk", "file size"] if mounted and mounted.returncode == 0 else ["file size"]


@pytest.mark.parametrize("way", ways_to_run_out_of_room())
def test_a_save_without_room_leaves_the_earlier_ones_whole(tmp_path: Path, way: str) -> None:
    command = [sys.executable, "-c", SAVER_WITHOUT_ROOM, str(tmp_path), way]
    if way == "full disk":
        mount = 'mount -t tmpfs -o size=192k tmpfs "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, str(tmp_path), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    failed, succeeded = map(int, done.stdout.split())
    assert failed >= 4
    assert succeeded >= 2
