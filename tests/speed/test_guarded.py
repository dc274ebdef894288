"""No guarded path is more than 30 % slower than its baseline: `tox -e speed`, and with `--short` as CI runs it.

python -m pytest tests/speed/test_guarded.py -o addopts=--import-mode=importlib [--short] [--renew-baseline]
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.speed.guard import RATIOS, VERDICTS, Timing, judged, read_baseline, repeats_of, write_baseline
from tests.speed.paths import GuardedPath, guarded_paths

RENEWALS = 3


@pytest.mark.parametrize("path", guarded_paths(), ids=lambda path: path.name)
def test_no_path_became_slower(path: GuardedPath, benchmark: Any, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--short") and not path.is_short:
        pytest.skip("not part of the short form")
    torch.set_num_threads(1)
    gc.freeze()  # what was imported needs not be looked through before every round
    fresh = path.start(tmp_path)
    repeats = repeats_of(fresh)
    if pytestconfig.getoption("--renew-baseline"):
        found = pytestconfig.stash[RATIOS].setdefault(path.name, [])
        for _ in range(RENEWALS):
            timing = Timing(path.kernels)
            timing.rounds(fresh, repeats, path.rounds)
            found.append(timing.ratio)
        write_baseline({path.name: found})
        pytest.skip("measured for a new baseline")
    timing = Timing(path.kernels)

    def ready() -> tuple[tuple[Any], dict[str, Any]]:
        timing.kernel_round()
        return (fresh(),), {}

    benchmark.pedantic(lambda work: timing.path_round(work, repeats), setup=ready, rounds=path.rounds)
    verdict = judged(path.name, timing, read_baseline(), lambda: timing.rounds(fresh, repeats, path.rounds))
    pytestconfig.stash[VERDICTS].append(verdict)
    benchmark.extra_info.update(ratio=verdict.ratio, baseline=verdict.baseline, tries=verdict.tries)
    assert not verdict.is_lost, str(verdict)
