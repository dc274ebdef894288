"""What a worker does with an order: in the shared folder, or far from it, with other data or another version."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mer_bench import registry, runner
from mer_bench.errors import AlreadyRunningError
from mer_bench.records import predictions_file, read_record
from mer_bench.runner import Listener, Opened
from mer_bench.sweep import performing
from mer_bench.sweep.collecting import Collected
from mer_bench.sweep.listening import SweepListener
from mer_bench.sweep.performing import TRIES, Order, Outcome, Surroundings, perform
from mer_bench.sweep.runs import Sweep, SweepRun
from tests.sweep.conftest import Bench
from tests.sweep.loopback import compare

NOBODY = Surroundings()


def ordered(sweep: Sweep) -> tuple[SweepRun, Order]:
    (run,) = sweep.left
    return run, Order(run.plan.request, run.identity, plugins=registry.added_places(), beacon=".seen")


def far_from(sweep: Sweep, *, shared: bool = False) -> tuple[SweepRun, Order]:
    out = sweep.request.run.out
    out.mkdir(exist_ok=True)
    if shared:
        (out / ".seen").touch()
    return ordered(sweep)


@pytest.mark.parametrize("shared", [True, False])
def test_records_end_in_the_folder_of_the_sweep(bench: Bench, tmp_path: Path, shared: bool) -> None:
    sweep = bench.sweep(tmp_path / "two", bench.part(1))
    run, order = far_from(sweep, shared=shared)
    outcome = perform(order, NOBODY)
    assert (outcome.status, outcome.files is None) == ("done", shared)
    assert run.recording.file.exists() == shared
    collected = Collected(sweep, SweepListener())
    assert collected.take(outcome)
    (tmp_path / "two" / ".seen").unlink(missing_ok=True)
    assert compare(bench.serial(tmp_path / "one", bench.part(1)), tmp_path / "two").is_same
    assert run.recording.weights.exists()
    assert perform(order, NOBODY).status == "done"


def test_what_was_done_already_is_not_done_again(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(1))
    _, order = far_from(sweep, shared=True)
    perform(order, NOBODY)

    def never(saved: str) -> tuple[int, float]:
        raise AssertionError("it was begun again")

    assert perform(order, Surroundings(begin=never)).status == "done"


def test_a_failure_leaves_its_record(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(1, breaks=True))
    run, order = far_from(sweep)
    outcome = perform(order, NOBODY)
    assert (outcome.status, outcome.kind) == ("failed", "RunError")
    collected = Collected(sweep, SweepListener())
    assert collected.take(outcome)
    assert "IndexError" in collected.failed[run.identity]
    assert read_record(run.recording.file).status == "failed"


def test_a_run_whose_workers_were_gone_three_times_is_set_aside(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(1))
    run, order = far_from(sweep, shared=True)
    outcome = perform(order, Surroundings(begin=lambda saved: (TRIES + 1, 12.5)))
    assert (outcome.status, outcome.kind) == ("failed", "WorkerLostError")
    record = read_record(run.recording.file)
    assert record.failure is not None
    assert record.cost is not None
    assert (record.status, record.failure.kind, record.cost.wall_seconds) == ("failed", "WorkerLostError", 12.5)
    assert perform(order, Surroundings(begin=lambda saved: (TRIES, 12.5))).status == "done"


def test_another_version_of_mer_bench_is_unfit(bench: Bench, tmp_path: Path) -> None:
    _, order = far_from(bench.sweep(tmp_path, bench.part(1)))
    outcome = perform(replace(order, version="0.0.1"), NOBODY)
    assert outcome.status == "unfit"
    assert "not 0.0.1. Install the same version." in outcome.reason


def test_other_data_or_code_are_unfit(bench: Bench, tmp_path: Path) -> None:
    _, order = far_from(bench.sweep(tmp_path, bench.part(1)))
    outcome = perform(replace(order, identity="0" * 64), NOBODY)
    assert outcome.status == "unfit"
    assert "is not what the run was ordered with" in outcome.reason


def test_a_worker_without_the_folder_of_data_takes_its_own(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = far_from(bench.sweep(tmp_path, bench.part(1)))
    elsewhere = replace(order, request=replace(order.request, data_root=tmp_path / "not here"))
    monkeypatch.setenv("MER_BENCH_DATA", str(bench.data))
    assert perform(elsewhere, NOBODY).status == "done"
    monkeypatch.setenv("MER_BENCH_DATA", str(tmp_path / "own"))
    assert perform(elsewhere, NOBODY).status == "done"  # made-up data are prepared anywhere
    assert not (tmp_path / "not here").exists()


def test_a_run_that_nobody_wants_any_more_ends_at_its_next_epoch(bench: Bench, tmp_path: Path) -> None:
    run, order = far_from(bench.sweep(tmp_path / "two", bench.part(1)), shared=True)
    assert perform(order, Surroundings(is_unwanted=lambda: True)).status == "dropped"
    assert not run.recording.file.exists()  # no failure: nothing went wrong
    assert next(file.name for file in run.recording.unfinished.glob("epoch-*")).startswith("epoch-000001")
    assert perform(order, NOBODY).status == "done"
    assert not run.recording.unfinished.exists()
    assert compare(bench.serial(tmp_path / "one", bench.part(1)), tmp_path / "two").is_same


def test_a_run_that_another_process_is_at_is_waited_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = far_from(bench.sweep(tmp_path, bench.part(1)), shared=True)
    monkeypatch.setattr(performing, "WAIT_SECONDS", 0.01)
    real, turns = runner.run_opened, []

    def busy(opened: Opened, listener: Listener) -> object:
        turns.append(1)
        if len(turns) < 3:
            raise AlreadyRunningError("somebody is at it")
        return real(opened, listener)

    monkeypatch.setattr(performing, "run_opened", busy)
    assert perform(order, NOBODY).status == "done"
    assert len(turns) == 3


def test_files_that_came_back_damaged_do_not_count(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(1))
    run, order = far_from(sweep)
    outcome = perform(order, NOBODY)
    assert outcome.files is not None
    name = predictions_file(run.recording.folder, run.recording.name).name
    damaged = {**outcome.files, name: outcome.files[name][:-20]}
    collected = Collected(sweep, SweepListener())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mer_bench.sweep.collecting.SEEN_WITHIN_SECONDS", 0.0)
        assert not collected.take(replace(outcome, files=damaged))
    assert collected.left
    assert collected.take(outcome)
    assert not collected.left


def test_a_failed_repeat_never_replaces_a_result(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path, bench.part(1))
    run, order = far_from(sweep)
    collected = Collected(sweep, SweepListener())
    collected.take(perform(order, NOBODY))
    content = run.recording.file.read_bytes()
    failed = Outcome(run.identity, "failed", "RunError", "no", {run.recording.file.name: b"{}"})
    Collected(sweep, SweepListener()).take(failed)
    assert run.recording.file.read_bytes() == content


def test_only_files_of_the_run_are_written(bench: Bench, tmp_path: Path) -> None:
    sweep = bench.sweep(tmp_path / "out", bench.part(1))
    _, order = far_from(sweep)
    outcome = perform(order, NOBODY)
    assert outcome.files is not None
    Collected(sweep, SweepListener()).take(
        replace(outcome, files={**outcome.files, "../../escaped": b"x", "other": b"x"})
    )
    assert not [file for file in tmp_path.rglob("*") if file.name in ("escaped", "other")]


def test_a_run_that_gets_on_between_the_deaths_of_its_workers_is_not_set_aside(bench: Bench, tmp_path: Path) -> None:
    _, order = far_from(bench.sweep(tmp_path, bench.part(1)), shared=True)
    saved: list[str] = []

    def begin(now: str) -> tuple[int, float]:
        saved.append(now)
        return 1, 0.0

    for epochs in (1, 2):
        asked = iter(range(epochs, 0, -1))
        perform(order, Surroundings(begin=begin, is_unwanted=lambda asked=asked: next(asked) <= 1))  # type: ignore[misc]
    perform(order, Surroundings(begin=begin))
    assert len(set(saved)) == 3


STEPS_OF_TRAINING = """
import resource, sys
import torch
from mer_bench.sweep.performing import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    [torch.ones(1 << 18) for _ in range(4)]  # a megabyte each
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do not know these settings")
def test_a_worker_takes_the_memory_of_a_step_from_the_one_before() -> None:
    def faults(*words: str) -> int:
        environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}  # as Dask starts it
        command = [sys.executable, "-c", STEPS_OF_TRAINING, *words]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    kept = faults("keep")
    assert faults() > 10 * kept
