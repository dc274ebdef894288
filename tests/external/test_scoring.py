"""From a file to a record on disk: on small corpora, and on the committed records of MELD where it is prepared."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

import mer_bench
from mer_bench.data.files import sha256_of_file
from mer_bench.data.preparation import import_files, open_or_prepare, resolve
from mer_bench.errors import DataError, MissingDataError, RequestError, StorageError, UnknownNameError
from mer_bench.external import ScoreRequest, score, scored_split, write_template
from mer_bench.external.matching import predictions_of
from mer_bench.external.reading import read_rows
from mer_bench.external.scored_split import ScoredSplit
from mer_bench.locations import data_root, store_folder
from mer_bench.metrics import rescore
from mer_bench.metrics import score as score_predictions
from mer_bench.predictions import DialogueCounts, Predictions, read_outcomes, read_predictions
from mer_bench.records import Record, Scores, read_record, record_file, record_text

CLASSES = ("calm", "glad", "sad")
RECORDS = Path(__file__).resolve().parents[2] / "leaderboards" / "records"


def answers(folder: Path, dataset: str = "chat", protocol: str | None = None, seed: int = 0) -> Path:
    """A file with a label, drawn at random, for each utterance that is scored."""
    template = folder / f"template-{dataset}-{protocol}.csv"
    if not template.exists():
        write_template(template, dataset, protocol=protocol)
    draw = np.random.default_rng(seed)
    rows = list(csv.reader(template.open(encoding="utf-8", newline="")))
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["id", "label"], *([row[0], draw.choice(CLASSES)] for row in rows[1:])])
    file = folder / f"answers-{dataset}-{protocol}-{seed}.csv"
    file.write_text(text.getvalue(), encoding="utf-8")
    return file


def request(file: Path, **changes: Any) -> ScoreRequest:
    of = ScoreRequest(file, "chat", "my-llm", "zero-shot", modalities=("text",), out=Path("out"))
    return replace(of, **changes)


def written(record: Record) -> Path:
    return record_file(Path("out") / record.dataset / record.model, record.run)


class TestRecords:
    def test_what_is_written(self, chats: Path) -> None:
        file = answers(chats)
        record = score(request(file, source="arXiv 2401.00001", note="five shots", seed=3)).record
        assert read_record(written(record)) == record
        assert rescore(written(record)) == record.test
        assert (record.kind, record.model, record.seed) == ("external", "my-llm", 3)
        assert (record.labels, record.features, record.protocol) == ("chat/mood", "chat/external", "chat/official")
        assert record.modalities == ("text",)
        assert record.external is not None
        stated = record.external
        assert (stated.selection_rule, stated.source, stated.note) == ("zero-shot", "arXiv 2401.00001", "five shots")
        assert stated.file_sha256 == sha256_of_file(file)
        assert record.sources == stated.test_split
        assert sorted(place.name for place in written(record).parent.iterdir()) == [
            f"{record.run}.json",
            f"{record.run}.predictions.npz",
        ]
        assert str(chats) not in record_text(record)

    def test_scores_are_those_of_labels_and_answers(self, chats: Path) -> None:
        """Against scikit-learn, from the store's labels and the file's, joined by id here."""
        file = answers(chats)
        record = score(request(file)).record
        store = open_or_prepare(resolve("chat"), data_root())
        labels = dict(zip(store.identifiers("test")[0], store.arrays["labels"][store.rows("test")[1]], strict=True))
        given = {row["id"]: CLASSES.index(row["label"]) for row in csv.DictReader(file.open(encoding="utf-8"))}
        scored = {name for name, label in labels.items() if label >= 0}
        assert set(given) == scored != set(labels)
        true, predicted = [labels[name] for name in given], list(given.values())
        assert record.test is not None
        assert record.test.utterances == len(scored)
        assert record.test.accuracy == pytest.approx(accuracy_score(true, predicted))
        assert record.test.weighted_f1 == pytest.approx(f1_score(true, predicted, average="weighted", zero_division=0))
        assert record.test.subsets["even"].utterances < len(scored)

    def test_turns_are_those_of_the_whole_talk(self, chats: Path) -> None:
        record = score(request(answers(chats))).record
        found = read_predictions(written(record).with_name(f"{record.run}.predictions.npz"))
        assert [f"{talk}_{turn}" for talk, turn in zip(found.dialogues, found.positions.tolist(), strict=True)] == list(
            found.ids
        )
        assert found.speakers.tolist() == [turn % 2 for turn in found.positions.tolist()]
        assert int(found.true.min()) >= 0

    def test_folds_are_scored_together(self, chats: Path) -> None:
        record = score(request(answers(chats, protocol="crossed"), protocol="chat/crossed")).record
        found = read_predictions(written(record).with_name(f"{record.run}.predictions.npz"))
        assert set(found.dialogue_names) == {f"talk{number}" for number in range(12)} - {"talk5"}
        assert record.folds == []
        with pytest.raises(DataError, match="of the 42 utterances of the test split of chat/crossed have no row"):
            score(request(answers(chats), protocol="crossed"))

    def test_labels_that_may_not_be_passed_on_are_counted(self, chats: Path) -> None:
        record = score(request(answers(chats, "secret-chat"), dataset="secret-chat")).record
        assert record.predictions is not None
        assert isinstance(read_outcomes(written(record).with_name(record.predictions.file)), DialogueCounts)
        assert rescore(written(record)) == record.test
        private = written(record).with_name(f"{record.run}.private.npz")
        assert not private.exists()
        score(request(answers(chats, "secret-chat"), dataset="secret-chat", keep_predictions=True))
        assert read_predictions(private).utterances == record.predictions.utterances

    def test_columns_that_nothing_reads_are_told(self, chats: Path) -> None:
        file = answers(chats)
        file.write_text("".join(f"{line},x\n" for line in file.read_text().split()).replace(",x", ",why", 1))
        assert score(request(file)).ignored == ("why",)

    def test_from_python(self, chats: Path) -> None:
        record = mer_bench.score(
            str(answers(chats)), "chat", "my-llm", "unknown", modalities=("text", "audio"), out=chats
        )
        assert record.external is not None
        assert record.external.selection_rule == "unknown"
        assert record.modalities == ("text", "audio")


class TestComparability:
    """Which table a record stands in: what a leaderboard keys on."""

    def test_own_features_stand_apart_from_every_feature_set(self, chats: Path) -> None:
        record = score(request(answers(chats))).record
        store = open_or_prepare(resolve("chat"), data_root())
        assert record.features == "chat/external"
        assert record.features_detail is None
        assert record.sources != store.manifest.sources_checksum

    def test_whoever_read_a_feature_set_stands_with_those_that_did(self, chats: Path) -> None:
        record = score(request(answers(chats), features="words", modalities=None)).record
        store = open_or_prepare(resolve("chat"), data_root())
        assert record.features == "chat/words"
        assert record.modalities == ("text", "audio")
        assert record.features_detail is not None
        assert record.sources == record.features_detail.sources == store.manifest.sources_checksum
        assert record.features_detail.widths == {"text": 2, "audio": 1}

    def test_the_test_split_is_the_same_whatever_store_it_was_read_from(self, chats: Path) -> None:
        first = score(request(answers(chats))).record
        other = score(request(answers(chats), features="text-only", modalities=None, out=chats / "other")).record
        assert first.external is not None
        assert other.external is not None
        assert first.external.test_split == other.external.test_split
        assert first.test == other.test

    def test_one_prepared_feature_set_will_do(self, chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = answers(chats)
        expected = score(request(file)).record
        there = open_or_prepare(resolve("chat", "text-only"), data_root())

        def without_the_first(key: Any, root: Path) -> Any:
            if key.features == "words":
                raise MissingDataError("words are missing")
            return open_or_prepare(key, root)

        monkeypatch.setattr(scored_split, "open_or_prepare", without_the_first)
        assert score(request(file)).record.identity == expected.identity
        with pytest.raises(MissingDataError, match="words are missing"):
            score(request(file, features="words", seed=1))
        for place in there.folder.iterdir():
            place.unlink()
        there.folder.rmdir()
        with pytest.raises(MissingDataError, match="words are missing"):
            score(request(file))

    def test_other_labels_are_another_test_split(self, chats: Path) -> None:
        before = score(request(answers(chats))).record
        folder = store_folder(data_root(), resolve("chat"))
        labels = np.load(folder / "labels.npy")
        store = open_or_prepare(resolve("chat"), data_root())
        row = store.rows("test")[1].start + int(np.flatnonzero(labels[store.rows("test")[1]] == 0)[0])
        labels[row] = 1
        np.save(folder / "labels.npy", labels)
        after = score(request(answers(chats), out=chats / "other")).record
        assert before.sources != after.sources


class TestRepeats:
    def test_the_same_again_is_the_same_record_with_what_is_stated_now(self, chats: Path) -> None:
        first = score(request(answers(chats))).record
        second = score(request(answers(chats), selection="best dev", source="10.1000/182")).record
        assert first.identity == second.identity
        assert read_record(written(first)).external == second.external
        assert len(list(written(first).parent.glob("*.json"))) == 1

    def test_the_format_of_a_file_is_not_part_of_it(self, chats: Path) -> None:
        first = score(request(answers(chats))).record
        lines = [f'{{"id": "{row["id"]}", "label": "{row["label"]}"}}' for row in csv.DictReader(answers(chats).open())]
        (chats / "a.jsonl").write_text("\n".join(reversed(lines)))
        assert score(request(chats / "a.jsonl")).record.identity == first.identity

    def test_other_predictions_need_another_seed_or_name(self, chats: Path) -> None:
        first = score(request(answers(chats))).record
        with pytest.raises(RequestError, match=r"already holds other predictions of my-llm with seed 0\. Give another"):
            score(request(answers(chats, seed=1)))
        for changes in ({"seed": 1}, {"name": "other"}, {"modalities": ("audio",)}, {"features": "words"}):
            assert score(request(answers(chats, seed=1), **changes)).record.identity != first.identity
        assert read_record(written(first)) == first

    def test_other_scores_with_the_same_labels_are_other_predictions(self, chats: Path) -> None:
        rows = list(csv.DictReader(answers(chats).open(encoding="utf-8")))
        for sure in (0.5, 0.6):
            lines = [
                ",".join([row["id"], *(str(sure if row["label"] == name else (1 - sure) / 2) for name in CLASSES)])
                for row in rows
            ]
            (chats / f"{sure}.csv").write_text("\n".join(["id," + ",".join(CLASSES), *lines]))
        first = score(request(chats / "0.5.csv")).record
        with pytest.raises(RequestError, match="already holds other predictions"):
            score(request(chats / "0.6.csv"))
        other = score(request(chats / "0.6.csv", seed=1)).record
        assert first.test is not None
        assert other.test is not None
        assert first.test.confusion == other.test.confusion
        assert first.test.calibration_error != other.test.calibration_error

    def test_a_damaged_record_beside_it_is_no_hindrance(self, chats: Path) -> None:
        place = chats / "out" / "chat" / "my-llm"
        place.mkdir(parents=True)
        (place / "my-llm.external.seed0.000000000000.json").write_text("{")
        score(request(answers(chats)))


class TestFaults:
    @pytest.mark.parametrize(
        ("changes", "error", "says"),
        [
            ({"dataset": "chatt"}, UnknownNameError, "Did you mean 'chat'"),
            ({"labels": "moods"}, UnknownNameError, "no label set of chat is called 'moods'. Did you mean 'mood'?"),
            ({"protocol": "officail"}, UnknownNameError, "Did you mean 'official'"),
            ({"features": "word"}, UnknownNameError, "Did you mean 'words'"),
            ({"modalities": ("txt",)}, UnknownNameError, "no modality of chat is called 'txt'. Did you mean 'text'?"),
            ({"features": "text-only", "modalities": ("audio",)}, UnknownNameError, "no modality of chat/text-only"),
            ({"modalities": None}, RequestError, "say which modalities my-llm was given, of text, audio"),
            ({"modalities": ()}, RequestError, "modalities is empty; chat has text, audio."),
            ({"name": "../up"}, RequestError, r"letters from A to Z.*but is '../up'. Call it 'up', say"),
            ({"name": "GPT 4 <b>"}, RequestError, "Call it 'GPT-4-b', say"),
            ({"name": ""}, RequestError, "but is ''.$"),
            ({"name": "x" * 201}, RequestError, "the name of a system is made of letters"),
            ({"name": "CMATH"}, RequestError, "'CMATH' is a model of mer-bench.*such as 'CMATH-original'"),
            ({"selection": " "}, RequestError, "selection is blank"),
            ({"selection": "a\nb"}, RequestError, "selection should be one line"),
            ({"source": "\x1b[31m"}, RequestError, "source should be one line"),
            ({"note": "x" * 2001}, RequestError, "note should have at most 2000 characters, but has 2001"),
            ({"seed": -1}, RequestError, "a seed must be 0 or more"),
            ({"predictions": Path("none.csv")}, MissingDataError, "none.csv is not there"),
            ({"predictions": Path("none.xls")}, RequestError, "should end in .csv"),
            ({"file_format": "xls"}, RequestError, "csv, jsonl, parquet, but 'xls'"),
        ],
    )
    def test_a_wrong_request(self, changes: dict[str, Any], error: type[Exception], says: str, chats: Path) -> None:
        with pytest.raises(error, match=says):
            score(request(answers(chats), **changes))
        assert not (chats / "out").exists()

    def test_a_wrong_file_leaves_nothing(self, chats: Path) -> None:
        file = answers(chats)
        file.write_text(file.read_text().replace("glad", "happy", 1))
        with pytest.raises(
            DataError, match="should be one of calm, glad, sad, or a number from 0 to 2, but is 'happy'"
        ):
            score(request(file))
        assert not (chats / "out").exists()

    def test_a_folder_that_is_a_file(self, chats: Path) -> None:
        (chats / "out").write_text("")
        with pytest.raises(StorageError, match="cannot write records to out: out is a file"):
            score(request(answers(chats)))

    def test_a_disk_that_is_full_leaves_nothing(self, chats: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(file: Path, record: Record) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("mer_bench.records.write_record", full)
        with pytest.raises(StorageError, match="cannot write records to out: the disk is full"):
            score(request(answers(chats)))
        assert list((chats / "out" / "chat" / "my-llm").iterdir()) == []


def test_without_torch(chats: Path, tmp_path: Path) -> None:
    """Where the store is prepared already."""
    file = answers(chats)
    code = f"""
