"""A small transformer encoder over the utterances of a dialogue, text alone."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.errors import DataError
from mer_bench.nn.attention import DialogueAttention, KeySet, key_set
from mer_bench.nn.dropout import Dropout
from mer_bench.nn.encoders import LearnedPositions, sinusoidal_positions

from .config import TextOnlyConfig

LEARNED_TURNS = 128
"""Turns that have a learned position of their own; those after them share the last one."""


class TextOnly(Model):
    """Utterances as the tokens of a pre-norm transformer encoder, then one linear map to the classes.

    The encoder is that of Vaswani et al. (2017), section 3.1, with the layer norm first in each branch
    (Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture") and a GELU.

    Shapes (B dialogues, T turns):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(TextOnlyConfig, settings)
        width = config.width
        self.input_dropout = Dropout(config.input_dropout)
        self.entry = nn.Sequential(nn.Linear(spec.widths["text"], width), nn.LayerNorm(width))
        self.absent = nn.Parameter(torch.randn(width) * 0.02)
        self.speakers = nn.Embedding(spec.speakers, width) if config.speakers else None
        if self.speakers is not None:
            nn.init.normal_(self.speakers.weight, std=0.1)
        self.learned = LearnedPositions(LEARNED_TURNS, width) if config.positions == "learned" else None
        self.dropout = Dropout(config.dropout)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        keys = key_set(batch.present["text"])
        state = self.dropout(self._tokens(batch))  # (B, T, width)
        for layer in self.layers:
            state = layer(state, keys)
        return Output(self.classes(self.dropout(self.norm(state))))

    def _tokens(self, batch: Batch) -> Tensor:
        """What enters the encoder: (B, T, width)."""
        there = batch.present["text"].unsqueeze(-1)
        features = self.input_dropout(batch.features["text"].masked_fill(~there, 0))
        state: Tensor = self.entry(features)  # (B, T, width)
        state = torch.where(there, state, self.absent.to(state.dtype))
        if self.speakers is not None:
            most = int(batch.speakers.max()) + 1
            if most > self.speakers.num_embeddings:
                raise DataError(
                    f"a dialogue has {most} speakers, but this model was built for at most "
                    f"{self.speakers.num_embeddings}."
                )
            state = state + self.speakers(batch.speakers)
        turns = state.shape[1]
        if self.learned is not None:
            state = state + self.learned(turns)
        elif self.settings.positions == "sinusoidal":
            state = state + self.settings.position_scale * sinusoidal_positions(turns, state.shape[-1]).to(state)
        return state


class EncoderLayer(nn.Module):
    """One pre-norm layer: `H <- H + Attention(LN(H))`, then `H <- H + W_2 gelu(W_1 LN(H))`.

    Shapes:
        state: (B, T, width), H. keys: which utterances may be looked at. returns: H, (B, T, width).
    """

    def __init__(self, config: TextOnlyConfig) -> None:
        super().__init__()
        width, inner = config.width, config.feedforward * config.width
        reach = config.reach if config.positions == "relative" else 0
        self.attention_norm = nn.LayerNorm(width)
        self.attention = DialogueAttention(width, config.heads, dropout=config.attention_dropout, reach=reach)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, inner), nn.GELU(), Dropout(config.dropout), nn.Linear(inner, width)
        )
        self.dropout = Dropout(config.dropout)

    def forward(self, state: Tensor, keys: KeySet) -> Tensor:
        normed = self.attention_norm(state)
        state = state + self.dropout(self.attention(normed, normed, keys))
        result: Tensor = state + self.dropout(self.feedforward(self.feedforward_norm(state)))
        return result
