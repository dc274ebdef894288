"""The progress of a run: plain lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from mer_bench import runner
from mer_bench.cli.console import Screen
from mer_bench.cli.progress import ProgressListener
from mer_bench.records import Epoch, Selection
from mer_bench.runner import Plan, RunRequest


@pytest.fixture
def plan() -> Plan:
    return runner.plan(RunRequest("majority", "meld-synthetic", seed=3, settings={"epochs": 40}))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("mer_bench.cli.progress.time.monotonic", lambda: now[0])
    return now


def epoch(number: int, score: float) -> Epoch:
    return Epoch(epoch=number, learning_rate=1e-3, train={"total": 1.25}, dev={"weighted_f1": score, "loss": 1.0})


def test_plain_lines_name_dataset_scores_and_time_left(
    plan: Plan, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressListener(Screen()) as listener:
        listener.run_started(plan)
        clock[0] += 50  # preparing is no part of an epoch's pace
        listener.preparing("Preparing meld-synthetic/default (emotion, official).")
        clock[0] += 3
        listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
        clock[0] += 3
        listener.epoch_ended(epoch(2, 0.4), 1, 0.5, 40, 9)
    assert capsys.readouterr().out.splitlines() == [
        "Majority class on meld-synthetic/default (synthetic), text + audio + visual, labels emotion, "
        "protocol official, seed 3",
        "settings that differ from the defaults: epochs=40",
        "Preparing meld-synthetic/default (emotion, official).",
        "epoch 1/40: loss 1.2500, dev weighted F1 50.00, best 50.00 in epoch 1, stops after 10 more without a better "
        "one, at most 1:57 left",
        "epoch 2/40: loss 1.2500, dev weighted F1 40.00, best 50.00 in epoch 1, stops after 9 more without a better "
        "one, at most 1:54 left",
    ]


def test_a_model_that_is_fitted_at_one_go_has_no_epochs_left(
    plan: Plan, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressListener(Screen()) as listener:
        listener.run_started(plan)
        listener.epoch_ended(Epoch(epoch=1, learning_rate=0, train={}, dev={"weighted_f1": 0.3}), 1, 0.3, 40, 10)
    assert capsys.readouterr().out.splitlines()[-1] == "fitted: dev weighted F1 30.00"


def test_a_second_run_is_timed_by_itself(plan: Plan, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressListener(Screen()) as listener:
        for seed in (0, 1):
            listener.run_started(replace(plan, request=replace(plan.request, seed=seed)))
            clock[0] += 1
            listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
            clock[0] += 500
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert lines[0] == lines[1]


def chosen(number: int) -> Selection:
    return Selection(rule="best dev", metric="weighted_f1", epoch=number, score=0.5, ended="patience")


def test_lines_say_which_fold_they_are_of(plan: Plan, clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressListener(Screen()) as listener:
        listener.run_started(plan)
        for fold in (1, 2):
            listener.fold_started(fold, 5)
            clock[0] += 3
            listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
            listener.fold_ended(fold, 5, chosen(1))
        listener.run_started(plan)  # a next run begins without a fold
        clock[0] += 3
        listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
    lines = capsys.readouterr().out.splitlines()
    told = "epoch 1/40: loss 1.2500, dev weighted F1 50.00, best 50.00 in epoch 1, stops after 10 more without a better"
    assert lines[2:6] == [
        f"fold 1/5, {told} one, at most 1:57 left in this fold",
        "fold 1/5, epoch 1 chosen on dev (no better epoch came)",
        f"fold 2/5, {told} one, at most 1:57 left in this fold",
        "fold 2/5, epoch 1 chosen on dev (no better epoch came)",
    ]
    assert lines[-1] == f"{told} one, at most 1:57 left"


def test_a_bar_says_which_fold_it_is_of(plan: Plan, clock: list[float]) -> None:
    drawn = io.StringIO()
    screen = Screen()
    screen.words = Console(file=drawn, width=120, force_terminal=True, color_system=None)
    with ProgressListener(screen) as listener:
        listener.run_started(plan)
        listener.fold_started(2, 5)
        listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
        listener.fold_ended(2, 5, chosen(1))
    assert "meld-synthetic fold 2/5, epoch 1/40" in drawn.getvalue()


def test_a_terminal_gets_a_bar_that_always_ends(plan: Plan, clock: list[float]) -> None:
    drawn = io.StringIO()
    screen = Screen()
    screen.words = Console(file=drawn, width=80, force_terminal=True, color_system=None)

    def run() -> None:
        with ProgressListener(screen) as listener:
            listener.run_started(plan)
            listener.preparing("Preparing.")
            listener.epoch_ended(epoch(1, 0.5), 1, 0.5, 40, 10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    text = drawn.getvalue()
    assert "meld-synthetic epoch 1/40" in text
    assert "dev 50.00, best 50.00 in epoch 1" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again
