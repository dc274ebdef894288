"""A stack from the request to its records: equal to runs apart, told apart from them, repeated and killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mer_bench import identity, registry, runner, unfinished
from mer_bench.cli import app
from mer_bench.errors import AlreadyRunningError, NotStackableError, RequestError, StoppedError
from mer_bench.leaderboard.building import outline
from mer_bench.leaderboard.gathering import gather
from mer_bench.predictions import read_predictions
from mer_bench.records import Epoch, Record, predictions_file, read_record, weights_file
from mer_bench.runner import Listener, RunRequest, Standing
from mer_bench.stacking.running import run_stack
from tests.faults.shelf import install
from tests.faults.workshop import differences

SEEDS = (0, 1, 2)
SETTINGS = {"epochs": 4, "batch_size": 4, "patience": 2, "learning_rate": 0.02}


class Ears(Listener):
    """Hears all, and stops a stack after an epoch."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after = stop_after
        self.told: list[str] = []
        self.epochs: list[int] = []
        self.standing: Mapping[int, Standing] = {}

    def noticed(self, text: str) -> None:
        self.told.append(text)

    resumed = noticed

    def stack_epoch_ended(self, epochs: Mapping[int, Epoch], standing: Mapping[int, Standing], most: int) -> None:
        self.epochs.append(next(iter(epochs.values())).epoch)
        self.standing = standing

    def stop_wanted(self) -> str:
        return "SIGTERM" if self.stop_after and len(self.epochs) == self.stop_after else ""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The corpus `trios`, with two folds under `halves`, and the model `swinger`, which does not stack."""
    before = set(sys.modules)
    folder = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        install(folder)
        yield folder
        for name in set(sys.modules) - before:
            if name.startswith(("fault_models", "fault_datasets")):
                del sys.modules[name]
    registry.forget()


@pytest.fixture(scope="module")
def data(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is saved, however quick it is."""
    monkeypatch.setattr(unfinished, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(unfinished, "SHARE", 1e9)


def request_of(data: Path, out: Path, protocol: str = "official") -> RunRequest:
    return RunRequest("dialoguernn", "trios", protocol=protocol, settings=SETTINGS, data_root=data, out=out, threads=1)


@pytest.fixture
def request_here(data: Path, tmp_path: Path) -> RunRequest:
    return request_of(data, tmp_path / "runs")


@pytest.fixture(scope="module", params=["official", "halves"])
def whole(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunRequest, list[Record]]:
    """An undisturbed stack: with one fixed split, and with two folds."""
    made = request_of(data, tmp_path_factory.mktemp("whole") / "runs", request.param)
    return made, run_stack(made, SEEDS).records


def choices(record: Record) -> list[tuple[int, list[float]]]:
    """The chosen epoch and the losses of every epoch: of each fold, or of the run."""
    parts: list[Any] = list(record.folds) or [record]
    return [(part.selection.epoch, [e.train["total"] for e in part.curve]) for part in parts if part.selection]


def test_each_record_is_that_of_the_run_apart_with_the_same_order(whole: tuple[RunRequest, list[Record]]) -> None:
    request, records = whole
    for seed, record in zip(SEEDS, records, strict=True):
        alone = runner.run(replace(request, seed=seed, settings={**SETTINGS, "order_seed": 0}))
        assert record.test is not None
        assert alone.test is not None
        assert (record.seed, record.stack, alone.stack) == (seed, list(SEEDS), [])
        assert record.training == alone.training
        assert record.training["order_seed"] == 0
        assert record.test.weighted_f1 == pytest.approx(alone.test.weighted_f1, abs=0.02)
        assert [epoch for epoch, _ in choices(record)] == [epoch for epoch, _ in choices(alone)]
        for (_, ours), (_, theirs) in zip(choices(record), choices(alone), strict=True):
            assert ours == pytest.approx(theirs, abs=2e-3)  # float32, four epochs: rounding grows
        found, expected = (
            read_predictions(predictions_file(request.out / "trios" / "dialoguernn", each.run)).log_probabilities
            for each in (record, alone)
        )
        assert found is not None
        assert expected is not None
        assert np.allclose(np.exp(found.astype(float)), np.exp(expected.astype(float)), rtol=0, atol=0.01)
        assert record.identity != alone.identity
        assert record.identity == identity.identity_of(record, registry.datasets().find("trios").card.version, None)


def test_a_stack_is_part_of_the_identity(request_here: RunRequest) -> None:
    three = run_stack(request_here, SEEDS).records
    two = run_stack(request_here, (0, 1)).records
    assert len({record.identity for record in [*three, *two]}) == 5
    assert len(list(request_here.out.rglob("*.json"))) == 5


def test_the_same_command_gives_the_same_bits(whole: tuple[RunRequest, list[Record]], tmp_path: Path) -> None:
    request, records = whole
    other = replace(request, out=tmp_path / "again")
    for one, again in zip(records, run_stack(other, SEEDS).records, strict=True):
        assert differences(one, request.out, again, other.out) == []


@pytest.mark.usefixtures("saving")
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_stopped_stack_goes_on_with_the_same_bits(
    whole: tuple[RunRequest, list[Record]], tmp_path: Path, after: int
) -> None:
    request, records = whole
    here = replace(request, out=tmp_path / "stopped")
    with pytest.raises(StoppedError, match=f"stopped by SIGTERM after epoch {after if after < 4 else '[0-9]'}"):
        run_stack(here, SEEDS, Ears(stop_after=after))
    assert not list(here.out.rglob("*.json"))
    ears = Ears()
    for one, again in zip(records, run_stack(here, SEEDS, ears).records, strict=True):
        assert differences(one, request.out, again, here.out) == []
    assert any("where the stack was stopped" in text for text in ears.told)
    assert [file.name for file in here.out.rglob(".*")] == []


def killed_child(request: RunRequest, kill_at: int, answer: Any) -> None:
    """A stack in a process of its own, which kills itself before the `kill_at`-th call of the file system."""
    calls = 0

    def counted(function: Any) -> Any:
        def count(*given: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **options)

        return count

    for name in ("replace", "fsync", "link", "unlink", "rename", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    for name in ("replace", "unlink", "rename"):
        setattr(Path, name, counted(getattr(Path, name)))
    unfinished.FIRST_AFTER_SECONDS, unfinished.SHARE = 0.0, 1e9
    run_stack(request, SEEDS)
    answer.send(calls)


def test_a_kill_at_any_moment_loses_doubles_and_changes_nothing(
    whole: tuple[RunRequest, list[Record]], tmp_path: Path
) -> None:
    request, records = whole
    context = multiprocessing.get_context("fork")

    def start(here: RunRequest, kill_at: int) -> tuple[int | None, int]:
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=killed_child, args=(here, kill_at, theirs))
        child.start()
        theirs.close()
        child.join(300)
        return child.exitcode, ours.recv() if child.exitcode == 0 else 0

    code, calls = start(replace(request, out=tmp_path / "counted"), 0)
    assert code == 0
    generator = np.random.default_rng(len(request.protocol or ""))
    for number, kill_at in enumerate(sorted(generator.choice(np.arange(2, calls), 5, replace=False).tolist())):
        here = replace(request, out=tmp_path / f"killed{number}")
        assert start(here, kill_at)[0] == -signal.SIGKILL
        for one, again in zip(records, run_stack(here, SEEDS).records, strict=True):
            assert differences(one, request.out, again, here.out) == [], kill_at
        assert len(list(here.out.rglob("*.json"))) == len(SEEDS)
        assert [file.name for file in here.out.rglob(".*")] == []


def test_two_processes_at_one_stack(request_here: RunRequest) -> None:
    class Second(Ears):
        def stack_epoch_ended(self, *given: Any) -> None:
            with pytest.raises(AlreadyRunningError, match="is being done already"):
                run_stack(request_here, SEEDS)

    assert len(run_stack(request_here, SEEDS, Second()).records) == 3


def test_the_time_is_shared_out(request_here: RunRequest) -> None:
    import time

    started = time.perf_counter()
    result = run_stack(request_here, SEEDS)
    taken = time.perf_counter() - started
    costs = [record.cost for record in result.records]
    assert all(cost and cost.wall_seconds > 0 for cost in costs)
    assert sum(cost.wall_seconds for cost in costs if cost) < taken


def test_a_listener_hears_of_all_seeds(request_here: RunRequest) -> None:
    ears = Ears()
    records = run_stack(request_here, SEEDS, ears).records
    assert ears.epochs == list(range(1, max(len(record.curve) for record in records) + 1))
    assert {seed: each.best_epoch for seed, each in ears.standing.items()} == {
        record.seed: record.selection.epoch for record in records if record.selection
    }
    assert not any(each.is_running for each in ears.standing.values())


class TestRecords:
    def test_weights_and_predictions_lie_beside_each_record(self, whole: tuple[RunRequest, list[Record]]) -> None:
        from safetensors.numpy import load_file

        request, records = whole
        folder = request.out / "trios" / "dialoguernn"
        weights = [load_file(weights_file(folder, record.run)) for record in records]
        assert weights[0].keys() == weights[1].keys()
        assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])

    def test_a_row_is_stacked_or_not(self, request_here: RunRequest) -> None:
        run_stack(request_here, SEEDS)
        (table,) = outline(gather([request_here.out]))
        assert [row.label for row in table.experiments] == ["dialoguernn (3 seeds stacked)"]
        run_stack(request_here, (0, 1))
        for seed in (0, 1):
            runner.run(replace(request_here, seed=seed, settings={**SETTINGS, "order_seed": 0}))
        (table,) = outline(gather([request_here.out]))
        rows = {row.label: sorted(entry.seed for entry in row) for row in table.experiments}
        assert rows == {
            "dialoguernn (2 seeds stacked)": [0, 1],
            "dialoguernn (3 seeds stacked)": [0, 1, 2],
            "dialoguernn": [0, 1],
        }

    @pytest.mark.parametrize("stack", [[1, 2], [0], [0, 0, 1]])
    def test_a_record_with_a_stack_that_cannot_be_is_refused(
        self, whole: tuple[RunRequest, list[Record]], tmp_path: Path, stack: list[int]
    ) -> None:
        from mer_bench.errors import RecordError

        request, records = whole
        file = request.out / "trios" / "dialoguernn" / f"{records[0].run}.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        told["stack"] = stack
        wrong = tmp_path / "wrong.json"
        wrong.write_text(json.dumps(told), encoding="utf-8")
        with pytest.raises(RecordError, match="a stack is of two seeds or more"):
            read_record(wrong)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "seeds", "says"),
        [
            ({}, (0,), "a stack is of two different seeds or more, but 1 was given"),
            ({}, (3, 3), "a stack is of two different seeds or more"),
            ({"audit_selection": True}, SEEDS, "--audit-selection keeps the weights of every epoch of one run"),
            ({"settings": {"precision": "bfloat16"}}, SEEDS, "stacked seeds are trained in float32"),
        ],
    )
    def test_what_cannot_be_asked_for(
        self, request_here: RunRequest, changes: dict[str, Any], seeds: tuple[int, ...], says: str
    ) -> None:
        with pytest.raises(RequestError, match=says):
            run_stack(replace(request_here, **changes), seeds)
        assert not request_here.out.exists()

    @pytest.mark.parametrize(
        ("model", "reason"),
        [
            ("majority", "it is fitted at one go"),
            ("swinger", "together its seeds get another loss or gradient than alone"),
        ],
    )
    def test_a_model_that_does_not_stack(self, request_here: RunRequest, model: str, reason: str) -> None:
        settings = {} if model == "majority" else SETTINGS
        with pytest.raises(NotStackableError, match=reason) as refused:
            run_stack(replace(request_here, model=model, settings=settings), SEEDS)
        assert str(refused.value).startswith(f"the seeds of {model} can't be stacked: ")
        assert not request_here.out.exists()

    def test_a_seed_of_a_stack_is_not_trained_alone(self, request_here: RunRequest) -> None:
        with pytest.raises(RequestError, match="a seed of a stack is not trained alone"):
            runner.run(replace(request_here, stack=SEEDS))


