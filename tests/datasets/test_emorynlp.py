"""EmoryNLP from its csv files: small made-up ones with every fault, and the real ones against a community pickle."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mer_bench_datasets.emorynlp.reader import (
    SENTIMENT,
    EmoryNlp,
    read_corpus,
    read_scenes,
    scene_id,
    source_of,
)

from mer_bench import registry
from mer_bench.cards import DatasetCard, SplitCount, SplitName
from mer_bench.data.community import compare, read_release
from mer_bench.data.corpus import Corpus, speaker_indices
from mer_bench.data.preparation import PreparationRequest, import_files
from mer_bench.data.restricted_pickle import load_restricted
from mer_bench.data.store import SPLITS, check_content
from mer_bench.errors import DataError

COLUMNS = ["Utterance", "Speaker", "Emotion", "Scene_ID", "Utterance_ID", "Season", "Episode", "Start_Time", "End_Time"]
SMALL = {"dialogues": 6, "utterances": 24}
SPEAKERS = [
    "['Ross Geller']",
    "['Monica Geller', 'Ross Geller']",
    """["Phoebe's Assistant"]""",
    """["Amanda (Ross' date)", '#ALL#']""",
]
COSMIC = ["Joyful", "Mad", "Peaceful", "Neutral", "Sad", "Powerful", "Scared"]
"""What the labels 0 to 6 of the COSMIC release mean."""


def emorynlp_card() -> DatasetCard:
    return registry.datasets().find("emorynlp").card


@pytest.fixture
def card() -> DatasetCard:
    """EmoryNLP's card with the counts of the small files."""
    counts: dict[SplitName, SplitCount] = {split: SplitCount(**SMALL) for split in SPLITS}
    return emorynlp_card().model_copy(update={"counts": {"official": counts}})


def rows_of(season: int) -> list[list[str]]:
    """Six scenes of four utterances, three an episode, so that scene numbers repeat, with a gap in each."""
    rows = []
    for number in range(24):
        scene, utterance = divmod(number, 4)
        rows.append(
            [
                f"Oh, I {['know', 'see', 'went'][number % 3]} the thing{'!' * (number % 2)}",
                SPEAKERS[utterance],
                COSMIC[number % 7],
                str(scene % 3 + 1),
                str(utterance + 1 + (utterance > 1)),
                str(season),
                str(scene // 3 + 1),
                "00:00:00.000",
                "00:00:01.000",
            ]
        )
    return rows


def write(file: Path, rows: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    return file


def raw_files(folder: Path) -> dict[str, Path]:
    return {source_of(split): write(folder / source_of(split), rows_of(place)) for place, split in enumerate(SPLITS, 1)}


def request(files: dict[str, Path], labels: str = "emotion") -> PreparationRequest:
    return PreparationRequest("transcripts", labels, "official", None, files)


def test_scenes(tmp_path: Path, card: DatasetCard) -> None:
    scenes = read_scenes(write(tmp_path / "emorynlp_dev_final.csv", rows_of(2)), "dev", card)
    assert scenes.keys[:5] == [((2, 1, 1), 1), ((2, 1, 1), 2), ((2, 1, 1), 4), ((2, 1, 1), 5), ((2, 1, 2), 1)]
    assert scenes.scenes == [(2, 1, 1), (2, 1, 2), (2, 1, 3), (2, 2, 1), (2, 2, 2), (2, 2, 3)]
    assert scenes.lengths == [4] * 6
    assert scenes.emotions[:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert scenes.speakers[:4] == [
        ("Ross Geller",),
        ("Monica Geller", "Ross Geller"),
        ("Phoebe's Assistant",),
        ("Amanda (Ross' date)", "#ALL#"),
    ]
    assert scenes.left_out == 6


def test_utterances_left_out_are_counted_at_the_start_too(tmp_path: Path, card: DatasetCard) -> None:
    rows = rows_of(1)
    for row in rows[:4]:
        row[4] = str(int(row[4]) + 3)
    assert read_scenes(write(tmp_path / "emorynlp_dev_final.csv", rows), "dev", card).left_out == 9


Change = Callable[[list[list[str]]], object]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows.pop(), "holds 23 utterances, but the published file holds 24"),
        (lambda rows: [rows.pop() for _ in range(4)], "holds 5 scenes, but the published file holds 6"),
        (lambda rows: rows[6].__setitem__(2, "Joyfull"), "line 8, column Emotion: should be one of Joyful, "),
        (lambda rows: rows[6].__setitem__(2, "joyful"), "line 8, column Emotion: should be one of Joyful, "),
        (lambda rows: rows[6].__setitem__(3, "2.0"), "line 8, column Scene_ID: should be a whole number, but is '2.0'"),
        (lambda rows: rows[6].__setitem__(4, ""), "line 8, column Utterance_ID: should be a whole number"),
        (lambda rows: rows[6].__setitem__(4, "2"), "line 8, column Utterance_ID: should be above 2, but is 2"),
        (lambda rows: rows[6].__setitem__(5, "one"), "line 8, column Season: should be a whole number"),
        (lambda rows: rows[6].__setitem__(0, " "), "line 8, column Utterance: is blank"),
        (lambda rows: rows[6].__setitem__(1, ""), "line 8, column Speaker: is blank"),
        (lambda rows: rows[6].__setitem__(1, "Ross Geller"), "line 8, column Speaker: should look like ['Monica Gel"),
        (lambda rows: rows[6].__setitem__(1, "[]"), "line 8, column Speaker: should look like ['Monica Geller'"),
        (lambda rows: rows[6].__setitem__(1, "['Ross', print(1)]"), "line 8, column Speaker: should look like"),
        (lambda rows: rows[6].__setitem__(1, "['Ross'"), "line 8, column Speaker: should look like"),
        (lambda rows: rows.append(rows.pop(0)), "line 25, column Scene_ID: the scene s01_e01_c01 goes on here"),
        (lambda rows: rows[6].pop(), "line 8, column End_Time: the value is missing"),
    ],
)
def test_faults(tmp_path: Path, card: DatasetCard, change: Change, expected: str) -> None:
    rows = rows_of(1)
    change(rows)
    file = write(tmp_path / "emorynlp_train_final.csv", rows)
    with pytest.raises(DataError) as caught:
        read_scenes(file, "train", card)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)
    with pytest.raises(DataError) as again:
        EmoryNlp(card).examine("emorynlp_train_final.csv", file)
    assert str(again.value) == str(caught.value)


