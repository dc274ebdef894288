"""MELD from its csv files: small made-up ones with every fault, and the real ones against the joined tables."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mer_bench_datasets.meld.reader import (
    Meld,
    prosody_file,
    read_prosody,
    read_transcripts,
    transcripts_file,
)

from mer_bench import registry
from mer_bench.cards import DatasetCard, SplitCount, SplitName
from mer_bench.data.preparation import PreparationRequest, import_files, open_or_prepare, prepare, resolve
from mer_bench.data.prosody import PROSODY
from mer_bench.data.scaling import Standardiser
from mer_bench.data.store import SPLITS, Store, check_content
from mer_bench.data.text.encoding import EncoderChain
from mer_bench.errors import DataError, MissingDataError

COLUMNS = [
    "Sr No.",
    "Utterance",
    "Speaker",
    "Emotion",
    "Sentiment",
    "Dialogue_ID",
    "Utterance_ID",
    "Season",
    "Episode",
    "StartTime",
    "EndTime",
]
SMALL = {"dialogues": 6, "utterances": 24}


def meld_card() -> DatasetCard:
    return registry.datasets().find("meld").card


@pytest.fixture
def card() -> DatasetCard:
    """MELD's card with the counts of the small files."""
    counts: dict[SplitName, SplitCount] = {split: SplitCount(**SMALL) for split in SPLITS}
    return meld_card().model_copy(update={"counts": {"official": counts}})


def transcript_rows() -> list[list[str]]:
    """Six dialogues of four utterances, with a gap in each, and speakers who come back."""
    rows = []
    emotions = list(meld_card().label_sets["emotion"].classes)
    for number in range(24):
        dialogue, utterance = divmod(number, 4)
        rows.append(
            [
                str(number + 1),
                f"Oh, I don\u2019t know {['the', 'a', 'that'][number % 3]} thing{'!' * (number % 2)}",
                ["Ross", "Joey", "Ross", "Mona"][utterance] if dialogue % 2 else "MRMJ"[utterance],
                emotions[number % 7],
                ["neutral", "positive", "negative"][number % 3],
                str(dialogue * 2),
                str(utterance + (utterance > 1)),
                "1",
                "2",
                "00:00:00,000",
                "00:00:01,000",
            ]
        )
    return rows


def prosody_rows() -> list[list[str]]:
    rng = np.random.default_rng(0)
    rows = []
    for row in transcript_rows():
        values = [repr(value) for value in rng.normal(5, 2, len(PROSODY)).tolist()]
        rows.append([f"dia{row[5]}_utt{row[6]}.wav", *values])
    return [rows[index] for index in rng.permutation(len(rows)).tolist()]


def write(file: Path, header: list[str], rows: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])
    return file


def raw_files(folder: Path) -> dict[str, Path]:
    files = {}
    for split in SPLITS:
        name = transcripts_file(split)
        files[name] = write(folder / name, COLUMNS, transcript_rows())
        name = prosody_file(split)
        files[name] = write(folder / name, ["filename", *PROSODY], prosody_rows())
    return files


