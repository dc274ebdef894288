"""Dialogues as named, batch-first tensors: one split on the device, batches as index selections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer_bench.errors import DataError

NO_LABEL = -1
"""Label index of an utterance that has no label and serves as context only."""


@dataclass(frozen=True)
class Batch:
    """Some dialogues, padded to the longest of them.

    Shapes (B dialogues, T turns of the longest):
        features[m]: (B, T, width of m), float; zero where `present[m]` is False.
        present[m]: (B, T), bool; True where the utterance is real and has modality m.
        mask: (B, T), bool; True where an utterance is real.
        speakers: (B, T), long; index by first appearance in the dialogue; 0 on padding.
        lengths: (B,), long; turns of each dialogue, at least 1.
        dialogues: (B,), long; index of each dialogue in its split.
        labels: (B, T), long, `NO_LABEL` without a label and on padding; None outside training, so
            that no model can look at what it is scored on.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    mask: Tensor
    speakers: Tensor
    lengths: Tensor
    dialogues: Tensor
    labels: Tensor | None = None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities in the run's order."""
        return tuple(self.features)

    def without_labels(self) -> Batch:
        """The same dialogues as a model sees them when it is scored."""
        return replace(self, labels=None)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device, its features as another float type."""
        return Batch(
            features={name: value.to(device=device, dtype=dtype) for name, value in self.features.items()},
            present={name: value.to(device) for name, value in self.present.items()},
            mask=self.mask.to(device),
            speakers=self.speakers.to(device),
            lengths=self.lengths.to(device),
            dialogues=self.dialogues.to(device),
            labels=None if self.labels is None else self.labels.to(device),
        )


@dataclass(frozen=True)
class Split:
    """One split of a store with its features on a device; batches are index selections from it.

    Shapes (U utterances, D dialogues):
        features[m]: (U, width of m), float. present[m]: (U,), bool.
        speakers: (U,), long. offsets: (D + 1,), long, on the CPU: dialogue d is rows offsets[d] to offsets[d + 1].
        labels: (U,), long, or None where they are out of reach.
        dialogue_ids: (D,), UTF-8 bytes, what messages call the dialogues; None where they have no names.
    """

    name: str
    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    speakers: Tensor
    offsets: Tensor
    labels: Tensor | None = None
    dialogue_ids: NDArray[np.bytes_] | None = None

    def __post_init__(self) -> None:
        rows = int(self.offsets[-1])
        for name, value in self.features.items():
            if value.ndim != 2 or value.shape[0] != rows:
                raise DataError(
                    f"{name} of split {self.name} should be (utterances, width) with {rows} rows, "
                    f"but is {tuple(value.shape)}."
                )
        if bool((self.offsets.diff() < 1).any()):
            raise DataError(f"split {self.name} has a dialogue without utterances.")

    @property
    def device(self) -> torch.device:
        """Where the arrays of the split lie."""
        return self.speakers.device

    @property
    def dialogue_count(self) -> int:
        """How many dialogues the split has."""
        return len(self.offsets) - 1

    @property
    def utterance_count(self) -> int:
        """How many utterances they have together."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Tensor:
        """Turns of each dialogue: (D,), long, on the CPU."""
        return self.offsets.diff()

    def dialogue_name(self, dialogue: int) -> str:
        """What messages call a dialogue: its id in quotes, or its place in the split."""
        if self.dialogue_ids is None:
            return f"number {dialogue}"
        return f"'{bytes(self.dialogue_ids[dialogue]).decode()}'"

    def batch(self, dialogues: Sequence[int] | Tensor) -> Batch:
        """The named dialogues, padded; no Python per utterance.

        Args:
            dialogues: Indices into the split, in the order wanted.
        """
        chosen = torch.as_tensor(dialogues, dtype=torch.long)
        rows, mask = self.rows(chosen)
        device = self.device
        flat = rows.flatten().to(device)
        mask = mask.to(device)
        shape = tuple(mask.shape)
        features, present = {}, {}
        for name, values in self.features.items():
            there = self.present[name].index_select(0, flat).view(shape) & mask
            features[name] = values.index_select(0, flat).view(*shape, -1) * there.unsqueeze(-1)
            present[name] = there
        labels = None
        if self.labels is not None:
            labels = self.labels.index_select(0, flat).view(shape).masked_fill(~mask, NO_LABEL)
        return Batch(
            features=features,
            present=present,
            mask=mask,
            speakers=self.speakers.index_select(0, flat).view(shape).masked_fill(~mask, 0),
            lengths=self.lengths[chosen].to(device),
            dialogues=chosen.to(device),
            labels=labels,
        )

    def rows(self, dialogues: Tensor) -> tuple[Tensor, Tensor]:
        """Row of every cell of a batch, padding repeated from the last turn, and the mask.

        Shapes:
            dialogues: (B,), long. returns: rows (B, T), long, and mask (B, T), bool, both on the CPU.
        """
        lengths = self.lengths[dialogues]
        steps = torch.arange(int(lengths.max()))
        mask = steps < lengths.unsqueeze(1)
        rows = self.offsets[dialogues].unsqueeze(1) + torch.minimum(steps, lengths.unsqueeze(1) - 1)
        return rows, mask

    def in_order(self, batch_size: int, most_pairs: int | None = None) -> Iterator[Batch]:
        """Every dialogue once, longest together, for scoring; the order is fixed.

        Args:
            most_pairs: Fewer dialogues make a batch where their turns, padded and squared, would be more than this,
                as a model that compares every turn with every other needs them all at once; at least one dialogue.
        """
        order = torch.argsort(self.lengths, descending=True, stable=True)
        start = 0
        while start < len(order):
            count = batch_size
            if most_pairs is not None:
                count = max(1, min(count, most_pairs // int(self.lengths[order[start]]) ** 2))
            yield self.batch(order[start : start + count])
            start += count

    def shuffled(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every dialogue once in random batches of similar length, drawn from the generator.

        Dialogues are sorted by length with random noise of a few turns, cut into batches, and the
        batches are shuffled: little padding, and no two epochs have the same batches.
        """
        lengths = self.lengths.double()
        noise = torch.rand(len(lengths), generator=generator, dtype=torch.float64)
        order = torch.argsort(lengths + noise * (1 + 0.15 * lengths), stable=True)
        batches = order.split(batch_size)
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield self.batch(batches[index])
