"""Modality dropout around any model: random modalities are missing while it trains."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from mer_bench.api import Batch, InputSpec, LossTerm, Output, Settings, Wrapper
from mer_bench.nn.masking import masked_mean

from .config import ModalityDropoutConfig


class ModalityDropout(Wrapper):
    """While it trains, the model inside sees dialogues of which random modalities are missing.

    Follows the training of ModDrop (Neverova et al. 2016, section 3.2): each modality is dropped independently.
    In eval mode, and with one modality, the inner model alone speaks. With `distillation` it sees the
    complete dialogues too, is trained on them as usual, and the dropped ones are taught by what it says there.
    """

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        config = cast(ModalityDropoutConfig, settings)
        super().__init__(spec, config)
        self.settings = config

    def forward(self, batch: Batch) -> Output:
        config = self.settings
        if not self.training or len(batch.present) < 2 or not config.rate:
            return cast(Output, self.inner(batch))
        poor = keep_modalities(batch, kept_modalities(batch, config.rate, config.unit == "dialogue"))
        output = cast(Output, self.inner(poor))
        if not config.distillation:
            return output
        complete = cast(Output, self.inner(batch))
        taught = divergence(complete.logits.detach(), output.logits, batch.mask, config.temperature)
        term = LossTerm(taught, config.distillation)
        return replace(complete, losses={**complete.losses, "missing_modalities": term})


def kept_modalities(batch: Batch, rate: float, by_dialogue: bool) -> dict[str, Tensor]:
    """Which modalities stay: each that is there is dropped with chance `rate`, but never the last one.

    Where all that an utterance has would go, one of them, each as likely, stays.

    Shapes:
        returns[m]: (B, T), bool.
    """
    there = torch.stack(list(batch.present.values()))  # (M, B, T)
    count, dialogues, turns = there.shape
    shape = (count, dialogues, 1 if by_dialogue else turns)
    # Drawn on the CPU: one seed then drops the same everywhere.
    kept = (torch.rand(shape) >= rate).to(there.device) & there
    # Of the modalities that are there the one with the highest number stays, whatever else goes.
    order = torch.rand(shape).to(there.device).expand_as(there).masked_fill(~there, -1.0)
    spared = functional.one_hot(order.argmax(0), count).movedim(-1, 0).bool() & there
    kept = torch.where(kept.any(0), kept, spared)
    return dict(zip(batch.present, kept, strict=True))


def keep_modalities(batch: Batch, kept: dict[str, Tensor]) -> Batch:
    """The batch with those modalities alone; features of the others are zero."""
    features = {name: values.masked_fill(~kept[name].unsqueeze(-1), 0) for name, values in batch.features.items()}
    return replace(batch, features=features, present=kept)


def divergence(teacher: Tensor, student: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) at a temperature, times its square (Hinton et al. 2015), over real utterances.

    Shapes:
        teacher, student: (B, T, classes), logits. mask: (B, T), bool. returns: scalar.
    """
    expected = (teacher / temperature).log_softmax(-1)
    said = (student / temperature).log_softmax(-1)
    each = functional.kl_div(said, expected, reduction="none", log_target=True).sum(-1)  # (B, T)
    return masked_mean(each, mask) * temperature**2
