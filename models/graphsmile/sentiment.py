"""Sentiment and its change between utterances as tasks beside the emotion; they are losses and label nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import NO_LABEL
from mer_bench.nn.masking import masked_mean

from .polarity import POLARITIES

UNKNOWN = -1
"""Polarity of an utterance without a label, or of a class that may be of either."""


class PolarityTable(nn.Module):
    """Labels to polarities: (B, T), long, to the same, `UNKNOWN` where none is known."""

    table: Tensor

    def __init__(self, polarities: tuple[int | None, ...]) -> None:
        super().__init__()
        known = [UNKNOWN if index is None else index for index in polarities]
        self.register_buffer("table", torch.tensor([*known, UNKNOWN]), persistent=False)

    def forward(self, labels: Tensor) -> Tensor:
        return self.table[torch.where(labels == NO_LABEL, len(self.table) - 1, labels)]


class SentimentTask(nn.Module):
    """Cross-entropy of the polarity, a mean over the utterances whose polarity is known.

    Shapes:
        states: (B, T, width). polarity: (B, T), long. returns: scalar.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = nn.Linear(width, len(POLARITIES))

    def forward(self, states: Tensor, polarity: Tensor) -> Tensor:
        loss = functional.cross_entropy(self.scores(states).transpose(1, 2), polarity.clamp_min(0), reduction="none")
        return masked_mean(loss, polarity != UNKNOWN)


class ShiftTask(nn.Module):
    """Whether the polarity differs between two utterances i, j of a stretch: `sigmoid(w [f_i, f_j] + b)`.

    The stretches of `window` turns follow each other without overlap, the last may be shorter. All ordered pairs of
    a stretch count whose polarities are known, an utterance with itself too, as in the published code.

    Shapes:
        states: (B, T, width). polarity: (B, T), long. returns: scalar.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.scores = nn.Linear(width, 2)  # of the first and of the second of a pair; b is the sum of both biases

    def forward(self, states: Tensor, polarity: Tensor) -> Tensor:
        first, second = self.scores(states).unbind(-1)  # 2 x (B, T)
        known = polarity != UNKNOWN
        compared = known.unsqueeze(-1) & known.unsqueeze(-2)  # (B, T, T)
        if self.window > 0:
            stretch = torch.arange(polarity.shape[1], device=polarity.device) // self.window
            compared = compared & (stretch.unsqueeze(-1) == stretch)
        differs = (polarity.unsqueeze(-1) != polarity.unsqueeze(-2)).to(states.dtype)
        loss = functional.binary_cross_entropy_with_logits(
            first.unsqueeze(-1) + second.unsqueeze(-2), differs, reduction="none"
        )
        return masked_mean(loss, compared)
