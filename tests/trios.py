"""A made-up corpus whose labels can be read off any one modality, and a model that reads one of them only."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.runner import RunRequest

from .conftest import ShelfWriter

CORPUS = """
    title = "Trios"
    summary = "Made-up dialogues with three modalities."
    entry = "dataset:Trios"
    licence = "none"
    redistribute = {redistribute}
    synthetic = true
    modalities = ["text", "audio", "visual"]
    [label_sets.emotion]
    title = "Three"
    classes = ["calm", "glad", "cross"]
    [feature_sets.default]
    title = "One-hot"
    summary = "The label itself in each modality."
    widths = {{ text = 3, audio = 3, visual = 3 }}
    [protocols.official]
    title = "One split"
    [protocols.halves]
    title = "Two folds"
    folds = 2
"""

DATASET = """
    from mer_bench.api import Dataset, PreparationRequest, StoreContent
    import numpy as np

    class Trios(Dataset):
        def prepare(self, request: PreparationRequest) -> StoreContent:
            random = np.random.default_rng(1)
            # Of 36 dialogues 12 are tested: the last ones, or under `halves` those of the fold.
            rows = []
            for number in range(36):
                labels = random.integers(0, 3, int(random.integers(2, 7)))
                labels[0] = number % 3
                split = 0 if number < 12 else 1 if number < 24 else 2
                if request.fold == 2:
                    split = (2, 1, 0)[split]
                rows.append((split, f"d{number:02}", labels))
            rows.sort(key=lambda row: row[0])
            labels = np.concatenate([row[2] for row in rows])
            lengths = [len(row[2]) for row in rows]
            names = ("text", "audio", "visual")
            return StoreContent(
                features={name: np.eye(3, dtype=np.float32)[labels] for name in names},
                present={name: np.ones(len(labels), dtype=np.bool_) for name in names},
                speakers=np.zeros(len(labels), np.int16),
                labels=labels.astype(np.int16),
                utterance_ids=[f"{row[1]}_{turn}" for row in rows for turn in range(len(row[2]))],
                dialogue_ids=[row[1] for row in rows],
                offsets=np.cumsum([0, *lengths], dtype=np.int64),
                splits=np.array([row[0] for row in rows], dtype=np.uint8),
                classes=("calm", "glad", "cross"),
                settings={"held out": request.fold or 0},
            )
"""

READER = """
    title = "Reader"
    summary = "Says what one modality says, and calm where it is not there."
    entry = "model:Reader"
    config = "config:ReaderConfig"
    modalities = ["text", "audio", "visual"]
    needs = {needs}
    [ablations.wrong]
    question = "What if it is wrong on purpose?"
    settings = {{ shift = 1 }}
    [ablations.same]
    question = "What if nothing changes?"
    settings = {{ shift = 0 }}
    [ablations.broken]
    question = "What if it breaks?"
    settings = {{ breaks = true }}
"""

CONFIG = """
    from typing import Annotated, Literal
    from pydantic import Field
    from mer_bench.config import Settings

    class ReaderConfig(Settings):
        shift: Annotated[int, Field(ge=0, le=2)] = 0
        breaks: bool = False
        breaks_without_text: bool = False
"""

MODEL = """
    from collections.abc import Iterable
    import torch
    from mer_bench.api import Batch, FittedModel, Output

    class Reader(FittedModel):
        def __init__(self, spec, settings):
            super().__init__(spec, settings)
            self.settings = settings
            # The first of the run's modalities is the one it reads.
            self.register_buffer("scale", torch.zeros(1))

        def fit(self, train: Iterable[Batch]) -> None:
            if self.settings.breaks:
                raise IndexError("no such row")
            self.scale.fill_(8.0)

        def forward(self, batch: Batch) -> Output:
            name = self.spec.modalities[0]
            if self.settings.breaks_without_text and not batch.present[name].any():
                raise IndexError("no text at all")
            said = batch.features[name].roll(self.settings.shift, dims=-1)
            there = batch.present[name].unsqueeze(-1)
            calm = torch.tensor([1.0, 0.0, 0.0]).expand_as(said)
            return Output(self.scale * torch.where(there, said, calm))
"""


@dataclass(frozen=True)
class Place:
    """Where the made-up plugins are installed, and a data folder."""

    installed: Path
    data: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The data sets `trios` and `closed-trios` (labels may not be passed on), the models `reader` and `needy`."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("installed")
        patch.syspath_prepend(str(folder))
        ShelfWriter(folder).add(
            "datasets",
            "shelf_of_trios",
            {
                name: {
                    "__init__.py": '"""Made up."""',
                    "card.toml": CORPUS.format(redistribute=free),
                    "dataset.py": DATASET,
                }
                for name, free in (("trios", "true"), ("closed_trios", "false"))
            },
        )
        ShelfWriter(folder).add(
            "models",
            "shelf_of_readers",
            {
                name: {
                    "__init__.py": '"""Made up."""',
                    "card.toml": READER.format(needs=needs),
                    "config.py": CONFIG,
                    "model.py": MODEL,
                }
                for name, needs in (("reader", "[]"), ("needy", '["text"]'))
            },
        )
        yield Place(folder, tmp_path_factory.mktemp("data"))
        for name in set(sys.modules) - before:
            if name.startswith("shelf_of_"):
                del sys.modules[name]
    importlib.invalidate_caches()
    registry.forget()


@pytest.fixture
def whole(place: Place, tmp_path: Path) -> RunRequest:
    """A request for the reader on all three modalities."""
    return RunRequest("reader", "trios", data_root=place.data, out=tmp_path / "runs", threads=1)
