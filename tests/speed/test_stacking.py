"""A pass over train with several seeds together, and with as many one after the other, in one run: compare the two.

Random features with MELD's lengths, the card's settings for MELD. What a stack saves is the cost of calling operators,
so that it shows least where products are large.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from mer_bench import registry
from mer_bench.api import InputSpec, TrainerSettings
from mer_bench.config import split_settings
from mer_bench.nn.seeds import RandomNumbers
from mer_bench.stacking.network import StackedNetwork
from mer_bench.trainer import Criterion, Trainer, loss_terms
from tests.speed.test_epoch import CLASSES, WIDTHS, meld_shaped_split

SEEDS = 5
CPU = torch.device("cpu")


@pytest.mark.parametrize("batch_size", [32, 4])
@pytest.mark.parametrize("name", ["latefusion", "dialoguernn", "mmgcn", "cmath"])
@pytest.mark.parametrize("way", ["together", "apart"])
def test_a_pass_with_five_seeds(benchmark: Any, way: str, name: str, batch_size: int) -> None:
    loaded = registry.load_model(name)
    given = {**loaded.plugin.card.settings_for("meld"), "batch_size": batch_size}
    values, training = split_settings(given, loaded.settings_class, "card")
    settings, spec = TrainerSettings(**training), InputSpec({key: WIDTHS[key] for key in ("text", "audio")}, CLASSES, 9)

    def build() -> Any:
        return loaded.model_class(spec, loaded.settings(values))

    trainers = [Trainer(build, settings, "weighted_f1", seed, CPU) for seed in range(SEEDS)]
    models = [trainer.state.model.train() for trainer in trainers]
    train = meld_shaped_split(spec.modalities)
    # A few batches are enough: their cost is what is compared.
    batches = list(islice(train.shuffled(batch_size, torch.Generator().manual_seed(0)), 8))
    network = StackedNetwork(models, [RandomNumbers(CPU) for _ in models]) if way == "together" else None

    def some_steps() -> None:
        for batch in batches:
            for trainer in trainers:
                trainer.begin_step(100)
            if network is None:
                for model in models:
                    loss_terms(model(batch), batch, Criterion(), 0.5)["total"].backward()
            else:
                terms, _ = network.loss(batch, Criterion(), 0.5)
                terms["total"].sum().backward()
                network.hand_out_gradients()
            for trainer in trainers:
                trainer.take_step()

    benchmark.pedantic(some_steps, rounds=3, warmup_rounds=1)
    benchmark.extra_info["seeds"] = SEEDS