def test_transcripts(tmp_path: Path, card: DatasetCard) -> None:
    file = write(tmp_path / "dev_sent_emo.csv", COLUMNS, transcript_rows())
    transcripts = read_transcripts(file, "dev", card)
    assert transcripts.keys[:5] == [(0, 0), (0, 1), (0, 3), (0, 4), (2, 0)]
    assert transcripts.speakers[:8] == ["M", "R", "M", "J", "Ross", "Joey", "Ross", "Mona"]
    assert transcripts.lengths == [4] * 6
    assert transcripts.dialogues == [0, 2, 4, 6, 8, 10]
    assert transcripts.labels["emotion"][:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert transcripts.labels["sentiment"][:4] == [0, 1, 2, 0]


Change = Callable[[list[list[str]]], object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows.pop(), "holds 23 utterances, but the published file holds 24"),
        (lambda rows: [rows.pop() for _ in range(4)], "holds 5 dialogues, but the published file holds 6"),
        (lambda rows: rows[6].__setitem__(3, "hapiness"), "line 8, column Emotion: should be one of neutral, "),
        (lambda rows: rows[6].__setitem__(4, "Neutral"), "line 8, column Sentiment: should be one of neutral, "),
        (lambda rows: rows[6].__setitem__(5, "two"), "line 8, column Dialogue_ID: should be a whole number, but is"),
        (lambda rows: rows[6].__setitem__(6, ""), "line 8, column Utterance_ID: should be a whole number"),
        (lambda rows: rows[6].__setitem__(6, "1"), "line 8, column Utterance_ID: should be above 1, but is 1"),
        (lambda rows: rows[6].__setitem__(1, " "), "line 8, column Utterance: is blank"),
        (lambda rows: rows[6].__setitem__(2, ""), "line 8, column Speaker: is blank"),
        (lambda rows: rows.append(rows.pop(0)), "line 25, column Dialogue_ID: dialogue 0 goes on here"),
        (lambda rows: rows[6].pop(), "line 8, column EndTime: the value is missing"),
    ],
)
def test_faults_of_transcripts(tmp_path: Path, card: DatasetCard, change: Change, expected: str) -> None:
    rows = transcript_rows()
    change(rows)
    file = write(tmp_path / "train_sent_emo.csv", COLUMNS, rows)
    with pytest.raises(DataError) as caught:
        read_transcripts(file, "train", card)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)


def test_prosody_is_joined_by_key(tmp_path: Path) -> None:
    keys = [(int(row[5]), int(row[6])) for row in transcript_rows()]
    rows = prosody_rows()
    by_name = {row[0]: row[1:] for row in rows}
    surplus = [["dia99_utt0.wav", *["1"] * 8], ["dia0_utt2.wav", *["1"] * 8]]
    by_name["dia2_utt1.wav"][3] = ""
    file = write(tmp_path / "p.csv", ["filename", *PROSODY], surplus + [[name, *v] for name, v in by_name.items()])
    prosody = read_prosody(file, "train", keys)
    assert prosody.surplus_rows == 2
    assert prosody.present.all()
    for (dialogue, utterance), found in zip(keys, prosody.values, strict=True):
        expected = [float(value or "nan") for value in by_name[f"dia{dialogue}_utt{utterance}.wav"]]
        assert np.array_equal(found, expected, equal_nan=True)


def test_only_the_known_broken_clips_may_lack_a_row(tmp_path: Path) -> None:
    rows = [["dia125_utt2.wav", *["1"] * 8]]
    file = write(tmp_path / "p.csv", ["filename", *PROSODY], rows)
    prosody = read_prosody(file, "train", [(125, 2), (125, 3)])
    assert prosody.present.tolist() == [True, False]
    assert np.isnan(prosody.values[1]).all()
    with pytest.raises(DataError, match=r"has no row for dia125_utt3\.wav\."):
        read_prosody(file, "dev", [(125, 2), (125, 3)])
    with pytest.raises(DataError, match=r"has no row for dia0_utt0\.wav and 1 more"):
        read_prosody(file, "train", [(0, 0), (0, 1), (125, 2)])


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (0, "dia2_utt1.mp4", "line 4, column filename: should look like dia12_utt3.wav, but is 'dia2_utt1.mp4'"),
        (4, "--undefined--", "line 4, column avg_pitch: should be a finite number or blank"),
        (8, "inf", "line 4, column mean_hnr: should be a finite number or blank"),
    ],
)
def test_faults_of_prosody(tmp_path: Path, column: int, value: str, expected: str) -> None:
    rows = prosody_rows()
    rows[2][column] = value
    file = write(tmp_path / "meld_dev_audio_features.csv", ["filename", *PROSODY], rows)
    with pytest.raises(DataError) as caught:
        read_prosody(file, "dev", [])
    assert str(caught.value).startswith(f"{file}, {expected}")
    write(file, ["filename", *PROSODY], [*prosody_rows(), prosody_rows()[0]])
    with pytest.raises(DataError, match=r"line 26, column filename: .* occurs twice"):
        read_prosody(file, "dev", [])


