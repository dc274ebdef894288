"""An import as a whole: what it writes, that it is all or nothing, and the card it makes."""

from __future__ import annotations

import csv
import importlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench import registry
from mer_bench.cards import DatasetCard, parse_card
from mer_bench.data.corpus import Corpus, make_store
from mer_bench.data.export import export_store
from mer_bench.data.own import importing
from mer_bench.data.own.describing import card_text, read_stated
from mer_bench.data.own.dialogues import RandomSplit
from mer_bench.data.own.importing import import_own
from mer_bench.data.preparation import PreparationRequest, open_or_prepare, prepare, resolve, status
from mer_bench.data.store import SPLITS, Store, StoreContent, open_store, write_store
from mer_bench.errors import CardError, DataError, MissingDataError, RequestError, StorageError, UnknownNameError
from mer_bench.locations import StoreKey

from .writing import DIALOGUE_FORMS, Given, Talk, Turn, random_array, write_arrays, write_dialogues

PROSODY: tuple[str, ...] = ("duration", "avg_intensity", "intensity_variation", "avg_pitch", "pitch_std", "pitch_range")
PROSODY += ("articulation_rate", "mean_hnr")
WORDS = ("tea", "bread", "bus", "rain", "night", "song", "lamp", "stone")


def small(seed: int = 0, arrays: bool = True, texts: bool = True) -> Given:
    """Ten talks of three utterances, four of the labels blank."""
    rng = np.random.default_rng(seed)
    talks = []
    for index, split in enumerate(["train"] * 6 + ["dev"] * 2 + ["test"] * 2):
        turns = tuple(
            Turn(
                utterance=f"t{index}u{turn}",
                speaker="AB"[turn % 2],
                label=None if turn == 1 and index % 3 == 0 else ("calm", "angry")[(index + turn) % 2],
                text=" ".join(rng.choice(WORDS, 4)) if texts else "",
            )
            for turn in range(3)
        )
        talks.append(Talk(f"t{index}", split, turns))
    given = {"audio": random_array(30, 4, seed), "visual": random_array(30, 2, seed, np.float32)} if arrays else {}
    for values in given.values():
        values[[0, 18, 24]] = 1
    return Given(tuple(talks), ("angry", "calm"), given)


CARD = """
title = "Small talks"
licence = "CC0"
[label_sets.mood]
title = "Mood"
classes = ["calm", "angry"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of small talks, in CSV, with arrays and without texts, which would take a second to encode."""
    place = tmp_path / "talks"
    place.mkdir()
    write_dialogues(place, small(texts=False), "csv", by_split=False)
    write_arrays(place, small(), "npy", by_split=False)
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def spoken(folder: Path) -> Path:
    """The same with texts."""
    write_dialogues(folder, small(), "csv", by_split=False)
    return folder


