"""IEMOCAP from its published files: small made-up ones with faults, and the real ones against the joined tables."""

from __future__ import annotations

import csv
import itertools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mer_bench_datasets.iemocap import reader
from mer_bench_datasets.iemocap.reader import (
    DEV_DIALOGUES,
    PARALINGUISTIC,
    PARALINGUISTIC_TABLE,
    PROSODY_TABLE,
    SIX_CLASS_SET,
    TRANSCRIPTS,
    fold_of,
    in_time,
    read_corpus,
    session_of,
)

from mer_bench import registry
from mer_bench.data.community import compare
from mer_bench.data.corpus import Corpus
from mer_bench.data.preparation import PreparationRequest, import_files, prepare, resolve
from mer_bench.data.prosody import PROSODY
from mer_bench.data.store import SPLITS, Store
from mer_bench.errors import DataError, SettingError, UnsafePickleError

DIALOGUES = [f"Ses0{session}F_{kind}01" for session in range(1, 6) for kind in ("impro", "script")]
EMOTIONS = ["hap", "sad", "neu", "ang", "exc", "fru", "xxx", "sur"]


def made_up(folder: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """Ten dialogues of eight turns, two of them without a label in the six-class set."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, prosody, events = [], [], []
    ids: dict[str, list[str]] = {}
    labels: dict[str, list[int]] = {}
    rng = np.random.default_rng(0)
    for dialogue in DIALOGUES:
        for turn in range(8):
            gender, number = "FM"[turn % 2], turn // 2
            name = f"{dialogue}_{gender}{number:03}"
            emotion = EMOTIONS[turn]
            path = f"Session{dialogue[4]}/sentences/wav/{dialogue}/{name}.wav"
            text = f"Well, {['the', 'a', 'that'][turn % 3]} thing"
            rows.append([dialogue[4], gender, emotion, path, text, str(number), dialogue])
            values = [repr(value) for value in rng.normal(5, 2, len(PROSODY)).tolist()]
            prosody.append([dialogue, str(number), gender, *values])
            events.append([name, *[str(turn)] * len(PARALINGUISTIC)])
            if turn < 6:
                ids.setdefault(dialogue, []).append(name)
                labels.setdefault(dialogue, []).append(turn)
    tables = {
        TRANSCRIPTS: [["session", "gender", "emotion", "path", "text", "segment_id", "video_id"], *rows],
        PROSODY_TABLE: [["video_id", "segment_id", "gender", *PROSODY], *prosody],
        PARALINGUISTIC_TABLE: [["utterance", *PARALINGUISTIC], *events],
    }
    train, dev, test = DIALOGUES[:6], DIALOGUES[6:8], DIALOGUES[8:]
    texts = {dialogue: ["x"] * 6 for dialogue in DIALOGUES}
    pickles = {
        SIX_CLASS_SET: [ids, labels, {d: ["F"] * 6 for d in DIALOGUES}, texts, {*train, *dev}, {*test}],
        DEV_DIALOGUES: [texts, labels, texts, train, test, dev],
    }
    for name, table in {**tables, **(changes or {})}.items():
        if name in tables:
            with (folder / name).open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows(table)
    for name, value in {**pickles, **(changes or {})}.items():
        if name in pickles:
            (folder / name).write_bytes(pickle.dumps(value))
    return {name: folder / name for name in (*tables, *pickles)}


@pytest.fixture(autouse=True)
def small_counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of the made-up files, except where the real ones are read."""
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.setattr(reader, "UTTERANCES", {"dialogues": 10, "utterances": 80})
        monkeypatch.setattr(reader, "SIX_CLASS_COUNTS", {"dialogues": 10, "utterances": 60})


def request_of(files: Mapping[str, Path], labels: str = "six", fold: int | None = None) -> PreparationRequest:
    return PreparationRequest("transcripts", labels, "cosmic" if fold is None else "loso", fold, files)


def corpus_of(folder: Path, labels: str = "six", fold: int | None = None, **changes: Any) -> Corpus:
    corpus: Corpus = read_corpus(request_of(made_up(folder, changes), labels, fold))
    return corpus


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ("six", [0, 1, 2, 3, 4, 5, -1, -1]),
        ("four", [0, 1, 2, 3, 0, -1, -1, -1]),
        ("four-context", [0, 1, 2, 3, 0, -1, -1, -1]),
    ],
)
def test_six_and_four_classes(tmp_path: Path, labels: str, wanted: list[int]) -> None:
    corpus = corpus_of(tmp_path, labels)
    found = dict(zip(corpus.utterance_ids, corpus.labels, strict=True))
    assert [found[f"{DIALOGUES[0]}_{'FM'[turn % 2]}{turn // 2:03}"] for turn in range(8)] == wanted


