"""bc-LSTM (Poria et al. 2017): LSTMs over the utterances of a video, first by modality, then over all of them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from mer_bench.api import Auxiliary, Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import dropout
from mer_bench.nn.masking import masked_softmax
from mer_bench.nn.missing import MissingVectors
from mer_bench.nn.recurrent import LstmWeights, TurnOrder, turn_order

from .config import BcLstmConfig


class BcLstm(Model):
    """Contextual LSTMs in one level or two.

    Follows section 3 of Poria et al. (2017), "Context-Dependent Sentiment Analysis in User-Generated Videos",
    but both levels are trained together. A modality that an utterance lacks is replaced by a learned vector
    that starts at zero.

    Shapes (B dialogues, T turns, M modalities):
        logits: (B, T, classes).
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(BcLstmConfig, settings)
        self.missing = MissingVectors(spec.widths)
        self.unimodal: nn.ModuleDict | None = None
        self.unimodal_classes: nn.ModuleDict | None = None
        self.modality_attention: ModalityAttention | None = None
        width = sum(spec.widths.values())
        if config.fusion != "concatenated" and len(spec.widths) > 1:
            self.unimodal = nn.ModuleDict({name: ContextualLstm(size, config) for name, size in spec.widths.items()})
            handed_on = cast(ContextualLstm, self.unimodal[spec.modalities[0]]).out
            if config.unimodal_weight:
                self.unimodal_classes = nn.ModuleDict(
                    {name: nn.Linear(handed_on, spec.class_count) for name in spec.widths}
                )
            width = len(spec.widths) * handed_on
            if config.fusion == "attentive":
                self.modality_attention = ModalityAttention(handed_on)
                width = handed_on
        self.last = ContextualLstm(width, config)
        self.classes = nn.Linear(self.last.out, spec.class_count)

    def forward(self, batch: Batch) -> Output:
        order = turn_order(batch.lengths, batch.mask.shape[1], 1 if self.settings.direction == "forward" else 2)
        features = {name: self._features(name, batch) for name in self.spec.modalities}
        # The recurrences keep full precision, and no other product here is large.
        with torch.autocast(device_type=batch.mask.device.type, enabled=False):
            auxiliary: dict[str, Auxiliary] = {}
            if self.unimodal is not None:
                features = {name: self.unimodal[name](values, order) for name, values in features.items()}
                if self.unimodal_classes is not None:
                    auxiliary = {
                        f"unimodal_{name}": Auxiliary(
                            self.unimodal_classes[name](values), self.settings.unimodal_weight, batch.present[name]
                        )
                        for name, values in features.items()
                    }
            if self.modality_attention is not None:
                present = torch.stack([batch.present[name] for name in features], dim=2)  # (B, T, M)
                fused, _ = self.modality_attention(torch.stack(list(features.values()), dim=2), present)
            else:
                fused = torch.cat(list(features.values()), dim=-1)  # (B, T, sum of widths)
            return Output(self.classes(self.last(fused, order)), auxiliary)

    def _features(self, modality: str, batch: Batch) -> Tensor:
        """One modality's features, the learned vector where there are none: (B, T, width)."""
        return dropout(self.missing.features(modality, batch), self.settings.input_dropout, self.training)


class ContextualLstm(nn.Module):
    """An LSTM over the utterances of each dialogue and a dense layer on each of its states.

    Section 3.2 of Poria et al. (2017); with `dense_layer` off its hidden-LSTM.

    Args:
        inputs: Width of an utterance.

    Shapes:
        utterances: (B, T, inputs). returns: (B, T, out).
    """

    def __init__(self, inputs: int, settings: BcLstmConfig) -> None:
        super().__init__()
        self.settings = settings
        sides = 1 if settings.direction == "forward" else 2
        self.lstm = LstmWeights(inputs, settings.lstm_width, sides)
        states = sides * settings.lstm_width
        self.out = settings.dense_width if settings.dense_layer else states
        self.dense = nn.Linear(states, self.out) if settings.dense_layer else None

    def forward(self, utterances: Tensor, order: TurnOrder) -> Tensor:
        # Packed: the backward direction starts at a dialogue's last turn, not in its padding.
        values = order.unpack(self.lstm(order.pack(utterances), order))  # (B, T, directions * lstm width)
        if self.dense is not None:
            values = dropout(values, self.settings.lstm_dropout, self.training)
            values = functional.relu(self.dense(values))  # (B, T, dense width)
        return dropout(values, self.settings.dense_dropout, self.training)


class ModalityAttention(nn.Module):
    """A mean of the modalities of an utterance with learned weights: softmax_m(w . tanh(W b_m)).

    Follows the attention-based fusion (AT-Fusion) of Poria et al. (2017), "Multi-level Multiple Attentions
    for Contextual Multimodal Sentiment Analysis", over the modalities that are present.

    Shapes:
        values: (B, T, M, width). present: (B, T, M), bool.
        returns: (B, T, width), zero where nothing is present; the weights (B, T, M).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(torch.tanh(self.key(values))).squeeze(-1)  # (B, T, M)
        weights = masked_softmax(scores, present, dim=2)
        return (weights.unsqueeze(-1) * values).sum(2), weights
