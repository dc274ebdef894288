"""COGMEN (Joshi et al. 2022): a transformer over the dialogue, a relational graph layer and a graph transformer."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import TransformerConv

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import Dropout, dropout
from mer_bench.nn.encoders import sinusoidal_positions
from mer_bench.nn.missing import MissingVectors
from mer_bench.nn.relations import RelationalConv, relation_count, window_relations

from .config import CogmenConfig


class Cogmen(Model):
    """Global context from a transformer, local context from the speakers' relations within a window.

    Follows Joshi et al. (2022), "COGMEN: COntextualized GNN based Multimodal Emotion recognitioN", in the
    formulas of the authors' code, without its batch norm and without attention to padding. A modality that an
    utterance lacks is replaced by a learned vector that starts at zero.

    Shapes (B dialogues, T turns):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(CogmenConfig, settings)
        self.missing = MissingVectors(spec.widths)
        self.projection = nn.Linear(sum(spec.widths.values()), config.context_width)
        self.context = (
            nn.ModuleList(ContextLayer(config) for _ in range(config.context_layers))
            if config.context == "transformer"
            else None
        )
        self.after_context = nn.Linear(config.context_width, config.graph_width)
        self.graph = SpeakerGraph(spec, config)
        both = self.graph.out + (config.graph_width if config.context_to_classes else 0)
        self.hidden = nn.Linear(both, config.graph_width)
        self.classes = nn.Linear(config.graph_width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        config = self.settings
        features = torch.cat([self._features(name, batch) for name in self.spec.modalities], dim=-1)
        values = self.projection(features)  # (B, T, context)
        if config.positions:
            values = values + sinusoidal_positions(values.shape[1], values.shape[2]).to(values)
        for layer in self.context or ():
            values = layer(values, batch.mask)
        # No product of the graph is large, and torch-geometric adds in the type of its indices' values.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            context = self.after_context(values.to(self.after_context.weight.dtype))  # (B, T, graph)
            found = self.graph(context, batch)  # (B, T, heads * graph)
            if config.context_to_classes:
                found = torch.cat([context, found], dim=-1)
            hidden = dropout(functional.relu(self.hidden(found)), config.dropout, self.training)  # (B, T, graph)
            return Output(self.classes(hidden))

    def _features(self, modality: str, batch: Batch) -> Tensor:
        """One modality's features, the learned vector where there are none: (B, T, width)."""
        return dropout(self.missing.features(modality, batch), self.settings.input_dropout, self.training)


class ContextLayer(nn.Module):
    """One layer of a transformer's encoder over the real turns of each dialogue.

    Vaswani et al. (2017), section 3.1, with the norm after each part, as `torch.nn.TransformerEncoderLayer`.

    Shapes:
        values: (B, T, width). mask: (B, T), bool. returns: (B, T, width).
    """

    def __init__(self, settings: CogmenConfig) -> None:
        super().__init__()
        width = settings.context_width
        self.heads = settings.context_heads
        self.rate = settings.dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.result = nn.Linear(width, width)
        self.inner = nn.Linear(width, settings.feedforward * width)
        self.outer = nn.Linear(settings.feedforward * width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        split = self.query_key_value(values).unflatten(-1, (3, self.heads, -1))  # (B, T, 3, heads, size)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # 3 x (B, heads, T, size)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :], dropout_p=self.rate if self.training else 0.0
        ).transpose(1, 2)  # (B, T, heads, size)
        values = self.attention_norm(values + self.dropout(self.result(mixed.flatten(2))))
        inner = self.dropout(functional.relu(self.inner(values)))
        found: Tensor = self.norm(values + self.dropout(self.outer(inner)))
        return found


class SpeakerGraph(nn.Module):
    """A layer by speaker relation, then attention to the neighbours.

    ```
    x_i <- W_0 x_i + sum_r 1 / |N_i^r| sum_{j in N_i^r} W_r x_j + b
    x_i <- leaky_relu(LN(W_1 x_i + sum_j softmax_j((W_3 x_i) . (W_4 x_j) / sqrt(width)) W_2 x_j)),  j in N_i
    ```

    Shapes:
        context: (B, T, graph_width). returns: (B, T, out).
    """

    def __init__(self, spec: InputSpec, settings: CogmenConfig) -> None:
        super().__init__()
        self.settings = settings
        self.speakers = spec.speakers
        width, which = settings.graph_width, settings.graph_layers
        relations = relation_count(settings.speaker_relations, settings.directions, spec.speakers)
        self.by_relation = RelationalConv(width, width, relations, settings.bases) if which != "transformer" else None
        self.attention = TransformerConv(width, width, heads=settings.graph_heads) if which != "relations" else None
        self.out = width * (1 if self.attention is None else settings.graph_heads)
        self.norm = nn.LayerNorm(self.out)

    def forward(self, context: Tensor, batch: Batch) -> Tensor:
        config = self.settings
        graph = window_relations(
            *(batch.speakers, batch.mask, config.past, config.future),
            *(config.speaker_relations, config.directions, self.speakers),
        )
        values = context
        if self.by_relation is not None:
            values = self.by_relation(values, graph)
        if self.attention is not None:
            edges, _ = graph.edges()
            values = self.attention(values.flatten(0, 1), edges).unflatten(0, batch.mask.shape)
        return functional.leaky_relu(self.norm(values))
