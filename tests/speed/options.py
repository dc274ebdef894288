"""What training through the compiler and in bfloat16 costs and gains: a line a model, all in one run.

    python -m tests.speed.options --models latefusion,cmath --threads 1

Epochs of the plain, the compiled and the bfloat16 trainer are taken in turns, on random features with MELD's lengths;
the least seconds of each count. The first compiled epoch is shown apart: it holds the compiler's work.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import torch

from mer_bench import registry
from mer_bench.api import InputSpec
from mer_bench.errors import RunError
from mer_bench.model_settings import settle
from mer_bench.trainer import Criterion, Trainer

from .test_epoch import CLASSES, WIDTHS, meld_shaped_split

WAYS: dict[str, dict[str, Any]] = {"plain": {}, "compiled": {"compile": True}, "bfloat16": {"precision": "bfloat16"}}
MODALITIES = ("text", "audio")


class Way:
    """One way to train a model, an epoch at a time."""

    def __init__(self, name: str, values: dict[str, Any], published: bool) -> None:
        loaded = registry.load_model(name)
        card = loaded.plugin.card
        request = {**(card.published.get("meld", {}) if published else {}), **values}
        settled = settle(card, loaded.settings_class, "meld", request)
        self.train = meld_shaped_split(MODALITIES)
        spec = InputSpec({key: WIDTHS[key] for key in MODALITIES}, CLASSES, 9)
        device = torch.device("cpu")
        self.trainer = Trainer(
            lambda: loaded.model_class(spec, settled.settings), settled.training, "weighted_f1", 0, device
        )
        self.criterion = Criterion.for_split(settled.training, self.train, len(CLASSES))
        self.seconds: list[float] = []

    def epoch(self) -> None:
        started = time.perf_counter()
        self.trainer._train_epoch(self.train, self.criterion)
        self.seconds.append(time.perf_counter() - started)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Print the table, a line as soon as a model is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", required=True, help="names, with commas between")
    parser.add_argument("--published", action="store_true", help="the paper's own settings, where the card has them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    say("model | plain s/epoch | compiled | bfloat16 | compiled, the first epoch s")
    for name in given.models.split(","):
        torch.compiler.reset()
        ways = {way: Way(name, values, given.published) for way, values in WAYS.items()}
        refused = ""
        for _ in range(given.epochs):
            for way in list(ways):
                try:
                    ways[way].epoch()
                except RunError as error:
                    refused = str(error)
                    del ways[way]
        plain = min(ways["plain"].seconds[1:])
        ratios = {way: f"{min(each.seconds[1:]) / plain:.2f}" for way, each in ways.items()}
        first = f"{ways['compiled'].seconds[0]:.1f}" if "compiled" in ways else refused
        say(f"{name} | {plain:.3f} | {ratios.get('compiled', '-')} | {ratios['bfloat16']} | {first}")


if __name__ == "__main__":
    main()
