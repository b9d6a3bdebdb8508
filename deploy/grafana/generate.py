"""Write the dashboards to dashboards/, or say which of those there are out of date.

python deploy/grafana/generate.py --write | --check
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from altlas_dashboards import evaluators, health, learning, pipeline
from grafana_foundation_sdk.cog.encoder import JSONEncoder

_DIRECTORY = Path(__file__).with_name("dashboards")


def generated_files() -> dict[str, str]:
    """Return the text of every dashboard by file name."""
    dashboards = [learning.build(), pipeline.build(), evaluators.build(), health.build()]
    return {
        f"{str(dashboard.uid).removeprefix('altlas-')}.json": json.dumps(
            dashboard, cls=JSONEncoder, sort_keys=True, indent=2
        )
        + "\n"
        for dashboard in dashboards
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; return the exit status."""
    parser = argparse.ArgumentParser(prog="python deploy/grafana/generate.py", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write dashboards/, and delete what is no longer made")
    action.add_argument("--check", action="store_true", help="exit 1 when a file there is out of date")
    options = parser.parse_args(arguments)
    made = generated_files()
    there = {path.name: path.read_text(encoding="utf-8") for path in sorted(_DIRECTORY.glob("*"))}
    outdated = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    for name in outdated:
        if options.check:
            print(
                f"deploy/grafana/dashboards/{name} is out of date: run `python deploy/grafana/generate.py --write`",
                file=sys.stderr,
            )
        elif name in made:
            _DIRECTORY.mkdir(exist_ok=True)
            (_DIRECTORY / name).write_text(made[name], encoding="utf-8")
            print(f"wrote deploy/grafana/dashboards/{name}")
        else:
            (_DIRECTORY / name).unlink()
            print(f"deleted deploy/grafana/dashboards/{name}")
    return 1 if options.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
