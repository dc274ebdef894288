"""What several checks of a model compute and compare: outputs, losses, a few steps of training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mer_bench.api import (
    NO_LABEL,
    Batch,
    FittedModel,
    InputSpec,
    Model,
    ModelCard,
    Output,
    Split,
    TrainerSettings,
)
from mer_bench.testing.checks import Failed
from mer_bench.testing.samples import padded_further

TOLERANCE = 1e-8
"""Largest relative difference in float64 that still counts as rounding."""

SCHEDULES = ("constant", "warmup", "ramp")


def training_loss(output: Output, batch: Batch) -> Tensor:
    """Cross-entropy on all logits plus the model's own terms, as at the end of training."""
    assert batch.labels is not None
    counted = batch.labels != NO_LABEL
    total = _criterion(output.logits, batch.labels, counted)
    for auxiliary in output.auxiliary.values():
        where = counted if auxiliary.mask is None else counted & auxiliary.mask
        total = total + auxiliary.weight * _criterion(auxiliary.logits, batch.labels, where)
    for term in output.losses.values():
        total = total + term.weight * term.value
    return total


def _criterion(logits: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    # A sum over none is a zero that still has a gradient; a mean would be NaN.
    return cross_entropy(logits[where], labels[where], reduction="sum") / where.sum().clamp(min=1)


def predict(model: Model, batch: Batch) -> Output:
    """What the model says of a batch in eval mode, without gradients; its shapes and values are looked at."""
    with torch.no_grad():
        output = model.eval()(batch)
    expect_output(output, batch, model.spec)
    assert isinstance(output, Output)
    return output


def expect_output(output: Any, batch: Batch, spec: InputSpec) -> None:
    """The output has the right types and shapes, and finite numbers everywhere, padding included."""
    if not isinstance(output, Output):
        raise Failed(f"forward should return an api.Output, but returned {type(output).__name__}.")
    shape = (*batch.mask.shape, spec.class_count)
    tensors = {"logits": output.logits, **{f"auxiliary {key}": item.logits for key, item in output.auxiliary.items()}}
    for name, value in tensors.items():
        if tuple(value.shape) != shape:
            raise Failed(f"{name} should be (dialogues, turns, classes) = {shape}, but is {tuple(value.shape)}.")
        if not value.is_floating_point():
            raise Failed(f"{name} should be a float tensor, but is {value.dtype}.")
        if not bool(value.isfinite().all()):
            where = "on real utterances" if not bool(value[batch.mask].isfinite().all()) else "on padding"
            raise Failed(f"{name} holds NaN or infinite values {where}.")
    for name, item in output.auxiliary.items():
        if item.mask is not None and (item.mask.shape != batch.mask.shape or item.mask.dtype != torch.bool):
            raise Failed(f"the mask of auxiliary {name} should be (dialogues, turns), bool.")
    for name, term in output.losses.items():
        if term.value.ndim != 0 or not bool(term.value.isfinite()):
            raise Failed(f"the loss term {name} should be one finite number, but is {term.value}.")
        if term.schedule not in SCHEDULES:
            raise Failed(f"the schedule of the loss term {name} should be one of {', '.join(SCHEDULES)}.")
    for name, value in output.diagnostics.items():
        if value.ndim != 0 or value.requires_grad:
            raise Failed(f"the diagnostic {name} should be a detached scalar; call .detach() on it.")


def _difference(expected: Tensor, got: Tensor) -> float:
    """Largest difference, relative to the largest value expected (or 1)."""
    if expected.shape != got.shape:
        return float("inf")
    if expected.numel() == 0:
        return 0.0
    return float((expected - got).abs().max() / expected.abs().max().clamp(min=1))


def expect_equal(expected: Tensor, got: Tensor, what: str, tolerance: float = TOLERANCE) -> None:
    """The values agree up to rounding; `what` says in a message what they are."""
    difference = _difference(expected, got)
    if not difference <= tolerance:
        raise Failed(f"{what}: the largest relative difference is {difference:.1e}.")


def real_logits(output: Output, batch: Batch, name: str | None = None) -> Tensor:
    """Logits of the real utterances in the batch's order; those of an auxiliary are 0 off its mask."""
    if name is None:
        return output.logits[batch.mask]
    auxiliary = output.auxiliary[name]
    values = auxiliary.logits[batch.mask]
    return values if auxiliary.mask is None else values * auxiliary.mask[batch.mask].unsqueeze(-1)


def batches_of(split: Split, size: int) -> list[Batch]:
    """The dialogues of a split in their order, so many at a time."""
    return [split.batch(chosen) for chosen in torch.arange(split.dialogue_count).split(size)]


def modality_subsets(card: ModelCard) -> Iterator[tuple[str, ...]]:
    """Every non-empty subset of the modalities that holds those which the model needs."""
    for size in range(1, len(card.modalities) + 1):
        for chosen in combinations(card.modalities, size):
            if set(card.needs) <= set(chosen):
                yield chosen


def expect_trainable(model: Model, batch: Batch, situation: str) -> None:
    """Forward and backward in training mode give finite numbers; a fitted model is only asked to predict."""
    if isinstance(model, FittedModel):
        predict(model, batch)
        return
    model.train()
    model.zero_grad()
    output = model(batch)
    expect_output(output, batch, model.spec)
    loss = training_loss(output, batch)
    if not bool(loss.isfinite()):
        raise Failed(f"{situation}: the training loss is {float(loss.detach())}.")
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            raise Failed(f"{situation}: the gradient of {name} holds NaN or infinite values.")


def train(model: Model, split: Split, training: TrainerSettings, epochs: int, seed: int) -> list[float]:
    """Plain training with the settings that bear on a small set; returns the loss of each step."""
    if isinstance(model, FittedModel):
        model.fit(batches_of(split, training.batch_size))
        return []
    kind = torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for _ in range(epochs):
        for batch in split.shuffled(training.batch_size, generator):
            optimizer.zero_grad()
            loss = training_loss(model(batch), batch)
            loss.backward()
            if training.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def expect_padding_harmless(model: Model, batch: Batch, turns: int) -> None:
    """Further padding, filled with garbage, changes neither logits nor auxiliary logits nor loss terms."""
    expected = predict(model, batch)
    longer = padded_further(batch, turns)
    got = predict(model, longer)
    what = f"{turns} more padded turns, and garbage in the padding, change"
    expect_equal(real_logits(expected, batch), real_logits(got, longer), f"{what} the logits of real utterances")
    expect_same_extras(expected, batch, got, longer, what)


def expect_same_extras(expected: Output, batch: Batch, got: Output, other: Batch, what: str) -> None:
    """Auxiliary logits and loss terms of one content in two forms agree."""
    for name in expected.auxiliary:
        if name not in got.auxiliary:
            raise Failed(f"{what} which auxiliary logits there are: {name} is missing.")
        expect_equal(
            real_logits(expected, batch, name), real_logits(got, other, name), f"{what} the auxiliary logits {name}"
        )
    for name, term in expected.losses.items():
        if name not in got.losses:
            raise Failed(f"{what} which loss terms there are: {name} is missing.")
        expect_equal(term.value, got.losses[name].value, f"{what} the loss term {name}")


@contextmanager
def situated(situation: str) -> Iterator[None]:
    """Say in which situation a check failed, whatever the plugin's code raised there."""
    try:
        yield
    except Failed as found:
        raise Failed(f"{situation}: {found}") from found
    except Exception as error:
        raise Failed(f"{situation}: {type(error).__name__}: {error}") from error


def expect_labels_unread(model: Model, batch: Batch) -> None:
    """In eval mode labels are not needed, and change no logits."""
    assert batch.labels is not None
    try:
        expected = real_logits(predict(model, batch.without_labels()), batch)
    except (TypeError, AttributeError) as error:
        raise Failed(f"eval mode without labels: {type(error).__name__}: {error}") from error
    shifted = torch.where(batch.mask, (batch.labels + 1) % model.spec.class_count, NO_LABEL)
    for other in (batch, replace(batch, labels=shifted)):
        got = real_logits(predict(model, other), other)
        expect_equal(expected, got, "in eval mode the labels of a batch change its logits", 0.0)
