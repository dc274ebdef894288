"""The transformers of every pair of modalities, computed together: pair p is one slice of each product."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import KeySet
from mer_bench.nn.dropout import Dropout

from .config import SdtConfig

NORM_EPSILON = 1e-6


class PairLinear(nn.Module):
    """A linear map for each pair.

    Shapes:
        weight: (P, inputs, outputs). bias: (P, 1, outputs), or None.
        values: (P, N, inputs). returns: (P, N, outputs).
    """

    def __init__(self, pairs: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(pairs, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(pairs, 1, outputs).uniform_(-bound, bound)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        if self.bias is None:
            return torch.bmm(values, self.weight)
        return torch.baddbmm(self.bias, values, self.weight)


class PairNorm(nn.Module):
    """A layer norm for each pair: (P, N, width) to the same."""

    def __init__(self, pairs: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(pairs, 1, width))
        self.bias = nn.Parameter(torch.zeros(pairs, 1, width))

    def forward(self, values: Tensor) -> Tensor:
        return F.layer_norm(values, values.shape[-1:], eps=NORM_EPSILON) * self.weight + self.bias


class PairLayer(nn.Module):
    """One layer of the transformer of each pair.

    ```
    h = LN(h), but not in the first layer
    h <- h + MultiHead(query = h, key = value = source)
    h <- h + W_2 gelu(W_1 LN(h))
    ```

    A pair of a modality with itself has its own h as source. The keys have no bias: it would add the same
    number to every score of a query.

    Args:
        pairs: Number of pairs, P. own: Those of a modality with itself, by index.

    Shapes:
        stream, source: (P, N, width), N = B T. keys: of the source, over P B dialogues. returns: (P, N, width).
    """

    def __init__(self, settings: SdtConfig, pairs: int, own: Sequence[int], is_first: bool) -> None:
        super().__init__()
        width = settings.hidden_dim
        inner = settings.feedforward * width
        self.heads = settings.heads
        self.attention_dropout = settings.attention_dropout
        self.stream_norm = None if is_first else PairNorm(pairs, width)
        self.query = PairLinear(pairs, width, width)
        self.key = PairLinear(pairs, width, width, bias=False)
        self.value = PairLinear(pairs, width, width)
        self.result = PairLinear(pairs, width, width)
        self.norm = PairNorm(pairs, width)
        self.inner = PairLinear(pairs, width, inner)
        self.outer = PairLinear(pairs, inner, width)
        self.dropout = Dropout(settings.dropout)
        is_own = torch.zeros(pairs, 1, 1, dtype=torch.bool)
        is_own[list(own)] = True
        self.register_buffer("is_own", is_own, persistent=False)
        self.is_own: Tensor

    def forward(self, stream: Tensor, source: Tensor, keys: KeySet) -> Tensor:
        if self.stream_norm is not None:
            stream = self.stream_norm(stream)
            source = torch.where(self.is_own, stream, source)
        stream = stream + self.dropout(self._attended(stream, source, keys))
        inner = self.dropout(F.gelu(self.inner(self.norm(stream)), approximate="tanh"))  # (P, N, inner)
        result: Tensor = stream + self.dropout(self.outer(inner))
        return result

    def _attended(self, stream: Tensor, source: Tensor, keys: KeySet) -> Tensor:
        turns = keys.allowed.shape[-1]

        def by_head(values: Tensor) -> Tensor:
            return values.reshape(-1, turns, self.heads, values.shape[-1] // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            by_head(self.query(stream)),
            by_head(self.key(source)),
            by_head(self.value(source)),
            attn_mask=keys.allowed,
            dropout_p=self.attention_dropout if self.training else 0.0,
        )  # (P B, heads, T, width / heads)
        result: Tensor = self.result(mixed.transpose(1, 2).reshape(stream.shape))  # (P, N, width)
        found = keys.found.expand(-1, turns, 1).reshape(stream.shape[0], -1, 1)  # (P, N, 1)
        return result.masked_fill(~found, 0)


class PairTransformers(nn.Module):
    """A transformer for each pair of a modality that asks and one that is looked at.

    Args:
        asking, asked: Index of the modality of queries and of keys and values, for each pair.

    Shapes:
        inputs: (M, B, T, width). keys: of the asked modality, over P B dialogues. returns: (P, B, T, width).
    """

    def __init__(self, settings: SdtConfig, asking: Sequence[int], asked: Sequence[int]) -> None:
        super().__init__()
        own = [index for index, pair in enumerate(zip(asking, asked, strict=True)) if pair[0] == pair[1]]
        self.layers = nn.ModuleList(
            PairLayer(settings, len(asking), own, is_first=number == 0) for number in range(settings.layers)
        )
        self.register_buffer("asking", torch.tensor(asking), persistent=False)
        self.register_buffer("asked", torch.tensor(asked), persistent=False)
        self.asking: Tensor
        self.asked: Tensor

    def forward(self, inputs: Tensor, keys: KeySet) -> Tensor:
        flat = inputs.flatten(1, 2)  # (M, N, width)
        stream = flat.index_select(0, self.asking)  # (P, N, width)
        source = flat.index_select(0, self.asked)  # (P, N, width)
        for layer in self.layers:
            stream = layer(stream, source, keys)
        return stream.view(-1, *inputs.shape[1:])