def test_a_scene_in_two_splits_is_refused(tmp_path: Path, card: DatasetCard) -> None:
    files = raw_files(tmp_path)
    write(files[source_of("test")], rows_of(1))
    with pytest.raises(DataError, match=r"holds the scene s01_e01_c01, which emorynlp_train_final\.csv has too"):
        read_corpus(card, request(files))


def test_the_first_of_several_speakers_counts(tmp_path: Path, card: DatasetCard) -> None:
    corpus = read_corpus(card, request(raw_files(tmp_path)))
    assert corpus.speakers[:4] == ["Ross Geller", "Monica Geller", "Phoebe's Assistant", "Amanda (Ross' date)"]
    assert corpus.dialogue_ids[:2] == ["s01_e01_c01", "s01_e01_c02"]
    assert corpus.utterance_ids[:4] == [f"s01_e01_c01_u{number:03}" for number in (1, 2, 4, 5)]
    assert corpus.notes["train: utterances of several speakers, counted as the first one's"] == 12
    assert corpus.notes["test: utterances of these scenes that the file leaves out"] == 6


@pytest.mark.parametrize(("labels", "classes"), [("emotion", 7), ("sentiment", 3)])
def test_small_store(tmp_path: Path, card: DatasetCard, labels: str, classes: int) -> None:
    content = EmoryNlp(card).prepare(request(raw_files(tmp_path), labels))
    check_content(content)
    assert len(content.classes) == classes
    named = [content.classes[label] for label in content.labels[:7].tolist()]
    by_hand = ["positive", "negative", "positive", "neutral", "negative", "positive", "negative"]
    assert named == (COSMIC if labels == "emotion" else by_hand)


def test_the_card_pins_what_the_feature_sets_need() -> None:
    card = emorynlp_card()
    assert next(iter(card.label_sets)) == "emotion"
    assert next(iter(card.feature_sets)) == "transcripts"
    assert list(card.label_sets["emotion"].classes) == COSMIC == sorted(SENTIMENT, key=COSMIC.index)
    for source in (source for source in card.sources if source.repository):
        assert source.bytes
        assert len(source.commit) == len(source.git_blob) == 40
        assert len(source.sha256) == 64


