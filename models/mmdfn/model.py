"""MM-DFN (Hu et al. 2022): nodes with a dialogue's and a speaker's context, and a graph with gates in its depth."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import dropout
from mer_bench.nn.encoders import ContextGru
from mer_bench.nn.graph import modality_graph
from mer_bench.nn.recurrent import speaker_order, turn_order

from .config import MmDfnConfig
from .fusion import DynamicFusion


class MmDfn(Model):
    """Modality encoders with speaker context, the graph of MMGCN, and graph-based dynamic fusion.

    Follows Hu, Hou, Wei, Jiang and Mo (2022), "MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition
    in Conversations", in the formulas of the authors' code. An utterance without a modality has no node there: no
    edge, and zeros where the classifier would read it.

    Shapes (B dialogues, M modalities, T turns, K present nodes):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(MmDfnConfig, settings)
        width = config.node_width
        self.projections = nn.ModuleDict({name: nn.Linear(size, width) for name, size in spec.widths.items()})
        self.text_context: ContextGru | None = None
        if "text" in spec.widths:
            self.text_context = ContextGru(width, config.gru_layers, config.dropout)
        self.with_speakers = [name for name in spec.modalities if config.speaker_share(name)]
        # One for all modalities, as in the authors' code.
        self.speaker_context = ContextGru(width, config.gru_layers, config.dropout) if self.with_speakers else None
        self.fusion = DynamicFusion(config)
        self.classes = nn.Linear(len(spec.widths) * (width + config.graph_width), spec.class_count)

    def forward(self, batch: Batch) -> Output:
        rate = self.settings.dropout
        projected = {name: self._projected(name, batch) for name in self.spec.modalities}
        # Recurrences keep full precision, and so does the graph, since the slope of arccos near 1 is steep.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            present = torch.stack([batch.present[name] for name in self.spec.modalities], dim=1)  # (B, M, T)
            nodes = self._nodes(projected, batch)  # (B, M, T, width)
            graph = modality_graph(nodes, present)
            cells = present.flatten().nonzero().squeeze(1)  # (K,)
            rows = dropout(nodes.flatten(0, 2).index_select(0, cells), rate, self.training)  # (K, width)
            both = torch.cat([rows, self.fusion(rows, cells, graph)], dim=-1)  # (K, width + graph width)
            both = functional.relu(dropout(both, rate, self.training))
            table = both.new_zeros(present.numel(), both.shape[-1]).index_copy(0, cells, both)
            table = table.view(*present.shape, -1).transpose(1, 2).flatten(2)  # (B, T, M (width + graph width))
            return Output(self.classes(table))

    def _projected(self, modality: str, batch: Batch) -> Tensor:
        projection = cast(nn.Linear, self.projections[modality])
        features = dropout(batch.features[modality], self.settings.input_dropout, self.training)
        values: Tensor = projection(features).to(projection.weight.dtype)
        # A turn without this modality is silence to the recurrences, whatever its row holds.
        return torch.where(batch.present[modality].unsqueeze(-1), values, 0)

    def _nodes(self, projected: dict[str, Tensor], batch: Batch) -> Tensor:
        """The nodes before the graph: (B, M, T, node width); any values where one is not present."""
        nodes = dict(projected)
        longest = batch.mask.shape[1]
        if self.text_context is not None:
            nodes["text"] = self.text_context(projected["text"], turn_order(batch.lengths, longest))
        if self.speaker_context is not None:
            # The modalities stand below each other like further dialogues: one recurrence for all.
            count = len(self.with_speakers)
            order = speaker_order(batch.speakers.repeat(count, 1), batch.lengths.repeat(count), longest)
            stacked = torch.cat([projected[name] for name in self.with_speakers])  # (count B, T, width)
            for name, context in zip(
                self.with_speakers, self.speaker_context(stacked, order).chunk(count), strict=True
            ):
                nodes[name] = nodes[name] + self.settings.speaker_share(name) * context
        return torch.stack(list(nodes.values()), dim=1)
