"""Stacked training against training apart: curves, choice, stopping, divergence, and going on from a saved state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mer_bench import runner
from mer_bench.api import Batch, InputSpec, LossTerm, Model, Output, Split
from mer_bench.config import Settings, TrainerSettings
from mer_bench.errors import DivergedError, RequestError
from mer_bench.metrics import score
from mer_bench.records import Epoch, Scores
from mer_bench.seeding import seed_everything
from mer_bench.stacking.training import StackTrainer
from mer_bench.trainer import Trained, Trainer

CLASSES = ("calm", "glad", "cross")
SPEC = InputSpec({"text": 6}, CLASSES, speakers=2)
CPU = torch.device("cpu")


class Reader(Model):
    """Dropout, noise, running statistics, a frozen and an unused weight, and one weight under two names."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.entry = nn.Linear(6, 8)
        self.twice = self.entry
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(8, 3)
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)

    def forward(self, batch: Batch) -> Output:
        hidden = self.twice(batch.features["text"]).relu() + self.frozen
        hidden = self.norm(hidden.flatten(0, 1)).view_as(hidden)
        if self.training:
            hidden = hidden + 0.1 * torch.randn_like(hidden)
        penalty = LossTerm(hidden.square().mean(), 0.01, "ramp")
        return Output(self.out(self.drop(hidden)), losses={"size": penalty}, diagnostics={"norm": hidden.norm()})