@pytest.fixture(scope="module")
def corpora(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """The real corpus under both label sets."""
    root = tmp_path_factory.mktemp("emorynlp")
    report = import_files("emorynlp", shared_data / "published", root)
    assert "transcripts" in report.ready
    files = {name: root / "raw" / "emorynlp" / name for name in report.imported}
    card = emorynlp_card()
    return {labels: read_corpus(card, request(files, labels)) for labels in card.label_sets}


@pytest.mark.real_data
class TestReal:
    """Against the published files and the COSMIC release of the same corpus."""

    def test_the_annotation_is_named_as_releases_name_it(self, shared_data: Path, tmp_path: Path) -> None:
        import_files("emorynlp", shared_data / "published", tmp_path)
        known = registry.load_dataset("emorynlp").annotation("emotion", tmp_path / "raw" / "emorynlp")
        file = next(
            (shared_data / "published").glob("*/conv-emotion/*/COSMIC/feature-extraction/emorynlp/emorynlp.pkl")
        )
        found = compare(read_release([file]).corpus(), known)
        assert (found.dialogues, found.utterances) == (827, 9489)
        assert registry.load_dataset("emorynlp").annotation("emotion", tmp_path) is None

    def test_counts_and_classes(self, corpora: dict[str, Corpus]) -> None:
        corpus = corpora["emotion"]
        split_of = np.asarray(corpus.splits)[corpus.dialogue_index]
        expected = {
            0: [1677, 785, 638, 2485, 474, 551, 941],
            1: [205, 97, 82, 322, 51, 70, 127],
            2: [217, 86, 111, 288, 70, 96, 116],
        }
        for split, histogram in expected.items():
            assert np.bincount(np.asarray(corpus.labels)[split_of == split]).tolist() == histogram
        assert Counter(corpus.splits) == {0: 659, 1: 89, 2: 79}
        assert [max(corpus.lengths), min(corpus.lengths)] == [25, 1]

    def test_it_agrees_with_the_cosmic_release(self, corpora: dict[str, Corpus], shared_data: Path) -> None:
        (file,) = (shared_data / "published/declare-lab/conv-emotion").glob("*/COSMIC/*/emorynlp/emorynlp.pkl")
        speakers, labels, sentences, train, test, dev = load_restricted(file)
        corpus = corpora["emotion"]
        names = {scene_id((int(s), int(e), int(c))): key for key in labels for s, e, c in [key.split("_")]}
        for number, ids in enumerate((train, dev, test)):
            found = [name for name, split in zip(corpus.dialogue_ids, corpus.splits, strict=True) if split == number]
            assert {names[name] for name in found} == set(ids)
        assert corpus.texts is not None
        start = 0
        for name, length in zip(corpus.dialogue_ids, corpus.lengths, strict=True):
            rows = slice(start, start + length)
            assert list(labels[names[name]]) == list(corpus.labels[rows])
            assert list(sentences[names[name]]) == list(corpus.texts[rows])
            who = [int(np.argmax(one_hot)) for one_hot in speakers[names[name]]]
            expected = speaker_indices(who, [length]).tolist()
            assert speaker_indices(corpus.speakers[rows], [length]).tolist() == expected
            start += length

    def test_sentiment_is_grouped_as_cosmic_does(self, corpora: dict[str, Corpus]) -> None:
        # Its loader: 1, 4 and 6 are 0 negative, 3 is 1 neutral, 0, 2 and 5 are 2 positive.
        grouped = [{1: 0, 4: 0, 6: 0, 3: 1, 0: 2, 2: 2, 5: 2}[label] for label in corpora["emotion"].labels]
        assert list(corpora["sentiment"].labels) == grouped
        assert emorynlp_card().label_sets["sentiment"].classes == ("negative", "neutral", "positive")

    def test_what_the_card_says_of_the_files(self, corpora: dict[str, Corpus]) -> None:
        corpus = corpora["emotion"]
        notes = corpus.notes
        several = [notes[f"{split}: utterances of several speakers, counted as the first one's"] for split in SPLITS]
        assert several == [50, 4, 7]
        assert sum(speaker == "#ALL#" for speaker in corpus.speakers) == 81
        clip_show = [name.startswith("s04_e21") for name in corpus.dialogue_ids]
        assert {corpus.splits[place] for place, is_it in enumerate(clip_show) if is_it} == {1}
        assert sum(length for length, is_it in zip(corpus.lengths, clip_show, strict=True) if is_it) == 131
        numbers = [int(name.rsplit("_u", 1)[1]) for name in corpus.utterance_ids]
        jumps, late = np.zeros(3, int), np.zeros(3, int)
        start = 0
        for length, split in zip(corpus.lengths, corpus.splits, strict=True):
            here = numbers[start : start + length]
            jumps[split] += bool((np.diff(here) > 1).any())
            late[split] += here[0] != 1
            start += length
        assert jumps.tolist() == [531, 72, 58]
        assert late.tolist() == [511, 74, 72]
        episodes = [
            {n[:7] for n, s in zip(corpus.dialogue_ids, corpus.splits, strict=True) if s == k} for k in range(3)
        ]
        assert [len(each) for each in episodes] == [77, 11, 9]
        assert len(set().union(*episodes)) == 97
