"""`mer-bench run` and signals: the first lets the epoch end and be saved, a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mer_bench.records import read_record

SLOW = """
import time
from mer_bench.trainer import Trainer
real = Trainer._train_epoch
def slow(self, *given):
    print("training", self.state.epoch + 1, flush=True)
    time.sleep({seconds})
    return real(self, *given)
Trainer._train_epoch = slow
from mer_bench.cli import main
main()
"""


class Child:
    """The command in a process of its own whose epochs last a while."""

    def __init__(self, folder: Path, data: Path, seconds: float, *words: str) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", SLOW.format(seconds=seconds), "run", "--model", "textonly"),
                *("--dataset", "meld-synthetic", "--data-root", str(data), "--out", str(folder), "--threads", "1"),
                *("--set", "epochs=2", *words),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"it ended before it said {text!r}: {self.process.communicate()}")

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=240)
        return self.process.returncode, errors


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.process.kill()
        child.process.communicate()


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_a_signal_ends_the_epoch_saves_and_exits_with_75(
    number: int, name: str, tmp_path: Path, synthetic: Path, children: list[Child]
) -> None:
    children.append(child := Child(tmp_path / "runs", synthetic, 0.5, "--seeds", "2"))
    child.wait_for("training 1")
    child.process.send_signal(number)
    code, errors = child.end()
    assert code == 75, errors
    assert f"{name}: this epoch is finished and saved first; Ctrl-C again stops at once\n" in errors
    assert errors.endswith(
        f"mer-bench: stopped by {name} after epoch 1, which is saved: run the same command again to go on.\n"
    )
    assert list((tmp_path / "runs").rglob("*.json")) == []
    if name == "Ctrl-C":
        return
    children.append(child := Child(tmp_path / "runs", synthetic, 0, "--seeds", "2"))
    child.wait_for("going on after epoch 1, where the run was stopped.")
    child.wait_for("training 2")
    assert child.end()[0] == 0
    assert sorted(read_record(file).seed for file in (tmp_path / "runs").rglob("*.json")) == [0, 1]
    assert list((tmp_path / "runs").rglob(".*")) == []


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path, synthetic: Path, children: list[Child]) -> None:
    children.append(child := Child(tmp_path / "runs", synthetic, 200))
    child.wait_for("training 1")
    child.process.send_signal(signal.SIGINT)
    assert child.process.stderr is not None
    while "this epoch is finished and saved first" not in child.process.stderr.readline():
        pass
    child.process.send_signal(signal.SIGTERM)  # repeated by a queue: no hurry
    child.process.send_signal(signal.SIGINT)
    code, errors = child.end()
    assert (code, errors) == (130, "mer-bench: stopped by Ctrl-C; nothing half-written was left behind.\n")
    assert list((tmp_path / "runs").rglob(".*")) == []


def test_the_second_command_is_told_in_one_sentence(tmp_path: Path, synthetic: Path, children: list[Child]) -> None:
    children.append(first := Child(tmp_path / "runs", synthetic, 100))
    first.wait_for("training 1")
    children.append(second := Child(tmp_path / "runs", synthetic, 0))
    code, errors = second.end()
    assert code == 1
    assert errors.startswith("mer-bench: the run textonly.default.seed0.")
    assert f"is being done already, by process {first.process.pid} on this machine since" in errors
    assert errors.count("\n") == 1
    first.process.kill()
    first.end()
    children.append(third := Child(tmp_path / "runs", synthetic, 0))  # the dead one's claim is no hindrance
    assert third.end()[0] == 0
