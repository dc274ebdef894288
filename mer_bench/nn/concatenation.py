"""An utterance as its modalities' features side by side, a learned vector where one is missing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_bench.data.batches import Batch
from mer_bench.nn.dropout import dropout


class ConcatenatedUtterances(nn.Module):
    """The modalities side by side, and a layer (linear map, layer norm, GELU) that brings them to one scale.

    A modality that an utterance lacks is replaced by a learned vector that starts at zero.

    Args:
        widths: Width of each modality's features, in the order in which they are put side by side.
        width: Width of the layer; 0: none, the features as they are.
        rate: Dropped share of the features, and of what the layer makes of them.

    Attributes:
        out: Width of the result.

    Shapes:
        returns: (B, T, out), float; any finite values on padding.
    """

    def __init__(self, widths: Mapping[str, int], width: int, rate: float) -> None:
        super().__init__()
        self.names = tuple(widths)
        self.rate = rate
        self.missing = nn.ParameterDict({name: torch.zeros(size) for name, size in widths.items()})
        total = sum(widths.values())
        self.out = width or total
        self.entry = nn.Sequential(nn.Linear(total, width), nn.LayerNorm(width), nn.GELU()) if width else None

    def forward(self, batch: Batch) -> Tensor:
        # Not in the order of `missing`: a ParameterDict sorts its names.
        values = torch.cat([self._features(name, batch) for name in self.names], dim=-1)  # (B, T, sum of widths)
        values = dropout(values, self.rate, self.training)
        if self.entry is None:
            return values
        return dropout(self.entry(values), self.rate, self.training)  # (B, T, width)

    def _features(self, name: str, batch: Batch) -> Tensor:
        vector = self.missing[name]
        return torch.where(batch.present[name].unsqueeze(-1), batch.features[name].to(vector.dtype), vector)