def test_happy_without_a_majority_counts_in_six_classes_alone(tmp_path: Path) -> None:
    files = made_up(tmp_path)
    text = files[TRANSCRIPTS].read_text().replace("1,F,hap,", "1,F,xxx,", 1)
    files[TRANSCRIPTS].write_text(text)
    assert read_corpus(request_of(files)).labels[0] == 0
    assert read_corpus(request_of(files, "four")).labels[0] == -1


def test_split_of_cosmic_and_its_subsets(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path)
    assert list(corpus.splits) == [0] * 6 + [1] * 2 + [2] * 2
    assert corpus.subsets["scripted"].tolist() == [False, True] * 5
    assert np.array_equal(corpus.subsets["improvised"], ~corpus.subsets["scripted"])


@pytest.mark.parametrize("fold", range(1, 6))
def test_folds_leave_one_session_out(tmp_path: Path, fold: int) -> None:
    corpus = corpus_of(tmp_path, fold=fold)
    sessions = {
        split: {session_of(d) for d, s in zip(corpus.dialogue_ids, corpus.splits, strict=True) if s == split}
        for split in range(3)
    }
    assert sessions[2] == {fold}
    assert sessions[1] == {fold % 5 + 1}
    assert sessions[0] == set(range(1, 6)) - sessions[1] - sessions[2]


def test_every_session_is_test_once_and_dev_once() -> None:
    for wanted in (1, 2):
        assert [[fold_of(d, fold) for fold in range(1, 6)].count(wanted) for d in DIALOGUES] == [1] * 10


def test_paralinguistic_values_stand_behind_the_prosody_and_a_row_that_is_not_there_is_blank(tmp_path: Path) -> None:
    files = made_up(tmp_path)
    lines = files[PARALINGUISTIC_TABLE].read_text().splitlines(keepends=True)
    files[PARALINGUISTIC_TABLE].write_text("".join([lines[0], *lines[2:]]))
    audio = read_corpus(request_of(files)).measurements["audio"]
    assert audio.columns == (*PROSODY, *PARALINGUISTIC)
    assert np.isnan(audio.values[0, 8:]).all()
    assert not np.isnan(audio.values[0, :8]).any()
    assert audio.values[1, 8:].tolist() == [1.0] * 11
    assert audio.present.all()
    without = {name: file for name, file in files.items() if name != PARALINGUISTIC_TABLE}
    assert read_corpus(request_of(without)).measurements["audio"].columns == PROSODY


@given(st.lists(st.sampled_from("FM"), min_size=1, max_size=12), st.data())
def test_order_in_time_keeps_every_known_order(turns: list[str], data: st.DataObject) -> None:
    counts = {"F": itertools.count(), "M": itertools.count()}
    names = [f"Ses01F_impro01_{speaker}{next(counts[speaker]):03}" for speaker in turns]
    chosen = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    known = [name for name, keep in zip(names, chosen, strict=True) if keep]
    ordered = in_time(sorted(names), known)
    assert sorted(ordered) == sorted(names)
    assert [name for name in ordered if name in known] == known
    for speaker in "FM":
        own = [name for name in ordered if name[-4] == speaker]
        assert own == sorted(own)


def test_order_in_time_by_hand() -> None:
    names = ["d_F000", "d_F001", "d_F002", "d_M000", "d_M001"]
    # F001 lies between F000 at 0 and F002 at 3, so at 1.5; M000 before M001 at 2, so at 0.5.
    assert in_time(names, ["d_F000", "d_M000", "d_M001", "d_F002"]) == [
        "d_F000",
        "d_M000",
        "d_F001",
        "d_M001",
        "d_F002",
    ]
    assert sorted(in_time(names, [])) == names


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (TRANSCRIPTS, "neu", "neutral", "column emotion: should be one of"),
        (TRANSCRIPTS, "Ses01F_impro01_F000.wav", "Ses01F_impro01_X000.wav", "column path: should end in an utterance"),
        (TRANSCRIPTS, "_F001.wav", "_F000.wav", "occurs twice"),
        (PROSODY_TABLE, "Ses01F_impro01,0,F", "Ses01F_impro01,1,F", "occurs twice"),
        (PROSODY_TABLE, "Ses01F_impro01,0,F", "Ses09F_impro01,0,F", "no utterance of IEMOCAP"),
        (PROSODY_TABLE, "Ses01F_impro01,0,F", "Ses01F_impro01,7,F", "has no row for Ses01F_impro01_F000"),
        (PARALINGUISTIC_TABLE, "laughter", "laughs", "laughter"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, name: str, old: str, new: str, told: str) -> None:
    files = made_up(tmp_path)
    files[name].write_text(files[name].read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=told) as caught:
        read_corpus(request_of(files))
    assert name in str(caught.value)


