"""An utterance as its modalities' features side by side, a learned vector where one is missing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_bench.data.batches import Batch
from mer_bench.nn.dropout import dropout
from mer_bench.nn.missing import MissingVectors


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
        self.rate = rate
        self.missing = MissingVectors(widths)
        total = sum(widths.values())
        self.out = width or total
        self.entry = nn.Sequential(nn.Linear(total, width), nn.LayerNorm(width), nn.GELU()) if width else None

    def forward(self, batch: Batch) -> Tensor:
        values = dropout(self.missing.side_by_side(batch), self.rate, self.training)  # (B, T, sum of widths)
        if self.entry is None:
            return values
        return dropout(self.entry(values), self.rate, self.training)  # (B, T, width)
