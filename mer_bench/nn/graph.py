"""Graphs of one dialogue each, whose nodes are its utterances in each modality.

Held in per-dialogue blocks: a dense block (T, T) for each modality, and between two modalities only the
diagonal, because an utterance is joined across modalities to itself alone. Nothing is multiplied with the
zeros between dialogues. These graphs are complete within a modality, so an edge list and message passing
would only cost: torch-geometric has no place here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from mer_bench.nn.dropout import dropout_scale, kept_layers
from mer_bench.nn.seeds import each_seed

_threshold_backward = torch.ops.aten.threshold_backward

SHRINK = 0.99999
"""Cosines are multiplied by this, so that the slope of arccos stays finite."""

DENSE_TURNS = 32
"""Turns up to which a dialogue's graph is one matrix in the layers; measured with three modalities and width 100."""


@dataclass(frozen=True)
class ModalityGraph:
    """A normalised adjacency of a batch of dialogues; it is symmetric.

    Shapes (B dialogues, M modalities, T turns):
        within: (B * M, T, T); edges between the utterances of one modality.
        across: (M, M, B, T, 1); edge of an utterance between two modalities, zero from one to itself.
    """

    within: Tensor
    across: Tensor

    def dense(self) -> Tensor:
        """The same adjacency as one matrix a dialogue: (B, M * T, M * T), modality by modality."""
        modalities, _, batch, turns, _ = self.across.shape
        own = torch.eye(modalities, dtype=self.within.dtype)
        within = torch.einsum("bmij,mn->bminj", self.within.view(batch, modalities, turns, turns), own)
        return (within + torch.einsum("mnbi,ij->bminj", self.across.squeeze(-1), torch.eye(turns))).reshape(
            batch, modalities * turns, modalities * turns
        )


def angular_similarity(cosine: Tensor) -> Tensor:
    """1 - arccos(0.99999 cos) / pi: 1 for the same direction, 1/2 for a right angle, 0 for the opposite."""
    return 1 - torch.acos((SHRINK * cosine).clamp(-1, 1)) / math.pi


