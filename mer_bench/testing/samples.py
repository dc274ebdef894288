"""Small dialogues for the checks: random ones with gaps, ones that can be learned, and hostile padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mer_bench.api import NO_LABEL, Batch, InputSpec, Split

SAMPLE_WIDTHS = {"text": 12, "audio": 5, "visual": 7}
"""Small, unequal and partly odd, so that a mixed-up width shows."""

LENGTHS = (5, 9, 1, 3, 7, 2, 9, 4, 1, 6)
"""Turns of the sample dialogues."""

GARBAGE = 1e4
"""Size of the values on cells that a model must not read."""


def sample_spec(modalities: Sequence[str], classes: int = 5, speakers: int = 3) -> InputSpec:
    """What a model is built for in the checks; a modality of another name is 6 wide."""
    widths = {name: SAMPLE_WIDTHS.get(name, 6) for name in modalities}
    return InputSpec(widths, tuple(f"class{index}" for index in range(classes)), speakers)


def sample_split(
    spec: InputSpec,
    seed: int = 0,
    lengths: Sequence[int] = LENGTHS,
    gaps: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Split:
    """Random dialogues with labels, some utterances without one.

    With `gaps` one utterance in six lacks a modality, the second dialogue lacks the first modality
    altogether, the fourth lacks every other one, and the last utterance of the fifth has nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    rows = int(offsets[-1])
    labels = torch.randint(spec.class_count, (rows,), generator=generator)
    labels[torch.rand(rows, generator=generator) < 0.1] = NO_LABEL
    labels[offsets[:-1]] = torch.arange(len(lengths)) % spec.class_count  # every dialogue counts in the loss
    features, present = {}, {}
    for index, (name, width) in enumerate(spec.widths.items()):
        there = torch.ones(rows, dtype=torch.bool)
        if gaps:
            there = torch.rand(rows, generator=generator) > 1 / 6
            for dialogue, missing in ((1, index == 0), (3, index != 0)):
                if missing and dialogue < len(lengths):
                    there[offsets[dialogue] : offsets[dialogue + 1]] = False
            if len(lengths) > 4:
                there[offsets[5] - 1] = False
        values = torch.randn(rows, width, generator=generator, dtype=torch.float64)
        features[name] = (values * there.unsqueeze(1)).to(dtype)
        present[name] = there
    return Split("sample", features, present, _speakers(spec, offsets, generator), offsets, labels)


def learnable_split(spec: InputSpec, seed: int = 0, dtype: torch.dtype = torch.float32) -> Split:
    """Eight dialogues whose labels can be read off the features of each utterance."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, 4, 6, 3, 8, 5, 7, 2, 5]).cumsum(0)
    rows = int(offsets[-1])
    labels = torch.arange(rows)[torch.randperm(rows, generator=generator)] % spec.class_count
    features, present = {}, {}
    for name, width in spec.widths.items():
        centres = 2 * torch.randn(spec.class_count, width, generator=generator, dtype=torch.float64)
        noise = 0.3 * torch.randn(rows, width, generator=generator, dtype=torch.float64)
        features[name] = (centres[labels] + noise).to(dtype)
        present[name] = torch.ones(rows, dtype=torch.bool)
    return Split("sample", features, present, _speakers(spec, offsets, generator), offsets, labels)


def _speakers(spec: InputSpec, offsets: Tensor, generator: torch.Generator) -> Tensor:
    """Indices by first appearance, as every store has them."""
    drawn = torch.randint(spec.speakers, (int(offsets[-1]),), generator=generator)
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        seen: dict[int, int] = {}
        for row in range(start, end):
            drawn[row] = seen.setdefault(int(drawn[row]), len(seen))
    return drawn


def whole(split: Split) -> Batch:
    """Every dialogue of the split as one batch, in the split's order."""
    return split.batch(range(split.dialogue_count))


def padded_further(batch: Batch, turns: int, seed: int = 0) -> Batch:
    """The same dialogues with more padding, and garbage in the features of every padded cell."""
    generator = torch.Generator().manual_seed(seed)
    mask = _longer(batch.mask, turns, False)
    features = {}
    for name, values in batch.features.items():
        longer = _longer(values, turns, 0.0)
        noise = GARBAGE * torch.randn(longer.shape, generator=generator, dtype=torch.float64).to(longer.dtype)
        features[name] = torch.where(mask.unsqueeze(-1), longer, noise)
    return replace(
        batch,
        features=features,
        present={name: _longer(there, turns, False) for name, there in batch.present.items()},
        mask=mask,
        speakers=_longer(batch.speakers, turns, 0),
        labels=None if batch.labels is None else _longer(batch.labels, turns, NO_LABEL),
    )


def _longer(values: Tensor, turns: int, fill: float) -> Tensor:
    shape = (values.shape[0], turns, *values.shape[2:])
    return torch.cat([values, values.new_full(shape, fill)], dim=1)


def garbage_where_missing(batch: Batch, seed: int = 0) -> Batch:
    """The same dialogues with garbage in the features of real utterances that lack the modality."""
    generator = torch.Generator().manual_seed(seed)
    features = {}
    for name, values in batch.features.items():
        gap = (batch.mask & ~batch.present[name]).unsqueeze(-1)
        noise = GARBAGE * torch.randn(values.shape, generator=generator, dtype=torch.float64).to(values.dtype)
        features[name] = torch.where(gap, noise, values)
    return replace(batch, features=features)


def without(batch: Batch, modality: str, where: Tensor | None = None) -> Batch:
    """The same dialogues without one modality, everywhere or where told.

    Shapes:
        where: (B, T), bool.
    """
    there = batch.present[modality] & (torch.zeros_like(batch.mask) if where is None else ~where)
    return replace(
        batch,
        features={**batch.features, modality: batch.features[modality] * there.unsqueeze(-1)},
        present={**batch.present, modality: there},
    )
