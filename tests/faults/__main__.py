"""Processes killed and files damaged at random, at full scale; what CI runs is `tests/faults/test_faults.py`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.faults.damaging import damage_files
from tests.faults.killing import kill_runs
from tests.faults.shelf import install


def main() -> int:
    """0 where nothing was lost, doubled or changed, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("what", choices=["kills", "damage"])
    parser.add_argument("--faults", type=int, help="how many; default: 200 kills, 100 damaged files")
    parser.add_argument("--runs", type=int, default=40, help="over so many runs are the kills spread")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other faults")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        shelf = install(folder / "installed")
        sys.path.insert(0, str(shelf))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(shelf), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        if given.what == "kills":
            counts = kill_runs(folder / "work", given.faults or 200, given.runs, given.seed, say=_say)
        else:
            counts = damage_files(folder / "work", given.faults or 100, given.seed, say=_say)
    _say(f"{given.what}: {counts}")
    return 1 if counts.bad else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