def modality_graph(nodes: Tensor, present: Tensor) -> ModalityGraph:
    """The graph of MMGCN: angular similarities, normalised by degree from both sides.

    Joined are all pairs of one modality's utterances in a dialogue (each with itself too), and the same
    utterance in different modalities. A node that is not present has no edge. Gradients flow through.

    Shapes:
        nodes: (B, M, T, width). present: (B, M, T), bool.
    """
    batch, modalities, turns, _ = nodes.shape
    there = present.to(nodes.dtype)
    unit = functional.normalize(nodes, dim=-1)
    flat = unit.view(batch * modalities, turns, -1)
    within = angular_similarity(torch.bmm(flat, flat.transpose(1, 2))).view(batch, modalities, turns, turns)
    within = within * (there.unsqueeze(-1) * there.unsqueeze(-2))
    sides, there_sides = unit.transpose(0, 1), there.transpose(0, 1)  # (M, B, T, width), (M, B, T)
    across = angular_similarity((sides.unsqueeze(0) * sides.unsqueeze(1)).sum(-1))  # (M, M, B, T)
    other = 1 - torch.eye(modalities, dtype=nodes.dtype, device=nodes.device)
    across = across * other[..., None, None] * (there_sides.unsqueeze(0) * there_sides.unsqueeze(1))
    degree = within.sum(-1) + across.sum(1).transpose(0, 1)  # (B, M, T)
    scale = torch.where(present, degree, 1).rsqrt()
    scale_sides = scale.transpose(0, 1)
    within = within * (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    across = across * (scale_sides.unsqueeze(0) * scale_sides.unsqueeze(1))
    return ModalityGraph(within.flatten(0, 1), across.unsqueeze(-1))


def graph_layers(
    first: Tensor, graph: ModalityGraph, carried: Tensor, fixed: Tensor, rate: float, training: bool
) -> Tensor:
    """Graph convolutions that all see the nodes' first representation too.

    With h = relu(first), layer l is `h = relu((A drop(h)) carried_l + relu(first) fixed_l)`; the last h is
    dropped too. One hand-written backward pass for all layers: the share of `first` in every layer, the
    gradient of every weight and that of the edges are few large products.

    Args:
        rate: Dropout before every layer and after the last.

    Shapes:
        first, returns: (B, M, T, width). carried, fixed: (layers, width, width).
    """
    rate = rate if training else 0.0

    def run(*given: Tensor | None) -> Tensor:
        result: Tensor = _GraphLayers.apply(*given, rate)  # type: ignore[no-untyped-call]
        return result

    return each_seed(run, first, graph.within, graph.across, carried, fixed)


class _Adjacency:
    """The adjacency of a batch times its nodes, and the gradient of its edges, one of two ways.

    Short dialogues stand as one matrix (M T, M T) each: two thirds of its products are with zeros, but a layer is
    one call instead of 1 + M (M - 1). In long ones the zeros cost more than the calls.
    """

    def __init__(self, within: Tensor, across: Tensor) -> None:
        self.modalities, _, self.batch, self.turns, _ = across.shape
        self.within, self.matrix = within, torch.empty(0)
        self.pairs = [(m, n) for m in range(self.modalities) for n in range(self.modalities) if m != n]
        self.edges = {(m, n): across[m, n] for m, n in self.pairs}  # M (M - 1) x (B, T, 1)
        self.is_dense = self.turns <= DENSE_TURNS or self.modalities == 1
        if self.is_dense:
            self.matrix = within.new_zeros(self.batch, self.modalities, self.turns, self.modalities, self.turns)
            for m, block in enumerate(within.view(self.batch, self.modalities, self.turns, self.turns).unbind(1)):
                self.matrix[:, m, :, m] = block
            for m, n in self.pairs:
                self.matrix[:, m, :, n].diagonal(dim1=1, dim2=2).copy_(self.edges[m, n].squeeze(-1))
            self.matrix = self.matrix.view(self.batch, self.modalities * self.turns, -1)

    def times(self, nodes: Tensor, out: Tensor) -> Tensor:
        """`A nodes` for (B M T, width), written to `out`."""
        width = nodes.shape[-1]
        if self.is_dense:
            blocks = (self.batch, -1, width)
            torch.bmm(self.matrix, nodes.view(blocks), out=out.view(blocks))
            return out
        blocks = (self.batch * self.modalities, self.turns, width)
        torch.bmm(self.within, nodes.view(blocks), out=out.view(blocks))
        results, given = self._by_modality(out), self._by_modality(nodes)
        for m, n in self.pairs:
            results[m].addcmul_(self.edges[m, n], given[n])
        return out

    def start_gradient(self, width: int) -> None:
        """Begin a sum of edge gradients over layers."""
        if self.is_dense:
            self.grad_matrix = torch.zeros_like(self.matrix)
        else:
            self.grad_within = torch.zeros_like(self.within)
            shape = (self.batch, self.turns, width)
            self.grad_edges = {pair: self.within.new_zeros(shape) for pair in self.pairs}

    def add_gradient(self, grad: Tensor, nodes: Tensor) -> None:
        """Add that of one product, from the gradient of its result and its nodes, both (B M T, width)."""
        width = nodes.shape[-1]
        if self.is_dense:
            blocks = (self.batch, -1, width)
            self.grad_matrix.baddbmm_(grad.view(blocks), nodes.view(blocks).transpose(1, 2))
            return
        blocks = (self.batch * self.modalities, self.turns, width)
        self.grad_within.baddbmm_(grad.view(blocks), nodes.view(blocks).transpose(1, 2))
        grads, given = self._by_modality(grad), self._by_modality(nodes)
        for m, n in self.pairs:
            self.grad_edges[m, n].addcmul_(grads[m], given[n])

    def gradient(self) -> tuple[Tensor, Tensor]:
        """That of within (B M, T, T) and of across (M, M, B, T, 1)."""
        across = self.within.new_zeros(self.modalities, self.modalities, self.batch, self.turns, 1)
        if not self.is_dense:
            for m, n in self.pairs:
                torch.sum(self.grad_edges[m, n], -1, keepdim=True, out=across[m, n])
            return self.grad_within, across
        parts = self.grad_matrix.view(self.batch, self.modalities, self.turns, self.modalities, self.turns)
        for m, n in self.pairs:
            across[m, n, ..., 0] = parts[:, m, :, n].diagonal(dim1=1, dim2=2)
        within = torch.stack([parts[:, m, :, m] for m in range(self.modalities)], dim=1)
        return within.flatten(0, 1), across

    def _by_modality(self, nodes: Tensor) -> tuple[Tensor, ...]:
        return nodes.view(self.batch, self.modalities, self.turns, -1).unbind(1)


class _GraphLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, within: Tensor, across: Tensor, carried: Tensor, fixed: Tensor, rate: float
    ) -> Tensor:
        layers, width, _ = carried.shape
        start = first.relu().reshape(-1, width)  # (nodes, width)
        side_by_side = fixed.transpose(0, 1).reshape(width, layers * width)
        shares = torch.mm(start, side_by_side).view(-1, layers, width)
        around = first.new_empty(layers, len(start), width)
        # What dropout multiplies with is part of the adjacency, so that a layer only sets values to zero.
        scale = dropout_scale(rate)
        adjacency = _Adjacency(within * scale, across * scale)
        dropped = first.new_empty(layers + 1, len(start), width)
        kept = kept_layers(layers + 1, start.numel(), rate, start).view(dropped.shape) if rate else None
        dropped[0] = start if kept is None else start * kept[0]
        for layer, (share, heard, weight) in enumerate(
            zip(shares.unbind(1), around.unbind(), carried.unbind(), strict=True)
        ):
            adjacency.times(dropped[layer], heard)
            current = torch.addmm(share, heard, weight, out=dropped[layer + 1]).relu_()
            if kept is not None:
                current *= kept[layer + 1]
        ctx.scale = scale
        ctx.adjacency = adjacency
        ctx.save_for_backward(start, carried, side_by_side, around, dropped)
        return (dropped[-1] * scale).view(first.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        start, carried, side_by_side, around, dropped = ctx.saved_tensors
        adjacency: _Adjacency = ctx.adjacency
        layers, width, _ = carried.shape
        inner = start.new_empty(len(start), layers, width)  # gradient of what each layer's relu sees
        adjacency.start_gradient(width)
        shape = grad.shape
        grad = grad.reshape(-1, width) * ctx.scale
        arrived, grad_around = torch.empty_like(grad), torch.empty_like(grad)
        back = carried.transpose(1, 2).unbind()
        kept = dropped.unbind()
        for layer in range(layers - 1, -1, -1):
            # What was kept is positive: no mask of the dropout or of the relu is stored.
            through = _threshold_backward.grad_input(grad, kept[layer + 1], 0, grad_input=inner[:, layer])
            torch.mm(through, back[layer], out=grad_around)
            adjacency.add_gradient(grad_around, kept[layer])
            grad = adjacency.times(grad_around, arrived)  # the adjacency is symmetric
        flat = inner.view(-1, layers * width)
        grad_start = _threshold_backward(grad, kept[0], 0).addmm_(flat, side_by_side.t())
        grad_first = _threshold_backward(grad_start, start, 0).view(shape)
        grad_carried = torch.bmm(around.transpose(1, 2), inner.transpose(0, 1))
        grad_fixed = torch.mm(start.t(), flat).view(width, layers, width).transpose(0, 1)
        grad_within, grad_across = (part * ctx.scale for part in adjacency.gradient())
        return grad_first, grad_within, grad_across, grad_carried, grad_fixed, None
