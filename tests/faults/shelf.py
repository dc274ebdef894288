"""A made-up corpus and a small network, installed where child processes find them too."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import ShelfWriter
from tests.trios import CORPUS, DATASET

CARD = """
    title = "Swinger"
    summary = "A recurrent network that draws from every generator of random numbers."
    entry = "model:Swinger"
    config = "config:SwingerConfig"
    modalities = ["text", "audio", "visual"]
"""

CONFIG = """
    from mer_bench.config import Settings

    class SwingerConfig(Settings):
        width: int = 6
"""

MODEL = """
    import random
    import numpy as np
    import torch
    from torch import nn
    from mer_bench.api import Model, Output

    class Swinger(Model):
        def __init__(self, spec, settings):
            super().__init__(spec, settings)
            self.read = nn.GRU(sum(spec.widths.values()), settings.width, batch_first=True)
            self.drop = nn.Dropout(0.3)
            self.out = nn.Linear(settings.width, spec.class_count)

        def forward(self, batch):
            values = torch.cat(list(batch.features.values()), dim=-1)
            if self.training:
                values = values * (1 + 0.1 * random.random() + 0.1 * np.random.normal())
                values = values + torch.randn_like(values)
            hidden, _ = self.read(values)
            return Output(self.out(self.drop(hidden)))
"""


def install(folder: Path) -> Path:
    """The dataset `trios` (two folds under `halves`) and the model `swinger`, where the folder is on the path."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ShelfWriter(folder)
    writer.add(
        "datasets",
        "fault_datasets",
        {"trios": {"__init__.py": "", "card.toml": CORPUS.format(redistribute="true"), "dataset.py": DATASET}},
    )
    writer.add(
        "models",
        "fault_models",
        {"swinger": {"__init__.py": "", "card.toml": CARD, "config.py": CONFIG, "model.py": MODEL}},
    )
    return folder