def test_fewer_utterances_than_published(tmp_path: Path) -> None:
    files = made_up(tmp_path)
    files[TRANSCRIPTS].write_text("".join(files[TRANSCRIPTS].read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match="79"):
        read_corpus(request_of(files))


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (SIX_CLASS_SET, {"a": 1}, "one list of six fields"),
        (
            SIX_CLASS_SET,
            [{DIALOGUES[0]: ["x"]}, {DIALOGUES[0]: [0]}, {}, {}, [], []],
            "no utterance of the transcripts",
        ),
        (
            SIX_CLASS_SET,
            [{DIALOGUES[0]: [f"{DIALOGUES[0]}_F000"]}, {DIALOGUES[0]: [5]}, {}, {}, [], []],
            "majority emotion is hap",
        ),
        (SIX_CLASS_SET, [{DIALOGUES[0]: [f"{DIALOGUES[0]}_F000"]}, {}, {}, {}, [], []], "one label for each utterance"),
        (DEV_DIALOGUES, [{}, {}, {}, DIALOGUES, [], DIALOGUES[:1]], "once, but hold 11, 10 different"),
        (DEV_DIALOGUES, [{}, {}, {}, DIALOGUES[1:], [], []], "once, but hold 9"),
        (
            DEV_DIALOGUES,
            [{}, {}, {}, [*DIALOGUES[1:], "Ses09F_impro01"], [], []],
            "where dialogue Ses01F_impro01 belongs",
        ),
        (DEV_DIALOGUES, [1, 2], "ends in the train, test and dev"),
    ],
)
def test_pickles_of_another_content_are_named(tmp_path: Path, name: str, value: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        corpus_of(tmp_path, **{name: value})


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    files = made_up(tmp_path)
    files[SIX_CLASS_SET].write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(UnsafePickleError, match=r"os\.system"):
        read_corpus(request_of(files))


def release(folder: Path) -> dict[str, Path]:
    """The six-class set of `made_up` in the layout of the MMGCN release, and the dev dialogues."""
    files = made_up(folder)
    ids, labels, speakers, sentences, train, test = pickle.loads(files[SIX_CLASS_SET].read_bytes())
    rng = np.random.default_rng(1)
    vectors = [
        {name: [rng.normal(size=width).astype(np.float32) for _ in of] for name, of in ids.items()}
        for width in (100, 1582, 342)
    ]
    file = folder / "mmgcn_IEMOCAP_features.pkl"
    file.write_bytes(pickle.dumps([ids, speakers, labels, *vectors, sentences, sorted(train), sorted(test)]))
    return {file.name: file, DEV_DIALOGUES: files[DEV_DIALOGUES]}


@pytest.fixture
def dataset() -> reader.Iemocap:
    """With a card that states no counts, as those of the small files are others."""
    return reader.Iemocap(registry.datasets().find("iemocap").card.model_copy(update={"counts": {}}))


@pytest.mark.parametrize(("labels", "wanted"), [("six", [0, 1, 2, 3, 4, 5]), ("four", [0, 1, 2, 3, 0])])
def test_a_community_release_gets_the_dev_dialogues_and_the_named_parts(
    tmp_path: Path, dataset: reader.Iemocap, labels: str, wanted: list[int]
) -> None:
    content = dataset.prepare(PreparationRequest("mmgcn", labels, "cosmic", None, release(tmp_path)))
    assert content.splits.tolist() == [0] * 6 + [1] * 2 + [2] * 2
    assert content.labels[: len(wanted)].tolist() == wanted
    assert content.subsets["scripted"].tolist() == [False, True] * 5
    assert {name: values.shape[1] for name, values in content.features.items()} == {
        "text": 100,
        "audio": 1582,
        "visual": 342,
    }


def test_a_community_release_under_loso(tmp_path: Path, dataset: reader.Iemocap) -> None:
    corpus = dataset.release_corpus(PreparationRequest("mmgcn", "six", "loso", 3, release(tmp_path)))
    assert dict(zip(corpus.dialogue_ids, corpus.splits, strict=True)) == {
        dialogue: fold_of(dialogue, 3) for dialogue in DIALOGUES
    }


def test_a_community_release_has_no_context(tmp_path: Path, dataset: reader.Iemocap) -> None:
    with pytest.raises(SettingError, match="ask for 'six'"):
        dataset.prepare(PreparationRequest("mmgcn", "six-context", "cosmic", None, release(tmp_path)))


def test_a_community_release_is_compared_with_the_annotation(tmp_path: Path, dataset: reader.Iemocap) -> None:
    files = release(tmp_path)
    corpus = dataset.release_corpus(PreparationRequest("mmgcn", "six", "cosmic", None, files))
    known = dataset.annotation("six", tmp_path)
    assert known is not None
    found = compare(corpus, known)
    assert (found.dialogues, found.utterances, found.labels) == (10, 60, 0)
    assert dataset.annotation("six", tmp_path / "nowhere") is None


@pytest.fixture(scope="module")
def joined(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "iemocap/utterances.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("iemocap")
    report = import_files("iemocap", shared_data, root)
    assert "paralinguistic.csv" in report.imported
    return root


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    return prepare(resolve("iemocap", "transcripts-paralinguistic"), root)


@pytest.mark.real_data
class TestReal:
    def test_pins(self, shared_data: Path) -> None:
        with (shared_data / "published/PINS.csv").open() as stream:
            pins = {row["path"]: row for row in csv.DictReader(stream)}
        pinned = [source for source in registry.datasets().find("iemocap").card.sources if source.path in pins]
        assert len(pinned) >= 4
        for source in pinned:
            pin = pins[source.path]
            found = (source.repository, source.commit, source.git_blob, str(source.bytes), source.sha256)
            assert found == tuple(pin[key] for key in ("repository", "commit", "git_blob_sha1", "bytes", "sha256"))

    def test_utterances_labels_and_order(self, store: Store, joined: list[dict[str, str]]) -> None:
        for split_name, published in zip(SPLITS, ("train", "valid", "test"), strict=True):
            rows = [row for row in joined if row["split"] == published and row["emotion6_index"]]
            rows.sort(key=lambda row: (row["dialogue"], int(row["position6"])))
            split = store.split(split_name)
            assert split.labels is not None
            assert split.labels.tolist() == [int(row["emotion6_index"]) for row in rows]
            assert store.identifiers(split_name) == (
                [row["utterance"] for row in rows],
                [row["dialogue"] for row in rows],
            )
        counts = {split: (c.dialogues, c.utterances, c.labelled) for split, c in store.manifest.counts.items()}
        assert counts == {"train": (108, 5163, 5163), "dev": (12, 647, 647), "test": (31, 1623, 1623)}
        assert store.manifest.speakers == 2

    def test_audio(self, store: Store, shared_data: Path) -> None:
        values: dict[str, list[float]] = {}
        for name, columns in (("audio_prosody", PROSODY), ("paralinguistic", PARALINGUISTIC)):
            with (shared_data / f"iemocap/{name}.csv").open() as stream:
                for row in csv.DictReader(stream):
                    values.setdefault(row["utterance"], []).extend(float(row[c] or "nan") for c in columns)
        raw = {
            split: np.array([(values[u] + [np.nan] * 11)[:19] for u in store.identifiers(split)[0]]) for split in SPLITS
        }
        mean, deviation = np.nanmean(raw["train"], axis=0), np.nanstd(raw["train"], axis=0)
        for split_name in SPLITS:
            audio = store.split(split_name).features["audio"].numpy()
            assert audio[:, :19] == pytest.approx(np.nan_to_num((raw[split_name] - mean) / deviation), abs=1e-4)

    def test_four_classes(self, root: Path, joined: list[dict[str, str]]) -> None:
        corpus = self._corpus(root, "four")
        labels = {row["utterance"]: int(row["emotion4_index"] or -1) for row in joined}
        assert [labels[name] for name in corpus.utterance_ids] == list(corpus.labels)
        assert sum(label >= 0 for label in corpus.labels) == 5531

    def test_context_keeps_everything_and_nearly_in_time(self, root: Path, joined: list[dict[str, str]]) -> None:
        corpus = self._corpus(root, "six-context")
        assert len(corpus.utterance_ids) == 10039
        assert sum(label >= 0 for label in corpus.labels) == 7433
        time = {row["utterance"]: int(row["position_by_time"]) for row in joined}
        wrong = pairs = 0
        for names in np.split(np.array(corpus.utterance_ids), np.cumsum(corpus.lengths)[:-1]):
            places = np.array([time[name] for name in names.tolist()])
            wrong += int(np.triu(places[:, None] > places[None, :]).sum())
            pairs += len(places) * (len(places) - 1) // 2
        # The card states half a percent.
        assert wrong / pairs == pytest.approx(0.0047, abs=0.0003)

    @staticmethod
    def _corpus(root: Path, labels: str) -> Corpus:
        sources = registry.datasets().find("iemocap").card.feature_sets["transcripts"].sources
        files = {name: root / "raw/iemocap" / name for name in sources}
        corpus: Corpus = read_corpus(PreparationRequest("transcripts", labels, "cosmic", None, files))
        return corpus