def everything_below(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def arrays_of(store: Store) -> dict[str, Any]:
    return {name: np.asarray(array) for name, array in store.arrays.items()}


def test_a_folder_becomes_a_dataset_like_any_other(spoken: Path, root: Path) -> None:
    (spoken / "card.toml").write_text(CARD)
    (spoken / "notes.txt").write_text("x")
    report = import_own("small-talks", [spoken], root)
    assert (report.version, report.changed, report.made_card, report.texts) == (1, True, False, 30)
    assert {split: (each.dialogues, each.utterances, each.speakers) for split, each in report.splits.items()} == {
        "train": (6, 18, 2),
        "dev": (2, 6, 2),
        "test": (2, 6, 2),
    }
    labels = [turn.label for turn in small().turns]
    assert sum(sum(each.values()) for each in report.histogram["mood"].values()) == 30 - labels.count(None)
    assert report.histogram["mood"]["train"]["calm"] == labels[:18].count("calm")
    audio = small().arrays["audio"]
    assert report.modalities["audio"].missing["train"] == int(np.isnan(audio[:18]).all(axis=1).sum())
    rows = ~np.isnan(audio[:18]).all(axis=1)
    assert report.modalities["audio"].blanks["train"] == int(np.isnan(audio[:18][rows]).sum())
    assert (report.modalities["audio"].width, report.passed_over) == (4, ("notes.txt",))
    plugin = registry.datasets(root).find("small-talks")
    card = plugin.card
    assert (card.title, card.licence, card.redistribute, card.synthetic) == ("Small talks", "CC0", False, False)
    assert card.label_sets["mood"].classes == ("calm", "angry")
    assert card.modalities == ("text", "audio", "visual")
    assert {split: count.utterances for split, count in card.counts["official"].items()} == {
        "train": 18,
        "dev": 6,
        "test": 6,
    }
    assert list(card.feature_sets)[:2] == ["given", "transcripts"]
    store = open_or_prepare(resolve("small-talks", root=root), root)
    assert card.feature_sets["given"].widths["audio"] == store.widths["audio"]
    assert store.classes == ("calm", "angry")
    store.verify()
    (mine,) = [each for each in status(root, verify=True) if each.dataset == "small-talks"]
    assert mine.features[0].missing == ()
    assert mine.features[0].stores[0].problem is None


@pytest.mark.parametrize("dialogue_form", DIALOGUE_FORMS)
@pytest.mark.parametrize("array_form", ["npz ids", "parquet lists"])
def test_every_form_gives_the_same_bytes(folder: Path, root: Path, dialogue_form: str, array_form: str) -> None:
    import_own("small-talks", [folder], root)
    first = everything_below(root)
    other = folder.parent / "other"
    other.mkdir()
    write_dialogues(other, small(texts=False), dialogue_form, by_split=True)
    write_arrays(other, small(), array_form, by_split=True)
    report = import_own("small-talks", [other], root)
    assert not report.changed
    assert everything_below(root) == first


def test_other_content_raises_the_version_and_removes_stores_of_the_former(spoken: Path, root: Path) -> None:
    import_own("small-talks", [spoken], root)
    prepare(resolve("small-talks", "transcripts", root=root), root)
    assert not import_own("small-talks", [spoken], root).changed
    assert open_store(root / "prepared/small-talks/transcripts/label/official")
    np.save(spoken / "visual.npy", np.ones((30, 2)) * np.arange(30)[:, None])
    report = import_own("small-talks", [spoken], root)
    assert (report.version, report.changed) == (2, True)
    assert open_store(report.store).manifest.dataset_version == 2
    assert not (root / "prepared/small-talks/transcripts/label/official").exists()
    # Where the raw folder was removed by hand, a store of former dialogues must not pass for one of the new.
    prepare(resolve("small-talks", "transcripts", root=root), root)
    shutil.rmtree(root / "raw")
    registry.forget()
    assert import_own("small-talks", [spoken], root).version == 1
    assert not (root / "prepared/small-talks/transcripts/label/official").exists()


def test_a_failed_import_leaves_what_was_there(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_own("small-talks", [folder], root)
    before = everything_below(root)

    def check(fails: type[Exception]) -> None:
        with pytest.raises(fails):
            import_own("small-talks", [folder], root)
        assert everything_below(root) == before
        assert registry.datasets(root).find("small-talks").card.version == 1

    values = np.load(folder / "audio.npy")
    np.save(folder / "audio.npy", values[:-1])
    check(DataError)
    values[:, 0] = 3
    np.save(folder / "audio.npy", values)

    def full(*_: Any, **__: Any) -> Store:
        raise StorageError("the disk is full.")

    for name in ("write_store", "make_store", "write_raw"):
        with monkeypatch.context() as patch:
            patch.setattr(importing, name, full)
            check(StorageError)
    with monkeypatch.context() as patch:
        patch.setattr(importing, "write_store", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_own("small-talks", [folder], root)
        assert everything_below(root) == before
    assert import_own("small-talks", [folder], root).version == 2


def test_a_first_import_that_fails_leaves_nothing(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "write_store", lambda *_, **__: (_ for _ in ()).throw(StorageError("full")))
    with pytest.raises(StorageError):
        import_own("small-talks", [folder], root)
    assert everything_below(root) == {}
    assert "small-talks" not in registry.datasets(root).plugins


def test_the_kept_folder_may_be_carried_to_another_machine(folder: Path, root: Path) -> None:
    (folder / "card.toml").write_text(CARD)
    import_own("small-talks", [folder], root)
    np.save(folder / "visual.npy", np.ones((30, 2)) * np.arange(30)[:, None])
    import_own("small-talks", [folder], root)
    other = root.parent / "other"
    report = import_own("small-talks", [root / "raw" / "small-talks"], other)
    assert report.version == 2
    assert everything_below(other) == everything_below(root)
    # And onto itself.
    assert not import_own("small-talks", [other / "raw" / "small-talks"], other).changed
    assert everything_below(other) == everything_below(root)


def test_a_changed_file_is_found_before_a_store_is_made(folder: Path, root: Path) -> None:
    import_own("small-talks", [folder], root)
    file = root / "raw/small-talks/dialogues.jsonl"
    file.write_text(file.read_text().replace("calm", "CALM", 1))
    with pytest.raises(
        DataError, match=r"dialogues.jsonl was changed after it was imported. Import the dialogues again"
    ):
        prepare(resolve("small-talks", root=root), root)


def test_a_folder_that_no_import_wrote_is_not_replaced(folder: Path, root: Path) -> None:
    (root / "raw/small-talks").mkdir(parents=True)
    (root / "raw/small-talks/thesis.tex").write_text("x")
    with pytest.raises(DataError, match=r"holds thesis.tex, which no import wrote; move it elsewhere"):
        import_own("small-talks", [folder], root)
    assert (root / "raw/small-talks/thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("meld", "'meld' is the name of a dataset that is installed; choose another"),
        ("cmath", "'cmath' is the name of a model that is installed; choose another"),
        ("My", "'My' cannot be the name of a dataset"),
        ("my_talks", "cannot be the name"),
        ("../x", "cannot be the name"),
        ("", "cannot be the name"),
        ("my\n", "cannot be the name"),
    ],
)
def test_a_name_that_is_taken_or_none_is_refused(folder: Path, root: Path, name: str, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        import_own(name, [folder], root)
    assert says in str(caught.value)
    assert not root.exists()


def test_a_mistyped_name_is_answered_where_there_are_no_dialogues(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no dataset is called 'mled'. Did you mean 'meld'"):
        import_own("mled", [tmp_path], tmp_path)
    with pytest.raises(MissingDataError, match="holds no dialogues"):
        import_own("my-own", [tmp_path], tmp_path)


@pytest.mark.parametrize(
    ("prepare_folder", "says"),
    [
        (lambda folder: np.save(folder / "audio.npy", np.full((30, 1), np.nan)), "audio has not one value"),
        (
            lambda folder: np.save(folder / "audio.npy", np.where(np.arange(30) < 18, np.nan, 1)[:, None]),
            "audio.npy: no utterance of train has audio",
        ),
        (
            lambda folder: np.save(
                folder / "audio.npy", np.stack([np.ones(30), np.where(np.arange(30) < 18, np.nan, 1)], axis=1)
            ),
            "audio.npy: column 1 of audio, counted from 0, has not one value in train; leave it out",
        ),
        (lambda folder: (folder / "card.toml").write_text("tilte = 'x'"), "'tilte': Extra inputs are not permitted"),
        (lambda folder: (folder / "card.toml").write_text("modalities = ['pose']"), "lists the modality pose, but no"),
        (
            lambda folder: (folder / "card.toml").write_text("[feature_sets.mine]\ntitle = 'x'"),
            "no feature set is called 'mine'; the data give given, transcripts",
        ),
        (
            lambda folder: (folder / "card.toml").write_text("[protocols.loso]\ntitle = 'x'\nfolds = 5"),
            "the one protocol of one's own dialogues is 'official'",
        ),
        (lambda folder: (folder / "card.toml").write_text("entry = 'reader:Meld'"), "a reader of its own"),
        (
            lambda folder: (folder / "card.toml").write_text("[label_sets.label]\nclasses = ['calm', 'calm']"),
            "should be two or more different names",
        ),
        (
            lambda folder: (folder / "card.toml").write_text("[label_sets.label]\nclasses = ['calm', 'angry', 'sad']"),
            "no utterance has the class 'sad' of label, which the card lists",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(
    folder: Path, root: Path, prepare_folder: Callable[[Path], Any], says: str
) -> None:
    prepare_folder(folder)
    with pytest.raises(RequestError) as caught:
        import_own("small-talks", [folder], root)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert everything_below(root.parent / "root") == {}


def test_without_texts_there_is_one_feature_set_and_without_anything_an_error(tmp_path: Path, root: Path) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    write_dialogues(folder, small(texts=False), "nested", by_split=False)
    with pytest.raises(CardError, match="there is nothing to learn from"):
        import_own("small-talks", [folder], root)
    write_arrays(folder, small(), "npz", by_split=False)
    assert import_own("small-talks", [folder], root).features == ("given",)
    # A text array goes before the texts, which have feature sets of their own.
    write_dialogues(folder, small(), "nested", by_split=False)
    np.save(folder / "text.npy", np.arange(60.0).reshape(30, 2))
    assert import_own("small-talks", [folder], root).features[:2] == ("given", "transcripts")
    card = registry.datasets(root).find("small-talks").card
    assert (card.feature_sets["given"].text, card.feature_sets["given"].label_supervised) == ((), False)
    assert (card.feature_sets["given"].widths["text"], card.feature_sets["transcripts"].text) == (2, ("tfidf",))
    assert prepare(resolve("small-talks", "transcripts", root=root), root).widths["text"] > 2


def test_what_the_card_says_of_its_features_and_parts_is_kept(spoken: Path, root: Path) -> None:
    (spoken / "card.toml").write_text(
        'modalities = ["audio"]\ntraps = ["One is a joke."]\n[feature_sets.given]\nlabel_supervised = true\n'
        'summary = "Audio: eGeMAPS."\ncaveats = ["Fine-tuned."]\nmodalities = ["audio"]\n'
        '[protocols.official]\ntitle = "By session"\nheadline = "macro_f1"\n'
        '[subsets.phone]\ntitle = "Phone calls"\nsummary = "Held on the phone."\n'
        '[label_sets.label]\nunlabelled = "left out"\n'
    )
    (spoken / "dialogues.csv").unlink()
    write_dialogues(spoken, small(), "nested", by_split=False)
    lines = [json.loads(line) for line in (spoken / "dialogues.jsonl").read_text().split("\n") if line]
    for line in lines[::2]:
        line["subsets"] = ["phone"]
    (spoken / "dialogues.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = import_own("small-talks", [spoken], root)
    card = registry.datasets(root).find("small-talks").card
    given = card.feature_sets["given"]
    assert (given.label_supervised, given.summary, given.caveats) == (True, "Audio: eGeMAPS.", ("Fine-tuned.",))
    assert given.modalities == ("audio",)
    assert card.modalities == ("audio", "text", "visual")
    assert (card.protocols["official"].headline, card.traps) == ("macro_f1", ("One is a joke.",))
    manifest = open_store(report.store).manifest
    assert manifest.utterances == sum(turn.label is not None for turn in small().turns)
    lines[1]["subsets"] = ["fone"]
    (spoken / "dialogues.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(CardError, match="a dialogue is in the subset 'fone', which the card should describe"):
        import_own("small-talks", [spoken], root)


def test_a_random_split_is_written_down(folder: Path, root: Path) -> None:
    rows = (folder / "dialogues.csv").read_text(encoding="utf-8-sig").splitlines()
    (folder / "dialogues.csv").write_text("\n".join(row.rpartition(",")[0] for row in rows))
    np.save(folder / "audio.npy", np.arange(30.0)[:, None])
    np.save(folder / "visual.npy", np.arange(30.0)[:, None])
    import_own("small-talks", [folder], root, RandomSplit((60, 20, 20), seed=3))
    card = registry.datasets(root).find("small-talks").card
    assert card.traps == ("The splits were drawn at random by mer-bench: 60/20/20 by dialogue, seed 3.",)
    assert [count.dialogues for count in card.counts["official"].values()] == [6, 2, 2]


def test_an_export_comes_back_as_it_was(spoken: Path, root: Path) -> None:
    (spoken / "card.toml").write_text(
        "synthetic = true\n"
        + CARD.replace("[label_sets", '[subsets.phone]\ntitle = "Phone"\nsummary = "x"\n[label_sets', 1)
    )
    report = import_own("small-talks", [spoken], root)
    store = open_store(report.store)
    export = root.parent / "export"
    export_store(store, registry.datasets(root).find("small-talks").card, export)
    again = import_own("copy", [export], root)
    found = arrays_of(open_store(again.store))
    assert set(found) == set(store.arrays)
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.asarray(store.arrays[name]), err_msg=name)
    card = registry.datasets(root).find("copy").card
    assert (card.title, card.licence, card.synthetic) == ("Small talks", "CC0", True)
    assert card.label_sets["mood"].classes == ("calm", "angry")
    assert card.feature_sets["given"].label_supervised
    assert card.feature_sets["given"].caveats[0] == "Exported by mer-bench from small-talks/given."
    # Also from the form in which it is kept, and without reading the export a second time.
    assert import_own("copy", [root / "raw/copy"], root).changed is False
    # A manifest of another program says nothing, and the arrays are scaled like any other.
    (export / "manifest.json").write_text("{}")
    other = import_own("copy", [export], root)
    assert other.made_card
    assert (arrays_of(open_store(other.store))["features.text"] != found["features.text"]).any()


TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)


@settings(max_examples=60, deadline=None)
@given(title=TEXTS, licence=TEXTS, classes=st.lists(TEXTS, min_size=2, max_size=3), traps=st.lists(TEXTS, max_size=2))
def test_any_card_is_written_so_that_it_reads_the_same(
    title: str, licence: str, classes: list[str], traps: list[str]
) -> None:
    card = DatasetCard.model_validate(
        {
            "title": title,
            "summary": "",
            "entry": "own:OwnDialogues",
            "licence": licence,
            "modalities": ["text"],
            "label_sets": {"label": {"title": "x", "classes": classes}},
            "feature_sets": {"given": {"title": "x", "summary": "", "widths": {"text": 3}}},
            "protocols": {"official": {"title": "x"}},
            "counts": {"official": {split: {"dialogues": 1, "utterances": 2} for split in SPLITS}},
            "sources": [{"name": "a"}, {"name": "b", "bytes": 3}],
            "traps": traps,
        }
    )
    assert parse_card(card_text(card), DatasetCard, "x") == card


def test_a_card_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text("title = ")
    with pytest.raises(CardError, match=r"card.toml is not valid TOML"):
        read_stated(tmp_path / "card.toml")


@pytest.fixture(scope="module")
def meld(shared_data: Path) -> tuple[Given, Corpus]:
    """MELD as its files say it, read here anew, and as its own reader reads it."""
    talks: list[Talk] = []
    rows: list[list[float]] = []
    files: dict[str, Path] = {}
    for split in SPLITS:
        prosody: dict[str, list[float]] = {}
        for name in (f"meld_{split}_audio_features.csv", f"{split}_sent_emo.csv"):
            (files[name],) = (shared_data / "published").rglob(name)
        with files[f"meld_{split}_audio_features.csv"].open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                prosody[row["filename"].removesuffix(".wav")] = [float(row[name] or "nan") for name in PROSODY]
        with files[f"{split}_sent_emo.csv"].open(encoding="utf-8", newline="") as stream:
            turns: dict[str, list[Turn]] = {}
            for row in csv.DictReader(stream):
                name = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}"
                turn = Turn(f"{split}/{name}", row["Speaker"], row["Emotion"], row["Utterance"])
                turns.setdefault(row["Dialogue_ID"], []).append(turn)
                rows.append(prosody.get(name, [math.nan] * 8))
        talks += [Talk(f"{split}/dia{dialogue}", split, tuple(each)) for dialogue, each in turns.items()]
    card = registry.datasets().find("meld").card
    request = PreparationRequest("transcripts", "emotion", "official", None, files)
    reader = importlib.import_module("mer_bench_datasets.meld.reader")
    given = Given(tuple(talks), card.label_sets["emotion"].classes, {"audio": np.array(rows)})
    return given, reader.read_corpus(card, request)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("dialogue_form", "array_form"),
    [("csv", "npy"), ("nested", "safetensors keyed"), ("jsonl", "npz keyed"), ("parquet", "parquet columns")],
)
def test_meld_in_every_form_gives_the_store_of_meld(
    meld: tuple[Given, Corpus],
    dialogue_form: str,
    array_form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, corpus = meld
    folder = tmp_path / "folder"
    folder.mkdir()
    write_dialogues(folder, given, dialogue_form, by_split=array_form == "npy")
    write_arrays(folder, given, array_form, by_split=array_form == "npz keyed")
    classes = ", ".join(f'"{name}"' for name in given.classes)
    (folder / "card.toml").write_text(f"[label_sets.emotion]\nclasses = [{classes}]\n")

    def without_text(corpus: Corpus, card: DatasetCard, request: PreparationRequest) -> StoreContent:
        """The texts are compared as texts, since encoding all of them takes long; the rest of the store as arrays."""
        features = card.feature_sets[request.features].model_copy(update={"widths": {"audio": 0}, "text": ()})
        return make_store(corpus, card.model_copy(update={"feature_sets": {request.features: features}}), request)

    monkeypatch.setattr(importing, "make_store", without_text)
    monkeypatch.setattr(importing, "_with_widths", lambda card, data, content: card)
    report = import_own("my-meld", [folder], tmp_path / "root")
    key = StoreKey("my-meld", "given", "emotion", "official")
    request = PreparationRequest("transcripts", "emotion", "official", None, {})
    content = without_text(corpus, registry.datasets().find("meld").card, request)
    expected = write_store(tmp_path / "expected", content, key, {})
    found = open_store(report.store)
    assert set(found.arrays) == set(expected.arrays)
    for name, array in found.arrays.items():
        np.testing.assert_array_equal(array, expected.arrays[name], err_msg=name)
    assert found.manifest.class_histogram == expected.manifest.class_histogram
    assert content.texts is not None
    kept = (tmp_path / "root/raw/my-meld/dialogues.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    spoken = [turn.get("text", "") for line in kept for turn in json.loads(line)["utterances"]]
    assert spoken == list(content.texts)
    for name, array in found.pipeline().items():
        np.testing.assert_array_equal(array, expected.pipeline()[name], err_msg=name)
