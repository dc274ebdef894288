"""How much of dev and test stands word for word in train: by hand, by an independent count, on the real corpora."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.data.overlap import FEWEST_WORDS, Overlap, measure_overlap, spoken_words

SPLIT_NUMBERS = {"train": 0, "dev": 1, "valid": 1, "test": 2}
Row = tuple[str, str, str, bool]


def measured(rows: Iterable[Row]) -> dict[tuple[str, str], Overlap]:
    """Rows of (split, subset or "", text, labelled), each a dialogue of its own."""
    rows = list(rows)
    found = measure_overlap(
        texts=[text for _, _, text, _ in rows],
        labels=np.array([0 if labelled else -1 for *_, labelled in rows]),
        lengths=np.ones(len(rows), dtype=np.int64),
        splits=np.array([SPLIT_NUMBERS[split] for split, *_ in rows]),
        subsets={
            name: np.array([subset == name for _, subset, _, _ in rows])
            for name in sorted({row[1] for row in rows} - {""})
        },
    )
    return {(each.split, each.subset): each for each in found}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I don't KNOW, okay?!", ["i", "dont", "know", "okay"]),
        ("I don\u2019t know", ["i", "dont", "know"]),
        ("I don\x92t know", ["i", "dont", "know"]),  # as Windows-1252 left it in a published file
        ("[LAUGHTER] oh -- my... God", ["laughter", "oh", "my", "god"]),
        ("well-known  \t\n\u00a0\u3000 one_two 3.5%", ["wellknown", "onetwo", "35"]),
        ("zero\u200bwidth", ["zerowidth"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("हिन्दी में", ["हिन्दी", "में"]),  # marks are part of a word
        ("你好吗?", ["你", "好", "吗"]),
        ("これはペン", ["こ", "れ", "は", "ペ", "ン"]),
        ("", []),
        ("... !? -", []),
        ("👩\u200d🚀", []),
    ],
)
def test_what_counts_as_the_same_words(text: str, words: list[str]) -> None:
    assert spoken_words(text) == words


def test_a_case_by_hand() -> None:
    found = measured(
        [
            ("train", "scripted", "Where have you been, Johnny?", True),
            ("train", "improvised", "I never got a label here.", False),
            ("train", "improvised", "oh my god", True),
            ("dev", "scripted", "where have you been johnny", True),
            ("dev", "improvised", "only dev says this sentence", True),
            ("test", "scripted", "Where have you been Johnny", True),
            ("test", "scripted", "WHERE HAVE YOU BEEN -- JOHNNY!", True),
            ("test", "scripted", "Where have you been?", True),  # not the whole of it
            ("test", "improvised", "Only dev says this sentence.", True),
            ("test", "improvised", "I never got a label here", True),
            ("test", "improvised", "Oh my God!", True),  # too short
            ("test", "improvised", "Where have you been, Johnny?", False),  # not scored
        ]
    )
    assert {key: (each.compared, each.in_train, each.in_train_or_dev) for key, each in found.items()} == {
        ("dev", ""): (2, 1, None),
        ("dev", "improvised"): (1, 0, None),
        ("dev", "scripted"): (1, 1, None),
        ("test", ""): (5, 2, 3),
        ("test", "improvised"): (2, 0, 1),
        ("test", "scripted"): (3, 2, 2),
    }
    assert found["test", ""].share == 0.4
    assert found["test", ""].share_with_dev == 0.6
    assert found["dev", ""].share == 0.5
    assert found["dev", ""].share_with_dev is None


def test_dialogues_of_several_utterances() -> None:
    found = measure_overlap(
        texts=["a b c d", "x", "a b c d", "e f g h", "a b c d"],
        labels=np.array([0, 1, 2, 0, 1]),
        lengths=np.array([2, 1, 2]),
        splits=np.array([0, 2, 2]),
        subsets={"late": np.array([False, False, True])},
    )
    assert [(each.split, each.subset, each.compared, each.in_train) for each in found] == [
        ("test", "", 3, 2),
        ("test", "late", 2, 1),
    ]


def test_nothing_to_compare_has_no_share() -> None:
    found = measured([("train", "", "a b c d", True), ("test", "", "yes", True)])
    assert list(found) == [("test", "")]
    assert found["test", ""].share is None
    assert found["test", ""].share_with_dev is None


words = st.lists(st.sampled_from("ab"), min_size=1, max_size=6).map(" ".join)
rows = st.tuples(st.sampled_from(["train", "dev", "test"]), st.sampled_from(["", "p", "q"]), words, st.booleans())


@settings(max_examples=150, deadline=None)
@given(given_rows=st.lists(rows, min_size=1, max_size=30))
def test_an_independent_count_agrees(given_rows: list[Row]) -> None:
    scored = [(split, subset, text) for split, subset, text, labelled in given_rows if labelled]
    for (split, subset), each in measured(given_rows).items():
        long = [
            text
            for its_split, its_subset, text in scored
            if its_split == split and subset in ("", its_subset) and text.count(" ") >= FEWEST_WORDS - 1
        ]
        train = [text for its_split, _, text in scored if its_split == "train"]
        either = [text for its_split, _, text in scored if its_split in ("train", "dev")]
        assert each.compared == len(long)
        assert each.in_train == sum(train.count(text) > 0 for text in long)
        if split == "test":
            assert each.in_train_or_dev == sum(either.count(text) > 0 for text in long)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_words_are_stable(text: str) -> None:
    found = spoken_words(text)
    assert all(found)
    assert spoken_words(" ".join(found)) == found or any(ord(letter) > 127 for letter in text)
    assert spoken_words(f"  {text}!? ") == found


def plain(text: str) -> str:
    """An independent normalisation for English."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


