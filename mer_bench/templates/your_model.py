"""Your model: a linear map for each modality, their sum, and a recurrence over the dialogue."""

# What the model is. Every command reads this block, and none of them runs code to do so; the model's settings
# (`mer-bench info`) need this file to be run. An unknown key is an error.
#
# `modalities`, `causal`, `uses_speakers`, `speaker_symmetric` and `memory` are promises: any part of the modalities
# works, no result depends on a later utterance, and so on. `mer-bench check` proves each of them.
#
# /// mer-bench
# title   = "Your model"
# summary = "A linear map a modality, their sum, and a recurrence over the dialogue."
# entry   = "YourModel"
# config  = "YourModelSettings"
# version = 1                 # raise it whenever the same settings and seed would give other numbers
# modalities = ["text", "audio", "visual"]
# causal = false
# uses_speakers = true
# speaker_symmetric = true
# memory = "linear"
# ours = ["All of it: a starting point."]
#
# [settings.default]          # replace the defaults of model and trainer, for every dataset or for one
# learning_rate = 1e-3
# batch_size = 32
# epochs = 40
# patience = 10
#
# [ablations.no-context]
# question = "Does the rest of the dialogue help?"
# settings = { context = false }
# ///

from __future__ import annotations

from typing import Annotated, cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, Field, InputSpec, Model, Output, Settings, Tune
from mer_bench.nn.encoders import ContextGru
from mer_bench.nn.recurrent import turn_order


class YourModelSettings(Settings):
    """Settings of your model: each has a legal range (Field), a search range (Tune) and a default.

    Attributes:
        width: Width of every hidden vector; even, since a recurrence of each direction gives half of it.
        layers: Recurrences on top of each other.
        dropout: Share of the values that are dropped in training.
        context: Whether an utterance sees the rest of its dialogue.
    """

    width: Annotated[int, Field(ge=8, le=1024, multiple_of=2), Tune(low=64, high=256, step=64)] = 128
    layers: Annotated[int, Field(ge=1, le=4), Tune(low=1, high=2, step=1)] = 1
    dropout: Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.6, step=0.1)] = 0.4
    context: bool = True


class YourModel(Model):
    """A small network to start from.

    Shapes (B dialogues, T turns of the longest one):
        batch.features[m]: (B, T, width of m), float. batch.present[m]: (B, T), bool: has the turn this modality?
        batch.mask: (B, T), bool: is there a turn, or padding? batch.speakers: (B, T), numbers from 0.
        returns: logits (B, T, classes); what stands on padding does not matter, but must be finite.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        config = cast(YourModelSettings, settings)
        # `spec` says what the data are like: the width of each modality, the classes, the most speakers.
        self.inputs = nn.ModuleDict({name: nn.Linear(size, config.width) for name, size in spec.widths.items()})
        # What stands in for a modality that an utterance lacks is learned: a zero would be a value like others.
        self.missing = nn.ParameterDict({name: torch.zeros(config.width) for name in spec.widths})
        self.same_speaker = nn.Parameter(torch.zeros(config.width))
        self.context = ContextGru(config.width, config.layers, config.dropout) if config.context else None
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(config.width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        """Score the classes of each utterance; the trainer applies the loss."""
        turns = self._turns(batch)  # (B, T, width)
        if self.context is not None:
            # Packed, so that neither direction ever reads padding.
            order = turn_order(batch.lengths, batch.mask.shape[1])
            turns = turns + self.context(turns, order)
        return Output(self.classes(self.dropout(turns)))  # (B, T, classes)

    def _turns(self, batch: Batch) -> Tensor:
        """Each utterance by itself: (B, T, width)."""
        turns = self.same_speaker * _same_speaker(batch).unsqueeze(-1)  # (B, T, width)
        for name, layer in self.inputs.items():
            there = batch.present[name].unsqueeze(-1)  # (B, T, 1)
            # Where a modality is absent its features mean nothing: they are replaced before they are read.
            values = layer(batch.features[name].masked_fill(~there, 0))
            turns = turns + torch.where(there, values, self.missing[name])
        return torch.relu(self.dropout(turns))


def _same_speaker(batch: Batch) -> Tensor:
    """1 where the turn before is of the same speaker, else 0: (B, T)."""
    same = torch.zeros_like(batch.mask)
    same[:, 1:] = batch.speakers[:, 1:] == batch.speakers[:, :-1]
    return same.float()
