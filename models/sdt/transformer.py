"""The transformers of every pair of modalities, computed together: pair p is one slice of each product."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import KeySet
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.stacked import StackedAttention, StackedLinear, StackedNorm

from .config import SdtConfig

NORM_EPSILON = 1e-6


class PairLayer(nn.Module):
    """One layer of the transformer of each pair.

    ```
    h = LN(h), but not in the first layer
    h <- h + MultiHead(query = h, key = value = source)
    h <- h + W_2 gelu(W_1 LN(h))
    ```

    A pair of a modality with itself has its own h as source.

    Args:
        pairs: Number of pairs, P. own: Those of a modality with itself, by index.

    Shapes:
        stream, source: (P, N, width), N = B T. keys: of the source, over P B dialogues. returns: (P, N, width).
    """

    def __init__(self, settings: SdtConfig, pairs: int, own: Sequence[int], is_first: bool) -> None:
        super().__init__()
        width = settings.hidden_dim
        inner = settings.feedforward * width
        self.stream_norm = None if is_first else StackedNorm(pairs, width, NORM_EPSILON)
        self.attention = StackedAttention(pairs, width, settings.heads, settings.attention_dropout)
        self.norm = StackedNorm(pairs, width, NORM_EPSILON)
        self.inner = StackedLinear(pairs, width, inner)
        self.outer = StackedLinear(pairs, inner, width)
        self.dropout = Dropout(settings.dropout)
        is_own = torch.zeros(pairs, 1, 1, dtype=torch.bool)
        is_own[list(own)] = True
        self.register_buffer("is_own", is_own, persistent=False)
        self.is_own: Tensor

    def forward(self, stream: Tensor, source: Tensor, keys: KeySet) -> Tensor:
        if self.stream_norm is not None:
            stream = self.stream_norm(stream)
            source = torch.where(self.is_own, stream, source)
        stream = stream + self.dropout(self.attention(stream, source, keys))
        inner = self.dropout(F.gelu(self.inner(self.norm(stream)), approximate="tanh"))  # (P, N, inner)
        result: Tensor = stream + self.dropout(self.outer(inner))
        return result


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
