"""M3Net (Chen et al. 2023): a hypergraph and a graph of many frequencies, side by side, over the same nodes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.errors import DataError
from mer_bench.nn.dropout import dropout
from mer_bench.nn.encoders import ContextGru
from mer_bench.nn.recurrent import turn_order

from .config import M3NetConfig
from .frequency import FrequencyLayer, frequency_graph
from .hypergraph import HypergraphLayer


class M3Net(Model):
    """Nodes from each modality; hyperedges and edges mix them in two branches, which are read side by side.

    Follows Chen et al. (2023), "Multivariate, Multi-frequency and Multimodal: Rethinking Graph Neural Networks for
    Emotion Recognition in Conversation", in the formulas of the authors' code. An utterance without a modality has
    no node there: no hyperedge, no edge, and zeros where the classifier would read it.

    Shapes (B dialogues, M modalities, T turns):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(M3NetConfig, settings)
        width, names = config.hidden_dim, spec.modalities
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.text_gru = ContextGru(width, config.text_layers, config.dropout) if "text" in names else None
        self.with_speaker = tuple(name for name in names if config.speakers in ("all", name))
        self.speaker_vectors = nn.Embedding(spec.speakers, width) if self.with_speaker else None
        self.entry = nn.Linear(width, width)
        self.hypergraph = nn.ModuleList(
            HypergraphLayer(config, len(names))
            for _ in range(config.hypergraph_layers if config.branches != "frequency" else 0)
        )
        self.frequency = nn.ModuleList(
            FrequencyLayer(config) for _ in range(config.frequency_layers if config.branches != "hypergraph" else 0)
        )
        parts = (config.branches != "frequency") + (config.branches != "hypergraph") + config.keep_nodes
        self.classes = nn.Linear(len(names) * parts * width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        self._check_speakers(batch)
        config = self.settings
        present = torch.stack([batch.present[name] for name in self.spec.modalities], dim=1)  # (B, M, T)
        projected = {name: self._projected(name, batch) for name in self.spec.modalities}
        # The recurrence keeps full precision, and so do the sums over a whole dialogue.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            nodes = torch.stack([self._nodes(name, values, batch) for name, values in projected.items()], dim=1)
            there = present.unsqueeze(-1)
            nodes = nodes.masked_fill(~there, 0)  # (B, M, T, width)
            entered = self.entry(nodes).masked_fill(~there, 0)
            parts = [nodes] if config.keep_nodes else []
            if self.hypergraph:
                mixed = entered
                for layer in self.hypergraph:
                    mixed = layer(mixed, present)
                parts.append(mixed)
            if self.frequency:
                mixed, graph = entered, frequency_graph(present, entered)
                for layer in self.frequency:
                    mixed = layer(mixed, graph)
                parts.append(mixed)
        found = torch.cat(parts, dim=-1).transpose(1, 2).flatten(2)  # (B, T, M parts width)
        return Output(self.classes(functional.relu(dropout(found, config.dropout, self.training))))

    def _projected(self, modality: str, batch: Batch) -> Tensor:
        there = batch.present[modality].unsqueeze(-1)
        features = batch.features[modality].masked_fill(~there, 0)
        projection = cast(nn.Linear, self.projections[modality])
        values: Tensor = projection(dropout(features, self.settings.input_dropout, self.training))
        # A turn without this modality is silence to the recurrence.
        return values.to(projection.weight.dtype).masked_fill(~there, 0)

    def _nodes(self, modality: str, values: Tensor, batch: Batch) -> Tensor:
        """One modality's nodes before the graphs: (B, T, width)."""
        if modality == "text":
            assert self.text_gru is not None
            values = self.text_gru(values, turn_order(batch.lengths, values.shape[1]))
        if modality in self.with_speaker:
            assert self.speaker_vectors is not None
            values = values + self.speaker_vectors(batch.speakers)
        return values

    def _check_speakers(self, batch: Batch) -> None:
        if self.speaker_vectors is None:
            return
        most = int(batch.speakers.max()) + 1
        if most > self.speaker_vectors.num_embeddings:
            raise DataError(
                f"a dialogue has {most} speakers, but this model was built for at most "
                f"{self.speaker_vectors.num_embeddings}."
            )
