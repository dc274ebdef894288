"""A store in numbers: against counting by hand, and against the statistics module."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.data.description import Tally, describe_store
from mer_bench.data.store import SPLITS, StoreContent, write_store
from mer_bench.locations import StoreKey


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_a_tally_is_what_statistics_says(values: list[int]) -> None:
    tally = Tally.of(np.array(values))
    assert tally.total == len(values)
    assert (tally.lowest, tally.highest) == (min(values), max(values))
    assert tally.median == statistics.median(values)
    assert tally.mean == pytest.approx(statistics.fmean(values))
    assert list(tally.counts) == sorted(set(values))


def test_an_empty_tally_has_no_numbers() -> None:
    tally = Tally.of(np.zeros(0, dtype=np.int64))
    assert (tally.total, tally.lowest, tally.highest, tally.mean, tally.median) == (0, None, None, None, None)


def content(texts: list[str] | None = None) -> StoreContent:
    """Train: dialogues of 3 and 1 utterances by 2 and 1 speakers; dev: 2 by 2; test: 4 by 3."""
    present = np.array([1, 1, 0, 1, 1, 0, 1, 1, 0, 0], dtype=np.bool_)
    return StoreContent(
        features={"text": np.ones((10, 2), np.float32), "audio": present[:, None].astype(np.float32)},
        present={"text": np.ones(10, np.bool_), "audio": present},
        speakers=np.array([0, 1, 0, 0, 0, 1, 0, 1, 2, 0], np.int16),
        labels=np.array([0, 1, 1, -1, 2, 2, 0, 0, -1, 1], np.int16),
        utterance_ids=[f"u{number}" for number in range(10)],
        dialogue_ids=["a", "b", "c", "d"],
        offsets=np.array([0, 3, 4, 6, 10]),
        splits=np.array([0, 0, 1, 2], np.uint8),
        classes=("calm", "glad", "sad"),
        texts=texts,
    )


def test_counts_by_hand(tmp_path: Path) -> None:
    key = StoreKey("made-up", "tiny", "mood", "official")
    description = describe_store(write_store(tmp_path / "store", content(), key, {}))
    assert description.key == key
    assert description.widths == {"text": 2, "audio": 1}
    assert list(description.splits) == list(SPLITS)
    train, dev, test = description.splits.values()
    assert [(each.dialogues, each.utterances, each.labelled) for each in (train, dev, test)] == [
        (2, 4, 3),
        (1, 2, 2),
        (1, 4, 3),
    ]
    assert train.labels == {"calm": 1, "glad": 2, "sad": 0}
    assert train.label_share("glad") == pytest.approx(2 / 3)
    assert test.unlabelled_share == 0.25
    assert [each.lengths.counts for each in (train, dev, test)] == [{1: 1, 3: 1}, {2: 1}, {4: 1}]
    assert [each.speakers.counts for each in (train, dev, test)] == [{1: 1, 2: 1}, {2: 1}, {3: 1}]
    assert [each.missing for each in (train, dev, test)] == [
        {"text": 0, "audio": 1},
        {"text": 0, "audio": 1},
        {"text": 0, "audio": 2},
    ]
    assert test.missing_share("audio") == 0.5
    assert description.overlaps == ()
    assert test.overlap is None


def test_overlap_is_the_manifests(tmp_path: Path) -> None:
    texts = ["one two three four", "b", "c", "five six seven eight", "x", "y", "One two, three FOUR!", "d", "e", "f"]
    store = write_store(tmp_path / "store", content(texts), StoreKey("made-up", "tiny", "mood", "official"), {})
    description = describe_store(store)
    assert description.overlaps == store.manifest.overlap
    overlap = description.splits["test"].overlap
    assert overlap is not None
    assert (overlap.split, overlap.subset, overlap.share) == ("test", "", 1.0)
    assert description.splits["train"].overlap is None


def test_a_split_without_dialogues(tmp_path: Path) -> None:
    whole = content()
    part = StoreContent(
        features={name: values[:4] for name, values in whole.features.items()},
        present={name: values[:4] for name, values in whole.present.items()},
        speakers=whole.speakers[:4],
        labels=whole.labels[:4],
        utterance_ids=whole.utterance_ids[:4],
        dialogue_ids=whole.dialogue_ids[:2],
        offsets=whole.offsets[:3],
        splits=whole.splits[:2],
        classes=whole.classes,
    )
    store = write_store(tmp_path / "store", part, StoreKey("made-up", "tiny", "mood", "official"), {})
    dev = describe_store(store).splits["dev"]
    assert (dev.label_share("calm"), dev.missing_share("audio"), dev.unlabelled_share) == (None, None, None)
    assert dev.lengths.total == 0
