"""Seconds and peak memory of preparing MELD from its published files, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mer_bench.data.preparation import import_files

PREPARING = """
import json, sys, time
from pathlib import Path
begin = time.perf_counter()
from mer_bench.data.preparation import prepare, resolve
imported = time.perf_counter()
prepare(resolve(sys.argv[1]), Path(sys.argv[2]))
ended = time.perf_counter()
try:
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))
except OSError:
    peak = None
print(json.dumps({
    "import_s": imported - begin, "prepare_s": ended - imported, "cpu_s": time.process_time(), "peak_mb": peak,
}))
"""


@pytest.fixture
def shared_data() -> Path:
    """The real corpora beside the repository; the benchmark is skipped where they are absent."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real corpora are not beside the repository (../shared/data)")
    return folder


@pytest.mark.real_data
@pytest.mark.parametrize("dataset", ["meld", "iemocap"])
def test_preparing_from_the_published_files(benchmark: Any, dataset: str, shared_data: Path, tmp_path: Path) -> None:
    import_files(dataset, shared_data / "published", tmp_path)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "2")
    found: list[dict[str, float]] = []

    def run() -> None:
        command = [sys.executable, "-c", PREPARING, dataset, str(tmp_path)]
        answer = subprocess.run(command, capture_output=True, check=True, env={**os.environ, **threads})
        found.append(json.loads(answer.stdout))

    benchmark.pedantic(run, rounds=2)
    best = {name: min(each[name] for each in found) for name in found[0] if found[0][name] is not None}
    benchmark.extra_info.update(best)
    print(", ".join(f"{name} {value:.1f}" for name, value in best.items()))  # noqa: T201
