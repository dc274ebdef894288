"""Graph layers whose edges choose between what neighbours share (low frequencies) and how they differ (high ones)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import M3NetConfig


@dataclass(frozen=True)
class FrequencyGraph:
    """`1 / sqrt(d_i d_j)` for each edge, d the number of a node's neighbours; no node is its own neighbour.

    Shapes (B dialogues, M modalities, T turns):
        within: (B, M, T, T), between the utterances of a modality.
        across: (B, M, M, T), between the modalities of an utterance.
    """

    within: Tensor
    across: Tensor


def frequency_graph(present: Tensor, like: Tensor) -> FrequencyGraph:
    """Joins all utterances of a modality in a dialogue, and all modalities of an utterance.

    Shapes:
        present: (B, M, T), bool. like: of the wanted float type and device.
    """
    there = present.to(like.dtype)
    modalities, turns = present.shape[1:]
    within = there.unsqueeze(-1) * there.unsqueeze(-2)
    within = within * (1 - torch.eye(turns, dtype=like.dtype, device=like.device))
    across = there.unsqueeze(1) * there.unsqueeze(2)
    across = across * (1 - torch.eye(modalities, dtype=like.dtype, device=like.device)).unsqueeze(-1)
    scale = (within.sum(-1) + across.sum(2)).clamp_min(1).rsqrt()  # (B, M, T); a lone node has no edge to scale
    return FrequencyGraph(
        within * scale.unsqueeze(-1) * scale.unsqueeze(-2), across * scale.unsqueeze(1) * scale.unsqueeze(2)
    )


class FrequencyLayer(nn.Module):
    """`h_i + sum_j tanh(a . h_i + b . h_j + c) / sqrt(d_i d_j) h_j` over the neighbours j of i.

    With r_L + r_H = 1 the shares of the low-pass `I + D^-1/2 A D^-1/2` and the high-pass `I - D^-1/2 A D^-1/2`, an
    edge has r_L - r_H, which is the tanh (the filters of Bo et al. 2021, "Beyond Low-frequency Information in Graph
    Convolutional Networks", section 3.2). With frequencies `low` or `high` it is 1 or -1.

    Shapes:
        nodes, returns: (B, M, T, width).
    """

    def __init__(self, settings: M3NetConfig) -> None:
        super().__init__()
        self.sign = -1 if settings.frequencies == "high" else 1
        self.gate = nn.Linear(settings.hidden_dim, 2) if settings.frequencies == "adaptive" else None

    def forward(self, nodes: Tensor, graph: FrequencyGraph) -> Tensor:
        within, across = self.sign * graph.within, self.sign * graph.across
        if self.gate is not None:
            own, other = self.gate(nodes).unbind(-1)  # 2 x (B, M, T); c is the sum of both biases
            within = within * (own.unsqueeze(-1) + other.unsqueeze(-2)).tanh()
            across = across * (own.unsqueeze(2) + other.unsqueeze(1)).tanh()
        found: Tensor = within @ nodes + torch.einsum("bmnt,bntw->bmtw", across, nodes)
        return nodes + found
