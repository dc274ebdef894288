"""Position and context of an utterance in its dialogue."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mer_bench.nn.dropout import Dropout
from mer_bench.nn.recurrent import GruWeights, TurnOrder, gru_chain


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

    Args:
        width: Width of input and result, half of it from each direction; even.
        layers: GRUs on top of each other.
        dropout: Dropped share between them.

    Shapes:
        states: (B, T, width), float. order: of the batch, both directions.
        returns: (B, T, width), float; zero on padding.
    """

    def __init__(self, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.cells = nn.ModuleList([GruWeights([width], width // 2) for _ in range(layers)])
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, order: TurnOrder) -> Tensor:
        for number, cell in enumerate(self.cells):
            assert isinstance(cell, GruWeights)
            if number:
                states = self.dropout(states)
            # The recurrence keeps full precision; mixed precision pays in the large products alone.
            with torch.autocast(device_type=states.device.type, enabled=False):
                packed = order.pack(states.to(cell.input_bias.dtype))
                gates = torch.baddbmm(cell.input_bias, packed, cell.inputs[0])  # (2, N, 3 width / 2)
                states = order.unpack(gru_chain(gates, cell, order))  # (B, T, width)
        return states
