"""Sweeps by workers of Dask, all real processes: whoever is killed or cut off, the records are the serial ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mer_bench.errors import RequestError, StoppedError
from mer_bench.records import read_record
from mer_bench.sweep.cluster import work_elsewhere
from mer_bench.sweep.collecting import Collected
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.places import Jobs, Scheduler, opened
from mer_bench.sweep.runs import Sweep
from tests.sweep.conftest import Bench, Hearing
from tests.sweep.loopback import Wire, compare, free_port, loopback, unfinished

SLOW = {"seconds": 0.15}


def work_at(address: str, sweep: Sweep, listener: SweepListener, patience: float = 60) -> Collected:
    with opened(Scheduler(address), "cpu") as (connect, workers):
        return work_elsewhere(sweep, connect, listener, workers, patience)


def workers_here() -> list[psutil.Process]:
    """Processes that this one started as workers."""
    return [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]


def test_worker_of_this_machine_that_is_killed_costs_nothing(bench: Bench, tmp_path: Path) -> None:
    def kill_one() -> None:
        workers = workers_here()
        assert len(workers) == 2
        workers[0].send_signal(signal.SIGKILL)

    part = bench.part(4, **SLOW)
    hearing = Hearing(kill_one)
    sweep = bench.sweep(tmp_path / "two", part)
    with opened(Jobs(2), "cpu") as (connect, workers):
        collected = work_elsewhere(sweep, connect, hearing, workers)
    assert not collected.failed
    assert len(collected.done) == 4
    assert max(tries for _, tries in hearing.begun) in (1, 2)  # 1 where the killed one had begun nothing yet
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "two").is_same
    assert unfinished(tmp_path / "two") == []
    assert workers_here() == []


def test_poison_is_set_aside_after_three_tries_and_the_rest_goes_on(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(3), bench.part(1, kills=True))
    hearing = Hearing()
    with opened(Jobs(2), "cpu") as (connect, workers):
        collected = work_elsewhere(sweep, connect, hearing, workers)
    assert len(collected.done) == 3
    ((identity, reason),) = collected.failed.items()
    assert sorted(tries for begun, tries in hearing.begun if begun == identity) == [1, 2, 3]
    assert "gone 3 times" in reason
    record = read_record(sweep.runs[identity].recording.file)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.kind == "WorkerLostError"
    assert record.cost is not None
    assert record.cost.wall_seconds > 0


def test_runs_that_fail_do_not_stop_the_others(bench: Bench, tmp_path: Path) -> None:
    with loopback(tmp_path / "dask", 1) as cluster:
        sweep = bench.sweep(tmp_path / "out", bench.part(1, breaks=True), bench.part(2))
        collected = work_at(cluster.address, sweep, Hearing())
    assert len(collected.done) == 2
    assert ["IndexError" in reason for reason in collected.failed.values()] == [True]


def test_scheduler_that_is_killed_and_started_again_is_given_what_is_left(
    bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    part = bench.part(6, **SLOW)
    with loopback(tmp_path / "dask", 2) as cluster:
        hearing = Hearing(lambda: threading.Thread(target=cluster.restart).start())
        collected = work_at(cluster.address, bench.sweep(tmp_path / "two", part), hearing)
    assert hearing.lost == hearing.back >= 1
    assert capfd.readouterr().err == ""  # Dask would print a traceback
    assert len(collected.done) == 6
    assert sorted(hearing.done) == sorted(set(hearing.done))
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "two").is_same


def test_scheduler_that_stays_away_ends_the_sweep_which_goes_on_later(bench: Bench, tmp_path: Path) -> None:
    part = bench.part(3, **SLOW)
    with loopback(tmp_path / "dask", 1) as cluster:
        assert cluster.scheduler is not None
        kill = cluster.scheduler.kill
        with pytest.raises(
            StoppedError, match=r"gone for 1 seconds; [0-3] of 3 runs are saved, and the same command goes on"
        ):
            work_at(cluster.address, bench.sweep(tmp_path / "out", part), Hearing(kill), patience=1)
    with loopback(tmp_path / "dask", 1) as cluster:
        work_at(cluster.address, bench.sweep(tmp_path / "out", part), Hearing())
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "out").is_same


def test_network_that_is_cut_between_the_sweep_and_the_scheduler(bench: Bench, tmp_path: Path) -> None:
    part = bench.part(5, **SLOW)
    with loopback(tmp_path / "dask", 2) as cluster:
        wire = Wire(cluster.port)

        def cut() -> None:
            wire.cut()
            threading.Timer(2, wire.mend).start()

        hearing = Hearing(cut)
        collected = work_at(wire.address, bench.sweep(tmp_path / "two", part), hearing)
        wire.close()
    assert hearing.lost >= 1
    assert len(collected.done) == 5
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "two").is_same


def test_network_that_is_cut_between_the_scheduler_and_a_worker(bench: Bench, tmp_path: Path) -> None:
    part = bench.part(5, **SLOW)
    with loopback(tmp_path / "dask", 1) as cluster:
        wire = Wire(cluster.port)
        cluster.start_worker(wire.address)
        hearing = Hearing(lambda: threading.Timer(0.5, wire.cut).start())
        collected = work_at(cluster.address, bench.sweep(tmp_path / "two", part), hearing)
        wire.close()
    assert len(collected.done) == 5
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "two").is_same


def test_worker_that_does_not_see_the_folder_hands_the_files_back(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = bench.part(2)
    monkeypatch.setattr("mer_bench.sweep.cluster._beacon_name", lambda: ".sweep-seen-by-nobody")
    sweep = bench.sweep(tmp_path / "two", part)
    hide = threading.Event()

    class Hiding(Hearing):
        def sweep_started(self, sweep: Sweep, workers: int) -> None:
            hide.set()

    with loopback(tmp_path / "dask", 1) as cluster:

        def remove_beacon() -> None:
            hide.wait()
            while not (tmp_path / "two" / ".sweep-seen-by-nobody").exists():
                time.sleep(0.001)
            (tmp_path / "two" / ".sweep-seen-by-nobody").unlink()

        thread = threading.Thread(target=remove_beacon)
        thread.start()
        collected = work_at(cluster.address, sweep, Hiding())
        thread.join()
    assert len(collected.done) == 2
    assert compare(bench.serial(tmp_path / "one", part), tmp_path / "two").is_same
    for run in sweep.runs.values():
        assert run.recording.weights.read_bytes()


def test_worker_with_several_threads_is_refused(bench: Bench, tmp_path: Path) -> None:
    from distributed import Client

    with loopback(tmp_path / "dask", 0) as cluster:
        cluster.start_worker(threads=2)
        with Client(cluster.address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
        with pytest.raises(RequestError, match=r"would do 2 runs at once.*--nthreads 1"):
            work_at(cluster.address, bench.sweep(tmp_path / "out", bench.part(1)), Hearing())


def test_no_scheduler_is_a_wrong_request(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no scheduler answers"):
        work_at(f"tcp://127.0.0.1:{free_port()}", bench.sweep(tmp_path, bench.part(1)), Hearing())
    assert unfinished(tmp_path) == []


def test_kill_of_the_sweep_ends_its_workers(bench: Bench, tmp_path: Path) -> None:
    words = ["sweep", "--plugin", str(bench.plugin), "--models", "slowly", "--datasets", "meld-synthetic"]
    words += ["--seeds", "4", "--set", "seconds=0.3", "--jobs", "2", "--out", str(tmp_path), "--device", "cpu"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "mer_bench", *words], env={**os.environ, "MER_BENCH_DATA": str(bench.data)}
    )
    until = time.monotonic() + 240
    while not list(tmp_path.rglob("*.json")):
        assert time.monotonic() < until
        time.sleep(0.05)
    workers = psutil.Process(sweep.pid).children(recursive=True)
    assert workers
    sweep.kill()
    sweep.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []
