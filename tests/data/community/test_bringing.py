"""Releases as feature sets of an installed dataset: checked against its card and its annotation, then copied."""

from __future__ import annotations

import csv
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mer_bench import registry
from mer_bench.api import PreparationRequest
from mer_bench.cards import Source, SplitCount
from mer_bench.cli import app
from mer_bench.data import community
from mer_bench.data.community.bringing import compare
from mer_bench.data.corpus import Corpus, make_store
from mer_bench.data.files import git_blob_of
from mer_bench.data.preparation import import_files
from mer_bench.errors import DataError, SettingError, UnknownNameError

from .releases import CLASSES, LENGTHS, NAMES, cosmic, meld, one_hot, releases

ALL = releases()
COUNTS = {
    "train": SplitCount(dialogues=3, utterances=9),
    "dev": SplitCount(dialogues=1, utterances=1),
    "test": SplitCount(dialogues=1, utterances=2),
}
FEATURES = ["mmgcn", "conv-emotion", "cosmic", "m3net", "sdt", "graphsmile", "multiemo"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MELD whose published counts are those of the small releases, and whose pinned pickles may be any."""
    plugin = registry.datasets().find("meld")
    sources = tuple(
        source.model_copy(update={"git_blob": "", "sha256": "", "bytes": 0}) for source in plugin.card.sources
    )
    card = plugin.card.model_copy(update={"counts": {"official": COUNTS}, "sources": sources})
    shelf = replace(registry.datasets(), plugins={"meld": replace(plugin, card=card)})
    monkeypatch.setattr(registry, "datasets", lambda root=None: shelf)
    return card


def write(folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"file{place}.bin" for place in range(len(ALL[name]))]
    for file, value in zip(files, ALL[name], strict=True):
        file.write_bytes(pickle.dumps(value))
    return files


def annotation(folder: Path, labels: dict[str, list[int]] = CLASSES) -> None:
    """The csv files of the small corpus."""
    classes = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    sentiments = ("neutral", "positive", "negative")
    folder.mkdir(parents=True, exist_ok=True)
    for split, names in (("train", NAMES[:3]), ("dev", NAMES[3:4]), ("test", NAMES[4:])):
        with (folder / f"{split}_sent_emo.csv").open("w", encoding="utf-8", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"])
            for place, name in enumerate(names):
                for turn, label in enumerate(labels[name]):
                    who = ALL["mmgcn-iemocap"][0][1][name][turn]
                    rows.writerow([f"café, turn’s {turn}", who, classes[label], sentiments[label % 3], place, turn])


def run(*words: str, root: Path) -> Any:
    return CliRunner().invoke(app, ["data", "import", *words, "--data-root", str(root)])


@pytest.mark.parametrize("features", FEATURES)
def test_every_release_of_meld_becomes_a_feature_set(small: Any, tmp_path: Path, features: str) -> None:
    files = write(tmp_path / "mine", f"{features}-meld")
    annotation(tmp_path / "root" / "raw" / "meld")
    words = [word for file in reversed(files) for word in ("--from", str(file))]
    result = run("meld", *words, root=tmp_path / "root")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert f"recognised: {features}-meld" in result.stdout
    # Said before it is done.
    assert lines.index(next(line for line in lines if "recognised" in line)) < lines.index(
        next(line for line in lines if line.startswith("imported"))
    )
    assert "all 12 labels are those of the published annotation" in result.stdout
    assert "differ" not in result.stdout + result.stderr
    assert f"ready: meld/{features}" in result.stdout
    request = PreparationRequest(
        features, "emotion", "official", None,
        {name: tmp_path / "root" / "raw" / "meld" / name for name in small.feature_sets[features].sources},
    )  # fmt: skip
    content = registry.load_dataset("meld").prepare(request)
    assert content.labels.tolist() == [label for name in NAMES for label in CLASSES[name]]
    assert content.splits.tolist() == [0, 0, 0, 1, 2]
    assert {name: values.shape[1] for name, values in content.features.items()} == small.feature_sets[features].widths


def test_m3net_is_there_once_its_two_files_are(small: Any, tmp_path: Path) -> None:
    for name in ("mmgcn-meld", "cosmic-meld"):
        assert run("meld", "--from", str(write(tmp_path / name, name)[0]), root=tmp_path / "root").exit_code == 0
    answer = run("meld", "--from", str(tmp_path / "cosmic-meld" / "file0.bin"), "--json", root=tmp_path / "root")
    told = json.loads(answer.stdout)
    assert set(told["imported"]["ready"]) == {"mmgcn", "cosmic", "m3net"}
    assert told["recognised"]["layout"] == "cosmic-meld"
    assert told["imported"]["counts"] == {"train": [3, 9], "dev": [1, 1], "test": [1, 2]}


def test_labels_that_differ_are_refused_and_nothing_is_copied(small: Any, tmp_path: Path) -> None:
    raw = tmp_path / "root" / "raw" / "meld"
    annotation(raw, {**CLASSES, "b1": [1, 0, 4, 3]})
    result = run("meld", "--from", str(write(tmp_path / "mine", "mmgcn-meld")[0]), root=tmp_path / "root")
    assert result.exit_code == 2
    assert "1 of 12 labels are not those of the published annotation; the first: train/dia2, turn 3" in result.stderr
    assert not (raw / "MELD_features_raw1.pkl").exists()


def test_sentiments_come_from_the_release(small: Any, tmp_path: Path) -> None:
    file = write(tmp_path, "graphsmile-meld")[0]
    request = PreparationRequest("graphsmile", "sentiment", "official", None, {"graphsmile_meld.pkl": file})
    corpus = community.corpus_of("meld", small, request)
    assert corpus.labels == [label % 3 for name in NAMES for label in CLASSES[name]]


def test_classes_are_joined_by_name_not_by_number(small: Any, tmp_path: Path) -> None:
    labels = small.label_sets["emotion"].model_copy(update={"classes": ("Anger", "bad", "Neutral")})
    card = small.model_copy(update={"label_sets": {"emotion": labels}})
    file = write(tmp_path, "cosmic-meld")[0]
    request = PreparationRequest("cosmic", "emotion", "official", None, {"meld_features_roberta.pkl": file})
    with pytest.raises(SettingError, match="has emotion and sentiment alone"):
        community.corpus_of("meld", card, request)
    joined = {"fear": "bad", "sadness": "bad", "disgust": "bad", "surprise": None, "joy": None}
    corpus = community.corpus_of("meld", card, request, classes=joined)
    index = {0: 2, 1: -1, 2: 1, 3: 1, 4: -1, 5: 1, 6: 0}
    assert corpus.labels == [index[label] for name in NAMES for label in CLASSES[name]]


def test_another_release_or_width_is_refused(small: Any, tmp_path: Path) -> None:
    file = write(tmp_path, "sdt-meld")[0]
    request = PreparationRequest("mmgcn", "emotion", "official", None, {"MELD_features_raw1.pkl": file})
    with pytest.raises(DataError, match=r"layout mmgcn-meld .*10 fields"):
        community.corpus_of("meld", small, request)
    features = small.feature_sets["sdt"].model_copy(update={"widths": {"text": 512}})
    card = small.model_copy(update={"feature_sets": {"sdt": features}})
    request = PreparationRequest("sdt", "emotion", "official", None, {"meld_multimodal_features.pkl": file})
    with pytest.raises(DataError, match="text vectors of width 1024, but meld/sdt has 512"):
        community.corpus_of("meld", card, request)


def test_a_release_whose_text_is_encoded_here(small: Any, tmp_path: Path) -> None:
    """As for releases that hold sentences alone: the card's encoders take the place of measured text."""
    features = small.feature_sets["cosmic"].model_copy(update={"text": ("tfidf",), "widths": {"text": 0}})
    card = small.model_copy(update={"feature_sets": {"cosmic-short": features}})
    file = tmp_path / "meld.pkl"
    file.write_bytes(pickle.dumps(meld(cosmic(one_hot(), short=True, sentiment=True))))
    request = PreparationRequest("cosmic-short", "emotion", "official", None, {"meld_features_roberta.pkl": file})
    corpus = community.corpus_of("meld", card, request)
    assert corpus.texts is not None
    assert len(corpus.texts) == 12
    assert not corpus.measurements


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mmgcn-iemocap", "holds iemocap, not meld. Import it under a name of your own"),
        ("dialoguernn", "a corpus that cannot be told"),
        (
            "cosmic-short-meld",
            "before features were extracted, for which meld has no feature set. Import it under a name",
        ),
    ],
)
def test_a_release_of_something_else(tmp_path: Path, name: str, says: str) -> None:
    result = run("meld", "--from", str(write(tmp_path / "mine", name)[0]), root=tmp_path / "root")
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_the_real_pins_and_counts_are_held(tmp_path: Path) -> None:
    result = run("meld", "--from", str(write(tmp_path / "a", "mmgcn-meld")[0]), root=tmp_path / "root")
    assert "git blob id" in result.stderr
    result = run("meld", "--from", str(write(tmp_path / "b", "cosmic-meld")[0]), root=tmp_path / "root")
    assert "holds 5 dialogues, but the published file holds 1432" in result.stderr


def test_a_choice_is_asked_for(tmp_path: Path) -> None:
    file = str(write(tmp_path / "mine", "sdt-iemocap")[0])
    assert "--layout ID" in run("meld", "--from", file, root=tmp_path / "root").stderr
    result = run("meld", "--from", file, "--layout", "sdt-iemocap", root=tmp_path / "root")
    assert "recognised: sdt-iemocap" in result.stdout
    assert "holds iemocap, not meld" in result.stderr
    assert "Did you mean 'sdt-iemocap'" in run("meld", "--from", file, "--layout", "sdt-iemoca", root=tmp_path).stderr


def test_two_published_files_of_one_name(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has one of them it is not taken for a damaged copy of the other."""
    plugin = registry.datasets().find("meld")
    (tmp_path / "mine").mkdir()
    file = tmp_path / "mine" / "features.pkl"
    file.write_bytes(b"one")
    pins = {"a.pkl": git_blob_of(b"one"), "b.pkl": git_blob_of(b"other")}
    sources = tuple(
        Source(name=name, repository="x/y", commit="z", path=f"{name[0]}/features.pkl", git_blob=pin)
        for name, pin in pins.items()
    )
    features = {name: small.feature_sets["mmgcn"].model_copy(update={"sources": (f"{name}.pkl",)}) for name in "ab"}
    card = small.model_copy(update={"sources": sources, "feature_sets": features})
    shelf = replace(registry.datasets(), plugins={"meld": replace(plugin, card=card)})
    monkeypatch.setattr(registry, "datasets", lambda root=None: shelf)
    report = import_files("meld", tmp_path / "mine", tmp_path / "root")
    assert report.imported == {"a.pkl": file}
    assert report.ready == ("a",)
    file.write_bytes(b"neither")
    with pytest.raises(DataError, match="git blob"):
        import_files("meld", tmp_path / "mine", tmp_path / "root")


def test_comparing() -> None:
    one = Corpus(["a", "b"], [2, 1], [0, 0], ["1", "2", "3"], ["x", "y", "x"], [0, 1, 2], ["Yes…", "no", "no"])
    other = Corpus(["b", "a"], [1, 2], [0, 0], ["3", "1", "2"], [7, 1, 1], [2, 0, 0], ["no!", "Yes...", "no"])
    found = compare(one, other)
    assert (found.dialogues, found.utterances, found.labels, found.speakers, found.texts) == (2, 3, 1, 1, 1)
    assert found.first == "a, turn 1: 1 instead of 0"
    with pytest.raises(DataError, match=r"dialogue b has 1 utterances, but .* 2"):
        compare(one, Corpus(["b"], [2], [0], ["1", "2"], [0, 0], [0, 0]))
    assert compare(one, Corpus(["c"], [1], [0], ["1"], [0], [0])).dialogues == 0


@pytest.mark.real_data
class TestPublished:
    """The pickles that are published, against the tables of the same corpora."""

    def release(self, shared_data: Path, end: str, layout: str | None = None) -> community.Release:
        return community.read_release([next(iter(sorted((shared_data / "published").glob(f"*/*/*/{end}"))))], layout)

    def test_meld(self, shared_data: Path) -> None:
        release = self.release(shared_data, "COSMIC/feature-extraction/meld/meld.pkl")
        assert release.layout.id == "cosmic-short-meld"
        with (shared_data / "meld" / "utterances.csv").open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for labels, classes in (("emotion", release.classes()), ("sentiment", release.classes("sentiment"))):
            corpus = release.corpus(labels)
            known = known_corpus(
                [f"{row['split']}/dia{row['dialogue_id']}" for row in rows],
                [row["speaker"] for row in rows],
                [classes.index(row[labels]) for row in rows],
                [row["text"] for row in rows],
            )
            found = compare(corpus, known)
            assert (found.dialogues, found.utterances, found.labels, found.speakers) == (1432, 13708, 0, 0)
            assert found.texts is not None
            assert found.texts < 15
            assert np.bincount(corpus.splits).tolist() == [1038, 114, 280]

    @pytest.mark.parametrize("end", ["COSMIC/feature-extraction/iemocap/iemocap.pkl", "IEMOCAP_features_raw_6way.pkl"])
    def test_iemocap(self, shared_data: Path, end: str) -> None:
        with (shared_data / "iemocap" / "utterances.csv").open(encoding="utf-8", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["emotion6_index"]]
        rows.sort(key=lambda row: (row["dialogue"], int(row["position6"])))
        dev = {row["dialogue"] for row in rows if row["split"] in ("dev", "valid")}
        assert len(dev) == 12
        release = self.release(shared_data, end if "COSMIC" in end else f"dataset/IEMOCAP/{end}")
        corpus = release.corpus(dev=None if "COSMIC" in end else dev)
        known = known_corpus(
            [row["dialogue"] for row in rows],
            [row["speaker_gender"] for row in rows],
            [int(row["emotion6_index"]) for row in rows],
            [row["text"] for row in rows],
        )
        found = compare(corpus, known)
        assert (found.dialogues, found.utterances, found.labels, found.speakers) == (151, 7433, 0, 0)
        assert np.bincount(corpus.splits).tolist() == [108, 12, 31]
        in_dev = {name for name, split in zip(corpus.dialogue_ids, corpus.splits, strict=True) if split == 1}
        assert in_dev == dev
        if "COSMIC" not in end:
            assert sorted(corpus.utterance_ids) == sorted(row["utterance"] for row in rows)

    def test_emorynlp(self, shared_data: Path) -> None:
        release = self.release(shared_data, "COSMIC/feature-extraction/emorynlp/emorynlp.pkl")
        corpus = release.corpus()
        dialogues, speakers, labels, texts = [], [], [], []
        for split in ("train", "dev", "test"):
            file = next((shared_data / "published").glob(f"*/MELD/*/data/emorynlp/emorynlp_{split}_final.csv"))
            with file.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream):
                    dialogues.append(f"{row['Season']}_{row['Episode']}_{row['Scene_ID']}")
                    speakers.append(row["Speaker"].split("', '")[0].strip("[]'\""))
                    labels.append(release.classes().index(row["Emotion"].lower()))
                    texts.append(row["Utterance"])
        found = compare(corpus, known_corpus(dialogues, speakers, labels, texts))
        assert (found.dialogues, found.utterances, found.labels) == (827, 9489, 0)
        assert found.speakers <= 5
        assert np.bincount(corpus.splits).tolist() == [659, 89, 79]

    @pytest.mark.parametrize("corpus", ["meld", "iemocap"])
    def test_sentences(self, shared_data: Path, corpus: str) -> None:
        release = self.release(shared_data, f"COSMIC/feature-extraction/{corpus}/{corpus}_sentences.pkl")
        assert release.layout.id == "sentences"


def known_corpus(dialogues: list[str], speakers: list[str], labels: list[int], texts: list[str]) -> Corpus:
    names = list(dict.fromkeys(dialogues))
    lengths = [dialogues.count(name) for name in names]
    return Corpus(names, lengths, [0] * len(names), [str(row) for row in range(len(labels))], speakers, labels, texts)


def test_a_release_becomes_a_store(small: Any, tmp_path: Path) -> None:
    """Scaled on train alone, as whatever else brings measurements."""
    file = write(tmp_path, "mmgcn-meld")[0]
    request = PreparationRequest("mmgcn", "emotion", "official", None, {"MELD_features_raw1.pkl": file})
    content = make_store(community.corpus_of("meld", small, request), small, request)
    train = content.features["audio"][: sum(list(LENGTHS.values())[:3])]
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-5)
    with pytest.raises(UnknownNameError):
        community.read_release([file], "mmgcn")
