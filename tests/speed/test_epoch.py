"""Seconds for one epoch of training on random features in the shape of MELD: forward, backward, step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from mer_bench import registry
from mer_bench.api import FittedModel, InputSpec, Model
from mer_bench.data.batches import NO_LABEL, Split

CLASSES = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
DIALOGUES, UTTERANCES = 1038, 9989
WIDTHS = {"text": 600, "audio": 300, "visual": 342}

# Settings at which the published implementations were timed: the same widths, depth and batches.
AS_PUBLISHED: dict[str, tuple[tuple[str, ...], int, dict[str, Any]]] = {
    "dialoguernn": (("text",), 30, {}),
    "mmgcn": (("text", "audio", "visual"), 16, {"layers": 64}),
}


def meld_shaped_split(modalities: tuple[str, ...]) -> Split:
    """1038 dialogues of 9989 utterances, the longest 24, with random features, speakers and labels."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 19, (DIALOGUES,), generator=generator)
    lengths[:10] = 24
    while (surplus := int(lengths.sum()) - UTTERANCES) != 0:
        index = int(torch.randint(10, DIALOGUES, (1,), generator=generator))
        lengths[index] = (lengths[index] - (1 if surplus > 0 else -1)).clamp(1, 24)
    return Split(
        name="train",
        features={name: torch.randn(UTTERANCES, WIDTHS[name], generator=generator) for name in modalities},
        present={name: torch.ones(UTTERANCES, dtype=torch.bool) for name in modalities},
        speakers=torch.randint(0, 4, (UTTERANCES,), generator=generator),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        labels=torch.randint(0, len(CLASSES), (UTTERANCES,), generator=generator),
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
        modalities, batch_size = ("text", "audio"), 32
        given = loaded.plugin.card.settings_for("meld")
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
