"""The cognition phase of DialogueCRN: an LSTM that asks a memory, hears the answer, and asks again."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_bench.nn.masking import masked_softmax


class Reasoning(nn.Module):
    """Turns of retrieving and reasoning over the contexts of a dialogue.

    Turn k of utterance i, with memory g_1..g_T of its dialogue: `h, c = LSTM(q, (h, c))`, from zero states;
    `r = sum_j softmax_j(h . g_j) g_j`; `q = [h, r]`. Hu, Wei and Huai (2021), in the formulas of the authors'
    code. The memory never changes, and utterances do not hear each other's turns.

    Args:
        width: Width of an entry of the memory. turns: How often it is asked; 0 hands the queries back.

    Shapes (N real utterances of B dialogues of at most T turns):
        queries: (N, 2 width). memory: (B, T, width). mask: (B, T), bool.
        real: (N,), long; where each utterance lies in the mask, flattened. returns: (N, 2 width).
    """

    def __init__(self, width: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.cell = nn.LSTMCell(2 * width, width) if turns else None

    def forward(self, queries: Tensor, memory: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        if self.cell is None:
            return queries
        states: tuple[Tensor, Tensor] | None = None
        for _ in range(self.turns):
            states = self.cell(queries, states)  # 2 x (N, width)
            queries = torch.cat([states[0], self._retrieved(states[0], memory, mask, real)], dim=-1)  # (N, 2 width)
        return queries

    @staticmethod
    def _retrieved(asked: Tensor, memory: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """What the memory of its dialogue answers each utterance: (N, width)."""
        table = asked.new_zeros(mask.numel(), asked.shape[-1]).index_copy(0, real, asked).view_as(memory)
        scores = torch.bmm(table, memory.transpose(1, 2))  # (B, T, T)
        weights = masked_softmax(scores, mask.unsqueeze(1).expand_as(scores), dim=-1)
        return torch.bmm(weights, memory).flatten(0, 1).index_select(0, real)
