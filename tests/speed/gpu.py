"""What every model costs on a GPU: `python -m tests.speed.gpu --out gpu.csv`.

Random features in the shapes of MELD (1038 train dialogues with its own lengths) and of IEMOCAP (120 dialogues, 5810
utterances, the longest 110). For each registered model with the settings of its card: seconds of an epoch by the
trainer that runs use (the least of three), the share of the time that the GPU was busy (`nvidia-smi`, five times a
second), and the most memory that tensors took. `--device cpu` tries the command out where there is no GPU.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from mer_bench import registry
from mer_bench.api import FittedModel, InputSpec, Split
from mer_bench.config import TrainerSettings
from mer_bench.errors import MerBenchError
from mer_bench.metrics import METRICS
from mer_bench.seeding import deterministic_algorithms
from mer_bench.trainer import Trainer

MELD = (70, 60, 54, 48, 67, 61, 74, 67, 50, 57, 55, 54, 36, 41, 43, 51, 30, 28, 27, 20, 20, 13, 7, 5)
"""Dialogues of MELD's train split with 1, 2, 3, ... turns."""

SHAPES = {
    "meld": (7, {"text": 600, "audio": 300, "visual": 342}),
    "iemocap": (6, {"text": 100, "audio": 1582, "visual": 342}),
}
"""Classes and widths of the features that the published graph models take."""


@dataclass(frozen=True)
class Cost:
    """A line of the table; `busy_percent` is None where nothing says."""

    model: str
    shape: str
    device: str
    parameters: int
    epoch_seconds: float | None = None
    first_epoch_seconds: float | None = None
    busy_percent: float | None = None
    memory_mb: float | None = None
    note: str = ""


def lengths_of(shape: str) -> torch.Tensor:
    """Turns of each train dialogue; those of IEMOCAP are drawn, with its count, sum and maximum."""
    if shape == "meld":
        return torch.arange(1, len(MELD) + 1).repeat_interleave(torch.tensor(MELD))
    generator = torch.Generator().manual_seed(0)
    drawn = 48.0 + 17 * torch.randn(120, generator=generator)
    lengths = drawn.clamp(8, 110).round().long()
    lengths[int(lengths.argmax())] = 110
    order = torch.randperm(120, generator=generator)
    for place in range(10_000):
        missing = 5810 - int(lengths.sum())
        if missing == 0:
            break
        index = order[place % 120]
        changed = lengths[index] + (1 if missing > 0 else -1)
        if 8 <= changed < 110:
            lengths[index] = changed
    return lengths


def split_of(shape: str, names: Sequence[str], device: torch.device, dialogues: int | None = None) -> Split:
    """Random features in the shape of a corpus, on a device."""
    classes, widths = SHAPES[shape]
    generator = torch.Generator().manual_seed(1)
    lengths = lengths_of(shape)
    lengths = lengths[torch.randperm(len(lengths), generator=generator)][:dialogues]
    rows = int(lengths.sum())
    return Split(
        name="train",
        features={name: torch.randn(rows, widths[name], generator=generator).to(device) for name in names},
        present={name: torch.ones(rows, dtype=torch.bool, device=device) for name in names},
        speakers=(torch.arange(rows) % 2).to(device),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        labels=torch.randint(0, classes, (rows,), generator=generator).to(device),
    )


class Busy:
    """Asks nvidia-smi how busy the GPU is, while it is open; nothing where there is none."""

    def __init__(self, device: torch.device) -> None:
        self.process: subprocess.Popen[str] | None = None
        if device.type == "cuda" and shutil.which("nvidia-smi"):
            words = ["nvidia-smi", f"--id={device.index or 0}", "--query-gpu=utilization.gpu", "-lms", "200"]
            words.append("--format=csv,noheader,nounits")
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def percent(self) -> float | None:
        """Stop asking; the mean of the answers."""
        if self.process is None:
            return None
        self.process.terminate()
        told = self.process.communicate()[0].split()
        numbers = [float(word) for word in told if word.replace(".", "", 1).isdigit()]
        return round(statistics.fmean(numbers), 1) if numbers else None


def measured(name: str, shape: str, device: torch.device, epochs: int, dialogues: int | None = None) -> Cost:
    """Train a model for some epochs."""
    loaded = registry.load_model(name)
    classes, widths = SHAPES[shape]
    names = [key for key in widths if key in loaded.plugin.card.modalities]
    given = loaded.plugin.card.settings_for(shape)
    values = {key: value for key, value in given.items() if key in loaded.settings_class.model_fields}
    spec = InputSpec({key: widths[key] for key in names}, tuple(f"class{index}" for index in range(classes)), 9)
    epochs = 1 if issubclass(loaded.model_class, FittedModel) else epochs
    training = TrainerSettings(
        epochs=epochs, patience=epochs, batch_size=given.get("batch_size", TrainerSettings().batch_size)
    )
    train, dev = split_of(shape, names, device, dialogues), split_of(shape, names, device, 8)
    scores: Any = SimpleNamespace(**dict.fromkeys(METRICS, 0.5))
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    trainer = Trainer(lambda: loaded.model_class(spec, loaded.settings(values)), training, "weighted_f1", 0, device)
    parameters = sum(each.numel() for each in trainer.state.model.parameters())
    clocks: list[float] = []

    def tick(*_: Any) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        clocks.append(time.perf_counter())

    found = Cost(name, shape, str(device), parameters)
    busy = Busy(device)
    try:
        tick()
        trainer.fit(train, dev, lambda _: scores, tick)
    except MerBenchError as error:
        return replace_in(found, note=f"{type(error).__name__}: {error}")
    finally:
        percent = busy.percent()
    seconds = [later - earlier for earlier, later in pairwise(clocks)]
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
    return replace_in(
        found,
        epoch_seconds=round(min(seconds[1:] or seconds), 4),
        first_epoch_seconds=round(seconds[0], 4),
        busy_percent=percent,
        memory_mb=None if memory is None else round(memory, 1),
    )


def replace_in(cost: Cost, **changes: Any) -> Cost:
    """The line with some of its cells filled."""
    return Cost(**{**asdict(cost), **changes})


def main() -> None:
    """Measure every model on both shapes; write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.csv"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="*", help="Only these.")
    parser.add_argument("--epochs", type=int, default=4, help="The first is told apart: it loads kernels.")
    parser.add_argument("--dialogues", type=int, help="Only so many of train, to try the command out.")
    parser.add_argument("--no-deterministic", action="store_true", help="As the option of `mer-bench run`.")
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("no cuda device is there. --device cpu tries the command out without one.")
    deterministic_algorithms(not given.no_deterministic)
    with given.out.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [each.name for each in fields(Cost)], lineterminator="\n")
        writer.writeheader()
        for name in given.models or registry.models().plugins:
            for shape in SHAPES:
                cost = measured(name, shape, device, given.epochs, given.dialogues)
                writer.writerow({key: "" if value is None else value for key, value in asdict(cost).items()})
                stream.flush()
                print(cost, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
