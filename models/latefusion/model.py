"""Late fusion: an MLP for each modality, and a weighted mean of what they say."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mer_bench.api import Auxiliary, Batch, InputSpec, Model, Output, Settings
from mer_bench.nn.dropout import Dropout

from .config import LateFusionConfig


class LateFusion(Model):
    """Each modality's MLP scores the classes of one utterance; the scores meet only in a weighted mean.

    With `z_m` the MLP of modality m, `b` the shared bias and `P` the modalities that the utterance has:
    `w = softmax over P of a`, and the logits are `b + sum_P w_m z_m` (`fusion = logits`) or
    `log sum_P w_m softmax(b + z_m)` (`probabilities`). An utterance without any modality has `b` alone.

    Shapes (B dialogues, T turns, M modalities):
        logits: (B, T, classes). auxiliary[m]: `b + z_m`, the same, counted where m is there.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.settings = config = cast(LateFusionConfig, settings)
        self.experts = nn.ModuleDict({name: _mlp(size, spec.class_count, config) for name, size in spec.widths.items()})
        self.bias = nn.Parameter(torch.zeros(spec.class_count))
        # A single modality always has weight 1: a parameter would never get a gradient.
        learned = config.weights == "learned" and len(spec.widths) > 1
        self.scores = nn.Parameter(torch.zeros(len(spec.widths))) if learned else None

    def forward(self, batch: Batch) -> Output:
        names = self.spec.modalities
        present = torch.stack([batch.present[name] for name in names], dim=-1)  # (B, T, M)
        said = torch.stack([self._said(name, batch) for name in names], dim=-2)  # (B, T, M, classes)
        said = said.to(self.bias.dtype)
        log_weights = self._log_weights(present)
        if self.settings.fusion == "logits":
            logits = self.bias + (log_weights.exp().unsqueeze(-1) * said).sum(-2)  # (B, T, classes)
        else:
            each = (self.bias + said).log_softmax(-1)
            logits = (log_weights.unsqueeze(-1) + each).logsumexp(-2)  # (B, T, classes)
        auxiliary = {}
        if self.settings.own_weight and len(names) > 1:
            auxiliary = {
                name: Auxiliary(self.bias + said[..., index, :], self.settings.own_weight, batch.present[name])
                for index, name in enumerate(names)
            }
        return Output(logits, auxiliary, diagnostics=self._diagnostics())

    def _said(self, modality: str, batch: Batch) -> Tensor:
        """One modality's logits without the bias, zero where the modality is not there: (B, T, classes)."""
        there = batch.present[modality].unsqueeze(-1)
        logits: Tensor = self.experts[modality](batch.features[modality].masked_fill(~there, 0))
        return logits.masked_fill(~there, 0)

    def _log_weights(self, present: Tensor) -> Tensor:
        """Logarithms of weights that sum to 1 over the modalities that are there, or over all where none is.

        Shapes:
            present: (B, T, M), bool. returns: (B, T, M), float, finite.
        """
        scores = self.bias.new_zeros(present.shape[-1]) if self.scores is None else self.scores
        # Finite, and halved so that a sum with it is finite too: infinities have no gradient.
        nothing = torch.finfo(scores.dtype).min / 2
        return scores.expand(present.shape).masked_fill(~present, nothing).log_softmax(-1)

    @torch.no_grad()
    def _diagnostics(self) -> dict[str, Tensor]:
        if self.scores is None:
            return {}
        weights = self.scores.detach().softmax(0)
        return {f"weight_{name}": weight for name, weight in zip(self.spec.modalities, weights, strict=True)}


def _mlp(width: int, classes: int, config: LateFusionConfig) -> nn.Sequential:
    """Dropout, then hidden layers with ReLU and dropout, then the classes without a bias."""
    layers: list[nn.Module] = [Dropout(config.input_dropout)]
    for _ in range(config.layers):
        layers += [nn.Linear(width, config.hidden_width), nn.ReLU(), Dropout(config.dropout)]
        width = config.hidden_width
    return nn.Sequential(*layers, nn.Linear(width, classes, bias=False))
