"""A small corpus of talks with words and measurements, and models that were trained on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import mer_bench
from mer_bench import registry
from mer_bench.data.own.importing import import_own
from mer_bench.predictions import Predictions, read_predictions
from mer_bench.records import Record, predictions_file, private_file, record_file, record_folder

WORDS = ("tea", "bread!", "bus", "rain?", "night", "song", "lamp", "stone...", "HELLO", "you", "and", "me")


@dataclass(frozen=True)
class Trained:
    """A run on the talks.

    Attributes:
        file: Its record. root: The data folder.
    """

    file: Path
    record: Record
    root: Path

    @property
    def predictions(self) -> Predictions:
        """By utterance: those of a corpus that may not be passed on lie in a file of their own."""
        private = private_file(self.file.parent, self.record.run)
        shared = predictions_file(self.file.parent, self.record.run)
        return read_predictions(private if private.exists() else shared)


@dataclass(frozen=True)
class Talks:
    """The corpus, row by row, as it was written; `audio` has blanks, and rows that are missing."""

    rows: list[dict[str, Any]]
    audio: NDArray[np.float64]
    root: Path
    out: Path

    def of_test(self, *columns: str) -> list[dict[str, Any]]:
        return [{name: row[name] for name in columns} for row in self.rows if row["split"] == "test"]

    @property
    def test_audio(self) -> NDArray[np.float64]:
        return self.audio[[row["split"] == "test" for row in self.rows]]

    def train(self, model: str, modalities: tuple[str, ...], settings: Mapping[str, Any] | None = None) -> Trained:
        epochs = {} if model in ("logistic", "majority") else {"epochs": 2}
        record = mer_bench.run(
            model, "small-talks", modalities=modalities, settings={**epochs, **(settings or {})},
            out=self.out, data_root=self.root, threads=1, keep_predictions=True,
        )  # fmt: skip
        return Trained(record_file(record_folder(self.out, record), record.run), record, self.root)


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Talks:
    folder = tmp_path_factory.mktemp("applying")
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for dialogue, split in enumerate(["train"] * 12 + ["dev"] * 3 + ["test"] * 5):
        for turn in range(int(rng.integers(2, 7))):
            rows.append(
                {
                    "dialogue": f"t{dialogue}",
                    "utterance": f"t{dialogue}u{turn}",
                    "speaker": "ABC"[int(rng.integers(0, 3))],
                    "label": ["calm", "angry", "glad"][int(rng.integers(0, 3))],
                    "text": " ".join(rng.choice(WORDS, int(rng.integers(1, 7)))),
                    "split": split,
                }
            )
    audio = rng.normal(40, 9, (len(rows), 3))
    audio[rng.random(audio.shape) < 0.1] = np.nan
    audio[::7] = np.nan
    brought = folder / "brought"
    brought.mkdir()
    (brought / "dialogues.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    np.savez(brought / "audio.npz", values=audio, columns=np.array(["loud", "pitch", "rate"]))
    import_own("small-talks", [brought], folder / "data")
    registry.forget()
    return Talks(rows, audio, folder / "data", folder / "runs")


@pytest.fixture(scope="session")
def on_words(talks: Talks) -> Trained:
    return talks.train("textonly", ("text",))


@pytest.fixture(scope="session")
def on_both(talks: Talks) -> Trained:
    return talks.train("latefusion", ("text", "audio"))