@pytest.mark.parametrize(("labels", "classes"), [("emotion", 7), ("sentiment", 3)])
def test_small_store(tmp_path: Path, card: DatasetCard, labels: str, classes: int) -> None:
    request = PreparationRequest("transcripts", labels, "official", None, raw_files(tmp_path))
    content = Meld(card).prepare(request)
    check_content(content)
    assert len(content.classes) == classes
    assert content.utterance_ids[:3] == ["train/dia0_utt0", "train/dia0_utt1", "train/dia0_utt3"]
    assert content.dialogue_ids[6] == "dev/dia0"
    assert content.settings["text"]["tfidf"]["blocks"]["class_scores"] == classes


def test_vectors_are_needed_and_their_checksum_kept(tmp_path: Path, card: DatasetCard) -> None:
    files = raw_files(tmp_path)
    with pytest.raises(MissingDataError, match="--vectors"):
        Meld(card).prepare(PreparationRequest("transcripts-vectors", "emotion", "official", None, files))
    vectors = tmp_path / "v.txt"
    vectors.write_text("oh 1 2\nthing 0 1\n! 5 5\n")
    options = {"vectors": vectors}
    content = Meld(card).prepare(PreparationRequest("transcripts-vectors", "emotion", "official", None, files, options))
    told = content.settings["text"]["vectors"]
    assert told["vectors_sha256"] == hashlib.sha256(vectors.read_bytes()).hexdigest()
    assert told["blocks"] == {"vectors": 2}


def test_test_texts_change_nothing_but_their_own_rows(tmp_path: Path, card: DatasetCard) -> None:
    files = raw_files(tmp_path)
    before = Meld(card).prepare(PreparationRequest("transcripts", "emotion", "official", None, files))
    rows = transcript_rows()
    for row in rows:
        row[1] = "Completely different words here!?"
        row[3] = "fear"
    write(files["test_sent_emo.csv"], COLUMNS, rows)
    write(files["meld_test_audio_features.csv"], ["filename", *PROSODY], [[r[0], *["7"] * 8] for r in prosody_rows()])
    after = Meld(card).prepare(PreparationRequest("transcripts", "emotion", "official", None, files))
    for modality in ("text", "audio"):
        assert np.array_equal(before.features[modality][:48], after.features[modality][:48])
        assert not np.array_equal(before.features[modality][48:], after.features[modality][48:])
    for name, array in before.pipeline.items():
        assert np.array_equal(array, after.pipeline[name])


def test_the_card_pins_what_the_feature_sets_need() -> None:
    card = meld_card()
    assert next(iter(card.label_sets)) == "emotion"
    assert next(iter(card.feature_sets)) == "transcripts"
    for source in (source for source in card.sources if source.repository):
        assert len(source.commit) == 40
        assert len(source.git_blob) == 40
    pinned = [source for source in card.sources if source.name.endswith(".csv")]
    assert len(pinned) == 6
    assert all(source.sha256 and source.bytes for source in pinned)


@pytest.fixture(scope="module")
def root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("meld")
    report = import_files("meld", shared_data / "published", root)
    assert report.ready[:2] == ("transcripts", "transcripts-vectors")
    return root


@pytest.fixture(scope="module")
def store(root: Path) -> Store:
    return open_or_prepare(resolve("meld"), root)


