"""Pictures of the dashboards with the data of a run of their own: PNG files in DIRECTORY. See docs/dashboards.md.

python deploy/grafana/preview/take.py DIRECTORY [--seconds 75]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_GRAFANA = Path(__file__).parents[1]
sys.path.insert(0, str(_GRAFANA.parents[1] / "tests/support"))

from scraped_run import scraped_run  # noqa: E402

_VARIABLES = {"$__range": "120s", "$__rate_interval": "8s", "$task": ".*", "$instance": ".*"}
_ROW = 38
_CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--virtual-time-budget=15000"),
)


def main() -> None:
    """Let a run go on for a while, ask for every panel's data, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="a copy of this one in which `npm install` has run")
    parser.add_argument("--seconds", type=float, default=75, help="how long the run goes on")
    options = parser.parse_args()
    boards = {path.stem: json.loads(path.read_text()) for path in sorted((_GRAFANA / "dashboards").glob("*.json"))}
    data = _collect(boards, seconds=options.seconds)
    (options.directory / "data.json").write_text(json.dumps(data), encoding="utf-8")
    subprocess.run(["node", "build.mjs"], cwd=options.directory, check=True)
    for name, board in boards.items():
        height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * _ROW
        picture = options.directory / f"{name}.png"
        with tempfile.TemporaryDirectory() as profile:
            where = [f"--user-data-dir={profile}", f"--window-size=1600,{height}", f"--screenshot={picture.absolute()}"]
            page = f"{(options.directory / 'out/index.html').absolute().as_uri()}#{name}"
            subprocess.run([*_CHROMIUM, *where, page], check=True, timeout=120)


def _collect(boards: dict[str, Any], *, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="altlas-") as directory, scraped_run(Path(directory)) as run:
        began = time.time()
        time.sleep(seconds)
        ended = time.time()

        def ask(target: dict[str, Any]) -> Any:
            query = target["expr"]
            for variable, value in _VARIABLES.items():
                query = query.replace(variable, value)
            if target["instant"]:
                return run.prometheus.get("/api/v1/query", query=query, time=f"{ended}")["result"]
            when = {"start": f"{began}", "end": f"{ended}", "step": "1"}
            return run.prometheus.get("/api/v1/query_range", query=query, **when)["result"]

        asked = {
            name: {
                "board": board,
                "answers": {
                    panel["id"]: [{"target": target, "series": ask(target)} for target in panel["targets"]]
                    for panel in board["panels"]
                    if panel["type"] != "row"
                },
            }
            for name, board in boards.items()
        }
    return {"from": began, "to": ended, "boards": asked}


if __name__ == "__main__":
    main()
