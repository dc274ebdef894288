"""`mer-bench data verify`: states and problems, and how much of dev and test stands in train."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mer_bench_datasets.meld_synthetic.generator import generate

from mer_bench.data.store import SPLITS, open_store, write_store
from mer_bench.locations import StoreKey, raw_folder, store_folder

from .conftest import Invoke


@pytest.fixture
def root(synthetic: Path, tmp_path: Path) -> Path:
    shutil.copytree(synthetic, tmp_path / "data")
    return tmp_path / "data"


def add_texts(root: Path, labels: str = "emotion", sources: dict[str, str] | None = None) -> None:
    """Another store of the synthetic dialogues, in which every second test dialogue repeats the same sentence."""
    content = generate([4, 2, 4])
    lengths = np.diff(content.offsets)
    splits = np.repeat(content.splits, lengths)
    odd = np.repeat(np.arange(10) % 2 == 1, lengths)
    texts = [
        "We say this in train." if split == 0 or (split == 2 and repeats) else f"utterance number {row} is new"
        for row, (split, repeats) in enumerate(zip(splits.tolist(), odd.tolist(), strict=True))
    ]
    content = dataclasses.replace(content, texts=texts, subsets={"odd": np.arange(10) % 2 == 1})
    key = StoreKey("meld-synthetic", "default", labels, "official")
    write_store(store_folder(root, key), content, key, sources or {})


def test_the_overlap_is_shown_and_answered(invoke: Invoke, root: Path) -> None:
    add_texts(root)
    result = invoke("data", "verify", "meld-synthetic")
    assert result.exit_code == 0
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert "Scored utterances of 4 words or more that stand there word for word" in lines
    answer = json.loads(invoke("data", "verify", "meld-synthetic", "--json").stdout)
    (store,) = answer["checked"]
    assert store["state"] == "good"
    whole, part = (each for each in store["overlap"] if each["split"] == "test")
    assert (whole["subset"], part["subset"]) == ("", "odd")
    assert part["share"] == 1.0
    assert 0 < whole["share"] == whole["in_train"] / whole["compared"] < 1
    told = f"{100 * whole['share']:.1f} % ({whole['in_train']} of {whole['compared']})"
    dev = next(each for each in store["overlap"] if each["split"] == "dev")
    row = next(line for line in lines if line.startswith("whole (emotion, official)"))
    assert row.count(told) == 2
    assert f"0.0 % (0 of {dev['compared']})" in row
    assert any(line.startswith("odd (emotion, official)") and "100.0 %" in line for line in lines)


def test_a_part_is_shown_once_for_feature_sets_that_agree(invoke: Invoke, root: Path) -> None:
    add_texts(root)
    first = StoreKey("meld-synthetic", "default", "emotion", "official")
    store = open_store(store_folder(root, first))
    content = generate([4, 2, 4])
    for features, texts in (
        ("same", [text for split in SPLITS for text in store.texts(split) or ()]),
        ("other", ["We say this in train."] * len(content.utterance_ids)),
    ):
        key = dataclasses.replace(first, features=features)
        subsets = {"odd": np.arange(10) % 2 == 1}
        write_store(store_folder(root, key), dataclasses.replace(content, texts=texts, subsets=subsets), key, {})
    lines = invoke("data", "verify", "meld-synthetic").stdout.splitlines()
    assert len([line for line in lines if line.startswith("whole (emotion, official)")]) == 2


def test_a_store_without_texts_says_so(invoke: Invoke, root: Path) -> None:
    result = invoke("data", "verify", "meld-synthetic")
    assert "no texts are kept in meld-synthetic/default (emotion, official), so nothing could be compared there." in (
        result.stdout
    )
    (store,) = json.loads(invoke("data", "verify", "meld-synthetic", "--json").stdout)["checked"]
    assert store["overlap"] is None


def test_other_sources_are_an_error(invoke: Invoke, root: Path) -> None:
    add_texts(root, sources={"mine.csv": "ab" * 32})
    assert invoke("data", "verify", "meld-synthetic").exit_code == 0
    raw_folder(root, "meld-synthetic").mkdir(parents=True)
    (raw_folder(root, "meld-synthetic") / "mine.csv").write_text("another")
    result = invoke("data", "verify", "meld-synthetic")
    assert result.exit_code == 2
    assert "other sources" in result.stdout
    assert "was prepared from another mine.csv than the one that is there now" in result.stderr
    assert result.stderr.count("\n") == 1
