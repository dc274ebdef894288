"""Leaderboards of ten thousand records with predictions of 2600 utterances each: seconds, and memory of all processes.

`MER_BENCH_MANY` names a folder that `many_records.py` has filled already.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

RECORDS = 10_000


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of them all."""
    if "MER_BENCH_MANY" in os.environ:
        return Path(os.environ["MER_BENCH_MANY"])
    folder = tmp_path_factory.mktemp("many")
    generator = Path(__file__).with_name("many_records.py")
    subprocess.run([sys.executable, str(generator), str(folder), str(RECORDS)], check=True)
    return folder


def test_building(benchmark: Any, records: Path, tmp_path: Path) -> None:
    peaks: list[int] = []
    seconds: list[float] = []

    def build() -> None:
        words = ["leaderboard", "build", str(records), "--out", str(tmp_path / "pages")]
        child = subprocess.Popen([sys.executable, "-m", "mer_bench", *words])
        watcher = threading.Thread(target=lambda: peaks.append(peak_memory(child)))
        watcher.start()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
        seconds.append(usage.ru_utime + usage.ru_stime)
        assert child.returncode == 0

    benchmark.pedantic(build, rounds=1)
    told = {"records": len(list(records.rglob("*.json"))), "cpu_seconds": seconds[0], "peak_mb": peaks[0] / 1e6}
    benchmark.extra_info.update(told)
    print(", ".join(f"{name} {value:,.0f}" for name, value in told.items()))  # noqa: T201


def peak_memory(child: subprocess.Popen[bytes]) -> int:
    """The most that a process and its own have held together, shared pages once, in bytes; while it runs."""
    peak = 0
    while child.returncode is None and Path(f"/proc/{child.pid}").exists():
        peak = max(peak, sum(map(memory_of, family(child.pid))))
        time.sleep(0.2)
    return peak


def family(process: int) -> list[int]:
    """A process and all below it."""
    try:
        below = [
            int(word) for file in Path(f"/proc/{process}/task").glob("*/children") for word in file.read_text().split()
        ]
    except OSError:
        below = []
    return [process, *(found for each in below for found in family(each))]


def memory_of(process: int) -> int:
    """Its share of memory in bytes; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
