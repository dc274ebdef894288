"""The transformers of MulT, computed together for all pairs of modalities, or for all modalities."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import KeySet
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.stacked import StackedAttention, StackedLinear, StackedNorm

from .config import MultConfig


class TransformerLayer(nn.Module):
    """One layer of each transformer, crossmodal or not (Tsai et al. 2019, as their code computes it).

    ```
    h = z + MultiHead(query = LN(z), key = value = LN(source))
    z <- h + W_2 relu(W_1 LN'(h))
    ```

    Stream and source go through the same layer norm.

    Shapes:
        stream: (P, N, width). source: (P, N, width), or None: the stream itself. returns: (P, N, width).
    """

    def __init__(self, settings: MultConfig, count: int, width: int) -> None:
        super().__init__()
        self.attention = StackedAttention(count, width, settings.heads, settings.attention_dropout)
        self.attention_norm = StackedNorm(count, width)
        self.inner_norm = StackedNorm(count, width)
        self.inner = StackedLinear(count, width, settings.feedforward * width)
        self.outer = StackedLinear(count, settings.feedforward * width, width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, stream: Tensor, source: Tensor | None, keys: KeySet) -> Tensor:
        queries = self.attention_norm(stream)
        values = queries if source is None else self.attention_norm(source)
        hidden = stream + self.dropout(self.attention(queries, values, keys))
        inner = self.dropout(F.relu(self.inner(self.inner_norm(hidden))))  # (P, N, feedforward width)
        result: Tensor = hidden + self.dropout(self.outer(inner))
        return result


class Transformers(nn.Module):
    """`layers` layers of each transformer and a layer norm at their end; with 0 layers the stream as it is.

    Each layer looks at the same source, the other modality's input, and not at what became of it.

    Shapes:
        stream: (P, N, width). source: (P, N, width), or None: each layer's own stream. returns: (P, N, width).
    """

    def __init__(self, settings: MultConfig, count: int, width: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(settings, count, width) for _ in range(layers))
        self.norm = StackedNorm(count, width) if layers else None

    def forward(self, stream: Tensor, source: Tensor | None, keys: KeySet) -> Tensor:
        for layer in self.layers:
            stream = layer(stream, source, keys)
        return stream if self.norm is None else self.norm(stream)


def stream_keys(present: Tensor, look_ahead: bool) -> KeySet:
    """The utterances that have the modality, for each query; without `look_ahead` those up to itself alone.

    Shapes:
        present: (B, T), bool.
    """
    allowed = present[:, None, None, :]  # (B, 1, 1, T)
    if not look_ahead:
        turns = present.shape[1]
        allowed = allowed & torch.ones(turns, turns, dtype=torch.bool, device=present.device).tril()  # (B, 1, T, T)
    found = allowed.any(dim=-1, keepdim=True)  # (B, 1, 1 or T, 1)
    return KeySet(allowed | ~found, found.squeeze(1))
