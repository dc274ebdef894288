"""The paths that are guarded: an epoch, scoring, opening a store, preparing, building leaderboards, starting up."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mer_bench import registry, runner
from mer_bench.api import FittedModel, InputSpec, Model, Split
from mer_bench.config import TrainerSettings
from mer_bench.metrics import score
from mer_bench.records import Scores
from mer_bench.trainer import Trainer, log_probabilities
from tests.speed.guard import ROUNDS, Fresh

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
WIDTHS = {"text": 320, "audio": 64}
LENGTHS = (3, 2, 2, 2, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0, 1)
"""Dialogues with 1, 2, 3, ... turns: one in 24 of MELD's train split."""

SHORT_EPOCHS = ("latefusion", "bclstm", "dialoguernn", "mmgcn")
"""Models whose epoch is guarded in the short form too: the trainer itself, a recurrent layer, a recurrence in Python, a
graph."""

FIRST_STEP = """
import os
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: os._exit(0))
from mer_bench.cli import main
main()
"""


@dataclass(frozen=True)
class GuardedPath:
    """Something that must not become slower.

    Attributes:
        kernels: What it is timed beside; names of `kernels.KERNELS`.
        start: Given an empty folder, makes ready what every round needs.
        is_short: Whether it is part of the short form.
        rounds: How often it is timed; what takes seconds has less noise.
    """

    name: str
    kernels: Sequence[str]
    start: Callable[[Path], Fresh]
    is_short: bool = True
    rounds: int = ROUNDS


def split_of(name: str, seed: int, parts: int = 1) -> Split:
    """Random dialogues as long as MELD's."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.arange(1, len(LENGTHS) + 1).repeat_interleave(torch.tensor(LENGTHS))
    lengths = turns[torch.randperm(len(turns), generator=generator)][: len(turns) // parts]
    rows = int(lengths.sum())
    return Split(
        name=name,
        features={key: torch.randn(rows, width, generator=generator) for key, width in WIDTHS.items()},
        present={key: torch.ones(rows, dtype=torch.bool) for key in WIDTHS},
        speakers=torch.arange(rows) % 3,
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        labels=torch.randint(0, len(CLASSES), (rows,), generator=generator),
    )


def scores_of(split: Split, log_p: torch.Tensor) -> Scores:
    """What the runner makes of log-probabilities."""
    names = [f"u{number}" for number in range(split.utterance_count)]
    dialogues = [f"d{number}" for number, length in enumerate(split.lengths.tolist()) for _ in range(length)]
    return score(runner.predictions_of(split, (names, dialogues), CLASSES, log_p))


def model_of(name: str) -> tuple[Callable[[], Model], dict[str, Any]]:
    """A model with the settings of its card, and all that the card gives for MELD."""
    loaded = registry.load_model(name)
    given = loaded.plugin.card.settings_for("meld")
    values = {key: value for key, value in given.items() if key in loaded.settings_class.model_fields}
    spec = InputSpec(WIDTHS, CLASSES, 3)
    return lambda: loaded.model_class(spec, loaded.settings(values)), given


def epoch_of(name: str) -> Callable[[Path], Fresh]:
    """An epoch by the trainer: every step, dev scored, its weights kept."""

    def start(folder: Path) -> Fresh:
        build, given = model_of(name)
        train, dev = split_of("train", 0), split_of("dev", 1, parts=4)
        training = TrainerSettings(epochs=1, patience=1, batch_size=given.get("batch_size", 32))

        def fresh() -> Callable[[], object]:
            trainer = Trainer(build, training, "weighted_f1", 0, torch.device("cpu"))

            def fit() -> object:
                return trainer.fit(train, dev, lambda log_p: scores_of(dev, log_p))

            fit.is_spent = True  # type: ignore[attr-defined]  # a second fit would find its epoch done
            return fit

        return fresh

    return start


def scoring(folder: Path) -> Fresh:
    """Log-probabilities of a split, and every metric of them."""
    model = model_of("latefusion")[0]()
    split = split_of("test", 2)
    return lambda: lambda: scores_of(split, log_probabilities(model, split))


def opening(folder: Path) -> Fresh:
    """A store is opened, and a batch of its train split is there."""
    from mer_bench.data.preparation import prepare, resolve
    from mer_bench.data.store import open_store

    place = prepare(resolve("meld-synthetic"), folder).folder
    return lambda: lambda: open_store(place).split("train").batch(range(16))


def verifying(folder: Path) -> Fresh:
    """Every byte of a store is compared with its checksum, as before each run."""
    from mer_bench.data.preparation import prepare, resolve

    store = prepare(resolve("meld-synthetic"), folder)
    return lambda: store.verify


def preparing(folder: Path) -> Fresh:
    """MELD-synthetic is made, checked and written."""
    from mer_bench.data.preparation import prepare, resolve

    places = itertools.count()
    return lambda: lambda: prepare(resolve("meld-synthetic"), folder / str(next(places)))


def building(folder: Path) -> Fresh:
    """A leaderboard of ten records with predictions, as pages."""
    from mer_bench.leaderboard.building import build_boards
    from mer_bench.leaderboard.gathering import gather
    from mer_bench.leaderboard.writing import write_boards
    from tests.speed.many_records import write

    for number in range(10):
        write(folder / "records", number)
    places = itertools.count()
    return lambda: lambda: write_boards(build_boards(gather([folder / "records"])), folder / str(next(places)))


def command(words: Sequence[str], data: Path) -> Callable[[], object]:
    """A child process of mer-bench."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MER_BENCH_DATA": str(data)}
    return lambda: subprocess.run(
        [sys.executable, *words], check=True, env=environment, stdout=subprocess.DEVNULL, cwd=data
    )


def listing(folder: Path) -> Fresh:
    """`mer-bench list models`."""
    return lambda: command(["-m", "mer_bench", "list", "models"], folder)


def first_step(folder: Path) -> Fresh:
    """`mer-bench run` from the shell to the end of its first step."""
    from mer_bench.data.preparation import prepare, resolve

    prepare(resolve("meld-synthetic"), folder)
    outs = itertools.count()

    def fresh() -> Callable[[], object]:
        words = ["-c", FIRST_STEP, "run", "--model", "latefusion", "--dataset", "meld-synthetic", "--threads", "1"]
        return command([*words, "--out", str(folder / f"runs{next(outs)}")], folder)

    return fresh


def learnt_models() -> list[str]:
    """Registered models that have epochs."""
    names = registry.models().plugins
    return [name for name in names if not issubclass(registry.load_model(name).model_class, FittedModel)]


def guarded_paths() -> list[GuardedPath]:
    """All of them, the short form first."""
    found = [
        GuardedPath("scoring", ("operators", "arrays"), scoring),
        GuardedPath("store opening", ("interpreter",), opening),
        GuardedPath("store verifying", ("files",), verifying),
        GuardedPath("preparing", ("interpreter", "arrays"), preparing),
        GuardedPath("leaderboard building", ("interpreter", "arrays"), building),
        GuardedPath("start: list models", ("start",), listing, rounds=6),
        GuardedPath("start: run to the first step", ("start with torch",), first_step, rounds=2),
    ]
    epochs = [
        GuardedPath(f"epoch: {name}", ("operators", "products"), epoch_of(name), name in SHORT_EPOCHS)
        for name in learnt_models()
    ]
    return sorted([*epochs, *found], key=lambda path: (not path.is_short, path.name))
