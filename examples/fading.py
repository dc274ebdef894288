"""Fading: what was said before counts less with every turn, at a rate that is learned."""

# The card of the model; every command reads it, and none of them runs code to do so.
#
# /// mer-bench
# title   = "Fading memory"
# summary = "An utterance and the ones before it, weighted by how long ago they were and by who said them."
# entry   = "Fading"
# config  = "FadingSettings"
# version = 1
# modalities = ["text", "audio", "visual"]
# causal = true
# uses_speakers = true
# speaker_symmetric = true
# memory = "quadratic"
# ours = ["All of it: an example of a model in one file, not a published one."]
#
# [settings.default]
# learning_rate = 1e-3
# batch_size = 32
# epochs = 40
# patience = 10
#
# [ablations.no-memory]
# question = "Does it help to know what was said before?"
# settings = { memory = false }
#
# [ablations.one-memory]
# question = "Do the speaker's own turns deserve another rate than those of the others?"
# settings = { own_rate = false }
# ///

from __future__ import annotations

from typing import Annotated, cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, Field, InputSpec, Model, Output, Settings, Tune


class FadingSettings(Settings):
    """Settings of the model.

    Attributes:
        width: Of every hidden vector.
        dropout: Share of the values that are dropped in training.
        memory: Whether an utterance sees the ones before it.
        own_rate: Whether the speaker's own turns fade at a rate of their own.
    """

    width: Annotated[int, Field(ge=8, le=1024), Tune(low=64, high=256, step=64)] = 128
    dropout: Annotated[float, Field(ge=0, le=0.9), Tune(low=0.0, high=0.6, step=0.1)] = 0.4
    memory: bool = True
    own_rate: bool = True


class Fading(Model):
    """Each turn t of a dialogue as u_t, and a memory of the turns before.

    m_t = sum over s < t of exp(-rate (t - s)) u_s / sum of the same weights, where the rate of s is one for turns of
    t's own speaker and another for those of the others; the classes are read from [u_t, m_t].

    Shapes (B dialogues, T turns of the longest one):
        batch.features[m]: (B, T, width of m), float. batch.present[m], batch.mask: (B, T), bool.
        batch.speakers: (B, T), numbers from 0.
        returns: logits (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.config = cast(FadingSettings, settings)
        width = self.config.width
        self.inputs = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        # What stands in for a modality that an utterance lacks is learned: a zero would be a value like others.
        self.absent = nn.ParameterDict({name: torch.zeros(width) for name in spec.widths})
        # As logarithms, so that no step of the optimiser makes a memory that grows with its age.
        self.log_rate = nn.Parameter(torch.zeros(2 if self.config.own_rate else 1)) if self.config.memory else None
        self.dropout = nn.Dropout(self.config.dropout)
        self.classes = nn.Linear(2 * width if self.config.memory else width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        """Score the classes of each utterance; the trainer applies the loss."""
        turns = self._turns(batch)  # (B, T, width)
        if self.log_rate is not None:
            remembered = self._weights(batch, self.log_rate) @ turns  # (B, T, width)
            turns = torch.cat([turns, remembered], dim=-1)  # (B, T, 2 width)
        return Output(self.classes(self.dropout(turns)))  # (B, T, classes)

    def _turns(self, batch: Batch) -> Tensor:
        """Each utterance by itself: (B, T, width)."""
        total = torch.zeros((), device=batch.mask.device)
        for name, layer in self.inputs.items():
            there = batch.present[name].unsqueeze(-1)  # (B, T, 1)
            values = layer(batch.features[name].masked_fill(~there, 0))  # (B, T, width)
            total = total + torch.where(there, values, self.absent[name])
        return torch.relu(self.dropout(total))

    def _weights(self, batch: Batch, log_rate: Tensor) -> Tensor:
        """How much turn t remembers of turn s, over s: (B, T, T). A first turn remembers nothing."""
        place = torch.arange(batch.mask.shape[1], device=batch.mask.device)
        age = place.unsqueeze(1) - place  # (T, T): positive where s is before t
        other = batch.speakers.unsqueeze(2) != batch.speakers.unsqueeze(1)  # (B, T, T)
        rate = log_rate.exp()[other.long() if self.config.own_rate else torch.zeros_like(other, dtype=torch.long)]
        # Only real turns are remembered; padding stands after them, so that nothing real ever sees it.
        before = (age > 0) & batch.mask.unsqueeze(1)  # (B, T, T)
        scores = (-rate * age).masked_fill(~before, float("-inf"))
        # A first turn has no turn before it: a softmax over nothing would be NaN.
        scores = scores.masked_fill(~before.any(dim=-1, keepdim=True), 0.0)
        return scores.softmax(dim=-1) * before
