"""DialogueCRN (Hu, Wei, Huai 2021): perceive the context by dialogue and by speaker, then reason over it in turns."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import dropout
from mer_bench.nn.missing import MissingVectors
from mer_bench.nn.recurrent import LstmWeights, TurnOrder, speaker_order, turn_order

from .config import DialogueCrnConfig
from .reasoning import Reasoning


class DialogueCrn(Model):
    """Two contexts of an utterance, each asked in several turns by a reasoning LSTM.

    Follows Hu, Wei and Huai (2021), "DialogueCRN: Contextual Reasoning Networks for Emotion Recognition in
    Conversations", in the formulas of the authors' code. The utterance is the concatenation of its modalities'
    features; a missing one is replaced by a learned vector that starts at zero.

    Shapes (B dialogues, T turns, N real turns):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(DialogueCrnConfig, settings)
        inputs, width = sum(spec.widths.values()), 2 * config.lstm_width
        turns = {"situation": config.situation_turns, "speaker": config.speaker_turns}
        self.levels = tuple(turns) if config.levels == "both" else (config.levels,)
        self.missing = MissingVectors(spec.widths)
        self.perception = nn.ModuleDict({level: ContextLstm(inputs, config) for level in self.levels})
        self.query = nn.Linear(width, 2 * width)  # one map for both levels, as in the authors' code
        self.reasoning = nn.ModuleDict({level: Reasoning(width, turns[level]) for level in self.levels})
        self.classes = nn.Linear(len(self.levels) * 2 * width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        mask = batch.mask
        real = mask.flatten().nonzero().squeeze(1)  # (N,)
        utterances = dropout(self.missing.side_by_side(batch), self.settings.input_dropout, self.training)
        # The recurrences keep full precision, and no other product here is large.
        with torch.autocast(device_type=mask.device.type, enabled=False):
            found = []
            for level in self.levels:
                memory = self.perception[level](utterances, self._order(level, batch))  # (B, T, width)
                queries = self.query(memory.flatten(0, 1).index_select(0, real))  # (N, 2 width)
                found.append(self.reasoning[level](queries, memory, mask, real))
            hidden = dropout(functional.relu(torch.cat(found, dim=-1)), self.settings.dropout, self.training)
            scores = self.classes(hidden)  # (N, classes)
        logits = scores.new_zeros(mask.numel(), scores.shape[-1]).index_copy(0, real, scores)
        return Output(logits.view(*mask.shape, -1))

    @staticmethod
    def _order(level: str, batch: Batch) -> TurnOrder:
        longest = batch.mask.shape[1]
        if level == "situation":
            return turn_order(batch.lengths, longest)
        return speaker_order(batch.speakers, batch.lengths, longest)


class ContextLstm(nn.Module):
    """The perception phase at one level: bidirectional LSTMs on top of each other, with dropout between them.

    Args:
        inputs: Width of an utterance.

    Shapes:
        utterances: (B, T, inputs). returns: (B, T, 2 lstm width), zero on padding.
    """

    def __init__(self, inputs: int, settings: DialogueCrnConfig) -> None:
        super().__init__()
        width = settings.lstm_width
        self.rate = settings.dropout
        self.layers = nn.ModuleList(
            [LstmWeights(2 * width if index else inputs, width) for index in range(settings.layers)]
        )

    def forward(self, utterances: Tensor, order: TurnOrder) -> Tensor:
        values = utterances
        for index, layer in enumerate(self.layers):
            values = dropout(values, self.rate if index else 0.0, self.training)
            # Packed: the backward direction starts at the chain's own last turn, not in padding.
            values = order.unpack(layer(order.pack(values), order))  # (B, T, 2 lstm width)
        return values