import sys
from pathlib import Path
import mer_bench
mer_bench.score({file.name!r}, "chat", "my-llm", "unknown", modalities=("text",), out=Path("out"))
print([name for name in ("torch", "sklearn", "pyarrow") if name in sys.modules])
"""
    there = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=there, cwd=chats
    )
    assert answer.stdout.strip() == "[]", answer.stderr
    assert len(list((chats / "out" / "chat" / "my-llm").glob("*.json"))) == 1


class TestCommittedRecords:
    """The predictions of a run, exported by hand and scored here, have the run's scores, bit by bit."""

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "labels", "probabilities"])
    @pytest.mark.parametrize(
        ("dataset", "model"), [("meld", "cmath"), ("meld", "majority"), ("emorynlp", "mmgcn"), ("cmu-mosi", "m3net")]
    )
    def test_against_the_labels_that_they_hold(self, dataset: str, model: str, kind: str, tmp_path: Path) -> None:
        original, made = committed(dataset, model)
        file = exported(made, kind, tmp_path)
        split = ScoredSplit(
            name="test",
            classes=made.classes,
            ids=made.ids,
            dialogues=made.dialogues,
            positions=made.positions,
            speakers=made.speakers,
            true=made.true,
            subsets=made.subsets,
            not_scored={},
        )
        same(score_predictions(predictions_of(read_rows(file, made.classes), split)), original, kind)

    @pytest.mark.real_data
    def test_against_the_corpus(self, shared_data: Path, tmp_path: Path) -> None:
        import_files("meld", shared_data / "published", tmp_path / "data")
        for model, kind in (("cmath", "csv"), ("dialoguernn", "jsonl"), ("logistic", "labels")):
            original, made = committed("meld", model)
            file = exported(made, kind, tmp_path)
            asked = ScoreRequest(file, "meld", "copy", "unknown", modalities=("text",), out=tmp_path / model)
            found = score(replace(asked, data_root=tmp_path / "data")).record
            same(found.test, original, kind)
            read = score(replace(asked, data_root=tmp_path / "data", features="transcripts")).record
            assert (read.features, read.sources) == (original.features, original.sources)


