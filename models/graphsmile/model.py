"""GraphSmile (Li et al. 2025): graphs between each two modalities, and sentiment dynamics as tasks beside."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, LossTerm, Model, Output, Settings
from mer_bench.nn.dropout import dropout

from .config import GraphSmileConfig
from .graph import PairEdges, PairLayer, modality_pairs
from .polarity import class_polarities, is_sentiment
from .sentiment import PolarityTable, SentimentTask, ShiftTask


class GraphSmile(Model):
    """A graph joins each two modalities in a window of turns; what an utterance is in all graphs is averaged.

    Follows Li, Wang and Zeng (2025), "Tracing Intricate Cues in Dialogue: Joint Graph Structure and Sentiment
    Dynamics for Multimodal Emotion Recognition", in the formulas of the authors' code. An utterance without a
    modality has no node there: no edge, no part in the average.

    Shapes (B dialogues, T turns, P pairs of modalities):
        returns: logits (B, T, classes); with labels the terms `sentiment` and `shift`, where the names of the
            classes say something of a sentiment (see `polarity`).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(GraphSmileConfig, settings)
        width = config.hidden_dim
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.pairs = modality_pairs(len(spec.widths))
        self.edges = PairEdges(config, len(self.pairs))
        self.layers = nn.ModuleList(PairLayer(config, len(self.pairs)) for _ in range(config.layers))
        self.fusion = nn.Linear(width, width)
        self.classes = nn.Linear(width, spec.class_count)
        self.polarity: PolarityTable | None = None
        self.sentiment: SentimentTask | None = None
        self.shift: ShiftTask | None = None
        polarities = class_polarities(spec.classes)
        if polarities is not None:
            self.polarity = PolarityTable(polarities)
            if config.sentiment_weight and not is_sentiment(polarities):
                self.sentiment = SentimentTask(width)
            if config.shift_weight:
                self.shift = ShiftTask(width, config.shift_window)

    def forward(self, batch: Batch) -> Output:
        present = torch.stack([batch.present[name] for name in self.spec.modalities])  # (M, B, T)
        nodes = torch.stack([self._node(name, batch) for name in self.spec.modalities])  # (M, B, T, width)
        # Sums over a window keep full precision.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            sides = torch.tensor(self.pairs, device=present.device)
            there = present[sides].transpose(1, 2)  # (P, B, 2, T)
            held = nodes.to(self.fusion.weight.dtype)[sides].transpose(1, 2)  # (P, B, 2, T, width)
            edges = self.edges(there, held)
            total = held
            for layer in self.layers:
                held, handed = layer(held, edges)
                total = total + handed
            states = self._fused(total, there)  # (B, T, width)
        return Output(self.classes(states), losses=self._losses(states, batch))

    def _node(self, modality: str, batch: Batch) -> Tensor:
        features = batch.features[modality].masked_fill(~batch.present[modality].unsqueeze(-1), 0)
        projected = self.projections[modality](dropout(features, self.settings.input_dropout, self.training))
        return dropout(functional.leaky_relu(projected), self.settings.dropout, self.training)

    def _fused(self, nodes: Tensor, present: Tensor) -> Tensor:
        """Mean over the sides of all pairs that an utterance has; zero where it has none.

        Shapes:
            nodes: (P, B, 2, T, width). present: (P, B, 2, T). returns: (B, T, width).
        """
        found = functional.leaky_relu(self.fusion(nodes)).masked_fill(~present.unsqueeze(-1), 0)
        count = present.sum(dim=(0, 2)).clamp_min(1).unsqueeze(-1)  # (B, T, 1)
        result: Tensor = found.sum(dim=(0, 2)) / count
        return result

    def _losses(self, states: Tensor, batch: Batch) -> dict[str, LossTerm]:
        if batch.labels is None or self.polarity is None:
            return {}
        polarity = self.polarity(batch.labels)
        losses = {}
        if self.sentiment is not None:
            losses["sentiment"] = LossTerm(self.sentiment(states, polarity), self.settings.sentiment_weight)
        if self.shift is not None:
            losses["shift"] = LossTerm(self.shift(states, polarity), self.settings.shift_weight)
        return losses