def count(train: list[str], test: list[str]) -> tuple[int, int]:
    said = {plain(text) for text in train}
    long = [plain(text) for text in test if len(plain(text).split()) >= 4]
    return len(long), sum(text in said for text in long)


@pytest.mark.real_data
def test_the_scripts_of_iemocap_recur(shared_data: Path) -> None:
    with (shared_data / "iemocap" / "utterances.csv").open(encoding="utf-8", newline="") as stream:
        table = [row for row in csv.DictReader(stream) if row["emotion6_index"]]
    assert len(table) == 7433
    parts = {"script": "scripted", "impro": "improvised"}
    found = measured((row["split"], parts[row["type"]], row["text"], True) for row in table)
    shares = {name: found["test", name] for name in ("", "scripted", "improvised")}
    # As usually split into 120 dialogues to train (and choose) on and 31 to test: 23 %, and 0.4 %.
    assert {name: round(100 * (each.share_with_dev or 0), 2) for name, each in shares.items()} == {
        "": 10.63,
        "scripted": 22.98,
        "improvised": 0.42,
    }
    assert {name: round(100 * (each.share or 0), 2) for name, each in shares.items()} == {
        "": 10.47,
        "scripted": 22.81,
        "improvised": 0.28,
    }
    for kind, name in parts.items():
        texts = {
            split: [row["text"] for row in table if row["split"] == split and row["type"] == kind]
            for split in ("train", "valid", "test")
        }
        everywhere = [row["text"] for row in table if row["split"] == "train"]
        assert (shares[name].compared, shares[name].in_train) == count(everywhere, texts["test"])


@pytest.mark.real_data
def test_meld_hardly_repeats_itself(shared_data: Path) -> None:
    texts: dict[str, list[str]] = {}
    for split in ("train", "dev", "test"):
        (file,) = shared_data.glob(f"published/declare-lab/MELD/*/data/MELD/{split}_sent_emo.csv")
        with file.open(encoding="utf-8", newline="") as stream:
            texts[split] = [row["Utterance"] for row in csv.DictReader(stream)]
    found = measured((split, "", text, True) for split, spoken in texts.items() for text in spoken)
    assert round(100 * (found["test", ""].share or 0), 2) == 1.32
    assert round(100 * (found["dev", ""].share or 0), 2) == 0.88
    assert (found["test", ""].compared, found["test", ""].in_train) == count(texts["train"], texts["test"])