def same(found: Scores | None, original: Record, kind: str) -> None:
    """All scores are those of the run; without scores of classes there is no calibration error."""
    assert found is not None
    assert original.test is not None
    expected = original.test.model_copy(update={"calibration_error": None}) if kind == "labels" else original.test
    assert found == expected


def committed(dataset: str, model: str) -> tuple[Record, Predictions]:
    """The first committed record of a model, and its predictions."""
    file = sorted((RECORDS / dataset / model).glob(f"{model}.*.seed0.*.json"))[0]
    if dataset == "meld":
        file = sorted((RECORDS / dataset / model).glob(f"{model}.transcripts.seed0.*.json"))[0]
    record = read_record(file)
    assert record.predictions is not None
    return record, read_predictions(file.with_name(record.predictions.file))


def exported(made: Predictions, kind: str, folder: Path) -> Path:
    """A file of predictions, the last utterance first."""
    assert made.log_probabilities is not None
    scores = made.log_probabilities.astype(float)
    if kind == "probabilities":
        scores = np.exp(scores)
    rows: list[dict[str, Any]] = [
        {"id": name, "label": made.classes[chosen], **dict(zip(made.classes, values, strict=True))}
        for name, chosen, values in zip(made.ids, made.predicted.tolist(), scores.tolist(), strict=True)
    ][::-1]
    if kind == "labels":
        rows = [{"id": row["id"], "label": row["label"]} for row in rows]
    file = folder / f"p.{kind if kind in ('jsonl', 'parquet') else 'csv'}"
    if kind == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            table = csv.DictWriter(stream, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return file
