"""How near an epoch of training comes to the matrix products that it can't avoid: `python -m tests.speed.limit cmath`.

The limit is the time of the products of all real utterances, forward and backward, at the rate that large products
reach on this machine in the same run; products are counted on single dialogues, where nothing is padding. Rate and
epochs are measured in turns and the best of each is taken, since other processes only ever slow them down.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mer_bench import registry
from mer_bench.api import InputSpec, Model, TrainerSettings
from mer_bench.data.batches import Batch, Split
from tests.speed.test_epoch import CLASSES, meld_shaped_split, train_one_epoch

COUNTED_LENGTHS = (4, 8, 16)

SIDE = 1536
"""Rows and columns of the matrices by whose product the rate is measured."""


@dataclass(frozen=True)
class Limit:
    """What an epoch took and what its products would take alone.

    Attributes:
        products: Floating-point operations of an epoch's matrix products, two for each multiplication and addition.
        rate, cpu_rate: Such operations of a large product in a second, and in a second of a processor.
        seconds, cpu_seconds: Of an epoch, the best of several.
    """

    products: float
    rate: float
    cpu_rate: float
    seconds: float
    cpu_seconds: float

    @property
    def ratio(self) -> float:
        """An epoch over its products."""
        return self.seconds * self.rate / self.products

    @property
    def cpu_ratio(self) -> float:
        """The same of processor time, which other processes on the machine disturb less."""
        return self.cpu_seconds * self.cpu_rate / self.products

    def __str__(self) -> str:
        return (
            f"{self.products / 1e9:.1f} GFLOP of products at {self.rate / 1e9:.0f} GFLOP/s: "
            f"{self.products / self.rate:.3f} s; an epoch: {self.seconds:.3f} s, {self.ratio:.1f} times as long "
            f"({self.cpu_ratio:.1f} times in processor time)"
        )


def dialogue_operations(model: Model, batch: Batch) -> int:
    """Operations of the products of one batch, forward and backward."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        output = model(batch)
        loss = output.logits.sum() + sum(part.logits.sum() for part in output.auxiliary.values())
        (loss + sum(term.value for term in output.losses.values())).backward()
    model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def product_operations(model: Model, split: Split) -> float:
    """Operations of the products of one epoch, forward and backward, on real utterances.

    Those of one dialogue are a + b T + c T^2 for T turns, where nothing has a window: linear maps and recurrences
    grow with T, attention and graphs with its square. So three dialogues tell a, b and c.
    """
    chosen = [int((split.lengths == length).nonzero()[0]) for length in COUNTED_LENGTHS]
    counts = [float(dialogue_operations(model, split.batch([dialogue]))) for dialogue in chosen]
    powers = torch.tensor(COUNTED_LENGTHS, dtype=torch.float64).unsqueeze(1) ** torch.arange(3)
    weights = torch.linalg.solve(powers, torch.tensor(counts, dtype=torch.float64))
    return float((split.lengths.double().unsqueeze(1) ** torch.arange(3) @ weights).sum())


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of some work, and processor seconds of all its threads."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def measured(name: str, values: Mapping[str, Any], modalities: tuple[str, ...], rounds: int, share: int = 1) -> Limit:
    """The limit of a model on data in the shape of MELD, and its epochs.

    Args:
        values: Settings of model and trainer beside those of its card. share: Take every `share`-th dialogue alone.
    """
    torch.manual_seed(0)
    loaded = registry.load_model(name)
    settings = {**loaded.plugin.card.settings_for("meld"), **values}
    batch_size = settings.get("batch_size", TrainerSettings().batch_size)
    split = every(meld_shaped_split(modalities), share)
    spec = InputSpec({key: split.features[key].shape[1] for key in modalities}, CLASSES, 9)
    own = {key: value for key, value in settings.items() if key in loaded.settings_class.model_fields}
    model = loaded.model_class(spec, loaded.settings(own))
    products = product_operations(model, split)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    left, right, result = torch.randn(3, SIDE, SIDE)
    large, epochs = [], []
    for seed in range(rounds):
        large += [timed(partial(torch.mm, left, right, out=result)) for _ in range(5)]
        epochs.append(timed(partial(train_one_epoch, model, optimizer, split, batch_size, seed)))
    fastest, least = (min(times) for times in zip(*large, strict=True))
    seconds, cpu_seconds = (min(times) for times in zip(*epochs, strict=True))
    return Limit(products, 2 * SIDE**3 / fastest, 2 * SIDE**3 / least, seconds, cpu_seconds)


def every(split: Split, share: int) -> Split:
    """Every `share`-th dialogue of a split."""
    chosen = torch.arange(0, split.dialogue_count, share)
    rows = torch.cat([torch.arange(int(split.offsets[d]), int(split.offsets[d + 1])) for d in chosen.tolist()])
    assert split.labels is not None
    return Split(
        name=split.name,
        features={name: values[rows] for name, values in split.features.items()},
        present={name: values[rows] for name, values in split.present.items()},
        speakers=split.speakers[rows],
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), split.lengths[chosen].cumsum(0)]),
        labels=split.labels[rows],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=int, default=1, help="take every n-th dialogue alone")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for name in options.models:
        found = measured(name, {}, ("text", "audio", "visual"), options.rounds, options.share)
        sys.stdout.write(f"{name}: {found}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
