"""Runs under a protocol with folds, of a corpus with named parts whose labels may not be passed on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score
from typer.testing import CliRunner

from mer_bench import runner
from mer_bench.data.preparation import open_or_prepare
from mer_bench.data.store import Store
from mer_bench.errors import DataError, DivergedError, PluginError, RecordError, RunError
from mer_bench.metrics import count_dialogues, rescore, score, score_folds
from mer_bench.predictions import DialogueCounts, Predictions, read_outcomes, read_predictions
from mer_bench.records import Record, Selection, private_file, read_record, record_folder, weights_file
from mer_bench.runner import Listener, RunRequest
from mer_bench.trainer import Trainer

from .sessions import sessions_installed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data folder, while `sessions` and `open-sessions` (the same, free to pass on) are installed."""
    with sessions_installed(tmp_path_factory.mktemp("installed")):
        yield tmp_path_factory.mktemp("data")


@pytest.fixture
def request_here(data: Path, tmp_path: Path) -> RunRequest:
    return RunRequest("logistic", "sessions", protocol="loso", data_root=data, out=tmp_path / "runs", threads=1)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Predictions, Path]:
    """A record of five folds, its predictions by utterance, and the record's file."""
    out = tmp_path_factory.mktemp("runs")
    record = runner.run(
        RunRequest("logistic", "sessions", protocol="loso", data_root=data, out=out, threads=1, keep_predictions=True)
    )
    folder = record_folder(out, record)
    return record, read_predictions(private_file(folder, record.run)), folder / f"{record.run}.json"


def scikit_learns(predictions: Predictions, chosen: NDArray[np.bool_] | bool = True) -> float:
    """Weighted F1 by scikit-learn on the labelled utterances."""
    rows = (predictions.true >= 0) & chosen
    return float(f1_score(predictions.true[rows], predictions.predicted[rows], average="weighted", zero_division=0))


Finished = tuple[Record, Predictions, Path]


