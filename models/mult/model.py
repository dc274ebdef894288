"""MulT (Tsai et al. 2019) over the utterances of a dialogue: crossmodal transformers between all modalities."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import Dropout, dropout
from mer_bench.nn.encoders import sinusoidal_positions

from .config import MultConfig
from .transformer import Transformers, stream_keys

TABLE_TURNS = 512
"""Turns whose position is kept; what lies beyond is computed."""


class Mult(Model):
    """Every modality's stream is rewritten by each other modality; the results side by side look at themselves.

    Follows Tsai et al. (2019), "Multimodal Transformer for Unaligned Multimodal Language Sequences".
    There a sequence is the words and frames of one utterance and has one label; here it is the utterances of a
    dialogue, and each has a label. An utterance without a modality is no key of that modality, and that modality's
    stream is zero there before the classes.

    Shapes (B dialogues, T turns, M modalities, P = M (M - 1) ordered pairs, d = hidden_dim):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(MultConfig, settings)
        names = spec.modalities
        self.convolutions = nn.ModuleDict(
            {name: TemporalConvolution(size, name, config) for name, size in spec.widths.items()}
        )
        self.others = max(len(names) - 1, 1)  # streams of a modality; one alone keeps its own
        pairs = [(target, source) for target in range(len(names)) for source in range(len(names)) if source != target]
        self.register_buffer("targets", torch.tensor([target for target, _ in pairs]), persistent=False)
        self.register_buffer("sources", torch.tensor([source for _, source in pairs]), persistent=False)
        self.targets: Tensor
        self.sources: Tensor
        self.crossmodal = (
            Transformers(config, len(pairs), config.hidden_dim, config.crossmodal_layers) if pairs else None
        )
        joint = self.others * config.hidden_dim
        self.memories = Transformers(config, len(names), joint, config.self_layers)
        if config.positions:
            self.register_buffer("table", sinusoidal_positions(TABLE_TURNS, config.hidden_dim), persistent=False)
            self.table: Tensor
        self.first = nn.Linear(len(names) * joint, len(names) * joint)
        self.second = nn.Linear(len(names) * joint, len(names) * joint)
        self.classes = nn.Linear(len(names) * joint, spec.class_count)
        self.dropout = Dropout(config.dropout)
        self.output_dropout = Dropout(config.output_dropout)

    def forward(self, batch: Batch) -> Output:
        present = torch.stack([batch.present[name] for name in self.spec.modalities])  # (M, B, T)
        inputs = torch.stack([self._convolved(name, batch) for name in self.spec.modalities])  # (M, B, T, d)
        streams = self._crossed(self.dropout(self._placed(inputs)).flatten(1, 2), present)  # (M, N, others x d)
        keys = stream_keys(present.flatten(0, 1), self.settings.look_ahead)
        streams = self.memories(streams, None, keys).view(*present.shape, -1)  # (M, B, T, others x d)
        # An utterance without the modality would otherwise bring what the stream made of its neighbours.
        streams = streams.masked_fill(~present.unsqueeze(-1), 0)
        joint = torch.cat(list(streams), dim=-1)  # (B, T, M x others x d)
        return Output(self.classes(joint + self.second(self.output_dropout(F.relu(self.first(joint))))))

    def _convolved(self, modality: str, batch: Batch) -> Tensor:
        features = batch.features[modality].masked_fill(~batch.present[modality].unsqueeze(-1), 0)
        convolved: Tensor = self.convolutions[modality](dropout(features, self.settings.input_dropout, self.training))
        return convolved

    def _placed(self, values: Tensor) -> Tensor:
        """With the position of each turn added: (M, B, T, d)."""
        if not self.settings.positions:
            return values
        turns = values.shape[2]
        table: Tensor = self.table
        if turns > len(table):
            table = torch.cat([table, sinusoidal_positions(turns, table.shape[1])[len(table) :].to(table)])
        return values + table[:turns]

    def _crossed(self, inputs: Tensor, present: Tensor) -> Tensor:
        """Each modality's stream after each other one rewrote it, side by side: (M, N, d) to (M, N, others x d)."""
        if self.crossmodal is None:
            return inputs
        keys = stream_keys(present.index_select(0, self.sources).flatten(0, 1), self.settings.look_ahead)
        stream = inputs.index_select(0, self.targets)  # (P, N, d)
        source = inputs.index_select(0, self.sources)  # (P, N, d)
        found: Tensor = self.crossmodal(stream, source, keys)  # (P, N, d), the pairs of one target side by side
        by_target = found.view(len(inputs), self.others, *found.shape[1:])  # (M, others, N, d)
        return by_target.transpose(1, 2).flatten(2)


class TemporalConvolution(nn.Module):
    """A convolution over the turns of a dialogue, without bias (Tsai et al. 2019, temporal convolutions).

    Beyond either end of a dialogue there are zeros. With `look_ahead` off its last weight is on the utterance
    itself instead of on a later one.

    Shapes:
        features: (B, T, inputs), zero where nothing is. returns: (B, T, hidden_dim).
    """

    def __init__(self, inputs: int, modality: str, settings: MultConfig) -> None:
        super().__init__()
        self.kernel: int = getattr(settings, f"{modality}_kernel")
        before = self.kernel // 2 if settings.look_ahead else self.kernel - 1
        self.padding = (before, self.kernel - 1 - before)
        # One map for all places of the window: a product and a sum of shifted rows, which is what a convolution is.
        self.map = nn.Linear(inputs, self.kernel * settings.hidden_dim, bias=False)
        bound = 1 / (self.kernel * inputs) ** 0.5  # that of a convolution, which has more inputs than the map
        nn.init.uniform_(self.map.weight, -bound, bound)

    def forward(self, features: Tensor) -> Tensor:
        turns = features.shape[1]
        mapped = self.map(features).unflatten(-1, (self.kernel, -1))  # (B, T, kernel, d)
        mapped = F.pad(mapped, (0, 0, 0, 0, *self.padding))  # (B, T + kernel - 1, kernel, d)
        return torch.stack([mapped[:, place : place + turns, place] for place in range(self.kernel)]).sum(0)
