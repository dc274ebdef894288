"""PyTorch's own GRU with the weights of ours: the reference of all that recurs."""

from __future__ import annotations

import torch
from torch import nn

from mer_bench.nn.recurrent import GruWeights


def torch_gru(cell: GruWeights, side: int) -> nn.GRU:
    """PyTorch's GRU with the weights of one side."""
    gru = nn.GRU(cell.inputs[0].shape[1], cell.width).double()
    with torch.no_grad():
        for name, value in (("weight", cell.inputs[0][side].T), ("bias", cell.input_bias[side, 0])):
            new, reset, update = value.chunk(3)
            getattr(gru, f"{name}_ih_l0").copy_(torch.cat([reset, update, new]))
        for name, value in (("weight", cell.state[side].T), ("bias", cell.state_bias[side, 0])):
            getattr(gru, f"{name}_hh_l0").copy_(value)
    return gru
