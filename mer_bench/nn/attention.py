"""Multi-head attention over the utterances of a dialogue that survives empty key sets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class KeySet:
    """Which utterances a query may look at.

    A row without any key would make a softmax over nothing, whose gradient is NaN. Such a row may
    look at everything, and `found` then puts its result to zero.

    Shapes (B dialogues, T turns):
        allowed: (B, 1, 1 or T, T), bool; True in at least one place of each row.
        found: (B, 1 or T, 1), bool; False where the key set is empty.
    """

    allowed: Tensor
    found: Tensor


def key_set(present: Tensor, window: int = 0) -> KeySet:
    """The keys of each query: the present utterances, at most `window` turns away unless it is 0.

    Shapes:
        present: (B, T), bool.
    """
    allowed = present[:, None, None, :]  # (B, 1, 1, T)
    if window:
        turns = torch.arange(present.shape[1], device=present.device)
        allowed = allowed & ((turns[:, None] - turns).abs() <= window)  # (B, 1, T, T)
    found = allowed.any(dim=-1, keepdim=True)  # (B, 1, 1 or T, 1)
    return KeySet(allowed | ~found, found.squeeze(1))


class DialogueAttention(nn.Module):
    """Scaled dot-product attention with several heads (Vaswani et al. 2017, section 3.2).

    The projections have no bias but the last: a constant added to every key changes nothing, and the
    caller's layer norm brings the others'.

    Args:
        width: Width of queries, keys and result; a multiple of heads.
        speaker_bias: Add a learned number to the score of a head (start 0) where query and key have
            the same speaker.
        reach: Add a learned number to the score of a head for each distance between query and key, those
            beyond `reach` turns alike; 0 is without. It starts with OWN_TURN_BIAS on the query's own
            turn, so that a query finds the same utterance in another modality, and falls off with
            the distance at a slope that differs by head (as in Press et al. 2022, "Train Short, Test
            Long", section 3, but learned and clipped as in Shaw et al. 2018, section 3.2).
        dropout: Dropped share of the attention weights.

    Shapes:
        queries: (B, T, width). source: (B, T, width), keys and values.
        same_speaker: (B, 1, T, T), bool; needed with speaker_bias.
        returns: (B, T, width); zero where the key set is empty.
    """

    def __init__(
        self, width: int, heads: int, speaker_bias: bool = False, dropout: float = 0.0, reach: int = 0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.result = nn.Linear(width, width)
        self.speaker_bias = nn.Parameter(torch.zeros(heads)) if speaker_bias else None
        self.reach = reach
        self.distance_bias = nn.Parameter(_first_distance_bias(heads, reach)) if reach else None

    def forward(self, queries: Tensor, source: Tensor, keys: KeySet, same_speaker: Tensor | None = None) -> Tensor:
        shape = (*queries.shape[:2], self.heads, -1)
        query = self.query(queries).view(shape).transpose(1, 2)  # (B, heads, T, width / heads)
        key, value = self.key_value(source).chunk(2, dim=-1)  # 2 x (B, T, width)
        key = key.view(shape).transpose(1, 2)  # (B, heads, T, width / heads)
        value = value.view(shape).transpose(1, 2)  # (B, heads, T, width / heads)
        mask = keys.allowed
        if self.distance_bias is not None:
            mask = self._distances(queries.shape[1]).masked_fill(~mask, float("-inf"))  # (B, heads, T, T)
        if self.speaker_bias is not None:
            assert same_speaker is not None, "speaker_bias needs same_speaker"
            bias = self.speaker_bias.view(-1, 1, 1) * same_speaker  # (B, heads, T, T)
            mask = bias + mask if self.distance_bias is not None else bias.masked_fill(~mask, float("-inf"))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=dropout
        )  # (B, heads, T, width / heads)
        result: Tensor = self.result(mixed.transpose(1, 2).flatten(2))  # (B, T, width)
        return result.masked_fill(~keys.found, 0)

    def _distances(self, turns: int) -> Tensor:
        """The bias of every pair of turns: (heads, T, T)."""
        assert self.distance_bias is not None
        turn = torch.arange(turns, device=self.distance_bias.device)
        offset = (turn - turn.unsqueeze(1)).clamp(-self.reach, self.reach) + self.reach  # (T, T)
        return self.distance_bias[:, offset]


OWN_TURN_BIAS = 3.0
_SLOPES = (0.0, 0.1, 0.3, 0.6)


def _first_distance_bias(heads: int, reach: int) -> Tensor:
    """Start of the learned bias by signed distance: (heads, 2 reach + 1)."""
    distance = torch.arange(-reach, reach + 1).abs()
    slope = torch.tensor([_SLOPES[head % len(_SLOPES)] for head in range(heads)])
    return OWN_TURN_BIAS * (distance == 0) - slope.unsqueeze(1) * distance