class Bursting(Reader):
    """Seeds whose first weight is positive diverge in their second epoch."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.count = nn.Buffer(torch.zeros(()))
        self.fuse = nn.Buffer(torch.randn(()))

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        if self.training:
            self.count.add_(1)
        broken = torch.where((self.count > 6) & (self.fuse > 0), torch.inf, 0.0)
        return Output(output.logits, {}, {"burst": LossTerm(broken * self.out.weight.square().sum())})


def split(name: str, dialogues: int, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 9, dialogues)
    rows = int(lengths.sum())
    labels = torch.as_tensor(generator.integers(0, 3, rows))
    text = F.one_hot(labels, 6).float() + torch.as_tensor(generator.normal(0, 0.9, (rows, 6))).float()
    return Split(
        name,
        {"text": text},
        {"text": torch.ones(rows, dtype=torch.bool)},
        torch.as_tensor(generator.integers(0, 2, rows)),
        torch.as_tensor(np.concatenate([[0], np.cumsum(lengths)])),
        labels,
    )


TRAIN, DEV = split("train", 40, 1), split("dev", 20, 2)


def score_dev(log_probabilities: torch.Tensor) -> Scores:
    names = [f"u{index}" for index in range(DEV.utterance_count)]
    return score(runner.predictions_of(DEV, (names, names), CLASSES, log_probabilities))


def make(seed: int, model: type[Model] = Reader, **values: Any) -> Trainer:
    given = {"epochs": 7, "learning_rate": 0.02, "batch_size": 8, "patience": 2, "order_seed": 5, **values}
    return Trainer(lambda: model(SPEC, Settings()), TrainerSettings(**given), "weighted_f1", seed, CPU)


SEEDS = (0, 1, 2, 3, 4)
Told = list[dict[int, Epoch]]


def together(model: type[Model] = Reader, **values: Any) -> tuple[StackTrainer, list[Trained | DivergedError], Told]:
    stack = StackTrainer([make(seed, model, **values) for seed in SEEDS], CPU)
    told: Told = []
    seed_everything(77)  # what is left in the global generators is nobody's
    return stack, stack.fit(TRAIN, DEV, score_dev, lambda epochs: told.append(dict(epochs))), told


def expect_alike(found: Trained, alone: Trained, tolerance: float = 5e-4) -> None:
    assert len(found.curve) == len(alone.curve)
    for ours, theirs in zip(found.curve, alone.curve, strict=True):
        assert ours.learning_rate == theirs.learning_rate
        for own, other in ((ours.train, theirs.train), (ours.diagnostics, theirs.diagnostics)):
            assert own == pytest.approx(dict(other), abs=tolerance, rel=tolerance)
        assert ours.dev["loss"] == pytest.approx(theirs.dev["loss"], abs=tolerance)
    assert found.selection.epoch == alone.selection.epoch
    assert found.selection.ended == alone.selection.ended
    weights = found.model.state_dict()
    for name, value in alone.model.state_dict().items():
        # Adam takes whole steps along gradients that are nothing but rounding.
        torch.testing.assert_close(weights[name], value, rtol=0.01, atol=0.01, msg=name)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"optimizer": "adam", "clip": 0.05, "weight_decay": 0.1},
        {"average_decay": 0.9, "schedule": "cosine", "warmup": 0.1, "clip": 0},
        {"class_weights": "inverse", "focal_gamma": 2.0, "label_smoothing": 0.1, "batch_size": 7},
    ],
)
def test_each_seed_is_trained_as_alone(values: dict[str, Any]) -> None:
    stack, results, told = together(**values)
    ends = set()
    for place, (seed, result) in enumerate(zip(SEEDS, results, strict=True)):
        assert isinstance(result, Trained)
        expect_alike(result, make(seed, **values).fit(TRAIN, DEV, score_dev))
        assert result.curve == [epochs[place] for epochs in told if place in epochs]
        ends.add(len(result.curve))
    assert len(ends) > 1  # seeds ended at different epochs, each by its own patience
    assert stack.epoch == max(ends) == len(told)


def test_a_seed_that_has_ended_is_left_alone() -> None:
    """Its weights, and its random numbers, are those of its own end, however long the others go on."""
    _, results, _ = together()
    storages = {
        value.untyped_storage().data_ptr()
        for result in results
        if isinstance(result, Trained)
        for value in result.model.state_dict().values()
    }
    one = [result for result in results if isinstance(result, Trained)]
    assert len(storages) == len(one) * len(
        {id(value) for value in one[0].model.parameters()} | {*one[0].model.buffers()}
    )


def test_a_seed_that_diverges_is_named_and_changes_no_other() -> None:
    _, results, _ = together(Bursting)
    kinds = set()
    for seed, result in zip(SEEDS, results, strict=True):
        kinds.add(type(result))
        if isinstance(result, DivergedError):
            assert "burst became NaN or infinite in epoch 2" in str(result)
            with pytest.raises(DivergedError, match="burst"):
                make(seed, Bursting).fit(TRAIN, DEV, score_dev)
        else:
            expect_alike(result, make(seed, Bursting).fit(TRAIN, DEV, score_dev))
    assert kinds == {Trained, DivergedError}


class HaltError(Exception):
    """Ends training from outside."""


@pytest.mark.parametrize("model", [Reader, Bursting])
@pytest.mark.parametrize("after", [1, 3, 4])
def test_it_goes_on_from_a_saved_state_with_the_same_bits(model: type[Model], after: int) -> None:
    _, undisturbed, told = together(model)
    assert len(told) > after
    stack = StackTrainer([make(seed, model) for seed in SEEDS], CPU)
    saved: list[dict[str, Any]] = []

    def halt(epochs: Mapping[int, Epoch]) -> None:
        if stack.epoch == after:
            saved.extend(_copied(stack.states()))
            raise HaltError

    with pytest.raises(HaltError):
        stack.fit(TRAIN, DEV, score_dev, halt)
    seed_everything(123)
    again = StackTrainer([make(seed, model) for seed in SEEDS], CPU, saved)
    for found, expected in zip(again.fit(TRAIN, DEV, score_dev, lambda epochs: None), undisturbed, strict=True):
        if isinstance(expected, DivergedError):
            assert str(found) == str(expected)
            continue
        assert isinstance(found, Trained)
        assert found.curve == expected.curve
        for name, value in expected.model.state_dict().items():
            assert torch.equal(found.model.state_dict()[name], value)


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return type(value)(_copied(part) for part in value) if isinstance(value, list | tuple) else value


def test_the_same_stack_twice_gives_the_same_bits() -> None:
    _, first, _ = together()
    _, second, _ = together()
    for one, other in zip(first, second, strict=True):
        assert isinstance(one, Trained)
        assert isinstance(other, Trained)
        assert one.curve == other.curve


class TestOrder:
    """`order_seed` decides the batches, and nothing else."""

    def batches(self, **values: Any) -> list[list[int]]:
        trainer = make(**values)
        return [batch.dialogues.tolist() for batch in TRAIN.shuffled(8, trainer.state.batches)]

    def test_unset_it_is_the_runs_own_seed(self) -> None:
        own = self.batches(seed=3, order_seed=None)
        assert own == self.batches(seed=3, order_seed=3)
        assert own != self.batches(seed=4, order_seed=None)
        assert own == self.batches(seed=4, order_seed=3)

    def test_weights_and_dropout_stay_the_seeds_own(self) -> None:
        one, other = make(3, order_seed=5), make(3, order_seed=6)
        assert all(map(torch.equal, one.state.model.parameters(), other.state.model.parameters()))
        assert not torch.equal(
            one.state.model.get_parameter("out.weight"), make(4).state.model.get_parameter("out.weight")
        )

    def test_where_it_is_unset_nothing_of_it_is_written(self) -> None:
        assert "order_seed" not in TrainerSettings().model_dump()
        assert TrainerSettings(order_seed=0).model_dump()["order_seed"] == 0


def test_without_labels_there_is_nothing_to_learn() -> None:
    from dataclasses import replace

    assert TRAIN.labels is not None
    empty = replace(TRAIN, labels=torch.full_like(TRAIN.labels, -1))
    with pytest.raises(RequestError, match="no utterance of the split train has a label"):
        StackTrainer([make(0), make(1)], CPU).fit(empty, DEV, score_dev, lambda epochs: None)
