"""A corpus in five sessions, with and without folds: `sessions`, and `open-sessions` whose labels may be passed on."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mer_bench import registry

from .conftest import ShelfWriter

CARD = """
    title = "Sessions"
    summary = "Made-up dialogues in five sessions."
    entry = "dataset:Sessions"
    licence = "none"
    redistribute = {redistribute}
    synthetic = true
    modalities = ["text"]
    [label_sets.emotion]
    title = "Three"
    classes = ["calm", "glad", "cross"]
    [feature_sets.default]
    title = "Values"
    summary = "Noise around the label."
    widths = {{ text = 5 }}
    [protocols.loso]
    title = "One session held out"
    folds = 5
    [protocols.session3]
    title = "The third fold of loso as a split of its own"
    [protocols.overlap]
    title = "Both folds test the first session"
    folds = 2
    [protocols.shared-dev]
    title = "Two folds choose on the same session"
    folds = 2
    [protocols.mute]
    title = "The dev split has no labels"
    [subsets.scripted]
    title = "Scripted"
    summary = "From a script."
    [subsets.improvised]
    title = "Improvised"
    summary = "Without one."
"""

DATASET = """
    from mer_bench.api import Dataset, PreparationRequest, StoreContent
    import numpy as np

    DIALOGUES = 4  # a session

    class Sessions(Dataset):
        def prepare(self, request: PreparationRequest) -> StoreContent:
            held_out = {"loso": request.fold, "shared-dev": request.fold, "overlap": 1}.get(request.protocol, 3)
            dev = 5 if request.protocol == "shared-dev" else held_out % 5 + 1
            rows = []
            for session in range(1, 6):
                random = np.random.default_rng(session)
                for number in range(DIALOGUES):
                    length = int(random.integers(3, 8))
                    labels = random.integers(-1, 3, length)
                    labels[0] = number % 3
                    values = random.normal(0, 0.7, (length, 5)) + 1.8 * np.eye(5)[labels]
                    split = 2 if session == held_out else 1 if session == dev else 0
                    kind = "script" if number % 2 else "impro"
                    rows.append((split, f"Ses0{session}_{kind}{number}", labels, values, random.integers(0, 2, length)))
            rows.sort(key=lambda row: row[0])
            labels = np.concatenate([row[2] for row in rows])
            splits = np.array([row[0] for row in rows], dtype=np.uint8)
            lengths = [len(row[2]) for row in rows]
            if request.protocol == "mute":
                labels[np.repeat(splits, lengths) == 1] = -1
            speakers = np.concatenate([row[4] ^ row[4][0] for row in rows])
            return StoreContent(
                features={"text": np.concatenate([row[3] for row in rows]).astype(np.float32)},
                present={"text": np.ones(len(labels), dtype=np.bool_)},
                speakers=speakers.astype(np.int16),
                labels=labels.astype(np.int16),
                utterance_ids=[f"{row[1]}_{turn:03}" for row in rows for turn in range(len(row[2]))],
                dialogue_ids=[row[1] for row in rows],
                offsets=np.cumsum([0, *lengths], dtype=np.int64),
                splits=splits,
                classes=("calm", "glad", "cross"),
                subsets={
                    "scripted": np.array(["script" in row[1] for row in rows]),
                    "improvised": np.array(["impro" in row[1] for row in rows]),
                },
                settings={"held out": held_out},
            )
"""


@contextmanager
def sessions_installed(folder: Path) -> Iterator[None]:
    """Both corpora, in a distribution of its own in a folder, for as long as the context is open."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        plugins = {
            name: {"__init__.py": '"""Made up."""', "card.toml": CARD.format(redistribute=free), "dataset.py": DATASET}
            for name, free in (("sessions", "false"), ("open_sessions", "true"))
        }
        ShelfWriter(folder).add("datasets", "shelf_of_sessions", plugins)
        yield
        for name in set(sys.modules) - before:
            if name.startswith("shelf_of_sessions"):
                del sys.modules[name]
    importlib.invalidate_caches()
    registry.forget()
