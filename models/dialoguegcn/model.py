"""DialogueGCN (Ghosal et al. 2019): recurrent context, relational graph within a window, nodal attention."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GraphConv

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import dropout
from mer_bench.nn.masking import masked_softmax
from mer_bench.nn.missing import MissingVectors
from mer_bench.nn.recurrent import GruWeights, LstmWeights, TurnOrder, gru_chain, turn_order
from mer_bench.nn.relations import RelationalConv, RelationGraph, relation_count, relation_means, window_relations

from .config import DialogueGcnConfig


class DialogueGcn(Model):
    """Turns read in sequence are the nodes of a graph of speaker relations; two graph layers, then a mixture.

    Follows Ghosal et al. (2019), "DialogueGCN: A Graph Convolutional Neural Network for Emotion Recognition in
    Conversation". A modality that an utterance lacks is replaced by a learned vector that starts at zero.

    Shapes (B dialogues, T turns):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(DialogueGcnConfig, settings)
        self.missing = MissingVectors(spec.widths)
        self.context = SequentialContext(sum(spec.widths.values()), config)
        self.graph = SpeakerGraph(spec, config)
        both = config.context_width + config.graph_width
        self.nodal = nn.Linear(both, both, bias=False) if config.nodal_attention else None
        self.hidden = nn.Linear(both, config.graph_width)
        self.classes = nn.Linear(config.graph_width, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        rate = self.settings.dropout
        features = torch.cat([self._features(name, batch) for name in self.spec.modalities], dim=-1)
        # The recurrence keeps full precision, and no product of the graph is large.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            context = self.context(features, turn_order(batch.lengths, batch.mask.shape[1]))  # (B, T, context)
            context = dropout(context, rate, self.training)
            both = torch.cat([context, self.graph(context, batch)], dim=-1)  # (B, T, context + graph)
            hidden = functional.relu(self.hidden(self._mixed(both, batch.mask)))  # (B, T, graph)
            return Output(self.classes(dropout(hidden, rate, self.training)))

    def _features(self, modality: str, batch: Batch) -> Tensor:
        """One modality's features, the learned vector where there are none: (B, T, width)."""
        return dropout(self.missing.features(modality, batch), self.settings.input_dropout, self.training)

    def _mixed(self, values: Tensor, mask: Tensor) -> Tensor:
        """`sum_j softmax_j(h_i . W h_j) h_j` over the turns of each dialogue: (B, T, width)."""
        if self.nodal is None:
            return values
        everything = mask.unsqueeze(1).expand(-1, values.shape[1], -1)  # (B, T, T)
        return torch.bmm(bilinear_softmax(self.nodal, values, everything, self.settings.scaled_scores), values)


class SequentialContext(nn.Module):
    """Recurrent layers over the turns of each dialogue, in both directions; or one linear map.

    Args:
        inputs: Width of an utterance.

    Shapes:
        utterances: (B, T, inputs). returns: (B, T, context_width).
    """

    def __init__(self, inputs: int, settings: DialogueGcnConfig) -> None:
        super().__init__()
        self.rate = settings.dropout
        width = settings.context_width
        self.linear = nn.Linear(inputs, width) if settings.context == "none" else None
        widths = [] if self.linear else [inputs, *[width] * (settings.layers - 1)]
        self.layers = nn.ModuleList(
            LstmWeights(size, width // 2) if settings.context == "lstm" else GruWeights([size], width // 2)
            for size in widths
        )

    def forward(self, utterances: Tensor, order: TurnOrder) -> Tensor:
        if self.linear is not None:
            return cast(Tensor, self.linear(utterances))
        for number, layer in enumerate(self.layers):
            values = dropout(utterances, self.rate if number else 0.0, self.training)
            # Packed: the backward direction starts at a dialogue's last turn, not in its padding.
            packed = order.pack(values)  # (2, N, inputs)
            if isinstance(layer, LstmWeights):
                states = layer(packed, order)
            else:
                assert isinstance(layer, GruWeights)
                states = gru_chain(torch.baddbmm(layer.input_bias, packed, layer.inputs[0]), layer, order)
            utterances = order.unpack(states)  # (B, T, context width)
        return utterances


class SpeakerGraph(nn.Module):
    """Edge weights, a layer by relation and one over all neighbours alike.

    ```
    a_ij = softmax_j(g_i . W_e g_j)                                            j in the window of i, i itself too
    h_i = relu(sum_r sum_{j in N_i^r} a_ij / c_ir W_r g_j + a_ii W_0 g_i + b)  c_ir = |N_i^r| or 1
    h_i <- relu(W sum_{j in N_i} h_j + W_0' h_i + b')
    ```

    Shapes:
        context: (B, T, context_width). returns: (B, T, graph_width).
    """

    def __init__(self, spec: InputSpec, settings: DialogueGcnConfig) -> None:
        super().__init__()
        self.settings = settings
        self.speakers = spec.speakers
        width, out = settings.context_width, settings.graph_width
        learned = settings.edge_weights == "attention"
        self.edge = nn.Linear(width, width, bias=False) if learned else None
        relations = relation_count(settings.speaker_relations, settings.directions, spec.speakers)
        self.by_relation = RelationalConv(width, out, relations, settings.bases)
        self.over_neighbours = GraphConv(out, out, aggr=settings.neighbours)

    def forward(self, context: Tensor, batch: Batch) -> Tensor:
        config = self.settings
        graph = window_relations(
            *(batch.speakers, batch.mask, config.past, config.future),
            *(config.speaker_relations, config.directions, self.speakers),
        )
        weights = self.edge_weights(context, graph)  # (B, T, T)
        own = weights.diagonal(dim1=1, dim2=2).unsqueeze(-1)  # (B, T, 1)
        if config.relation_means:
            weights = weights * relation_means(graph, weights.dtype)
        values = functional.relu(self.by_relation(context, graph, weights, own))  # (B, T, graph)
        edges, _ = graph.edges()
        heard = self.over_neighbours(values.flatten(0, 1), edges).view_as(values)
        return functional.relu(heard)

    def edge_weights(self, context: Tensor, graph: RelationGraph) -> Tensor:
        """Weights that sum to 1 over a turn's window, itself included; 0 outside it: (B, T, T)."""
        itself = torch.eye(context.shape[1], dtype=torch.bool, device=context.device)
        near = graph.joined | itself
        if self.edge is None:
            return near / near.sum(-1, keepdim=True).to(context.dtype)
        return bilinear_softmax(self.edge, context, near, self.settings.scaled_scores)


def bilinear_softmax(form: nn.Linear, values: Tensor, allowed: Tensor, scaled: bool) -> Tensor:
    """`softmax_j(x_i . W x_j)` over the allowed turns, of scores over the root of the width if scaled.

    Shapes:
        values: (B, T, width). allowed: (B, T, T), bool. returns: (B, T, T), 0 where not allowed.
    """
    scores = torch.bmm(form(values), values.transpose(1, 2))
    return masked_softmax(scores / math.sqrt(values.shape[2]) if scaled else scores, allowed, dim=2)
