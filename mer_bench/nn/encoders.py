"""Position and context of an utterance in its dialogue."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def sinusoidal_positions(turns: int, width: int) -> Tensor:
    """`sin(t / 10000^(2i/width))` in even columns and the cosine in odd ones (Vaswani et al. 2017, section 3.5).

    Shapes:
        returns: (turns, width), float.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))  # (ceil(width / 2),)
    angles = torch.arange(turns)[:, None] * rates  # (turns, ceil(width / 2))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width]


class LearnedPositions(nn.Module):
    """One learned vector a turn; turns from `turns` on share the last one.

    Shapes:
        returns: (count, width), float.
    """

    def __init__(self, turns: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(turns, width) * 0.02)

    def forward(self, count: int) -> Tensor:
        rows = torch.arange(count, device=self.table.device).clamp_max(len(self.table) - 1)
        return self.table.index_select(0, rows)


class ContextGru(nn.Module):
    """A bidirectional GRU over the turns of each dialogue; padding takes no part in either direction.

    Shapes:
        states: (B, T, width), float. lengths: (B,), long, each at least 1.
        returns: (B, T, width), float; zero on padding.
    """

    def __init__(self, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = nn.GRU(
            width,
            width // 2,
            num_layers=layers,
            bidirectional=True,
            batch_first=True,
            dropout=dropout if layers > 1 else 0.0,
        )

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(states, lengths.cpu(), batch_first=True, enforce_sorted=False)
        context, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=states.shape[1])
        assert isinstance(context, Tensor)
        return context  # (B, T, width)
