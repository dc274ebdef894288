"""What stands in the way of a model is told in one sentence; what does not is let through, and nothing is changed."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mer_bench.api import Batch, FittedModel, InputSpec, Model, Output
from mer_bench.config import Settings
from mer_bench.errors import DataError, NotStackableError
from mer_bench.nn.seeds import stacked_seeds
from mer_bench.stacking.trial import check_stackable
from mer_bench.testing.samples import sample_spec, sample_split
from mer_bench.trainer import Criterion

SPEC = sample_spec(["text"])
BATCH = sample_split(SPEC, dtype=torch.float32).batch(range(4))


class Plain(Model):
    """Stacks; the children put something in its way."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.out = nn.Linear(spec.widths["text"], spec.class_count)
        self.norm = nn.BatchNorm1d(spec.class_count)
        self.seen = nn.Buffer(torch.zeros(()))

    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits

    def forward(self, batch: Batch) -> Output:
        logits: Tensor = self.out(batch.features["text"])
        return Output(self.changed(self.norm(logits.flatten(0, 1)).view_as(logits), batch))


class Reads(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits * logits.mean().item()


class Decides(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits if logits.mean() > 0 else -logits


class Selects(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits + logits[logits > 0].mean()


class WritesInto(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        table = torch.zeros(logits.shape)
        table[:, 0] = logits[:, 0]
        return logits + table


class DrawsInPlace(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits * torch.empty(logits.shape[:2]).bernoulli_(0.5).unsqueeze(-1)


class DrawsInPython(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits * (1 + random.random())


class Replaces(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        self.seen = self.seen + logits.detach().mean()  # type: ignore[assignment]
        return logits


class Remembers(Plain):
    """An attribute that differs from seed to seed and is neither a parameter nor a buffer."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.scale = float(torch.rand(())) + 1

    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        return logits * self.scale


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return 2 * values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class OwnBackward(Plain):
    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        result: Tensor = _Twice.apply(logits)  # type: ignore[no-untyped-call]
        return result


class AtOneGo(FittedModel):
    def fit(self, train: Any) -> None:
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError


class Picky(Plain):
    def forward(self, batch: Batch) -> Output:
        raise DataError("a dialogue has 9 speakers, but this model was built for at most 3.")


class Harmless(Plain):
    """Chooses by the batch, draws in PyTorch, counts in a buffer, packs by a mask."""

    def changed(self, logits: Tensor, batch: Batch) -> Tensor:
        self.seen.add_(1)
        real = logits[batch.mask]
        noise = torch.randn_like(real) if int(batch.lengths.max()) > 1 else real
        kept = nn.functional.dropout(real + noise, 0.4, self.training)
        return torch.zeros_like(logits).masked_scatter(batch.mask.unsqueeze(-1), kept)


def two_of(model: type[Model]) -> list[Model]:
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(model(SPEC, Settings()))
    return models


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Reads, r"it reads a number out of what its parameters give \(Tensor.item\)"),
        (Decides, r"it chooses its way by what its parameters give \(an if over a tensor\)"),
        (Selects, "the shape of a tensor in it depends on what its parameters give"),
        (WritesInto, "it writes what depends on its parameters into a tensor that does not"),
        (DrawsInPlace, r"it draws random numbers in place \(Tensor.bernoulli_\)"),
        (DrawsInPython, "together its seeds get another loss or gradient than alone"),
        (Replaces, "its forward pass puts another tensor in the place of its buffer seen"),
        (Remembers, "together its seeds get another loss or gradient than alone"),
        (OwnBackward, "it has an autograd.Function without a rule of vmap"),
        (AtOneGo, "it is fitted at one go, without batches"),
    ],
)
def test_what_stands_in_the_way_is_told(model: type[Model], says: str) -> None:
    with pytest.raises(NotStackableError, match=says) as refused:
        check_stackable("gadget", two_of(model), BATCH, Criterion())
    text = str(refused.value)
    assert text.startswith("the seeds of gadget can't be stacked: ")
    assert text.endswith(". Leave --stack-seeds out.")
    assert "\n" not in text
    assert stacked_seeds() is None


@pytest.mark.parametrize("model", [Plain, Harmless])
def test_what_does_not_is_let_through_and_left_as_it_was(model: type[Model]) -> None:
    models = two_of(model)
    before = [{name: value.clone() for name, value in each.state_dict().items()} for each in models]
    check_stackable("gadget", models, BATCH, Criterion())
    for each, kept in zip(models, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in each.state_dict().items())
        assert all(parameter.grad is None for parameter in each.parameters())


def test_a_fault_of_the_data_is_told_as_such() -> None:
    with pytest.raises(DataError, match="9 speakers"):
        check_stackable("gadget", two_of(Picky), BATCH, Criterion())
