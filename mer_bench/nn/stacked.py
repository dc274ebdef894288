"""Layers of one shape with weights of their own, computed together: member s of a stack is one slice of each product.

On a CPU a small product costs little more than its call, so that one call for all modalities, or for all
pairs of them, takes a fraction of the time of a call for each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import KeySet
from mer_bench.nn.dropout import Dropout


@dataclass(frozen=True)
class RealTurns:
    """Where the real turns of a padded batch lie, dialogue by dialogue.

    What looks at one utterance at a time is computed on these alone: a batch is often more padding than turns.

    Shapes (B dialogues, T turns of the longest, N real turns):
        cells: (N,), long; cell of the padded batch, flattened to B T. rows: (B T,), long; place of a cell among them.
    """

    cells: Tensor
    rows: Tensor
    shape: tuple[int, int]

    def pack(self, padded: Tensor) -> Tensor:
        """The real turns of each member: (S, B, T, width) to (S, N, width)."""
        return padded.flatten(1, 2).index_select(1, self.cells)

    def unpack(self, packed: Tensor) -> Tensor:
        """Back in the padded batch, zero on padding: (S, N, width) to (S, B, T, width)."""
        members, _, width = packed.shape
        empty = packed.new_zeros(members, len(self.rows), width)
        return empty.index_copy(1, self.cells, packed).view(members, *self.shape, width)


def real_turns(mask: Tensor) -> RealTurns:
    """Those of a batch.

    Shapes:
        mask: (B, T), bool.
    """
    flat = mask.flatten()
    return RealTurns(flat.nonzero().squeeze(1), (flat.cumsum(0) - 1).clamp_min(0), (mask.shape[0], mask.shape[1]))


class StackedLinear(nn.Module):
    """A linear map for each member, drawn as `torch.nn.Linear` draws it.

    Shapes:
        weight: (S, inputs, outputs). bias: (S, 1, outputs), or None.
        values: (S, N, inputs). returns: (S, N, outputs).
    """

    def __init__(self, members: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        if self.bias is None:
            return torch.bmm(values, self.weight)
        return torch.baddbmm(self.bias, values, self.weight)


class StackedNorm(nn.Module):
    """A layer norm for each member: (S, N, width) to the same."""

    def __init__(self, members: int, width: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(members, 1, width))
        self.bias = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, values: Tensor) -> Tensor:
        return F.layer_norm(values, values.shape[-1:], eps=self.epsilon) * self.weight + self.bias


class StackedFeedForward(nn.Module):
    """`dropout(W_2 dropout(relu(W_1 x)))` for each member: (S, N, width) to the same."""

    def __init__(self, members: int, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = StackedLinear(members, width, inner)
        self.outer = StackedLinear(members, inner, width)
        self.dropout = Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.outer(self.dropout(self.inner(values).relu())))
        return result


class StackedAttention(nn.Module):
    """Scaled dot-product attention with several heads for each member (Vaswani et al. 2017, section 3.2).

    The keys have no bias: it would add the same number to every score of a query, which a softmax doesn't see.

    Args:
        members: S. width: Of queries, source and result; a multiple of heads.
        dropout: Dropped share of the attention weights.

    Shapes (B dialogues, T turns; N = B T, or with `turns` the real turns of all):
        queries, source: (S, N, width). keys: of the source, over S B dialogues, member by member.
        returns: (S, N, width); zero where the key set is empty.
    """

    def __init__(self, members: int, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = StackedLinear(members, width, width)
        self.key = StackedLinear(members, width, width, bias=False)
        self.value = StackedLinear(members, width, width)
        self.result = StackedLinear(members, width, width)

    def forward(self, queries: Tensor, source: Tensor, keys: KeySet, turns: RealTurns | None = None) -> Tensor:
        longest = keys.allowed.shape[-1]

        def by_head(values: Tensor) -> Tensor:
            padded = values if turns is None else turns.unpack(values)
            return padded.reshape(-1, longest, self.heads, values.shape[-1] // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            by_head(self.query(queries)),
            by_head(self.key(source)),
            by_head(self.value(source)),
            attn_mask=keys.allowed,
            dropout_p=self.dropout if self.training else 0.0,
        )  # (S B, heads, T, width / heads)
        members, _, width = queries.shape
        mixed = mixed.transpose(1, 2).reshape(members, -1, width)  # (S, B T, width)
        found = keys.found.expand(-1, longest, 1).reshape(members, -1, 1)  # (S, B T, 1)
        if turns is not None:
            mixed, found = mixed.index_select(1, turns.cells), found.index_select(1, turns.cells)
        result: Tensor = self.result(mixed)
        return result.masked_fill(~found, 0)
