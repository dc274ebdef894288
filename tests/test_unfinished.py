"""The working folder of a run: what is saved when, what is found again, what is told, and when it goes."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mer_bench import atomic, registry, runner, unfinished
from mer_bench.checkpoint import saved_states
from mer_bench.errors import AlreadyRunningError, DataError, DivergedError, RequestError, StoppedError, StorageError
from mer_bench.records import Epoch, read_record
from mer_bench.runner import Listener, RunRequest
from mer_bench.seeding import deterministic_algorithms
from mer_bench.unfinished import KEPT, Unfinished
from tests.faults.shelf import install
from tests.faults.workshop import differences, request_of


class Ears(Listener):
    """Hears all, and stops or kills a run after an epoch."""

    def __init__(self, stop_after: int = 0, kill_after: int = 0) -> None:
        self.stop_after, self.kill_after = stop_after, kill_after
        self.told: list[str] = []
        self.epochs: list[int] = []

    def noticed(self, text: str) -> None:
        self.told.append(text)

    resumed = noticed

    def epoch_ended(self, epoch: Epoch, *_: object, **__: object) -> None:
        self.epochs.append(epoch.epoch)

    def stop_wanted(self) -> str:
        if self.kill_after and len(self.epochs) > self.kill_after:
            raise KeyboardInterrupt  # as abrupt as a test in one process can be: before the epoch is saved
        return "SIGTERM" if self.stop_after and len(self.epochs) == self.stop_after else ""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = set(sys.modules)
    folder = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        install(folder)
        yield tmp_path_factory.mktemp("data")
        for name in set(sys.modules) - before:
            if name.startswith(("fault_models", "fault_datasets")):
                del sys.modules[name]
    importlib.invalidate_caches()
    registry.forget()


@pytest.fixture
def request_here(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunRequest:
    monkeypatch.setattr(unfinished, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(unfinished, "SHARE", 1e9)
    return request_of(data, tmp_path / "runs", 0)


def working(request: RunRequest) -> Path:
    (folder,) = request.out.rglob(".*.unfinished")
    return folder


def expect_undisturbed(request: RunRequest, record: Any) -> None:
    other = replace(request, out=request.out.parent / "undisturbed")
    assert differences(record, request.out, runner.run(other), other.out) == []
    assert [file.name for file in request.out.rglob(".*")] == []


def stopped(request: RunRequest, after: int) -> Path:
    with pytest.raises(StoppedError):
        runner.run(request, Ears(stop_after=after))
    return working(request)


def test_a_stopped_run_says_so_and_goes_on(request_here: RunRequest) -> None:
    with pytest.raises(StoppedError) as stop:
        runner.run(request_here, Ears(stop_after=3))
    assert str(stop.value) == ("stopped by SIGTERM after epoch 3, which is saved: run the same command again to go on.")
    assert stop.value.exit_code == 75
    folder = working(request_here)
    assert [saved.label for saved in saved_states(folder)] == ["epoch-000002", "epoch-000003"]
    assert len(list(folder.iterdir())) == KEPT  # no claim is left
    assert list(request_here.out.rglob("*.json")) == []
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.epochs == [4]
    assert ears.told == ["going on after epoch 3, where the run was stopped."]
    expect_undisturbed(request_here, record)
    assert record.cost
    assert record.cost.wall_seconds > 0
    assert len(record.curve) == 4


def test_stopped_after_every_epoch_it_still_ends_as_undisturbed(request_here: RunRequest) -> None:
    request = replace(request_here, protocol="halves", seed=2)
    for _ in range(8):
        with pytest.raises(StoppedError, match=r"of fold [12], which is saved|after fold 1 of 2, which is saved"):
            runner.run(request, Ears(stop_after=1))
    expect_undisturbed(request, runner.run(request))


def test_an_interrupted_run_goes_on_from_what_was_saved(request_here: RunRequest) -> None:
    with pytest.raises(KeyboardInterrupt) as interrupt:
        runner.run(request_here, Ears(kill_after=2))
    assert interrupt.value.__notes__ == ["what was saved before is kept: run the same command again to go on."]
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.epochs == [3, 4]
    expect_undisturbed(request_here, record)


@pytest.mark.parametrize("protocol", ["official", "halves"])
def test_an_audited_run_goes_on_with_the_weights_that_were_kept(request_here: RunRequest, protocol: str) -> None:
    request = replace(request_here, protocol=protocol, seed=2, audit_selection=True)
    undisturbed = runner.run(replace(request, out=request.out.parent / "audited"))
    stopped(request, 3)
    ears = Ears()
    record = runner.run(request, ears)
    assert ears.epochs == ([4] if protocol == "official" else [4, 1, 2, 3, 4])
    assert record.audit == undisturbed.audit
    assert list(request.out.rglob(".*")) == []


def test_where_they_were_not_kept_an_audited_run_starts_anew_and_says_so(request_here: RunRequest) -> None:
    stopped(request_here, 2)
    ears = Ears()
    record = runner.run(replace(request_here, audit_selection=True), ears)
    assert ears.told == [
        "the run was stopped after epoch 2, but not all weights that an audit needs were kept by then; it starts anew."
    ]
    assert ears.epochs == [1, 2, 3, 4]
    assert record.audit is not None


def test_one_of_several_listeners_can_stop_a_run() -> None:
    from mer_bench.trackers import Several

    assert Several(Listener(), Ears()).stop_wanted() == ""
    stopping = Ears(stop_after=1)
    stopping.epochs = [1]
    assert Several(Listener(), stopping).stop_wanted() == Several(stopping, Listener()).stop_wanted() == "SIGTERM"


def test_before_the_first_saving_nothing_is_left_behind(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "FIRST_AFTER_SECONDS", 60.0)
    with pytest.raises(KeyboardInterrupt):
        runner.run(request_here, Ears(kill_after=2))
    assert [file for file in request_here.out.rglob("*") if file.name.endswith("unfinished")] == []


def test_saving_takes_no_more_than_its_share(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(unfinished, "write_state", lambda *_: clock.__setitem__(0, clock[0] + 0.5))
    saved = []
    with Unfinished(tmp_path / "x", "x", {}, print) as folder:
        for epoch in range(1, 1001):
            clock[0] += 0.1
            if folder.is_due():
                saved.append(epoch)
                folder.save_epoch(None, epoch, {})
    assert saved[0] == 20  # two seconds
    assert 0.5 * len(saved) / clock[0] < 0.05


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_a_damaged_state_is_named_and_the_one_before_takes_its_place(request_here: RunRequest, damage: str) -> None:
    before, last = saved_states(stopped(request_here, 3))
    content = last.file.read_bytes()
    middle = len(content) // 2
    last.file.write_bytes(
        {
            "flip": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
            "cut": content[:middle],
            "empty": b"",
            "swap": before.file.read_bytes(),
        }[damage]
    )
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.told == [
        f"the saved state {last.file.name} is damaged: its content does not match its checksum; it is removed, and the "
        "run goes on from epoch 2, saved before it.",
        "going on after epoch 2, where the run was stopped.",
    ]
    expect_undisturbed(request_here, record)


def test_where_all_are_damaged_it_starts_anew_and_says_so(request_here: RunRequest) -> None:
    for saved in saved_states(stopped(request_here, 3)):
        saved.file.write_bytes(b"?")
    ears = Ears()
    record = runner.run(request_here, ears)
    assert len(ears.told) == 2
    assert "starts anew" in ears.told[1]
    assert ears.epochs == [1, 2, 3, 4]
    expect_undisturbed(request_here, record)


def test_a_state_of_another_run_under_this_ones_folder_is_not_taken(request_here: RunRequest) -> None:
    other = replace(request_here, seed=1, out=request_here.out.parent / "other")
    theirs = stopped(other, 3)
    mine = stopped(request_here, 1)
    for saved in saved_states(theirs):
        saved.file.rename(mine / saved.file.name)
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.told == ["going on after epoch 1, where the run was stopped."]
    theirs.rmdir()
    expect_undisturbed(request_here, record)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("threads", r"epoch 2 was saved with threads 1 \(now 2\): .* so the run starts anew"),
        ("version", r"epoch 2 was saved by mer-bench 0.0.9 \(now "),
        ("code", r"epoch 2 was saved with the code 11111111… \(now "),
    ],
)
def test_what_other_threads_or_another_version_saved_is_not_gone_on_from_and_not_lost(
    request_here: RunRequest, change: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if change == "version":
            patch.setattr(unfinished, "__version__", "0.0.9")
        if change == "code":
            patch.setattr(unfinished, "_code_checksum", lambda: "1" * 64)
        stopped(request_here, 2)
    ears = Ears(stop_after=1)
    other = replace(request_here, threads=2) if change == "threads" else request_here
    try:
        with pytest.raises(StoppedError):
            runner.run(other, ears)
    finally:
        torch.set_num_threads(1)
    (told,) = ears.told
    assert re.search(says, told), told
    assert ears.epochs == [1]
    if change == "threads":  # the first command still goes on where it was
        ears = Ears()
        expect_undisturbed(request_here, runner.run(request_here, ears))
        assert ears.epochs == [3, 4]


def test_a_later_format_is_told_and_the_run_starts_anew(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench import checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 2)
        stopped(request_here, 2)
    ears = Ears()
    record = runner.run(request_here, ears)
    assert "has format 2, and this mer-bench reads format 1; it is removed" in ears.told[0]
    assert ears.epochs == [1, 2, 3, 4]
    expect_undisturbed(request_here, record)


def test_the_second_of_two_is_told_and_harms_nothing(request_here: RunRequest) -> None:
    told: list[str] = []

    class Twice(Ears):
        def epoch_ended(self, epoch: Epoch, *_: object, **__: object) -> None:
            if epoch.epoch == 2:
                with pytest.raises(AlreadyRunningError) as error:
                    runner.run(request_here)
                told.append(str(error.value))

    record = runner.run(request_here, Twice())
    assert f"is being done already, by process {os.getpid()} on this machine" in told[0]
    assert "\n" not in told[0]
    expect_undisturbed(request_here, record)


def test_a_full_disk_is_told_once_and_the_run_goes_on(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("cannot save the state of a run in runs: the disk is full. Free some space and try again.")

    ears = Ears()
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "write_state", full)
        record = runner.run(request_here, ears)
        assert ears.told == [
            "cannot save the state of a run in runs: the disk is full. Free some space and try again. The run goes on, "
            "but if it is stopped it starts from before."
        ]
        with pytest.raises(StoppedError, match="could not be saved, so that the run begins anew") as stop:
            runner.run(replace(request_here, seed=1), Ears(stop_after=2))
        assert stop.value.exit_code == 130
    expect_undisturbed(request_here, record)


def test_a_disk_that_is_full_at_the_end_loses_no_training(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench import predictions

    def full(*_: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(predictions, "write_predictions", full)
        with pytest.raises(StorageError, match=r"cannot write records to .*: the disk is full"):
            runner.run(request_here)
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.epochs == []
    expect_undisturbed(request_here, record)


def test_a_run_that_failed_leaves_its_record_and_no_working_folder(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench.trainer import Trainer

    real = Trainer._train_epoch

    def diverge(self: Trainer, *given: Any) -> Any:
        if self.state.epoch == 2:
            raise DivergedError("the loss became NaN.")
        return real(self, *given)

    monkeypatch.setattr(Trainer, "_train_epoch", diverge)
    with pytest.raises(DivergedError):
        runner.run(request_here)
    (file,) = (file for file in request_here.out.rglob("*") if file.is_file())
    assert read_record(file).status == "failed"


def test_a_clock_that_is_set_back_changes_nothing(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(request_here, 2)
    scrap = atomic.temporary_beside(folder / "epoch-000003")
    scrap.write_bytes(b"half")
    staged = atomic.temporary_beside(folder.parent / folder.name.removeprefix(".").removesuffix(".unfinished"))
    staged.write_bytes(b"half")
    for file in (scrap, staged, *folder.iterdir()):
        os.utime(file, (time.time() + 1e8, time.time() + 1e8))  # made before the clock was set back
    monkeypatch.setattr(time, "time", lambda: 1e8)
    ears = Ears()
    record = runner.run(request_here, ears)
    assert ears.epochs == [3, 4]
    monkeypatch.undo()
    assert [file.name for file in request_here.out.rglob(".*")] == []
    assert record.status == "done"


def test_a_record_made_with_other_threads_is_told_of(request_here: RunRequest) -> None:
    try:
        runner.run(replace(request_here, threads=2))
    finally:
        torch.set_num_threads(1)
    ears = Ears()
    runner.run(request_here, ears)
    assert ears.told == [
        "the record that is there was made with 2 threads, and this run has 1: the last bits of its numbers may "
        "differ. It will be replaced."
    ]
    ears = Ears()
    runner.run(request_here, ears)
    assert ears.told == []


def test_a_damaged_store_is_refused_before_training(request_here: RunRequest, data: Path, tmp_path: Path) -> None:
    import shutil

    runner.run(request_here)
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    file = next(file for file in copy.rglob("features.text.npy") if "halves" not in file.parts)
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"features\.text\.npy is damaged: its SHA-256 is"):
        runner.run(replace(request_here, data_root=copy))


def test_seeds_that_were_stopped_go_on_and_a_whole_command_is_repeated(request_here: RunRequest) -> None:
    requests = [replace(request_here, seed=number) for number in (0, 1, 3)]
    assert runner.begin_all(requests, Listener()) == {}
    first = runner.run(requests[0])
    # A kill between two runs: nothing of the second was begun but the mark.
    assert runner.begin_all(requests, Listener()) == {0: first}
    for request in requests[1:]:
        runner.run(request)
    assert list(request_here.out.rglob(".*")) == []
    assert runner.begin_all(requests, Listener()) == {}


def test_a_trial_of_a_study_saves_nothing(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a state was saved")

    monkeypatch.setattr(unfinished, "write_state", refuse)
    monkeypatch.setattr(Unfinished, "__enter__", refuse)
    planned = runner.plan(request_here)
    device = runner.open_device(request_here)
    opened = runner.open_run(planned, device, Listener())
    material = opened.material(opened.stores[0])
    runner.fit(runner.trainer_of(planned, material, device), material, lambda *_: None)
    assert not request_here.out.exists()


def test_the_cpu_is_always_deterministic(request_here: RunRequest) -> None:
    if torch.cuda.is_available():
        request_here = replace(request_here, device="cpu")
    with pytest.raises(RequestError, match="--no-deterministic is for cuda alone"):
        runner.open_device(replace(request_here, deterministic=False))
    runner.open_device(request_here)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    deterministic_algorithms(False)
    assert not torch.are_deterministic_algorithms_enabled()
    deterministic_algorithms()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no cuda device")
def test_on_cuda_the_deterministic_mode_gives_the_same_bits(request_here: RunRequest) -> None:
    request = replace(request_here, device="cuda")
    stopped(request, 2)
    expect_undisturbed(request, runner.run(request))
    quick = runner.run(replace(request, deterministic=False, out=request.out / "quick"))
    assert quick.options["deterministic"] is False
