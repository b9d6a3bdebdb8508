"""A comparison's processes: one broken off goes on, one that fails is no result, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from altlas.report.results import read_results

STUB = Path(__file__).parents[1] / "support" / "train_stub.py"
_BENCH = """
import sys
from pathlib import Path
from altlas.cli.bench import BenchRequest, run_learning
from altlas.cli import main
main.app = lambda: sys.exit(run_learning(BenchRequest(
    name="demo", out=Path("out"), tasks="basics/hello_world", seeds="3", budget=100, jobs=1,
    command=(sys.executable, {stub!r}), algorithms={algorithms!r}, keep_dir={keep_dir!r}, report_only={report_only!r},
)))
main.main()
"""


@dataclass
class Bench:
    """Starts the comparison in a directory of its own."""

    directory: Path

    @property
    def results(self) -> Path:
        return self.directory / "out" / "demo.csv"

    def start(
        self,
        algorithms: str = "policy",
        *,
        fifo: Path | None = None,
        keep_dir: Path | None = None,
        report_only: bool = False,
    ) -> subprocess.Popen[str]:
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        code = _BENCH.format(stub=str(STUB), algorithms=algorithms, keep_dir=keep_dir, report_only=report_only)
        code = code.replace("PosixPath", "Path")
        extra = {} if fifo is None else {"TRAIN_STUB_FIFO": str(fifo)}
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=os.environ | {"TMPDIR": str(temporary)} | extra,
        )

    def run(self, algorithms: str = "policy", **options: object) -> tuple[int, str, str]:
        process = self.start(algorithms, **options)  # type: ignore[arg-type]
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    def left_behind(self) -> list[str]:
        return [path.name for path in (self.directory / "tmp").iterdir() if path.name.startswith("altlas")]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


def test_runs_become_rows_and_a_report(bench: Bench) -> None:
    code, stdout, stderr = bench.run("policy,r=random")
    assert (code, stderr) == (0, "")
    rows = read_results(bench.results)
    assert [(row.seed, row.algorithm, row.programs_to_solve) for row in rows] == [
        *((1, "policy", None), (1, "r", None), (2, "policy", 20), (2, "r", 20), (3, "policy", None), (3, "r", None)),
    ]
    assert {(row.program, row.shrunk_program) for row in rows} == {("a\nb", ""), ("a\nb", "a")}
    assert "[3/6] basics/hello_world  policy  seed 2  solved after 20, verified after 20" in stdout
    files = {path.name for path in bench.results.parent.iterdir()}
    assert files == {"demo.csv", "demo.md", "demo.svg", "demo-basics-hello_world.svg"}
    assert bench.left_behind() == []


def test_kill_9_loses_the_runs_in_flight_alone(bench: Bench, fifo: Path) -> None:
    process = bench.start(fifo=fifo)
    with fifo.open() as from_run:
        assert from_run.readline() == "seed 2\n"
        before = bench.results.read_bytes()
        process.kill()
        process.communicate()
        assert from_run.read() == ""  # the run is dead too
    assert [row.seed for row in read_results(bench.results)] == [1]
    code, stdout, _ = bench.run()
    assert code == 0
    assert "3 runs, 1 of them in out/demo.csv already" in stdout
    assert bench.results.read_bytes().startswith(before)
    assert [row.seed for row in read_results(bench.results)] == [1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_its_runs_and_reports_what_is_there(bench: Bench, fifo: Path, number: int) -> None:
    process = bench.start(fifo=fifo)
    with fifo.open() as from_run:
        assert from_run.readline() == "seed 2\n"
        process.send_signal(number)
        assert from_run.read() == ""
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted after 1 of 3 runs: the same command goes on from here" in stderr
    assert [row.seed for row in read_results(bench.results)] == [1]
    assert "0/1" in (bench.directory / "out" / "demo.md").read_text()
    assert bench.left_behind() == []


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("1", "failed: exit code 1\n  warning: first\n  error: the moon is wrong"),
        ("2", "failed: exit code 0, printed no result"),
        ("3", "failed: its result contradicts itself: solved True, programs_to_solve None"),
    ],
)
def test_a_run_that_fails_is_no_result(bench: Bench, mode: str, reason: str) -> None:
    code, _, stderr = bench.run(f"bad=policy:model.hidden={mode},policy")
    assert code == 1
    assert reason in stderr
    assert "runs failed and are not in the results" in stderr
    rows = [row for row in read_results(bench.results) if row.algorithm == "bad"]
    assert [row.seed for row in rows] == ([1, 3] if mode == "3" else [])
    assert sum(row.algorithm == "policy" for row in read_results(bench.results)) == 3


def test_the_cpu_time_is_that_of_the_whole_tree(bench: Bench) -> None:
    assert bench.run("policy:model.hidden=4,random")[0] == 0
    rows = read_results(bench.results)
    assert all(row.cpu_s >= 0.3 for row in rows if row.algorithm != "random")
    assert all(row.cpu_s < 0.3 for row in rows if row.algorithm == "random")


def test_the_report_can_be_made_again_alone(bench: Bench) -> None:
    assert bench.run()[0] == 0
    made = {path: path.read_bytes() for path in bench.results.parent.iterdir()}
    for path in made:
        if path != bench.results:
            path.unlink()
    assert bench.run(report_only=True)[0] == 0
    assert {path: path.read_bytes() for path in bench.results.parent.iterdir()} == made


def test_run_directories_are_kept_where_asked(bench: Bench) -> None:
    assert bench.run(keep_dir=Path("kept"))[0] == 0
    assert len(list((bench.directory / "kept").iterdir())) == 3


def test_a_label_cannot_change_its_meaning(bench: Bench) -> None:
    assert bench.run("a=policy")[0] == 0
    code, _, stderr = bench.run("a=random")
    assert code == 2
    assert "'a' stands for 'policy' in the results, and is 'random' now" in stderr
