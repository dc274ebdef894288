"""CFN-ESA (Li et al. 2024): recurrent unimodal encoders, cross-modal attention around the text, emotion shifts."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, InputSpec, LossTerm, Model, Output, Settings
from mer_bench.nn.dropout import Dropout, dropout
from mer_bench.nn.stacked import RealTurns, real_turns

from .config import CfnEsaConfig
from .encoders import CrossModalEncoder, UnimodalEncoder
from .shift import EmotionShift, labelled_pairs, shift_loss


class CfnEsa(Model):
    """Modalities are read by one recurrence, meet at the primary one, and also say where the emotion shifts.

    Follows Li et al. (2024), "CFN-ESA: A Cross-Modal Fusion Network with Emotion-Shift Awareness for Dialogue
    Emotion Recognition", in the formulas of the authors' code. An utterance without a modality is silent in
    that modality's recurrence, is no key of it, and has zeros of it in the fusion.

    Shapes (B dialogues, T turns, M modalities):
        returns: logits (B, T, classes); with labels the term `shift`.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(CfnEsaConfig, settings)
        width, count = config.hidden_dim, len(spec.modalities)
        primary = spec.modalities.index(config.primary) if config.primary in spec.modalities else 0
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.unimodal = UnimodalEncoder(config, count)
        self.crossmodal = CrossModalEncoder(config, count, primary)
        self.fusion = nn.Linear(count * width, width)
        self.dropout = Dropout(config.cross_dropout)
        self.classes = nn.Linear(width, spec.class_count)
        self.shift = EmotionShift(width, config.shift_width, config.shift_dropout) if config.shift_weight else None

    def forward(self, batch: Batch) -> Output:
        turns = real_turns(batch.mask)
        present = torch.stack([batch.present[name] for name in self.spec.modalities])  # (M, B, T)
        # The recurrences keep full precision.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            inputs = torch.stack([self._projected(name, batch, turns) for name in self.spec.modalities])
            read = self.unimodal(inputs, batch.lengths, turns)  # (M, N, width)
        fused = self._fused(read, present, turns)  # (N, width)
        losses = {}
        if self.shift is not None and batch.labels is not None:
            # Without dropout a second pass would only give the same again.
            draws_again = self.training and self.settings.second_draw
            again = self._fused(read, present, turns) if draws_again else fused
            left, right, shifted = labelled_pairs(batch.labels)
            logits = self.shift(fused, again, turns.rows[left], turns.rows[right])  # (pairs, 2)
            losses["shift"] = LossTerm(shift_loss(logits, shifted), self.settings.shift_weight)
        return Output(turns.unpack(self.classes(fused).unsqueeze(0)).squeeze(0), losses=losses)

    def _projected(self, modality: str, batch: Batch, turns: RealTurns) -> Tensor:
        """One modality's projected features, zero where it is missing: (N, width)."""
        layer = cast(nn.Linear, self.projections[modality])
        absent = ~turns.pack(batch.present[modality][None, :, :, None])[0]  # (N, 1)
        features = turns.pack(batch.features[modality].unsqueeze(0))[0].to(layer.weight.dtype)
        features = dropout(features.masked_fill(absent, 0), self.settings.input_dropout, self.training)
        projected: Tensor = layer(features)
        return projected.masked_fill(absent, 0)

    def _fused(self, read: Tensor, present: Tensor, turns: RealTurns) -> Tensor:
        """All modalities after the cross-modal encoder in one vector: (N, width)."""
        met = self.crossmodal(read, present, turns)  # (M, N, width)
        met = met.masked_fill(~turns.pack(present.unsqueeze(-1)), 0)
        fused: Tensor = self.dropout(self.fusion(torch.cat(list(met), dim=-1)).relu())
        return fused
