"""Seconds for one epoch of training on random features with MELD's lengths: forward, backward, step.

Every registered model is timed with its card's settings for MELD, and beside that a few as they were published.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from mer_bench import registry
from mer_bench.api import FittedModel, InputSpec, Model, TrainerSettings
from mer_bench.data.batches import NO_LABEL, Split

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
LENGTHS = (70, 60, 54, 48, 67, 61, 74, 67, 50, 57, 55, 54, 36, 41, 43, 51, 30, 28, 27, 20, 20, 13, 7, 5)
"""Dialogues of MELD's train split with 1, 2, 3, ... turns: 1038 dialogues of 9989 utterances."""

WIDTHS = {"text": 600, "audio": 300, "visual": 342}

# Settings at which the published implementations were timed: the same widths, depth and batches.
AS_PUBLISHED: dict[str, tuple[tuple[str, ...], int, dict[str, Any]]] = {
    "dialoguernn": (("text",), 30, {}),
    "mmgcn": (("text", "audio", "visual"), 16, {"layers": 64}),
}


def meld_shaped_split(modalities: tuple[str, ...]) -> Split:
    """Dialogues as long as those of MELD's train split, in random order, with random features, speakers and labels."""
    generator = torch.Generator().manual_seed(0)
    turns = torch.arange(1, len(LENGTHS) + 1).repeat_interleave(torch.tensor(LENGTHS))
    lengths = turns[torch.randperm(len(turns), generator=generator)]
    utterances = int(lengths.sum())
    return Split(
        name="train",
        features={name: torch.randn(utterances, WIDTHS[name], generator=generator) for name in modalities},
        present={name: torch.ones(utterances, dtype=torch.bool) for name in modalities},
        speakers=torch.randint(0, 4, (utterances,), generator=generator),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        labels=torch.randint(0, len(CLASSES), (utterances,), generator=generator),
    )


def train_one_epoch(model: Model, optimizer: torch.optim.Optimizer, split: Split, batch_size: int, seed: int) -> float:
    """One pass over the split; the loss of the last batch."""
    model.train()
    loss = torch.zeros(())
    for batch in split.shuffled(batch_size, torch.Generator().manual_seed(seed)):
        assert batch.labels is not None
        output = model(batch)
        targets = batch.labels.flatten()
        loss = functional.cross_entropy(output.logits.flatten(0, 1), targets, ignore_index=NO_LABEL)
        for auxiliary in output.auxiliary.values():
            extra = functional.cross_entropy(auxiliary.logits.flatten(0, 1), targets, ignore_index=NO_LABEL)
            loss = loss + auxiliary.weight * extra
        for term in output.losses.values():
            loss = loss + term.weight * term.value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", sorted(registry.models().plugins))
@pytest.mark.parametrize("setting", ["card", "published"])
def test_an_epoch(benchmark: Any, name: str, setting: str) -> None:
    loaded = registry.load_model(name)
    if issubclass(loaded.model_class, FittedModel):
        pytest.skip(f"{name} is fitted at one go and has no epochs")
    if setting == "published" and name not in AS_PUBLISHED:
        pytest.skip(f"{name} has no published implementation that was timed")
    modalities, batch_size, values = AS_PUBLISHED.get(name, (("text", "audio"), 32, {}))
    if setting == "card":
        given = loaded.plugin.card.settings_for("meld")
        modalities, batch_size = ("text", "audio"), given.get("batch_size", TrainerSettings().batch_size)
        values = {key: value for key, value in given.items() if key in loaded.settings_class.model_fields}
    split = meld_shaped_split(modalities)
    torch.manual_seed(0)
    spec = InputSpec({key: WIDTHS[key] for key in modalities}, CLASSES, 9)
    model = loaded.model_class(spec, loaded.settings(values))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    seeds = iter(range(100))

    def epoch() -> float:
        return train_one_epoch(model, optimizer, split, batch_size, next(seeds))

    loss = benchmark.pedantic(epoch, rounds=2, warmup_rounds=1)
    assert math.isfinite(loss)
    benchmark.extra_info["parameters"] = sum(parameter.numel() for parameter in model.parameters())
