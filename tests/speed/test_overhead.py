"""How much longer an epoch of the trainer takes than the bare forward passes, backward passes and steps in it.

Both are taken in turns on the same batches of random features with MELD's lengths, and the least CPU seconds of each
count: what the trainer adds (the batches, the loss's terms, clipping, the schedule, the curve) is to stay below 5 %.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch.nn import functional

from mer_bench import registry
from mer_bench.api import NO_LABEL, InputSpec
from mer_bench.model_settings import settle
from mer_bench.trainer import Criterion, Trainer

from .test_epoch import CLASSES, WIDTHS, meld_shaped_split

MODALITIES = ("text", "audio")
ROUNDS = 5


@pytest.mark.parametrize("name", ["latefusion", "textonly", "bclstm", "mmgcn", "dialoguernn", "cmath"])
def test_an_epoch_of_the_trainer_beside_its_bare_steps(benchmark: Any, name: str) -> None:
    loaded = registry.load_model(name)
    settled = settle(loaded.plugin.card, loaded.settings_class, "meld", {})
    train = meld_shaped_split(MODALITIES)
    spec = InputSpec({key: WIDTHS[key] for key in MODALITIES}, CLASSES, 9)
    device = torch.device("cpu")
    trainer = Trainer(lambda: loaded.model_class(spec, settled.settings), settled.training, "weighted_f1", 0, device)
    criterion = Criterion.for_split(settled.training, train, len(CLASSES))
    model = loaded.model_class(spec, settled.settings).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def bare(batches: list[Any]) -> None:
        for batch in batches:
            output = model(batch)
            targets = batch.labels.flatten()
            loss = functional.cross_entropy(output.logits.flatten(0, 1), targets, ignore_index=NO_LABEL)
            for auxiliary in output.auxiliary.values():
                extra = functional.cross_entropy(auxiliary.logits.flatten(0, 1), targets, ignore_index=NO_LABEL)
                loss = loss + auxiliary.weight * extra
            for term in output.losses.values():
                loss = loss + term.weight * term.value
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def seconds(work: Any) -> float:
        started = time.process_time()
        work()
        return time.process_time() - started

    ours, theirs = [], []

    def both() -> None:
        generator = torch.Generator().set_state(trainer.state.batches.get_state())
        batches = list(train.shuffled(settled.training.batch_size, generator))
        theirs.append(seconds(lambda: bare(batches)))
        ours.append(seconds(lambda: trainer._train_epoch(train, criterion)))

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["overhead"] = min(ours[1:]) / min(theirs[1:]) - 1