@pytest.fixture(scope="module")
def joined(shared_data: Path) -> dict[str, list[dict[str, str]]]:
    with (shared_data / "meld/utterances.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return {split: [row for row in rows if row["split"] == split] for split in SPLITS}


def seconds(time_of_day: str) -> float:
    """`0:02:12,500` and `00:02:12,500`, both of which the files write."""
    hours, minutes, rest = time_of_day.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.real_data
class TestReal:
    """Against the published files and the tables joined from them."""

    def test_pins(self, shared_data: Path) -> None:
        with (shared_data / "published/PINS.csv").open() as stream:
            pins = {row["path"]: row for row in csv.DictReader(stream)}
        for source in meld_card().sources:
            if source.name.endswith(".csv"):
                pin = pins[source.path]
                found = (source.repository, source.commit, source.git_blob, str(source.bytes), source.sha256)
                wanted = tuple(pin[key] for key in ("repository", "commit", "git_blob_sha1", "bytes", "sha256"))
                assert found == wanted

    def test_labels_speakers_and_order(self, store: Store, joined: dict[str, list[dict[str, str]]]) -> None:
        for split_name, rows in joined.items():
            split = store.split(split_name)
            assert split.labels is not None
            assert split.labels.tolist() == [int(row["emotion_index"]) for row in rows]
            assert split.speakers.tolist() == [int(row["speaker_index"]) for row in rows]
            utterances, dialogues = store.identifiers(split_name)
            assert utterances == [f"{split_name}/dia{row['dialogue_id']}_utt{row['utterance_id']}" for row in rows]
            assert dialogues == [f"{split_name}/dia{row['dialogue_id']}" for row in rows]
            position = [turn for length in split.lengths.tolist() for turn in range(length)]
            assert position == [int(row["position"]) for row in rows]

    def test_prosody(self, store: Store, shared_data: Path) -> None:
        with (shared_data / "meld/audio_prosody.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        raw = {
            split: np.array([[float(row[c] or "nan") for c in PROSODY] for row in rows if row["split"] == split])
            for split in SPLITS
        }
        there = {split: np.array([row["present"] == "1" for row in rows if row["split"] == split]) for split in SPLITS}
        mean, deviation = np.nanmean(raw["train"], axis=0), np.nanstd(raw["train"], axis=0)
        for split_name in SPLITS:
            split = store.split(split_name)
            assert np.array_equal(split.present["audio"].numpy(), there[split_name])
            blank = np.isnan(raw[split_name]) & there[split_name][:, None]
            expected = np.nan_to_num((raw[split_name] - mean) / deviation)
            audio = split.features["audio"].numpy()
            assert audio[:, :8] == pytest.approx(expected, abs=1e-4)
            assert np.array_equal(audio[:, 8:], blank[:, [3, 6]])
        train = store.split("train").features["audio"].numpy()[there["train"]]
        assert train[:, :8].mean(axis=0) == pytest.approx(np.zeros(8), abs=1e-5)
        assert (store.manifest.missing["audio"]["train"], store.manifest.missing["audio"]["dev"]) == (1, 1)

    def test_manifest(self, store: Store, shared_data: Path) -> None:
        manifest = store.manifest
        assert {split: (c.dialogues, c.utterances) for split, c in manifest.counts.items()} == {
            "train": (1038, 9989),
            "dev": (114, 1109),
            "test": (280, 2610),
        }
        assert dict(enumerate(store.classes)) == {
            index: name for name, index in json.loads((shared_data / "meld/labels.json").read_text())["emotion"].items()
        }
        assert list(manifest.class_histogram["train"].values()) == [4710, 1205, 268, 683, 1743, 271, 1109]
        assert list(manifest.class_histogram["dev"].values()) == [470, 150, 40, 111, 163, 22, 153]
        assert list(manifest.class_histogram["test"].values()) == [1256, 281, 50, 208, 402, 68, 345]
        assert manifest.speakers == 9
        surplus = [manifest.notes.get(f"{split}: surplus prosody rows, ignored", 0) for split in SPLITS]
        assert surplus == [0, 4, 5]
        assert store.widths == {"text": 321, "audio": 10}
        store.verify()

    def test_the_kept_state_encodes_new_dialogues_the_same_way(self, store: Store, root: Path) -> None:
        pipeline = store.pipeline()
        parts = {
            kind: {name.removeprefix(f"{kind}."): array for name, array in pipeline.items() if name.startswith(kind)}
            for kind in ("text", "audio")
        }
        transcripts = read_transcripts(root / "raw/meld/test_sent_emo.csv", "test", meld_card())
        encoder = EncoderChain.from_state(parts["text"], store.manifest.settings["text"])
        test = store.split("test")
        assert np.array_equal(encoder.transform(transcripts.texts), test.features["text"].numpy())
        prosody = read_prosody(root / "raw/meld" / prosody_file("test"), "test", transcripts.keys)
        scaler = Standardiser.from_state(parts["audio"], store.manifest.settings["audio"])
        assert np.array_equal(scaler.transform(prosody.values, prosody.present), test.features["audio"].numpy())

    def test_preparing_with_vectors_and_sentiment_takes_seconds(self, root: Path, shared_data: Path) -> None:
        vectors = shared_data / "glove-subset/glove840b300d_subset.npz"
        begin = time.process_time()
        store = prepare(resolve("meld", "transcripts-vectors", "sentiment"), root, {"vectors": vectors})
        # Processor seconds, since others may use the machine too; about 10 when measured.
        assert time.process_time() - begin < 60
        assert store.widths == {"text": 617, "audio": 10}
        assert store.classes == ("neutral", "positive", "negative")
        assert store.manifest.notes["train: share of tokens with a word vector"] == pytest.approx(0.83, abs=0.01)

    def test_what_the_card_says_of_the_files(self, root: Path) -> None:
        """Each number in the card's traps that a file of the annotation or the prosody tells."""
        traps = " ".join(meld_card().traps)
        rows: dict[str, list[dict[str, str]]] = {}
        for split in SPLITS:
            with (root / "raw/meld" / transcripts_file(split)).open(encoding="utf-8", newline="") as stream:
                rows[split] = list(csv.DictReader(stream))
        assert {int(row["Dialogue_ID"]) for row in rows["train"]} == set(range(1039)) - {60}
        gaps, backwards = [], 0
        for split in SPLITS:
            numbers: dict[str, list[int]] = {}
            for row in rows[split]:
                numbers.setdefault(row["Dialogue_ID"], []).append(int(row["Utterance_ID"]))
            gaps.append(sum(found != list(range(len(found))) for found in numbers.values()))
            backwards += sum(
                one["Dialogue_ID"] == two["Dialogue_ID"] and seconds(two["StartTime"]) < seconds(one["StartTime"])
                for one, two in pairwise(rows[split])
            )
        assert f"gaps in {sum(gaps)} dialogues (train {gaps[0]}, dev {gaps[1]}, test {gaps[2]})" in traps
        assert f"in {backwards} places an utterance begins before" in traps
        surprise = Counter(row["Sentiment"] for row in rows["train"] if row["Emotion"] == "surprise")
        assert f"({surprise['negative']} negative, {surprise['positive']} positive in train)" in traps
        others = {(row["Emotion"], row["Sentiment"]) for split in SPLITS for row in rows[split]}
        assert len({pair for pair in others if pair[0] != "surprise"}) == 6
        episodes = {split: {(row["Season"], row["Episode"]) for row in rows[split]} for split in SPLITS}
        shared = len(episodes["train"] & episodes["test"])
        assert f"({shared} of the {len(episodes['test'])} of test are in train too)" in traps
        everybody = sum(row["Speaker"] == "All" for split in SPLITS for row in rows[split])
        assert f"'All' ({everybody} utterances)" in traps
        assert len({row["Sr No."] for row in rows["train"]}) < len(rows["train"])
        blanks = {"avg_pitch": [0, 0, 0], "articulation_rate": [0, 0, 0]}
        for place, split in enumerate(SPLITS):
            keys = [(int(row["Dialogue_ID"]), int(row["Utterance_ID"])) for row in rows[split]]
            prosody = read_prosody(root / "raw/meld" / prosody_file(split), split, keys)
            for name, found in blanks.items():
                found[place] = int(np.isnan(prosody.values[prosody.present, PROSODY.index(name)]).sum())
        for (one, two, three), name in ((blanks["avg_pitch"], "unvoiced"), (blanks["articulation_rate"], "where it")):
            assert f"{one}, {two} and {three} {name}" in traps
