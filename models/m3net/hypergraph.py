"""Convolution over the hypergraph of a dialogue, whose nodes are its utterances in each modality."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.nn.masking import masked_softmax

from .config import M3NetConfig

SLOPE = 0.01
"""Of the leaky ReLU, as in the published code."""


class HypergraphLayer(nn.Module):
    """Nodes to hyperedges and back: `leaky_relu(D^-1 H W B^-1 G^T X P + b)` (Bai et al. 2021, "Hypergraph Convolution
    and Hypergraph Attention", section 3.2, with weighted nodes).

    H says which node lies in which hyperedge, G how much it counts there, W how much a hyperedge counts at a node;
    B sums G over a hyperedge, D sums W over a node. P is the identity unless `hypergraph_map`. A contextual hyperedge
    holds all utterances of one modality, a multimodal one all modalities of an utterance. Every node thus lies in two
    hyperedges of a known form, and the products with H are two weighted means: no incidence matrix, no edge list.

    Shapes (B dialogues, M modalities, T turns):
        nodes, returns: (B, M, T, width); zero where a node is not present.
        present: (B, M, T), bool.
    """

    def __init__(self, settings: M3NetConfig, modalities: int) -> None:
        super().__init__()
        self.settings = settings
        width = settings.hidden_dim
        self.map = nn.Linear(width, width, bias=False) if settings.hypergraph_map else None
        self.bias = nn.Parameter(torch.zeros(width))
        # Logarithms, so that a weight is positive; 0 is a weight of 1.
        is_weighted = settings.hyperedge_weights != "none" and settings.hyperedges == "both"
        self.edge_weight = nn.Parameter(torch.zeros(modalities + 1)) if is_weighted else None
        scored = settings.hyperedges != "multimodal", settings.hyperedges != "contextual"
        self.context_score, self.modality_score = (
            nn.Parameter(torch.empty(width).uniform_(-1 / math.sqrt(width), 1 / math.sqrt(width)))
            if settings.hyperedge_weights == "content" and is_there
            else None
            for is_there in scored
        )
        by_kind = settings.hyperedge_weights == "kind" and settings.hyperedges != "contextual"
        self.modality_weight = nn.Parameter(torch.zeros(modalities)) if by_kind else None

    def forward(self, nodes: Tensor, present: Tensor) -> Tensor:
        if self.map is not None:
            nodes = self.map(nodes)
        if self.settings.hyperedges == "contextual":
            mixed = self._contextual(nodes, present)
        elif self.settings.hyperedges == "multimodal":
            mixed = self._multimodal(nodes, present)
        else:
            share = self._contextual_share(nodes)
            mixed = share * self._contextual(nodes, present) + (1 - share) * self._multimodal(nodes, present)
        result = functional.leaky_relu(mixed + self.bias, SLOPE)
        return result.masked_fill(~present.unsqueeze(-1), 0)

    def _contextual_share(self, nodes: Tensor) -> Tensor:
        """W / D of the contextual hyperedge of each modality: (M, 1, 1)."""
        if self.edge_weight is None:
            return nodes.new_tensor(0.5)
        return (self.edge_weight[:-1] - self.edge_weight[-1]).sigmoid().view(-1, 1, 1)

    def _contextual(self, nodes: Tensor, present: Tensor) -> Tensor:
        """What the hyperedge of each modality holds: (B, M, 1, width)."""
        scores = nodes.new_zeros(present.shape) if self.context_score is None else nodes @ self.context_score
        weights = masked_softmax(scores, present, dim=2)
        return weights.unsqueeze(2) @ nodes

    def _multimodal(self, nodes: Tensor, present: Tensor) -> Tensor:
        """What the hyperedge of each utterance holds: (B, 1, T, width)."""
        scores = nodes.new_zeros(present.shape) if self.modality_score is None else nodes @ self.modality_score
        if self.modality_weight is not None:
            scores = scores + self.modality_weight.view(-1, 1)
        weights = masked_softmax(scores, present, dim=1)
        return (weights.unsqueeze(-1) * nodes).sum(dim=1, keepdim=True)