class TestCommandLine:
    def invoke(self, data: Path, out: Path, *more: str) -> Any:
        given = ["run", "--model", "textonly", "--dataset", "trios", "--data-root", str(data), "--out", str(out)]
        return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*given, "--threads", "1", "--set", "epochs=2", *more])

    def test_seeds_are_shown_as_ever(self, data: Path, tmp_path: Path) -> None:
        answer = self.invoke(data, tmp_path / "runs", "--seeds", "3", "--stack-seeds")
        assert answer.exit_code == 0, answer.output
        assert "3 seeds in one pass (0, 1, 2)" in answer.output
        assert answer.output.count("record: ") == 3
        assert "spread" in answer.output

    @pytest.mark.parametrize(
        ("more", "says"),
        [
            (["--stack-seeds"], "--stack-seeds trains several seeds together; say how many with --seeds, 2 or more."),
            (["--seeds", "1", "--stack-seeds"], "say how many with --seeds, 2 or more."),
            (["--seed", "3", "--stack-seeds"], "say how many with --seeds, 2 or more."),
            (["--seeds", "2", "--stack-seeds", "--track", "tensorboard"], "--track follows one run at a time"),
            (["--seeds", "2", "--stack-seeds", "--audit-selection"], "leave one of the two out"),
        ],
    )
    def test_what_does_not_go_together_is_told_in_a_sentence(
        self, data: Path, tmp_path: Path, more: list[str], says: str
    ) -> None:
        answer = self.invoke(data, tmp_path / "runs", *more)
        assert answer.exit_code == 2
        assert says in " ".join(answer.output.split())
        assert not (tmp_path / "runs").exists()
