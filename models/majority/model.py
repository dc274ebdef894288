"""The most frequent class of the train split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from mer_bench.api import Batch, FittedModel, InputSpec, Output
from mer_bench.errors import RunError

from .config import MajorityConfig


class Majority(FittedModel):
    """Every utterance is the most frequent train class; of equally frequent ones, the first.

    Shapes:
        log_shares: (classes,), float: logarithm of each class's share of the train labels, one
            utterance added to each class (Laplace's rule of succession).
    """

    log_shares: Tensor

    def __init__(self, spec: InputSpec, settings: MajorityConfig) -> None:
        super().__init__(spec, settings)
        self.register_buffer("log_shares", torch.zeros(spec.class_count))

    def fit(self, train: Iterable[Batch]) -> None:
        """Count the labels.

        Raises:
            RunError: If the train split has no labels.
        """
        classes = self.spec.class_count
        counts = torch.zeros(classes, dtype=torch.long)
        for batch in train:
            if batch.labels is not None:
                counts += torch.bincount(batch.labels[batch.labels >= 0].cpu(), minlength=classes)
        if not counts.any():
            raise RunError("majority needs labels in the train split, but it has none.")
        shares = (counts + 1).double() / (counts + 1).sum()
        self.log_shares.copy_(shares.log())

    def forward(self, batch: Batch) -> Output:
        return Output(self.log_shares.expand(*batch.mask.shape, -1))  # (B, T, classes)
