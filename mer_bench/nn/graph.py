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

from mer_bench.nn.dropout import dropout, dropout_scale

_threshold_backward = torch.ops.aten.threshold_backward

SHRINK = 0.99999
"""Cosines are multiplied by this, so that the slope of arccos stays finite."""


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
    result: Tensor = _GraphLayers.apply(  # type: ignore[no-untyped-call]
        first, graph.within, graph.across, carried, fixed, rate
    )
    return result


def _propagate(within: Tensor, across: Tensor, nodes: Tensor) -> Tensor:
    """The adjacency times the nodes (B, M, T, width)."""
    batch, modalities, turns, width = nodes.shape
    result = torch.bmm(within, nodes.view(batch * modalities, turns, width)).view_as(nodes)
    for here in range(modalities):
        for there in range(modalities):
            if here != there:
                result[:, here].addcmul_(across[here, there], nodes[:, there])
    return result


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
        current = start
        dropped = [dropout(current, rate, rate > 0)]
        for layer in range(layers):
            around[layer] = _propagate(within, across, dropped[-1].view(first.shape)).view(-1, width)
            current = torch.addmm(shares[:, layer], around[layer], carried[layer]).relu_()
            dropped.append(dropout(current, rate, rate > 0))
        ctx.scale = dropout_scale(rate)
        ctx.shape = first.shape
        ctx.save_for_backward(start, within, across, carried, side_by_side, around, *dropped)
        return dropped[-1].view(first.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        start, within, across, carried, side_by_side, around, *dropped = ctx.saved_tensors
        layers, width, _ = carried.shape
        batch, modalities, turns, _ = ctx.shape
        inner = start.new_empty(len(start), layers, width)  # gradient of what each layer's relu sees
        grad_within = torch.zeros_like(within)
        pairs = start.new_zeros(modalities, modalities, batch, turns, width)
        grad = grad.reshape(-1, width)
        for layer in range(layers - 1, -1, -1):
            # What was kept is positive and was scaled: no mask of the dropout or of the relu is stored.
            through = _threshold_backward(grad, dropped[layer + 1], 0).mul_(ctx.scale)
            inner[:, layer] = through
            before = dropped[layer].view(ctx.shape)
            grad_around = torch.mm(through, carried[layer].t()).view(ctx.shape)
            sides, sides_before = grad_around.transpose(0, 1), before.transpose(0, 1)
            grad_within.baddbmm_(grad_around.view(-1, turns, width), before.view(-1, turns, width).transpose(1, 2))
            for here in range(modalities):
                for there in range(modalities):
                    if here != there:
                        pairs[here, there].addcmul_(sides[here], sides_before[there])
            grad = _propagate(within, across, grad_around).view(-1, width)  # the adjacency is symmetric
        flat = inner.view(-1, layers * width)
        grad_start = _threshold_backward(grad, dropped[0], 0).mul_(ctx.scale).addmm_(flat, side_by_side.t())
        grad_first = _threshold_backward(grad_start, start, 0).view(ctx.shape)
        grad_carried = torch.bmm(around.transpose(1, 2), inner.transpose(0, 1))
        grad_fixed = torch.mm(start.t(), flat).view(width, layers, width).transpose(0, 1)
        return grad_first, grad_within, pairs.sum(-1, keepdim=True), grad_carried, grad_fixed, None
