"""Records: what is refused, stable bytes, and scores computed again from predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mer_bench.errors import RecordError, StorageError
from mer_bench.metrics import count_dialogues, rescore, score, score_folds
from mer_bench.predictions import Predictions, write_predictions
from mer_bench.records import (
    Audit,
    AuditEpoch,
    Condition,
    Cost,
    Epoch,
    External,
    Failure,
    Features,
    Fold,
    Machine,
    PredictionsFile,
    Record,
    Scores,
    Selection,
    predictions_file,
    read_record,
    record_file,
    record_folder,
    record_schema,
    record_text,
    weights_file,
    write_record,
)

CLASSES = ("surprise", "anger", "joy")  # not in the order of the alphabet


def predictions(seed: int = 0, count: int = 120) -> Predictions:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 3))
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    true = generator.integers(0, 3, count, np.int16)
    true[:3] = -1
    return Predictions(
        classes=CLASSES,
        ids=[f"dia{row // 10}_utt{row % 10}" for row in range(count)],
        dialogues=[f"dia{row // 10}" for row in range(count)],
        positions=np.arange(count, dtype=np.int32) % 10,
        speakers=np.arange(count, dtype=np.int16) % 2,
        true=true,
        predicted=scores.argmax(axis=1),
        log_probabilities=scores,
    )


def record(made: Predictions | None = None, checksum: str = "0" * 64, **changes: Any) -> Record:
    made = made or predictions()
    values: dict[str, Any] = {
        "run": "gru-s0",
        "identity": "a" * 64,
        "status": "done",
        "dataset": "meld",
        "labels": "meld/emotion",
        "features": "meld/transcripts",
        "features_detail": Features(sources="b" * 64, store="c" * 64, widths={"text": 600, "audio": 8}),
        "protocol": "meld/official",
        "protocol_version": 1,
        "modalities": ("text", "audio"),
        "synthetic": False,
        "model": "gru",
        "model_version": 1,
        "seed": 0,
        "settings": {"width": 64, "fusion": "gated"},
        "training": {"learning_rate": 1e-3, "class_weights": [1.0, 2.0, 0.5]},
        "options": {"seed": 0, "model": "gru"},
        "curve": [Epoch(epoch=1, learning_rate=0.1, train={"total": 2.0, "task": 1.5}, dev={"weighted_f1": 0.4})],
        "selection": Selection(rule="best dev", metric="weighted_f1", epoch=1, score=0.4, ended="patience"),
        "dev": score(made),
        "test": score(made),
        "predictions": PredictionsFile(file="gru-s0.predictions.npz", sha256=checksum, utterances=made.utterances),
        "cost": Cost(wall_seconds=1.5, epochs_per_second=2.0, memory_bytes=10**8, parameters=1000),
        "machine": Machine(
            device="cpu", threads=2, platform="Linux", python="3.11", versions={"torch": "2", "numpy": "2"}
        ),
        "started": "2025-01-01T00:00:00Z",
        "version": "0.1.0",
    }
    return Record(**values | changes)


def on_disk(folder: Path, **changes: Any) -> Path:
    """A record and its predictions."""
    checksum = write_predictions(folder / "gru-s0.predictions.npz", predictions())
    file = folder / "gru-s0.json"
    write_record(file, record(checksum=checksum, **changes))
    return file


def changed(file: Path, *path: str | int, to: Any) -> None:
    """Change one value of a record by hand, as an editor would."""
    values = json.loads(file.read_text(encoding="utf-8"))
    part = values
    for key in path[:-1]:
        part = part[key]
    if to is KeyError:
        del part[path[-1]]
    else:
        part[path[-1]] = to
    file.write_text(json.dumps(values), encoding="utf-8")


def of_two_folds() -> Predictions:
    """The same predictions, six dialogues from each of two folds."""
    return replace(
        predictions(),
        folds=np.repeat([1, 2], 6),
        subsets={"even": np.arange(12) % 2 == 0, "odd": np.arange(12) % 2 == 1},
    )


def folded(checksum: str = "0" * 64, **changes: Any) -> Record:
    """A record of them."""
    made, plain = of_two_folds(), record()
    assert plain.selection is not None
    folds = [
        Fold(
            fold=number,
            features_detail=plain.features_detail,
            selection=plain.selection,
            dev=scores,
            test=scores,
            curve=plain.curve,
        )
        for number, scores in score_folds(made).items()
    ]
    return record(made, checksum, **{"folds": folds, "curve": [], "selection": None} | changes)


MODEL = "e" * 64


class TestConditions:
    @pytest.mark.parametrize(
        ("condition", "full_name"),
        [
            (Condition(name="only-audio", present=("audio",), model_of=MODEL), "only-audio"),
            (
                Condition(name="missing-0.3", present=("text", "audio"), rate=0.3, reached=0.3, mask=2, model_of=MODEL),
                "missing-0.3-mask2",
            ),
        ],
    )
    def test_what_is_written_is_read_and_scored_again(
        self, tmp_path: Path, condition: Condition, full_name: str
    ) -> None:
        file = on_disk(tmp_path, test_condition=condition)
        assert read_record(file).test_condition == condition
        assert condition.full_name == full_name
        assert rescore(file) == score(predictions())

    def test_the_complete_test_is_not_written_down(self, tmp_path: Path) -> None:
        assert "test_condition" not in json.loads(on_disk(tmp_path).read_text(encoding="utf-8"))

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"present": ()}, "without any modality"),
            ({"name": "only-text"}, "name should be only-audio"),
            ({"rate": 0.3}, "stand together"),
            ({"present": ("visual",), "name": "only-visual"}, "visual present, which modalities does not list"),
            ({"present": ("text", "audio"), "name": "only-text-audio"}, "some modalities are absent"),
            ({"rate": 0.3, "reached": 0.3, "mask": 1, "name": "missing-0.3"}, "masks take a part of all"),
            ({"model_of": "a" * 64}, "an identity of its own"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, changes: dict[str, Any], says: str) -> None:
        values = {"name": "only-audio", "present": ("audio",), "model_of": MODEL} | changes
        with pytest.raises(ValidationError, match=says):
            record(test_condition=Condition(**values))


class TestFolds:
    def test_what_is_written_is_read_and_scored_again(self, tmp_path: Path) -> None:
        checksum = write_predictions(tmp_path / "gru-s0.predictions.npz", of_two_folds())
        file = tmp_path / "gru-s0.json"
        write_record(file, folded(checksum))
        assert read_record(file) == folded(checksum)
        assert rescore(file) == score(of_two_folds())
        changed(file, "folds", 1, "test", "weighted_f1", to=0.9)
        with pytest.raises(RecordError, match=r"folds\.2\.test\.weighted_f1 is 0\.9"):
            rescore(file)

    def test_a_subset_changed_by_hand_is_named(self, tmp_path: Path) -> None:
        checksum = write_predictions(tmp_path / "gru-s0.predictions.npz", of_two_folds())
        file = tmp_path / "gru-s0.json"
        write_record(file, folded(checksum))
        changed(file, "test", "subsets", "odd", "uar", to=0.9)
        with pytest.raises(RecordError, match=r"test\.subsets\.odd\.uar is 0\.9"):
            rescore(file)

    def test_what_contradicts_itself_is_refused(self) -> None:
        one, two = folded().folds
        turned = Scores.model_validate(
            {**one.test.model_dump(), "classes": dict(reversed(one.test.model_dump()["classes"].items()))}
            | {"confusion": [row[::-1] for row in one.test.confusion[::-1]]}
        )
        cases: list[tuple[dict[str, Any], str]] = [
            ({"folds": [one]}, "should sum to that of test"),
            ({"folds": [two, one]}, r"should be numbered from 1, but are \[2, 1\]"),
            ({"folds": [one, one]}, r"should be numbered from 1, but are \[1, 1\]"),
            ({"folds": [one.model_copy(update={"test": turned}), two]}, "should have the classes of test"),
            ({"selection": record().selection}, "each fold has its own selection and curve"),
            ({"curve": record().curve}, "each fold has its own selection and curve"),
            ({"folds": []}, "a run that is done has selection"),
        ]
        for changes, message in cases:
            with pytest.raises(ValidationError, match=message):
                folded(**changes)

    def test_a_failed_run_names_its_fold_and_holds_none(self, tmp_path: Path) -> None:
        parts: dict[str, Any] = {"status": "failed", "test": None, "dev": None, "predictions": None}
        failure = Failure(kind="RunError", reason="no.", epoch=1, fold=2)
        write_record(tmp_path / "r.json", folded(folds=[], failure=failure, **parts))
        found = read_record(tmp_path / "r.json").failure
        assert found is not None
        assert found.fold == 2
        with pytest.raises(ValidationError, match="neither test scores nor predictions"):
            folded(failure=failure, **parts)

    def test_what_a_record_lacks_is_not_written(self) -> None:
        text = record_text(record())
        assert not any(f'"{name}"' in text for name in ("folds", "fold", "subsets"))
        values = json.loads(record_text(folded()))
        assert list(values)[-1] == "folds"
        assert list(values["test"]["subsets"]) == ["even", "odd"]

    def test_records_from_before_keep_their_bytes(self) -> None:
        files = sorted((Path(__file__).resolve().parents[1] / "leaderboards" / "records").rglob("*.json"))
        assert files
        for file in files[:: max(1, len(files) // 12)]:
            assert record_text(read_record(file)) == file.read_text(encoding="utf-8")


def audit(best_epoch: int | None = 1, **changes: Any) -> Audit:
    """An audit of one epoch."""
    epochs = [AuditEpoch(epoch=1, test={"weighted_f1": 0.5})]
    values: dict[str, Any] = {"metric": "weighted_f1", "epochs": epochs, "best_epoch": best_epoch, "best": 0.5}
    return Audit(**values | {"chosen": 0.5} | changes)


class TestAudits:
    def test_what_contradicts_itself_is_refused(self) -> None:
        of_folds = audit(None, epochs=[])
        condition = Condition(name="only-audio", present=("audio",), model_of=MODEL)
        failure = Failure(kind="RunError", reason="no.")
        failed: dict[str, Any] = {
            "status": "failed",
            "failure": failure,
            "test": None,
            "dev": None,
            "predictions": None,
        }
        audited = [fold.model_copy(update={"audit": audit()}) for fold in folded().folds]
        cases: list[tuple[Callable[[], Any], str]] = [
            (lambda: record(audit=audit(), test_condition=condition), "not under a test condition"),
            (lambda: record(audit=audit(), **failed), "a failed run has nothing to audit"),
            (lambda: record(audit=of_folds), "an audit has every epoch of the curve"),
            (lambda: folded(audit=of_folds), "a run and all of its folds are audited, or none of them is"),
            (lambda: folded(folds=audited), "a run and all of its folds are audited, or none of them is"),
            (lambda: folded(folds=audited, audit=audit()), "each fold has the epochs of its own audit"),
            (lambda: audit(None), "best_epoch should be there exactly where epochs are"),
            (lambda: audit(2), "best_epoch is 2, but there are 1 epochs"),
            (lambda: audit(best=0.6), "best should be the weighted_f1 of epoch 1"),
            (lambda: audit(epochs=[AuditEpoch(epoch=2, test={})]), r"numbered from 1, but are \[2\]"),
        ]
        for make, message in cases:
            with pytest.raises(ValidationError, match=message):
                make()
        assert folded(folds=audited, audit=of_folds).audit == of_folds

    def test_a_part_with_more_utterances_than_the_whole_is_refused(self) -> None:
        values = folded().model_dump()["test"]
        values["subsets"]["odd"]["utterances"] = values["utterances"] + 1
        with pytest.raises(ValidationError, match="the subset odd has"):
            Scores.model_validate(values)


STATED = External(name="gru", selection_rule="zero-shot", file_sha256="d" * 64, test_split="f" * 64)


def external(**changes: Any) -> Record:
    """A record of predictions that some other system made, with features of its own."""
    nothing: dict[str, Any] = dict.fromkeys(("features_detail", "model_version", "selection", "dev", "cost", "machine"))
    nothing |= {"settings": {}, "training": {}, "options": {}, "curve": []}
    return record(**{**nothing, "kind": "external", "features": "meld/external", "external": STATED} | changes)


class TestExternal:
    def test_what_is_written_is_read_and_scored_again(self, tmp_path: Path) -> None:
        checksum = write_predictions(tmp_path / "gru-s0.predictions.npz", predictions())
        stored = PredictionsFile(file="gru-s0.predictions.npz", sha256=checksum, utterances=120)
        write_record(tmp_path / "gru-s0.json", external(predictions=stored))
        assert read_record(tmp_path / "gru-s0.json") == external(predictions=stored)
        assert rescore(tmp_path / "gru-s0.json") == score(predictions())

    def test_what_makes_rows_comparable(self) -> None:
        assert external().sources == STATED.test_split
        stated = external(features="meld/transcripts", features_detail=record().features_detail)
        assert stated.sources == record().sources == "b" * 64

    def test_a_run_writes_nothing_of_it(self) -> None:
        assert "external" not in json.loads(record_text(record()))

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"kind": "run"}, "external is there, but kind is run"),
            ({"external": None}, "whose name is the model"),
            ({"model": "lstm"}, "whose name is the model"),
            ({"settings": {"width": 1}}, "settings is of a run"),
            ({"curve": record().curve}, "curve is of a run"),
            ({"dev": record().dev}, "dev is of a run"),
            ({"selection": record().selection}, "selection is of a run"),
            ({"cost": record().cost}, "cost is of a run"),
            ({"machine": record().machine}, "machine is of a run"),
            ({"model_version": 1}, "model_version is of a run"),
            ({"test": None}, "is done, and has test scores"),
            ({"predictions": None}, "is done, and has test scores"),
            ({"status": "failed"}, "is done, and has test scores"),
            ({"features_detail": record().features_detail}, "features_detail is there exactly where"),
            ({"features": "meld/transcripts"}, "features_detail is there exactly where"),
            ({"modalities": ()}, "what the system was given"),
            ({"predictions": PredictionsFile(file="a", sha256="0" * 64, utterances=9)}, "more utterances than"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, changes: dict[str, Any], says: str) -> None:
        with pytest.raises(ValidationError, match=says):
            external(**changes)

    @pytest.mark.parametrize("name", ["features_detail", "model_version", "cost", "machine"])
    def test_a_run_knows_what_it_took(self, name: str) -> None:
        with pytest.raises(ValidationError, match=f"a run has {name}"):
            record(None, "0" * 64, **{name: None})

    @pytest.mark.parametrize("text", ["two\nlines", " blanks ", "\u202eright to left", "a\x1b[31m"])
    def test_stated_texts_are_one_line(self, text: str) -> None:
        for field in ("selection_rule", "source", "note"):
            with pytest.raises(ValidationError, match="one line"):
                External.model_validate(STATED.model_dump() | {field: text})
        with pytest.raises(ValidationError, match="at least 1"):
            External.model_validate(STATED.model_dump() | {"selection_rule": ""})


class TestWriting:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        found = read_record(file)
        assert found.test == score(predictions())
        assert found.modalities == ("text", "audio")
        write_record(tmp_path / "again.json", found)
        assert (tmp_path / "again.json").read_bytes() == file.read_bytes()

    def test_bytes_depend_on_values_and_not_on_the_order_of_mappings(self) -> None:
        turned = record(settings={"fusion": "gated", "width": 64}, options={"model": "gru", "seed": 0})
        assert record_text(turned) == record_text(record())
        assert record_text(record(seed=1)) != record_text(record())

    def test_classes_keep_their_order_and_everything_else_is_sorted(self) -> None:
        values = json.loads(record_text(record()))
        assert list(values["test"]["classes"]) == list(CLASSES)
        assert list(values["settings"]) == ["fusion", "width"]
        assert list(values["features_detail"]["widths"]) == ["audio", "text"]
        assert list(values)[:4] == ["schema_version", "kind", "run", "identity"]

    def test_a_confusion_matrix_reads_like_one(self) -> None:
        text = record_text(record())
        rows = record().test.confusion  # type: ignore[union-attr]
        assert f"\n      {json.dumps(rows[0])},\n" in text
        assert max(map(len, text.splitlines())) <= 130
        assert text.endswith("}\n")

    def test_letters_of_any_alphabet(self, tmp_path: Path) -> None:
        write_record(tmp_path / "r.json", record(settings={"name": "Ärger 喜び 🙂"}))
        assert "Ärger 喜び 🙂" in (tmp_path / "r.json").read_text(encoding="utf-8")
        assert read_record(tmp_path / "r.json").settings["name"] == "Ärger 喜び 🙂"

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"a": float("nan")}, "settings.a is nan, which has no form in JSON"),
            ({"a": {"b": [1, Path("/home/x")]}}, r"settings\.a\.b\.1 is PosixPath"),
            ({"a": np.float64(1)}, r"settings\.a is .*1\.0"),
            ({"a": {1: 2}}, r"settings\.a should have texts as its keys"),
            ({"a": "\ud800"}, r"settings\.a is"),
            ({"a": b"x"}, r"settings\.a is b'x'"),
        ],
    )
    def test_what_has_no_form_in_json_is_refused(self, settings: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=message):
            write_record(tmp_path / "r.json", record(settings=settings))
        assert list(tmp_path.iterdir()) == []

    def test_a_copy_that_went_round_the_checks_is_refused(self, tmp_path: Path) -> None:
        for bad in (record().model_copy(update={"test": None}), record().model_copy(update={"seed": "0"})):
            with pytest.raises(RecordError, match="the record of run gru-s0 is not a valid record"):
                write_record(tmp_path / "r.json", bad)
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(StorageError, match="cannot write"):
            write_record(tmp_path / "file" / "r.json", record())


class TestChecks:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"failure": Failure(kind="DivergedError", reason="NaN")}, "a run that is done has no failure"),
            ({"test": None}, "a run that is done has test"),
            ({"selection": None}, "a run that is done has selection"),
            ({"status": "failed"}, "a failed run has a failure"),
            ({"labels": "iemocap/six"}, "labels is iemocap/six, which is not of the dataset meld"),
            ({"features": "transcripts"}, "features"),
            ({"dataset": "../meld"}, "dataset"),
            ({"model": "a/b"}, "model"),
            ({"run": ".hidden"}, "run"),
            ({"surprise": 1}, "surprise"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError, match=message):
            record(**changes)

    def test_a_failed_run(self, tmp_path: Path) -> None:
        failed = record(
            status="failed",
            failure=Failure(kind="DivergedError", reason="the loss became NaN.", epoch=3),
            test=None,
            dev=None,
            selection=None,
            predictions=None,
        )
        write_record(tmp_path / "r.json", failed)
        assert read_record(tmp_path / "r.json") == failed
        with pytest.raises(RecordError, match="its run failed"):
            rescore(tmp_path / "r.json")

    @pytest.mark.parametrize(
        ("path", "value", "reason"),
        [
            (("seed",), "0", "seed: Input should be a valid integer"),
            (("seed",), KeyError, "seed: Field required"),
            (("synthetic",), 0, "synthetic: Input should be a valid boolean"),
            (("extra",), 1, "extra: Extra inputs"),
            (("test", "weighted_f1"), 1.5, "test.weighted_f1: Input should be less than or equal to 1"),
            (("test", "confusion"), [[1, 2], [3, 4]], "test: confusion should have a row and a column"),
            (("test", "confusion", 0, 0), 9999, "test: confusion has .* utterances of surprise, but its support"),
            (("test", "utterances"), 5, "test: confusion has 117 utterances, but utterances is 5"),
            (("test", "emotion_shift_support"), 0, "emotion_shift_accuracy should be there exactly where"),
            (("predictions", "file"), "../other.npz", "predictions.file"),
            (("predictions", "sha256"), "f" * 63, "predictions.sha256"),
            (("predictions", "utterances"), 1, "test scores more utterances than the predictions"),
            (("curve", 0, "epoch"), 0, "curve.0.epoch"),
            (("schema_version",), 2, "has schema version 2, and this mer-bench reads up to 1. Install a newer one"),
            (("schema_version",), 0, "schema_version"),
        ],
    )
    def test_a_tampered_record_is_named_with_key_and_reason(
        self, path: tuple[str | int, ...], value: Any, reason: str, tmp_path: Path
    ) -> None:
        file = on_disk(tmp_path)
        changed(file, *path, to=value)
        with pytest.raises(RecordError, match=reason) as caught:
            read_record(file)
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "Expecting value"),
            (b"[]", "should hold one object"),
            (b'{"a": 1, "a": 2}', "the key 'a' occurs twice"),
            (b'{"a": NaN}', "NaN, which is no number"),
            (b"\xff\xfe{", "not UTF-8"),
            (b"[" * 200_000, "not a valid record"),
            (b"{}", "Field required"),
        ],
    )
    def test_foreign_files(self, content: bytes, reason: str, tmp_path: Path) -> None:
        (tmp_path / "r.json").write_bytes(content)
        with pytest.raises(RecordError, match=reason):
            read_record(tmp_path / "r.json")

    def test_every_truncation(self, tmp_path: Path) -> None:
        content = on_disk(tmp_path).read_bytes()
        for length in range(0, len(content) - 1, 61):
            (tmp_path / "cut.json").write_bytes(content[:length])
            with pytest.raises(RecordError, match=r"cut\.json is not a valid record"):
                read_record(tmp_path / "cut.json")

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=r"none\.json cannot be read: No such file"):
            read_record(tmp_path / "none.json")


class TestRescore:
    def test_it_gives_the_scores_of_the_record(self, tmp_path: Path) -> None:
        assert rescore(on_disk(tmp_path)) == score(predictions())

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("weighted_f1",), 0.9),
            (("accuracy",), 0.123456),
            (("calibration_error",), None),
            (("classes", "joy", "recall"), 1.0),
            (("emotion_shift_accuracy",), 0.75),
        ],
    )
    def test_a_score_changed_by_hand_is_named(self, path: tuple[str, ...], value: Any, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        changed(file, "test", *path, to=value)
        with pytest.raises(RecordError, match=r"gru-s0\.json says test\." + r"\.".join(path)):
            rescore(file)

    def test_the_last_bits_of_another_machine_are_not_a_change(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        changed(file, "test", "weighted_f1", to=read_record(file).test.weighted_f1 + 1e-15)  # type: ignore[union-attr]
        rescore(file)

    def test_classes_in_another_order(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        values = json.loads(file.read_text())
        classes, rows = values["test"]["classes"], values["test"]["confusion"]
        values["test"]["classes"] = dict(reversed(classes.items()))
        values["test"]["confusion"] = [row[::-1] for row in rows[::-1]]
        file.write_text(json.dumps(values))
        with pytest.raises(RecordError, match=r"test\.classes"):
            rescore(file)

    def test_other_predictions(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        write_predictions(tmp_path / "gru-s0.predictions.npz", predictions(1))
        with pytest.raises(RecordError, match=r"is not the file that gru-s0\.json was written with"):
            rescore(file)

    def test_no_predictions(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        (tmp_path / "gru-s0.predictions.npz").unlink()
        with pytest.raises(RecordError, match=r"gru-s0\.predictions\.npz, which gru-s0\.json names, cannot be read"):
            rescore(file)

    def test_a_wrong_count(self, tmp_path: Path) -> None:
        file = on_disk(tmp_path)
        changed(file, "predictions", "utterances", to=121)
        with pytest.raises(RecordError, match=r"predictions\.utterances is 121, but .* has 120"):
            rescore(file)

    def test_predictions_that_are_none_although_the_checksum_fits(self, tmp_path: Path) -> None:
        import hashlib

        file = on_disk(tmp_path)
        (tmp_path / "gru-s0.predictions.npz").write_bytes(b"x")
        changed(file, "predictions", "sha256", to=hashlib.sha256(b"x").hexdigest())
        with pytest.raises(RecordError, match="is not a valid predictions file"):
            rescore(file)

    def test_a_record_with_dialogue_counts(self, tmp_path: Path) -> None:
        counts = count_dialogues(predictions())
        checksum = write_predictions(tmp_path / "gru-s0.predictions.npz", counts)
        of_counts = PredictionsFile(file="gru-s0.predictions.npz", sha256=checksum, utterances=counts.utterances)
        write_record(tmp_path / "gru-s0.json", record(predictions=of_counts))
        assert rescore(tmp_path / "gru-s0.json") == score(predictions())


def test_where_files_lie() -> None:
    folder = record_folder(Path("runs"), record())
    assert folder == record_folder(Path("runs"), ("meld", "gru")) == Path("runs/meld/gru")
    assert record_file(folder, "gru-s0").name == "gru-s0.json"
    assert predictions_file(folder, "gru-s0").name == "gru-s0.predictions.npz"
    assert weights_file(folder, "gru-s0").name == "gru-s0.model.safetensors"


def test_the_json_schema_names_every_key() -> None:
    schema = record_schema()
    assert set(schema["properties"]) == set(Record.model_fields)
    assert schema["additionalProperties"] is False
    assert json.loads(json.dumps(schema)) == schema