class TestFolds:
    def test_all_folds_are_one_record_whose_scores_are_scikit_learns(self, finished: Finished) -> None:
        record, predictions, file = finished
        assert record == read_record(file)
        assert [fold.fold for fold in record.folds] == [1, 2, 3, 4, 5]
        assert record.selection is None
        assert record.curve == []
        assert record.test is not None
        assert record.test.weighted_f1 == pytest.approx(scikit_learns(predictions), abs=1e-12)
        labelled = predictions.true >= 0
        matrix = confusion_matrix(predictions.true[labelled], predictions.predicted[labelled])
        assert record.test.confusion == matrix.tolist()
        assert 0.5 < record.test.weighted_f1 < 1

    def test_each_fold_tests_its_own_session_once(self, finished: Finished) -> None:
        record, predictions, _ = finished
        session = np.array([int(name[4]) for name in predictions.dialogues])
        assert sorted(set(session)) == [1, 2, 3, 4, 5]
        assert predictions.folds is not None
        assert np.array_equal(predictions.folds[predictions.dialogue_index], session)
        for fold in record.folds:
            assert fold.test.weighted_f1 == pytest.approx(scikit_learns(predictions, session == fold.fold), abs=1e-12)
            assert fold.test.utterances == int(((session == fold.fold) & (predictions.true >= 0)).sum())
            assert len(fold.curve) == fold.selection.epoch == 1
        assert len({fold.features_detail.sources for fold in record.folds}) == 5
        # Session k + 1 is dev of fold k, so that every session is dev once: pooled, they are all labels again.
        assert record.dev is not None
        assert record.test is not None
        assert record.dev.utterances == record.test.utterances == sum(fold.dev.utterances for fold in record.folds)
        for fold in record.folds:
            assert fold.dev.utterances == record.folds[fold.fold % 5].test.utterances

    def test_a_fold_is_what_its_split_alone_would_be(self, request_here: RunRequest) -> None:
        from safetensors.numpy import load_file

        trained = replace(
            request_here,
            model="dialoguernn",
            keep_predictions=True,
            settings={"epochs": 3, "learning_rate": 0.01, "batch_size": 4},
        )
        folds = runner.run(trained)
        alone = runner.run(replace(trained, protocol="session3"))
        assert alone.dev == folds.folds[2].dev
        assert alone.curve == folds.folds[2].curve
        assert alone.selection == folds.folds[2].selection
        folder = record_folder(trained.out, folds)
        theirs = load_file(folder / f"{folds.run}.model.safetensors")
        own = load_file(folder / f"{alone.run}.model.safetensors")
        assert {name.partition(".")[0] for name in theirs} == {f"fold{number}" for number in range(1, 6)}
        for name, value in own.items():
            assert np.array_equal(theirs[f"fold3.{name}"], value)
        assert any(not np.array_equal(theirs[f"fold1.{name}"], value) for name, value in own.items())
        pooled = read_predictions(private_file(folder, folds.run))
        single = read_predictions(private_file(folder, alone.run))
        assert single.log_probabilities is not None
        assert pooled.log_probabilities is not None
        rows = [pooled.ids.index(name) for name in single.ids]
        assert np.array_equal(pooled.log_probabilities[rows], single.log_probabilities)
        assert single.folds is None
        assert alone.folds == []

    def test_folds_may_choose_on_the_same_dialogues(self, request_here: RunRequest) -> None:
        record = runner.run(replace(request_here, protocol="shared-dev"))
        first, second = record.folds
        assert record.dev is not None
        assert first.dev.utterances == second.dev.utterances
        assert record.dev.utterances == 2 * first.dev.utterances
        summed = np.array(first.dev.confusion) + np.array(second.dev.confusion)
        assert record.dev.confusion == summed.tolist()

    def test_the_same_command_gives_the_same_bytes(self, request_here: RunRequest) -> None:
        request = replace(request_here, model="dialoguernn", settings={"epochs": 2})
        first, again = runner.run(request), runner.run(replace(request, out=request.out / "again"))
        assert first.predictions == again.predictions
        assert (first.folds, first.dev, first.test) == (again.folds, again.dev, again.test)
        weights = [
            (record_folder(out, first) / f"{first.run}.model.safetensors").read_bytes()
            for out in (request.out, request.out / "again")
        ]
        assert weights[0] == weights[1]

    def test_the_sources_of_every_fold_decide_the_identity(
        self, request_here: RunRequest, finished: Finished, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for changed in (1, 5):

            def other(key: Any, *given: Any, changed: int = changed) -> Store:
                store = open_or_prepare(key, *given)
                if key.fold != changed:
                    return store
                return replace(store, manifest=store.manifest.model_copy(update={"sources_checksum": "0" * 64}))

            monkeypatch.setattr(runner, "open_or_prepare", other)
            # Its own files are not those of that manifest.
            monkeypatch.setattr(Store, "verify", lambda _: None)
            assert runner.run(request_here).identity != finished[0].identity
        monkeypatch.setattr(runner, "open_or_prepare", open_or_prepare)
        assert runner.run(request_here).identity == finished[0].identity


class Guarded(Store):
    """Notes which split is read, of which fold."""

    seen: list[str]

    def split(self, name: str, *given: Any, **named: Any) -> Any:
        Guarded.seen.append(f"{name} {self.manifest.fold}")
        return super().split(name, *given, **named)

    def identifiers(self, name: str) -> Any:
        Guarded.seen.append(f"{name} {self.manifest.fold}")
        return super().identifiers(name)


def test_a_folds_test_split_is_closed_until_its_epoch_is_chosen(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guarded(*given: Any) -> Store:
        store = open_or_prepare(*given)
        return Guarded(**{field.name: getattr(store, field.name) for field in fields(store)})

    real_fit = Trainer.fit

    def noted_fit(self: Trainer, *given: Any) -> Any:
        trained = real_fit(self, *given)
        Guarded.seen.append("chosen")
        return trained

    monkeypatch.setattr(Guarded, "seen", [], raising=False)
    monkeypatch.setattr(runner, "open_or_prepare", guarded)
    monkeypatch.setattr(Trainer, "fit", noted_fit)
    runner.run(request_here)
    seen = Guarded.seen
    for fold in range(1, 6):
        first = seen.index(f"test {fold}")
        assert seen[:first].count("chosen") == fold
        assert seen.count(f"test {fold}") == 2  # its features and its ids, once each


class TestFailures:
    @staticmethod
    def failing_in(fold: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
        real, calls = Trainer.fit, [0]

        def fit(self: Trainer, *given: Any) -> Any:
            calls[0] += 1
            if calls[0] == fold:
                raise error
            return real(self, *given)

        monkeypatch.setattr(Trainer, "fit", fit)

    @pytest.mark.parametrize(
        ("error", "raised", "says"),
        [
            (DivergedError("the loss became NaN."), DivergedError, "fold 3 of 5: the loss became NaN."),
            (KeyError("speaker"), RunError, "logistic failed in fold 3 of 5: KeyError: 'speaker'"),
            (MemoryError(), RunError, "memory was exhausted in fold 3 of 5"),
        ],
    )
    def test_a_fold_that_fails_is_named(
        self,
        error: Exception,
        raised: type[Exception],
        says: str,
        request_here: RunRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.failing_in(3, error, monkeypatch)
        with pytest.raises(raised, match=says):
            runner.run(request_here)
        (file,) = (file for file in request_here.out.rglob("*") if file.is_file())
        record = read_record(file)
        assert record.status == "failed"
        assert record.failure is not None
        assert record.failure.fold == 3
        assert says in record.failure.reason
        assert record.folds == []

    def test_after_ctrl_c_in_a_fold_those_before_it_are_not_done_again(
        self, request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        undisturbed = runner.run(replace(request_here, out=request_here.out / "undisturbed"))
        with monkeypatch.context() as patch:
            self.failing_in(4, KeyboardInterrupt(), patch)
            with pytest.raises(KeyboardInterrupt) as interrupt:
                runner.run(request_here)
        assert interrupt.value.__notes__ == ["what was saved before is kept: run the same command again to go on."]
        folder = record_folder(request_here.out, ("sessions", "logistic"))
        (unfinished,) = folder.iterdir()  # no record, nothing of one
        assert {file.name.partition(".")[0] for file in unfinished.iterdir()} == {f"fold{n}-done" for n in (1, 2, 3)}

        fitted, told = [], []
        real = Trainer.fit

        def noted(self: Trainer, *given: Any) -> Any:
            fitted.append(given[0])
            return real(self, *given)

        class Ears(Listener):
            def resumed(self, text: str) -> None:
                told.append(text)

        monkeypatch.setattr(Trainer, "fit", noted)
        record = runner.run(request_here, Ears())
        assert len(fitted) == 2
        assert told == [f"fold {n} of 5 was done before and is taken as it is." for n in (1, 2, 3)]
        assert record.predictions == undisturbed.predictions
        assert record.folds == undisturbed.folds
        assert record.test == undisturbed.test
        assert record.dev == undisturbed.dev
        assert not unfinished.exists()
        weights = [
            weights_file(record_folder(out, record), record.run)
            for out in (request_here.out, request_here.out / "undisturbed")
        ]
        assert weights[0].read_bytes() == weights[1].read_bytes()

    def test_folds_that_test_the_same_dialogue_are_refused(self, request_here: RunRequest) -> None:
        with pytest.raises(PluginError, match=r"tests dialogue 'Ses01_impro0' in fold 1 and again in fold 2"):
            runner.run(replace(request_here, protocol="overlap"))

    def test_a_split_without_labels_is_noticed_before_training(self, request_here: RunRequest) -> None:
        with pytest.raises(DataError, match=r"no utterance of the dev split of sessions/default .* has a label"):
            runner.run(replace(request_here, protocol="mute"))
        assert not request_here.out.exists()


class TestLabelsThatMayNotBePassedOn:
    def test_the_file_beside_the_record_holds_no_utterance(self, finished: Finished) -> None:
        record, predictions, file = finished
        assert record.predictions is not None
        stored = read_outcomes(file.with_name(record.predictions.file))
        assert isinstance(stored, DialogueCounts)
        assert record.predictions.utterances == stored.utterances == int((predictions.true >= 0).sum())
        with np.load(file.with_name(record.predictions.file)) as archive:
            assert all(predictions.utterances not in archive[name].shape for name in archive.files)
        assert "_003" not in file.read_text()

    def test_it_gives_exactly_the_scores_of_the_predictions(self, finished: Finished) -> None:
        record, predictions, file = finished
        assert rescore(file) == record.test == score(predictions) == score(count_dialogues(predictions))
        assert score_folds(predictions) == {fold.fold: fold.test for fold in record.folds}
        assert record.test is not None
        assert record.test.calibration_error is not None

    def test_predictions_are_kept_on_demand_alone_and_git_ignores_them(
        self, request_here: RunRequest, finished: Finished
    ) -> None:
        record = runner.run(request_here)
        folder = record_folder(request_here.out, record)
        assert sorted(file.name.removeprefix(record.run) for file in folder.iterdir()) == [
            ".json",
            ".model.safetensors",
            ".predictions.npz",
        ]
        assert record.predictions == finished[0].predictions  # keeping them changes nothing else
        ignored = (Path(__file__).resolve().parents[1] / ".gitignore").read_text().splitlines()
        assert f"*{private_file(folder, record.run).name.removeprefix(record.run)}" in ignored

    @pytest.mark.parametrize("keep", [False, True])
    def test_of_other_corpora_the_predictions_are_kept_by_utterance(self, keep: bool, request_here: RunRequest) -> None:
        record = runner.run(replace(request_here, dataset="open-sessions", keep_predictions=keep))
        folder = record_folder(request_here.out, record)
        assert record.predictions is not None
        predictions = read_predictions(folder / record.predictions.file)
        assert predictions.utterances == record.predictions.utterances
        assert score(predictions) == record.test
        assert len(list(folder.iterdir())) == 3

    def test_a_file_of_other_folds_is_not_the_records(self, finished: Finished, tmp_path: Path) -> None:
        record, _, file = finished
        values = json.loads(file.read_text())
        del values["folds"]
        values["selection"] = record.folds[0].selection.model_dump()
        assert record.predictions is not None
        (tmp_path / record.predictions.file).write_bytes(file.with_name(record.predictions.file).read_bytes())
        (tmp_path / file.name).write_text(json.dumps(values))
        with pytest.raises(RecordError, match=r"has 0 folds, but .* has 5"):
            rescore(tmp_path / file.name)


def test_named_parts_are_scored_by_themselves(finished: Finished) -> None:
    record, predictions, _ = finished
    assert record.test is not None
    assert record.dev is not None
    assert list(record.test.subsets) == ["improvised", "scripted"]
    for name, word in (("scripted", "script"), ("improvised", "impro")):
        chosen = np.array([word in dialogue for dialogue in predictions.dialogues])
        part = record.test.subsets[name]
        assert part.weighted_f1 == pytest.approx(scikit_learns(predictions, chosen), abs=1e-12)
        assert part.utterances == int((chosen & (predictions.true >= 0)).sum())
        assert part.dialogues == 10
        assert record.dev.subsets[name].utterances == part.utterances  # every session is dev once
        assert sum(fold.test.subsets[name].utterances for fold in record.folds) == part.utterances


class Ear(Listener):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def fold_started(self, fold: int, folds: int) -> None:
        self.heard.append(f"start {fold}/{folds}")

    def fold_ended(self, fold: int, folds: int, selection: Selection) -> None:
        self.heard.append(f"end {fold}/{folds} {selection.epoch}")


def test_a_listener_hears_of_each_fold(request_here: RunRequest) -> None:
    ear = Ear()
    runner.run(request_here, ear)
    assert ear.heard == [line for fold in range(1, 6) for line in (f"start {fold}/5", f"end {fold}/5 1")]
    quiet = Ear()
    runner.run(replace(request_here, protocol="session3"), quiet)
    assert quiet.heard == []


class TestCommandLine:
    @pytest.fixture
    def invoke(self, data: Path, tmp_path: Path) -> Callable[..., Any]:
        from mer_bench.cli import app

        def run(*words: str) -> Any:
            given = ["run", "--model", "logistic", "--dataset", "sessions", "--protocol", "loso", "--threads", "1"]
            folders = ["--out", str(tmp_path / "runs"), "--data-root", str(data)]
            return CliRunner(env={"COLUMNS": "160"}).invoke(app, [*given, *folders, *words])

        return run

    def test_scores_by_fold_and_by_part_are_shown(self, invoke: Callable[..., Any], finished: Finished) -> None:
        record = finished[0]
        assert record.test is not None
        result = invoke()
        assert result.exit_code == 0, result.output
        lines = [line.split() for line in result.stdout.splitlines()]
        for fold in record.folds:
            dev, test = f"{100 * fold.dev.weighted_f1:.2f}", f"{100 * fold.test.weighted_f1:.2f}"
            assert [str(fold.fold), "1", dev, test, str(fold.test.utterances)] in lines
        for name, part in record.test.subsets.items():
            line = next(line for line in lines if line[:1] == [name])
            assert line[1] == f"{100 * part.weighted_f1:.2f}"
            assert line[-2:] == [str(part.utterances), "10"]
        assert f"test of all 5 folds: {record.test.utterances} utterances" in result.stdout
        assert "fold 4/5, fitted: dev weighted F1" in result.stdout
        assert "logistic on sessions, seed 0: 5 folds, each fitted at one go, " in result.stdout
        assert "epoch 1 chosen" not in result.stdout

    def test_several_seeds_and_json(self, invoke: Callable[..., Any], finished: Finished) -> None:
        record = finished[0]
        assert record.test is not None
        result = invoke("--seeds", "2")
        assert result.exit_code == 0, result.output
        line = next(line.split() for line in result.stdout.splitlines() if line.startswith("scripted"))
        assert line[1:] == [f"{100 * record.test.subsets['scripted'].weighted_f1:.2f}", "0.00"]
        answer: Mapping[str, Any] = json.loads(invoke("--seeds", "2", "--json").stdout)
        assert set(answer["subsets"]) == {"scripted", "improvised"}
        assert len(answer["subsets"]["scripted"]["weighted_f1"]["each"]) == 2
        assert [Record.model_validate(told).seed for told in answer["records"]] == [0, 1]

    def test_predictions_are_kept_where_asked(self, invoke: Callable[..., Any], tmp_path: Path) -> None:
        assert invoke("--keep-predictions").exit_code == 0
        (file,) = (tmp_path / "runs").rglob("*.private.npz")
        assert isinstance(read_outcomes(file), Predictions)
