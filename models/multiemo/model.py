"""MultiEMO (Shi & Huang 2023): context by modality, cross-attention between modalities, three losses."""

from __future__ import annotations

from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import NO_LABEL, Batch, InputSpec, LossTerm, Model, Output, Settings
from mer_bench.nn.dropout import Dropout, dropout

from .config import MultiEmoConfig
from .context import ModalityDialogueRnns
from .fusion import MultiAttn
from .losses import focal_contrastive_loss, soft_hgr_loss


class MultiEmo(Model):
    """A DialogueRNN for each modality, MultiAttn between them, and one network over all side by side.

    Follows Shi & Huang (2023), "MultiEMO: An Attention-Based Correlation-Aware Multimodal Fusion Framework for
    Emotion Recognition in Conversations", in the formulas of the authors' code. An utterance without a modality
    is no key of that modality, and that modality is zero there before the classes and in no loss.

    Shapes (B dialogues, T turns, M modalities):
        returns: logits (B, T, classes); where labels are given the term `contrastive`; with two or more modalities
        the term `correlation`.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(MultiEmoConfig, settings)
        width, count = config.hidden_dim, len(spec.modalities)
        self.entries = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.contextual = [
            index
            for index, name in enumerate(spec.modalities)
            if config.context == "dialoguernn" and (config.text_context or name != "text")
        ]
        self.context = ModalityDialogueRnns(config, len(self.contextual)) if self.contextual else None
        self.fusion = MultiAttn(config, count) if config.fusion == "cross" and count > 1 else None
        self.joined = nn.Linear(count * width, width)
        self.inner = nn.Linear(width, config.classifier * width)
        self.classes = nn.Linear(config.classifier * width, spec.class_count)
        self.dropout = Dropout(config.dropout)

    def forward(self, batch: Batch) -> Output:
        present = torch.stack([batch.present[name] for name in self.spec.modalities])  # (M, B, T)
        values = self._in_context(batch)  # (M, B, T, width)
        if self.fusion is not None:
            values = self.fusion(values, present)
        # An utterance without the modality would otherwise bring what the context made of its neighbours.
        values = values.masked_fill(~present.unsqueeze(-1), 0)
        joined = self.joined(torch.cat(list(values), dim=-1))  # (B, T, width)
        logits = self.classes(self.dropout(F.relu(self.inner(joined))))  # (B, T, classes)
        losses = {**self._contrastive(joined, batch), **self._correlation(values, present)}
        return Output(logits, losses=losses)

    def _in_context(self, batch: Batch) -> Tensor:
        """Each modality's utterances, those with a context after it: (M, B, T, width)."""
        values = [self._entered(name, batch) for name in self.spec.modalities]  # M x (B, T, width)
        if self.context is not None:
            read = self.context(torch.stack([values[index] for index in self.contextual]), batch)
            for index, value in zip(self.contextual, read, strict=True):
                values[index] = value
        return torch.stack(values)

    def _entered(self, modality: str, batch: Batch) -> Tensor:
        features = batch.features[modality].masked_fill(~batch.present[modality].unsqueeze(-1), 0)
        entered: Tensor = self.entries[modality](dropout(features, self.settings.input_dropout, self.training))
        return entered

    def _contrastive(self, joined: Tensor, batch: Batch) -> dict[str, LossTerm]:
        config = self.settings
        if batch.labels is None or config.contrastive_weight == 0:
            return {}
        counted = batch.labels != NO_LABEL
        # Differences of shares near 1 decide here, which mixed precision would round away.
        with torch.autocast(device_type=joined.device.type, enabled=False):
            features = joined[counted].to(self.classes.weight.dtype)
            value = focal_contrastive_loss(
                features, batch.labels[counted], config.temperature, config.focus, config.rarity
            )
        return {"contrastive": LossTerm(value, config.contrastive_weight)}

    def _correlation(self, values: Tensor, present: Tensor) -> dict[str, LossTerm]:
        """The sum over all pairs of modalities, each over the utterances that have both."""
        config = self.settings
        pairs = list(combinations(range(len(values)), 2))
        if not pairs or config.correlation_weight == 0:
            return {}
        with torch.autocast(device_type=values.device.type, enabled=False):
            values = values.to(self.classes.weight.dtype)
            terms = []
            for first, second in pairs:
                both = present[first] & present[second]
                terms.append(soft_hgr_loss(values[first][both], values[second][both]))
        return {"correlation": LossTerm(torch.stack(terms).sum(), config.correlation_weight)}
