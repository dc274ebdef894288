"""Graph-based dynamic fusion: graph convolutions with the gates of an LSTM between them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.nn.dropout import dropout
from mer_bench.nn.graph import ModalityGraph

from .config import MmDfnConfig


class DynamicFusion(nn.Module):
    """Layers of graph convolution that read the graph's state through one LSTM, shared by all layers.

    Hu et al. (2022), "MM-DFN", in the formulas of the authors' code. With h0 = relu(first(x)), z_0 = drop(h0) and
    the LSTM's states zero at first, layer l = 1, 2, ... is

        g, c = LSTM(z, (g, c))
        z <- z + drop(relu(t [A g, h0] W_l + (1 - t) ((1 - alpha) A g + alpha h0))),   t = ln(theta / l + 1)

    and without `dynamic` g is z itself and nothing is added to. The convolution (GCNII with a weight of its own for
    h0) is written as `(A g) U_l + h0 V_l`, where U_l and V_l hold the multiples of the identity too.

    Nodes are rows, present ones alone, so that the LSTM computes nothing on padding; for A they go to a table and back.

    Shapes (K present nodes of B dialogues, M modalities, T turns):
        weight: (layers, 2 graph width, graph width).
        forward: nodes (K, node width), their cells (K,) in the table (B, M, T) flattened; returns (K, graph width).
    """

    def __init__(self, settings: MmDfnConfig) -> None:
        super().__init__()
        self.settings = settings
        width = settings.graph_width
        self.first = nn.Linear(settings.node_width, width)
        self.gates = nn.LSTMCell(width, width) if settings.dynamic else None
        self.weight = nn.Parameter(torch.empty(settings.graph_layers, 2 * width, width))
        nn.init.uniform_(self.weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, nodes: Tensor, cells: Tensor, graph: ModalityGraph) -> Tensor:
        rate = self.settings.dropout
        start = functional.relu(self.first(nodes))  # (K, graph width)
        carried, fixed = self._products()
        layers, width, _ = fixed.shape
        shares = torch.mm(start, fixed.transpose(0, 1).reshape(width, layers * width)).view(-1, layers, width)
        current = dropout(start, rate, self.training)
        states: tuple[Tensor, Tensor] | None = None
        # One call for the views of all layers: the gradient of each view alone would be as large as that of all.
        for share, weight in zip(shares.unbind(1), carried.unbind(0), strict=True):
            given = current
            if self.gates is not None:
                states = self.gates(given, states)
                current = states[0]
            around = propagated(current, cells, graph)  # (K, graph width)
            current = functional.relu(torch.addmm(share, around, weight))
            current = dropout(current, rate, self.training)
            if self.gates is not None:
                current = current + given
        return current

    def _products(self) -> tuple[Tensor, Tensor]:
        """U and V of every layer, each (layers, width, width)."""
        alpha, width = self.settings.alpha, self.weight.shape[-1]
        strengths = [math.log(self.settings.theta / layer + 1) for layer in range(1, self.settings.graph_layers + 1)]
        strength = self.weight.new_tensor(strengths).view(-1, 1, 1)
        identity = torch.eye(width, dtype=self.weight.dtype, device=self.weight.device)
        scaled = strength * self.weight
        carried = scaled[:, :width] + (1 - strength) * (1 - alpha) * identity
        fixed = scaled[:, width:] + (1 - strength) * alpha * identity
        return carried, fixed


def propagated(rows: Tensor, cells: Tensor, graph: ModalityGraph) -> Tensor:
    """The adjacency times the nodes.

    Shapes:
        rows: (K, width), the present nodes. cells: (K,), long; each node's place in (B, M, T), flattened.
        returns: (K, width).
    """
    modalities, _, batch, turns, _ = graph.across.shape
    table = rows.new_zeros(batch * modalities * turns, rows.shape[-1]).index_copy(0, cells, rows)
    blocks = table.view(batch * modalities, turns, -1)
    result = torch.bmm(graph.within, blocks)  # (B M, T, width)
    sides = blocks.view(batch, modalities, turns, -1).unbind(1)  # M x (B, T, width)
    # Products of matrices as small as M x M cost more in calls than in numbers: pair by pair instead.
    mixed = [
        sum((graph.across[here, there] * sides[there] for there in range(modalities) if there != here), start=own)
        for here, own in enumerate(result.view(batch, modalities, turns, -1).unbind(1))
    ]
    result = torch.stack(mixed, dim=1).flatten(0, 1)  # (B M, T, width)
    return result.flatten(0, 1).index_select(0, cells)
