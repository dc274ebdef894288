"""MMGCN (Hu et al. 2021): every utterance is a node in every modality, and a deep graph network mixes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import dropout
from mer_bench.nn.graph import ModalityGraph, graph_layers, modality_graph
from mer_bench.nn.published import PublishedEntries
from mer_bench.nn.recurrent import LstmWeights, turn_order

from .config import MmgcnConfig

PUBLISHED_LETTERS = {"audio": "a", "visual": "v", "text": "l"}
"""The published code's letter of each modality, in the order of its blocks of nodes."""

UNUSED_ENTRIES = (
    "att_model.*",
    "gatedatt.*",
    "graph_model.a_fc.*",
    "graph_model.v_fc.*",
    "graph_model.l_fc.*",
    "graph_model.feature_fc.*",
    "graph_model.final_fc.*",
    "graph_model.modal_embeddings.*",
    "graph_model.a_spk_embs.*",
    "graph_model.v_spk_embs.*",
    "graph_model.l_spk_embs.*",
)
"""Entries that the published constructor makes and its forward pass never reads."""


class Mmgcn(Model):
    """Nodes from each modality, a graph that joins them, graph layers with a fixed first representation.

    Follows section 3 of Hu et al. (2021), "MMGCN: Multimodal Fusion via Deep Graph Convolution Network for
    Emotion Recognition in Conversation", in the formulas of the authors' code. An utterance without a
    modality has no node there: no edge, and zeros where the classifier would read it.

    Shapes (B dialogues, M modalities, T turns):
        logits: (B, T, classes).
    """

    ignored_entries: tuple[str, ...] = ()

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(MmgcnConfig, settings)
        width = config.node_width
        self.projections = nn.ModuleDict(
            {
                name: nn.Linear(size, config.text_width if name == "text" else width)
                for name, size in spec.widths.items()
            }
        )
        self.text_lstm: nn.ModuleList | None = None
        self.speaker_rows: nn.Embedding | None = None
        if "text" in spec.widths:
            self.text_lstm = nn.ModuleList([LstmWeights(config.text_width, width // 2), LstmWeights(width, width // 2)])
            if config.speaker_rows:
                self.speaker_rows = nn.Embedding(spec.speakers, width)
        self.graph = GraphLayers(config)
        self.classes = nn.Linear(len(spec.widths) * (width + config.graph_width), spec.class_count)

    def forward(self, batch: Batch) -> Output:
        rate = self.settings.dropout
        projected = {name: self._projected(name, batch) for name in self.spec.modalities}
        # Recurrences keep full precision, and so does the graph, since the slope of arccos near 1 is steep.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            present = torch.stack([batch.present[name] for name in self.spec.modalities], dim=1)  # (B, M, T)
            nodes = torch.stack([self._nodes(name, values, batch) for name, values in projected.items()], dim=1)
            nodes = nodes * present.unsqueeze(-1)  # (B, M, T, width)
            graph = modality_graph(nodes, present)
            nodes = dropout(nodes, rate, self.training)
            mixed = self.graph(nodes, graph) * present.unsqueeze(-1)  # (B, M, T, graph)
        both = torch.cat([nodes, mixed], dim=-1).transpose(1, 2).flatten(2)  # (B, T, M (width + graph))
        return Output(self.classes(functional.relu(dropout(both, rate, self.training))))

    def _projected(self, modality: str, batch: Batch) -> Tensor:
        projection = cast(nn.Linear, self.projections[modality])
        features = dropout(batch.features[modality], self.settings.input_dropout, self.training)
        values: Tensor = projection(features).to(projection.weight.dtype)
        # A turn without this modality is silence to the recurrence, whatever its row holds.
        return torch.where(batch.present[modality].unsqueeze(-1), values, 0)

    def _nodes(self, modality: str, values: Tensor, batch: Batch) -> Tensor:
        """One modality's nodes before the graph: (B, T, node width)."""
        if modality != "text":
            return values
        assert self.text_lstm is not None
        order = turn_order(batch.lengths, values.shape[1])
        for index, layer in enumerate(self.text_lstm):
            values = dropout(values, self.settings.dropout if index else 0.0, self.training)
            # Packed: the backward direction starts at a dialogue's last turn, not in its padding.
            values = order.unpack(layer(order.pack(values), order))  # (B, T, node width)
        return values if self.speaker_rows is None else values + self.speaker_rows(batch.speakers)

    @classmethod
    def from_published(
        cls, state_dict: Mapping[str, Tensor], settings: Settings, spec: InputSpec | None = None
    ) -> Mmgcn:
        """A model with the weights of the authors' network (`graph_type='MMGCN'`, `concat_subsequently`).

        Args:
            state_dict: As saved from that code, names and shapes untouched.
            settings: Must have the widths and the number of layers of the checkpoint; `text_width` is read
                from it.
            spec: Modalities, classes and speakers; left out: those of the checkpoint, in the order text,
                audio, visual, with classes called by their index.

        Returns:
            The model in evaluation mode, of the weights' type; `ignored_entries` names what was not used.

        Raises:
            DataError: If an entry is missing, unknown or of another shape; names it.
        """
        config = cast(MmgcnConfig, settings)
        entries = PublishedEntries(state_dict, "MMGCN")
        if "linear_l.weight" in entries:
            config = config.model_copy(update={"text_width": entries.peek("linear_l.weight", 2).shape[0]})
        rows = "graph_model.speaker_embeddings.weight"
        output = entries.peek("smax_fc.weight", 2)
        if spec is None:
            spec = InputSpec(
                {
                    name: entries.peek(f"linear_{PUBLISHED_LETTERS[name]}.weight", 2).shape[1]
                    for name in ("text", "audio", "visual")
                    if f"linear_{PUBLISHED_LETTERS[name]}.weight" in entries
                },
                tuple(str(index) for index in range(output.shape[0])),
                entries.peek(rows, 2).shape[0] if rows in entries else 1,
            )
        model = cls(spec, config).to(output.dtype)
        for name, projection in model.projections.items():
            entries.load_linear(f"linear_{PUBLISHED_LETTERS.get(name, name)}", cast(nn.Linear, projection))
        if model.text_lstm is not None:
            for index, layer in enumerate(model.text_lstm):
                _load_lstm_layer(cast(LstmWeights, layer), entries, index)
        if model.speaker_rows is None:
            entries.ignore(rows)
        else:
            with torch.no_grad():
                weight = model.speaker_rows.weight
                weight.copy_(entries.take(rows, tuple(weight.shape)))
        entries.load_linear("graph_model.graph_net.fcs.0", model.graph.first)
        with torch.no_grad():
            for index, weight in enumerate(model.graph.weight):
                weight.copy_(entries.take(f"graph_model.graph_net.convs.{index}.weight", tuple(weight.shape)))
        entries.load_linear("smax_fc", model.classes, _published_columns(spec, config))
        entries.ignore(*UNUSED_ENTRIES)
        model.ignored_entries = entries.finish()
        return model.eval()


class GraphLayers(nn.Module):
    """Graph convolutions with initial residual and identity mapping (GCNII; Chen et al. 2020).

    Layer l = 1, 2, ...: `h = relu(t [A h, h0] W_l + (1 - t) ((1 - alpha) A h + alpha h0))` with
    t = ln(theta / l + 1), h0 = relu(first(x)). Written as `relu((A h) U_l + h0 V_l)`, where U_l and V_l
    hold the multiples of the identity too: `h0 V_l` of all layers is then one product before the first.

    Shapes:
        weight: (layers, 2 width, width). forward: nodes (B, M, T, node width) to (B, M, T, width).
    """

    def __init__(self, settings: MmgcnConfig) -> None:
        super().__init__()
        self.settings = settings
        width = settings.graph_width
        self.first = nn.Linear(settings.node_width, width)
        self.weight = nn.Parameter(torch.empty(settings.layers, 2 * width, width))
        nn.init.uniform_(self.weight, -1 / math.sqrt(width), 1 / math.sqrt(width))

    def forward(self, nodes: Tensor, graph: ModalityGraph) -> Tensor:
        return graph_layers(self.first(nodes), graph, *self._products(), self.settings.dropout, self.training)

    def _products(self) -> tuple[Tensor, Tensor]:
        """U and V of every layer, each (layers, width, width)."""
        alpha, width = self.settings.alpha, self.weight.shape[-1]
        strengths = [math.log(self.settings.theta / layer + 1) for layer in range(1, self.settings.layers + 1)]
        strength = self.weight.new_tensor(strengths).view(-1, 1, 1)
        identity = torch.eye(width, dtype=self.weight.dtype, device=self.weight.device)
        scaled = strength * self.weight
        carried = scaled[:, :width] + (1 - strength) * (1 - alpha) * identity
        fixed = scaled[:, width:] + (1 - strength) * alpha * identity
        return carried, fixed


def _load_lstm_layer(layer: LstmWeights, entries: PublishedEntries, index: int) -> None:
    width, inputs = layer.width, layer.input.shape[1]
    for direction, ending in enumerate(("", "_reverse")):
        layer.load_layer(
            direction,
            entries.take(f"lstm_l.weight_ih_l{index}{ending}", (4 * width, inputs)),
            entries.take(f"lstm_l.weight_hh_l{index}{ending}", (4 * width, width)),
            entries.take(f"lstm_l.bias_ih_l{index}{ending}", (4 * width,)),
            entries.take(f"lstm_l.bias_hh_l{index}{ending}", (4 * width,)),
        )


def _published_columns(spec: InputSpec, config: MmgcnConfig) -> Tensor:
    """For each input of our classifier the column of the published one, whose modalities are in another order."""
    block = config.node_width + config.graph_width
    published = [name for name in PUBLISHED_LETTERS if name in spec.widths]
    return torch.cat([torch.arange(block) + published.index(name) * block for name in spec.modalities])
