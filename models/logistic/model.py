"""Multinomial logistic regression on single utterances."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable

import torch
from torch import Tensor

from mer_bench.api import NO_LABEL, Batch, FittedModel, InputSpec, Output
from mer_bench.errors import RunError

from .config import LogisticConfig


class Logistic(FittedModel):
    """Class scores are a linear function of one utterance's standardised features.

    Shapes (width: all modalities side by side, then one presence column a modality):
        mean, scale: (width,), float: what a column is shifted and divided by; a missing modality's
            columns become 0, which is the train mean.
        weight: (classes, width), float. bias: (classes,), float.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, spec: InputSpec, settings: LogisticConfig) -> None:
        super().__init__(spec, settings)
        self.settings = settings
        width = sum(spec.widths.values()) + len(spec.widths)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("weight", torch.zeros(spec.class_count, width))
        self.register_buffer("bias", torch.zeros(spec.class_count))

    def fit(self, train: Iterable[Batch]) -> None:
        """Standardise on train and fit by L-BFGS, which draws no random numbers.

        Raises:
            RunError: If there are fewer than two classes in train, or the solver does not converge.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        settings = self.settings
        columns, there, labels = [], [], []
        for batch in train:
            if batch.labels is None:
                continue
            chosen = batch.mask & (batch.labels != NO_LABEL)
            inputs, known = self._side_by_side(batch)
            columns.append(inputs[chosen].double().cpu())
            there.append(known[chosen].cpu())
            labels.append(batch.labels[chosen].cpu())
        target = torch.cat(labels) if labels else torch.zeros(0, dtype=torch.long)
        found = target.unique()  # sorted, as scikit-learn has its classes
        if len(found) < 2:
            raise RunError(f"logistic needs two classes or more in the train split, but it has {len(found)}.")

        values, known = torch.cat(columns), torch.cat(there)
        count = known.sum(0).clamp(min=1)
        mean = (values * known).sum(0) / count
        spread = (((values - mean) * known).square().sum(0) / count).sqrt()
        # A column that never changes says nothing; dividing it by its rounding errors would make it speak.
        scale = torch.where(spread > 1e-6 * mean.abs().clamp(min=1e-6), spread, 1.0)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

        solver = LogisticRegression(
            C=settings.inverse_regularisation,
            class_weight="balanced" if settings.class_balance == "balanced" else None,
            max_iter=settings.max_iterations,
            tol=settings.tolerance,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                solver.fit(((values - mean) / scale * known).numpy(), target.numpy())
            except ConvergenceWarning:
                raise RunError(
                    f"logistic did not converge in {settings.max_iterations} steps of its solver. Raise "
                    f"max_iterations, or lower inverse_regularisation (now {settings.inverse_regularisation:g})."
                ) from None
        weight, bias = torch.from_numpy(solver.coef_), torch.from_numpy(solver.intercept_)
        if len(found) == 2:  # scikit-learn keeps the difference of the two
            weight, bias = torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])
        # A class that train lacks can't be predicted: its probability is a thousandth of chance or less.
        self.weight.zero_()
        self.bias.fill_(float(bias.min()) - math.log(1000 * len(target)))
        self.weight[found] = weight.to(self.weight)
        self.bias[found] = bias.to(self.bias)

    def forward(self, batch: Batch) -> Output:
        inputs, known = self._side_by_side(batch)  # (B, T, width)
        standardised = (inputs - self.mean.to(inputs)) / self.scale.to(inputs) * known  # (B, T, width)
        return Output(standardised @ self.weight.to(inputs).T + self.bias.to(inputs))  # (B, T, classes)

    def _side_by_side(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features and presence columns, and which of them are known.

        Shapes:
            returns: (B, T, width), float, and (B, T, width), bool; a presence column is always known.
        """
        present = [batch.present[name].unsqueeze(-1) for name in self.spec.widths]
        features = [batch.features[name] for name in self.spec.widths]
        inputs = torch.cat([*features, *(there.to(features[0]) for there in present)], dim=-1)
        known = [there.expand_as(values) for there, values in zip(present, features, strict=True)]
        return inputs, torch.cat([*known, *(torch.ones_like(there) for there in present)], dim=-1)
