"""The audit of the selection: what it says, that it has no say, and that its weights are gone afterwards."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from typer.testing import CliRunner

import mer_bench
from mer_bench import atomic, audit, runner
from mer_bench.audit import KeptWeights
from mer_bench.cli import app
from mer_bench.data import preparation
from mer_bench.data.store import Store
from mer_bench.errors import RunError, StorageError
from mer_bench.metrics import METRICS, score, selection_gap
from mer_bench.predictions import Predictions
from mer_bench.recording import Recording
from mer_bench.records import Audit, AuditEpoch, Fold, Record, read_record, record_text
from mer_bench.runner import Listener, RunRequest
from mer_bench.trainer import Trainer

from .sessions import sessions_installed

SETTINGS = {"epochs": 4, "batch_size": 4, "width": 8, "layers": 1, "heads": 2, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with sessions_installed(tmp_path_factory.mktemp("installed")):
        yield tmp_path_factory.mktemp("data")


@pytest.fixture
def request_here(data: Path, tmp_path: Path) -> RunRequest:
    return RunRequest(
        "textonly",
        "open-sessions",
        protocol="session3",
        settings=SETTINGS,
        data_root=data,
        out=tmp_path / "runs",
        threads=1,
        audit_selection=True,
    )


def files(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def apart_from_audit(record: Record) -> dict[str, Any]:
    values = record.model_dump()
    for name in ("audit", "cost", "started"):
        values.pop(name)
    for fold in values["folds"]:
        fold.pop("audit")
    return values


CASES: dict[str, dict[str, Any]] = {
    "one split": {},
    "folds": {"protocol": "loso", "settings": SETTINGS | {"epochs": 3}},
    "folds, labels not to be passed on": {
        "dataset": "sessions",
        "protocol": "loso",
        "settings": SETTINGS | {"epochs": 2},
    },
    "averaged weights": {"settings": SETTINGS | {"average_decay": 0.9}},
    "no averaging": {"settings": SETTINGS | {"average_decay": 0.0}},
    "early stopping": {"settings": SETTINGS | {"epochs": 12, "patience": 1, "learning_rate": 0.1}},
    "wrapper": {"model": "modality-dropout", "settings": {"epochs": 3, "batch_size": 4, "inner": "textonly"}},
    "fitted at one go": {"model": "logistic", "settings": {}},
}


@pytest.mark.parametrize("case", CASES)
def test_with_and_without_an_audit_records_differ_in_the_audit_alone(case: str, request_here: RunRequest) -> None:
    request = replace(request_here, **CASES[case])
    audited = runner.run(request)
    plain = runner.run(replace(request, audit_selection=False, out=request.out.with_name("plain")))
    assert plain.audit is None
    assert apart_from_audit(audited) == apart_from_audit(plain)  # predictions by the checksum of their file
    for ending in ("predictions.npz", "model.safetensors"):
        here, there = (next(out.rglob(f"*.{ending}")).read_bytes() for out in (request.out, plain_out(request)))
        assert here == there
    assert files(request.out) == files(plain_out(request))  # and nothing of the epochs is left
    (file,) = request.out.rglob("*.json")
    assert read_record(file) == audited

    for part in parts_of(audited):
        assert part.audit is not None
        assert part.selection is not None
        assert part.test is not None
        told = [epoch.test["weighted_f1"] for epoch in part.audit.epochs]
        assert [epoch.epoch for epoch in part.audit.epochs] == [epoch.epoch for epoch in part.curve]
        assert told[part.selection.epoch - 1] == part.audit.chosen == part.test.weighted_f1
        assert (part.audit.best, part.audit.best_epoch) == (max(told), told.index(max(told)) + 1)
    assert audited.audit is not None
    assert audited.test is not None
    assert audited.audit.chosen == audited.test.weighted_f1
    if audited.folds:
        assert audited.audit.epochs == []
        assert audited.audit.best_epoch is None
    if case == "early stopping":
        assert len(audited.curve) < 12


def parts_of(record: Record) -> Sequence[Record | Fold]:
    return record.folds or [record]


def plain_out(request: RunRequest) -> Path:
    return request.out.with_name("plain")


@pytest.mark.parametrize("case", ["one split", "folds", "averaged weights", "wrapper"])
def test_each_epoch_is_scored_as_it_was_when_dev_was_scored(
    case: str, request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_here, **CASES[case])
    seen: list[Predictions] = []
    real = Trainer._dev_values
    opened = runner.open_run(runner.plan(request), torch.device("cpu"), Listener())

    def spy(self: Trainer, *arguments: Any) -> Any:
        # In the very moment in which selection looks at the model, on the test split of this fold.
        store = opened.stores[len(seen) // SETTINGS_EPOCHS[case]]
        seen.append(opened.predictions(store, opened.split(store, "test"), self.state.model))
        return real(self, *arguments)

    monkeypatch.setattr(Trainer, "_dev_values", spy)
    record = runner.run(request)
    told = [epoch for part in parts_of(record) if part.audit for epoch in part.audit.epochs]
    expected = [score(predictions) for predictions in seen]
    assert len(told) == len(expected) == SETTINGS_EPOCHS[case] * max(1, len(record.folds))
    for epoch, scores in zip(told, expected, strict=True):
        assert epoch.test == {name: value for name in METRICS if (value := getattr(scores, name)) is not None}
    if record.folds:
        from mer_bench.predictions import pooled

        size = SETTINGS_EPOCHS[case]
        best = [
            max(seen[start : start + size], key=lambda each: score(each).weighted_f1)
            for start in range(0, len(seen), size)
        ]
        assert record.audit is not None
        assert record.audit.best == score(pooled(best)).weighted_f1


SETTINGS_EPOCHS = {"one split": 4, "folds": 3, "averaged weights": 4, "wrapper": 3}


def test_the_test_split_is_read_for_the_audit_only_after_the_record_is_written(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Watched(Store):
        def split(self, name: str, *arguments: Any, **options: Any) -> Any:
            events.append(name)
            return super().split(name, *arguments, **options)

    real_open, real_write = preparation.open_or_prepare, Recording.write

    def open_watched(*arguments: Any, **options: Any) -> Store:
        store = real_open(*arguments, **options)
        return Watched(**{field.name: getattr(store, field.name) for field in fields(store)})

    def write(self: Recording, *arguments: Any) -> Record:
        record = real_write(self, *arguments)
        events.append("written")
        return record

    monkeypatch.setattr(runner, "open_or_prepare", open_watched)
    monkeypatch.setattr(Recording, "write", write)
    runner.run(request_here)
    assert events[events.index("test") :] == ["test", "written", "test", "test", "test", "test"]


def test_an_audit_that_lies_changes_nothing_else(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runner.run(request_here)

    def flattering(predictions: Predictions) -> Any:
        return score(predictions).model_copy(update={"macro_f1": 1.0})

    monkeypatch.setattr(audit, "score", flattering)
    lied = runner.run(replace(request_here, out=request_here.out.with_name("lied")))
    assert lied.audit != honest.audit
    assert apart_from_audit(lied) == apart_from_audit(honest)


def test_a_record_without_an_audit_gains_one(request_here: RunRequest) -> None:
    plain = runner.run(replace(request_here, audit_selection=False))
    (before,) = request_here.out.rglob("*.json")
    assert "audit" not in before.read_text()
    planned = runner.plan(request_here)
    opened = runner.open_run(planned, torch.device("cpu"), Listener())
    assert Recording(planned, opened.stores).found() is None  # a sweep must not take the one without for it
    audited = runner.run(request_here)
    (after,) = request_here.out.rglob("*.json")
    assert (after, audited.run, audited.identity) == (before, plain.run, plain.identity)
    assert audited.audit is not None
    assert Recording(planned, opened.stores).found() == audited


def test_from_python_and_from_the_command_line(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {field.name: getattr(request_here, field.name) for field in fields(request_here)}
    record = mer_bench.run(**given)
    assert record.audit is not None
    words = ["run", "--model", "textonly", "--dataset", "open-sessions", "--protocol", "session3", "--audit-selection"]
    words += [f"--set={name}={value}" for name, value in SETTINGS.items()]
    words += ["--seeds", "2", "--out", str(request_here.out), "--data-root", str(request_here.data_root)]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    line = next(line for line in shown.stdout.split("audit: test weighted F1")[1].splitlines() if line.startswith("0 "))
    assert record.selection is not None
    gap = selection_gap(record.audit)
    assert line.split() == [
        "0",
        str(record.selection.epoch),
        f"{100 * record.audit.chosen:.2f}",
        str(record.audit.best_epoch),
        f"{100 * record.audit.best:.2f}",
        f"{100 * gap:+.2f}",
    ]


def test_a_metric_that_is_better_when_lower(request_here: RunRequest) -> None:
    values = (0.3, 0.1, 0.1, 0.2)
    candidate = audit._Candidate()
    for number, value in enumerate(values, 1):
        audit._consider(
            candidate,
            AuditEpoch(epoch=number, test={"calibration_error": value}),
            cast("Predictions", None),  # whatever they are, they are only kept
            "calibration_error",
        )
    assert candidate.best is not None
    assert candidate.best.epoch == 2
    told = Audit(metric="calibration_error", epochs=candidate.epochs, best_epoch=2, best=0.1, chosen=0.3)
    assert selection_gap(told) == pytest.approx(0.2)


def fails_at(monkeypatch: pytest.MonkeyPatch, epoch: int, error: BaseException) -> None:
    real = KeptWeights.keep

    def keep(self: KeptWeights, fold: int | None, number: int, weights: Any) -> None:
        if number == epoch:
            raise error
        real(self, fold, number, weights)
        assert self.file(fold, number).is_file()

    monkeypatch.setattr(KeptWeights, "keep", keep)


@pytest.mark.parametrize("error", [KeyError("broken"), KeyboardInterrupt(), StorageError("full.", "full.")])
def test_no_weights_are_left_after_a_failure(
    error: BaseException, request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(monkeypatch, 3, error)
    with pytest.raises((RunError, KeyboardInterrupt)):
        runner.run(request_here)
    left = [name for name in files(request_here.out) if "audit" in name or "unfinished" in name]
    if isinstance(error, KeyError):
        assert left == []
    else:  # a state that was saved by then goes on, and needs the weights of the epochs before
        assert not left or any("unfinished/epoch-" in name for name in left), left


def test_a_full_disk_is_one_sentence_and_the_failure_is_on_record(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic._fill_and_rename

    def full(target: Path, fill: Any) -> None:
        if "audit-epoch-002" in target.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(target, fill)

    monkeypatch.setattr(atomic, "_fill_and_rename", full)
    with pytest.raises(StorageError, match=r"^cannot keep the weights of epoch 2 .* the disk is full"):
        runner.run(request_here)
    # A state that was saved by then may lie beside it: it is of use once there is room.
    (file,) = request_here.out.glob("*/*/*.json")
    record = read_record(file)
    assert record.failure is not None
    assert record.failure.kind == "StorageError"


def test_an_audit_that_fails_leaves_the_record_without_one(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = KeptWeights.read

    def read(self: KeptWeights, fold: int | None, epoch: int) -> Any:
        if epoch == 2:
            self.file(fold, epoch).write_bytes(b"damaged")
        return real(self, fold, epoch)

    monkeypatch.setattr(KeptWeights, "read", read)
    with pytest.raises(StorageError, match="The record is written, but without an audit: the weights of epoch 2"):
        runner.run(request_here)
    (file,) = request_here.out.rglob("*.json")
    record = read_record(file)
    assert (record.status, record.audit) == ("done", None)
    assert [name for name in files(request_here.out) if "unfinished" in name] == []


def test_a_model_that_does_not_save_what_it_needs_is_told(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = KeptWeights.read

    def read(self: KeptWeights, fold: int | None, epoch: int) -> Any:
        return {name: torch.zeros_like(value) for name, value in real(self, fold, epoch).items()}

    monkeypatch.setattr(KeptWeights, "read", read)
    with pytest.raises(RunError, match="its model does not save all that decides its results"):
        runner.run(request_here)


def test_what_a_killed_run_left_is_not_mistaken_for_this_run(request_here: RunRequest) -> None:
    planned = runner.plan(request_here)
    recording = Recording(planned, runner.open_run(planned, torch.device("cpu"), Listener()).stores)
    recording.unfinished.mkdir(parents=True)
    for name in ("audit-epoch-099.safetensors", ".audit-epoch-001.safetensors.1-abc.partial"):
        (recording.unfinished / name).write_bytes(b"old")
    record = runner.run(request_here)
    assert record.audit is not None
    assert not recording.unfinished.exists()


def test_other_files_in_the_working_folder_are_left_alone(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path / ".run.unfinished")
    kept.remove()
    kept.keep(2, 1, {"w": torch.ones(3)})
    kept.keep(None, 1, {"w": torch.zeros(3)})
    (kept.folder / "checkpoint.safetensors").write_bytes(b"somebody else's")
    assert torch.equal(kept.read(2, 1)["w"], torch.ones(3))
    assert kept.holds(2, 1)
    assert not kept.holds(2, 2)
    kept.remove()
    assert files(kept.folder) == ["checkpoint.safetensors"]


def _fold(*values: float) -> Audit:
    epochs = [AuditEpoch(epoch=number, test={"weighted_f1": value}) for number, value in enumerate(values, 1)]
    return Audit(metric="weighted_f1", epochs=epochs, best_epoch=1, best=values[0], chosen=values[-1])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"best_epoch": None}, "best_epoch should be there"),
        ({"best_epoch": 3}, "best_epoch is 3, but there are 2 epochs"),
        ({"best": 0.9}, "best should be the weighted_f1 of epoch 1"),
        ({"epochs": _fold(0.5, 0.4).epochs[1:]}, "numbered from 1"),
    ],
)
def test_an_audit_agrees_with_itself(changes: dict[str, Any], says: str) -> None:
    whole = _fold(0.5, 0.4)
    with pytest.raises(ValueError, match=says):
        Audit(**{**dict(whole), **changes})


def test_a_record_and_its_audit_agree(request_here: RunRequest) -> None:
    record = runner.run(request_here)
    assert record.audit is not None
    for changes, says in (
        ({"audit": _fold(0.5, 0.4)}, "an audit has every epoch of the curve"),
        ({"curve": record.curve[:1]}, "an audit has every epoch of the curve"),
    ):
        with pytest.raises(ValueError, match=says):
            Record(**{**dict(record), **changes})
    assert not re.search(r'"audit"', record_text(Record(**{**dict(record), "audit": None})))
