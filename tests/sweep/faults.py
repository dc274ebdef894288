"""Workers die in the middle of a sweep, again and again, and the scheduler once: what is lost, doubled or changed?

The tests do this at a small scale; at full scale it is a command::

    python -m tests.sweep.faults --runs 40 --workers 3 --deaths 20 --seed 0
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from distributed import Client

from mer_bench import registry
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.sweep.cluster import work_elsewhere
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.performing import TRIES
from mer_bench.sweep.places import Scheduler, opened
from mer_bench.sweep.runs import SweepRun
from tests.sweep.conftest import Bench
from tests.sweep.loopback import Compared, Loopback, compare, loopback, unfinished, write_slowly


@dataclass
class Killer(SweepListener):
    """Kills a worker that does a run, and starts another in its place, as often as it was told to.

    A run is hit twice at most: the third time it would be set aside, as it should be.

    Attributes:
        deaths: How many workers are to die. restarts: How many times the scheduler, with all of them, is to die too.
    """

    cluster: Loopback
    chance: random.Random
    deaths: int
    restarts: int
    begun: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    died: int = 0
    restarted: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def run_begun(self, run: SweepRun, tries: int) -> None:
        self.begun[run.identity] += 1
        if self.died < self.deaths:
            threading.Timer(self.chance.uniform(0.05, 0.4), self._strike).start()

    def _strike(self) -> None:
        with self._turn:
            if self.died >= self.deaths:
                return
            if self.restarted < self.restarts and self.died >= self.deaths // 2:
                self.restarted += 1
                self.cluster.restart()
                return
            victims = self._at_work()
            if not victims:
                return
            victim, identity = self.chance.choice(victims)
            self.hits[identity] += 1
            self.died += 1
            self.cluster.kill(victim)
            self.cluster.start_worker()

    def _at_work(self) -> list[tuple[subprocess.Popen[bytes], str]]:
        """Workers that do a run which may be hit yet, each with the run's identity."""
        with Client(self.cluster.address, set_as_default=False) as client:
            tasks = client.processing()
            names = {place: worker["name"] for place, worker in client.scheduler_info(-1)["workers"].items()}
        found = []
        for place, keys in sorted(tasks.items()):
            for key in keys[:1]:
                identity = str(key).rsplit("-", 2)[1]
                worker = self.cluster.names.get(names.get(place, ""))
                if worker is not None and worker.poll() is None and self.hits[identity] < TRIES - 1:
                    found.append((worker, identity))
        return found


@dataclass(frozen=True)
class Report:
    """What came of it."""

    compared: Compared
    deaths: int
    restarts: int
    begun_again: int
    failed: int
    left_behind: list[str]
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Nothing was lost, doubled, changed or left behind."""
        return self.compared.is_same and not self.failed and not self.left_behind


def deaths_of_workers(
    bench: Bench, folder: Path, runs: int, workers: int, deaths: int, restarts: int = 0, seed: int = 0
) -> Report:
    """Do a sweep under fire, and compare it with the same one in this process."""
    part = bench.part(runs, seconds=0.1)
    begun = time.monotonic()
    with loopback(folder / "dask", workers) as cluster:
        killer = Killer(cluster, random.Random(seed), deaths, restarts)
        with opened(Scheduler(cluster.address), "cpu") as (connect, _):
            collected = work_elsewhere(bench.sweep(folder / "other", part), connect, killer, patience=300)
    seconds = time.monotonic() - begun
    compared = compare(bench.serial(folder / "serial", part), folder / "other")
    again = sum(tries - 1 for tries in killer.begun.values())
    left = unfinished(folder / "other")
    return Report(compared, killer.died, killer.restarted, again, len(collected.failed), left, seconds)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, usual in (("runs", 40), ("workers", 3), ("deaths", 20), ("restarts", 1), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        plugin = write_slowly(folder)
        registry.add_plugin(plugin)
        open_or_prepare(resolve("meld-synthetic"), folder / "data")
        bench = Bench(folder / "data", plugin)
        report = deaths_of_workers(bench, folder, given.runs, given.workers, given.deaths, given.restarts, given.seed)
    sys.stdout.write(
        json.dumps(
            {
                "runs": report.compared.runs,
                "worker deaths": report.deaths,
                "scheduler restarts": report.restarts,
                "runs begun again": report.begun_again,
                "lost": report.compared.lost,
                "doubled": report.compared.doubled,
                "changed": report.compared.changed,
                "failed": report.failed,
                "files left behind": len(report.left_behind),
                "seconds": round(report.seconds, 1),
            }
        )
        + "\n"
    )
    return 0 if report.is_sound and report.deaths == given.deaths else 1


if __name__ == "__main__":
    sys.exit(main())
