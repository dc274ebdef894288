"""MultiAttn: every modality looks at each other one in turn, all modalities computed together."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.nn.attention import key_set
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.stacked import StackedAttention, StackedLinear, StackedNorm

from .config import MultiEmoConfig


class MultiAttnLayer(nn.Module):
    """One layer of MultiAttn for each modality.

    ```
    h <- LN(h + MultiHead(query h; key, value x of the first other modality))     and so for each other one
    h <- LN(h + W_2 relu(W_1 h))
    ```

    Args:
        count: Modalities, M, at least 2.

    Shapes (N = B T):
        states: (M, N, width). sources: (M - 1, M, N, width), what each modality looks at, one after the other.
        present: (M - 1, M, B, T), bool, the utterances of a source that are keys. returns: (M, N, width).
    """

    def __init__(self, settings: MultiEmoConfig, count: int) -> None:
        super().__init__()
        width, others = settings.hidden_dim, count - 1
        self.attentions = nn.ModuleList(StackedAttention(count, width, settings.heads) for _ in range(others))
        self.norms = nn.ModuleList(StackedNorm(count, width) for _ in range(others))
        self.inner = StackedLinear(count, width, settings.feedforward * width)
        self.outer = StackedLinear(count, settings.feedforward * width, width)
        self.last_norm = StackedNorm(count, width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, states: Tensor, sources: Tensor, present: Tensor) -> Tensor:
        for attention, norm, source, there in zip(self.attentions, self.norms, sources, present, strict=True):
            states = norm(states + self.dropout(attention(states, source, key_set(there.flatten(0, 1)))))
        result: Tensor = self.last_norm(states + self.dropout(self.outer(F.relu(self.inner(states)))))
        return result


class MultiAttn(nn.Module):
    """Layers of MultiAttn; every layer looks at the modalities as they came in.

    Shapes:
        values: (M, B, T, width). present: (M, B, T), bool, the utterances that are keys. returns: (M, B, T, width).
    """

    def __init__(self, settings: MultiEmoConfig, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MultiAttnLayer(settings, count) for _ in range(settings.layers))
        others = [[index for index in range(count) if index != own] for own in range(count)]
        self.register_buffer("others", torch.tensor(others).T.contiguous(), persistent=False)  # (M - 1, M)
        self.others: Tensor

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        states = values.flatten(1, 2)  # (M, N, width)
        sources, there = states[self.others], present[self.others]  # (M - 1, M, N, width), (M - 1, M, B, T)
        for layer in self.layers:
            states = layer(states, sources, there)
        return states.view(values.shape)
