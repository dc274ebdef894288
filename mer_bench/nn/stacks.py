"""Several networks of one shape computed together: network p of a stack is one slice of each batched product.

Pairs of modalities, or modalities, that go through layers of the same shape with weights of their own then cost
the calls of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import KeySet


class StackedLinear(nn.Module):
    """A linear map for each network of the stack.

    Shapes:
        weight: (P, inputs, outputs). bias: (P, 1, outputs), or None.
        values: (P, N, inputs). returns: (P, N, outputs).
    """

    def __init__(self, count: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        if self.bias is None:
            return torch.bmm(values, self.weight)
        return torch.baddbmm(self.bias, values, self.weight)


class StackedNorm(nn.Module):
    """A layer norm for each network of the stack: (P, N, width) to the same."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, 1, width))
        self.bias = nn.Parameter(torch.zeros(count, 1, width))

    def forward(self, values: Tensor) -> Tensor:
        return F.layer_norm(values, values.shape[-1:]) * self.weight + self.bias


class StackedAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2), one for each network.

    The keys have no bias: it would add the same number to every score of a query, which a softmax doesn't see.

    Args:
        count: Networks in the stack, P. width: Of queries, source and result; a multiple of heads.
        dropout: Dropped share of the attention weights.

    Shapes (N = B T):
        queries, source: (P, N, width). keys: of the source, over P B dialogues.
        returns: (P, N, width); zero where the key set is empty.
    """

    def __init__(self, count: int, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = StackedLinear(count, width, width)
        self.key = StackedLinear(count, width, width, bias=False)
        self.value = StackedLinear(count, width, width)
        self.result = StackedLinear(count, width, width)

    def forward(self, queries: Tensor, source: Tensor, keys: KeySet) -> Tensor:
        turns = keys.allowed.shape[-1]

        def by_head(values: Tensor) -> Tensor:
            return values.reshape(-1, turns, self.heads, values.shape[-1] // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            by_head(self.query(queries)),
            by_head(self.key(source)),
            by_head(self.value(source)),
            attn_mask=keys.allowed,
            dropout_p=self.dropout if self.training else 0.0,
        )  # (P B, heads, T, width / heads)
        result: Tensor = self.result(mixed.transpose(1, 2).reshape(queries.shape))  # (P, N, width)
        found = keys.found.expand(-1, turns, 1).reshape(*queries.shape[:2], 1)  # (P, N, 1)
        return result.masked_fill(~found, 0)
