"""What stands for a modality that an utterance lacks, where a model has no place to leave it out."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.data.batches import Batch


class MissingVectors(nn.ParameterDict):
    """A learned vector for each modality, which replaces the features of an utterance that lacks it.

    It starts at zero; a fixed zero would be a value like any other.

    Args:
        widths: Width of each modality's features, in the order of the run.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__({name: torch.zeros(size) for name, size in widths.items()})
        self.order = tuple(widths)  # the dictionary itself sorts its names

    def features(self, modality: str, batch: Batch) -> Tensor:
        """One modality's features: (B, T, width); any finite values on padding."""
        vector: Tensor = self[modality]
        return torch.where(batch.present[modality].unsqueeze(-1), batch.features[modality].to(vector.dtype), vector)

    def side_by_side(self, batch: Batch) -> Tensor:
        """The features of all modalities: (B, T, sum of widths)."""
        return torch.cat([self.features(name, batch) for name in self.order], dim=-1)
