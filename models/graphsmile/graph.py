"""Graphs between two modalities each, in a window of turns, for all pairs of modalities together."""

from __future__ import annotations

import math
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.nn.dropout import dropout

from .config import GraphSmileConfig

REACH = 32
"""Distance in turns from which on all edges of a direction share a weight."""


def modality_pairs(count: int) -> tuple[tuple[int, int], ...]:
    """Both modalities of each graph by their number; a modality alone is paired with itself."""
    return tuple(combinations(range(count), 2)) if count > 1 else ((0, 0),)


class PairEdges(nn.Module):
    """`D^-1/2 A D^-1/2` of each pair's graph, D the row sums of A.

    A node is joined to the other modality's nodes at most `past_window` turns before and `future_window` after it,
    its own turn included, where both are present. Edges lie between the modalities alone.

    Shapes (P pairs, B dialogues, T turns):
        weight: (P, 2, 2 REACH + 1), logarithms; by the side that receives and the turns from there to the sender.
        present: (P, B, 2, T), bool, of both sides.
        returns: (P, B, 2, T, T); [p, b, s, i, j] is what side s at turn i takes from the other side at turn j.
    """

    def __init__(self, settings: GraphSmileConfig, pairs: int) -> None:
        super().__init__()
        self.settings = settings
        weight = torch.zeros(pairs, 2, 2 * self._reach() + 1)
        self.weight = nn.Parameter(weight) if settings.edge_weights else None

    def _reach(self) -> int:
        windows = self.settings.past_window, self.settings.future_window
        return REACH if -1 in windows else min(max(*windows), REACH)

    def forward(self, present: Tensor, like: Tensor) -> Tensor:
        turn = torch.arange(present.shape[-1], device=present.device)
        distance = turn - turn.unsqueeze(1)  # (T, T), positive towards later turns
        past, future = self.settings.past_window, self.settings.future_window
        near = torch.ones_like(distance, dtype=torch.bool)
        if past >= 0:
            near &= distance >= -past
        if future >= 0:
            near &= distance <= future
        edges = (present.unsqueeze(-1) & present.flip(2).unsqueeze(-2) & near).to(like.dtype)  # (P, B, 2, T, T)
        if self.weight is not None:
            reach = self._reach()
            strength = self.weight.exp()[..., distance.clamp(-reach, reach) + reach]  # (P, 2, T, T)
            edges = edges * strength.unsqueeze(1)
        degree = edges.sum(-1)  # (P, B, 2, T)
        scale = torch.where(degree > 0, degree, 1).rsqrt()
        return edges * scale.unsqueeze(-1) * scale.flip(2).unsqueeze(-2)


class PairLayer(nn.Module):
    """`h <- A h W + b`, and what of it is handed on: `dropout(leaky_relu(V h + c))`.

    Shapes:
        nodes: (P, B, 2, T, width). edges: of `PairEdges`. returns: twice (P, B, 2, T, width).
    """

    def __init__(self, settings: GraphSmileConfig, pairs: int) -> None:
        super().__init__()
        width = settings.hidden_dim
        self.rate = settings.dropout
        bound = 1 / math.sqrt(width)
        self.weight, self.handed_weight = (
            nn.Parameter(torch.empty(pairs, width, width).uniform_(-bound, bound)) for _ in range(2)
        )
        self.bias, self.handed_bias = (
            nn.Parameter(torch.empty(pairs, 1, width).uniform_(-bound, bound)) for _ in range(2)
        )

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        found = (edges @ nodes.flip(2)).flatten(1, 3)  # (P, nodes of a pair, width)
        found = torch.baddbmm(self.bias, found, self.weight)
        handed = functional.leaky_relu(torch.baddbmm(self.handed_bias, found, self.handed_weight))
        return found.view_as(nodes), dropout(handed, self.rate, self.training).view_as(nodes)
