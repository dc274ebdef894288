"""Training and scoring a registered model on any device: what the tests of devices share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mer_bench import registry, runner
from mer_bench.api import InputSpec, Model, Split
from mer_bench.config import TrainerSettings, validated
from mer_bench.metrics import score
from mer_bench.records import Scores
from mer_bench.testing import ModelSubject
from mer_bench.testing.samples import sample_split
from mer_bench.trainer import OnEpoch, Trained, Trainer

LENGTHS = (5, 9, 1, 3, 7, 2)


def moved(split: Split, device: torch.device) -> Split:
    """A split on a device, as a store hands it over; its offsets stay on the CPU."""
    return replace(
        split,
        features={name: value.to(device) for name, value in split.features.items()},
        present={name: there.to(device) for name, there in split.present.items()},
        speakers=split.speakers.to(device),
        labels=None if split.labels is None else split.labels.to(device),
    )


class Subject:
    """A registered model with the settings of the checks, and a train and a dev split of a few dialogues."""

    def __init__(self, name: str, lengths: tuple[int, ...] = LENGTHS) -> None:
        subject = ModelSubject(registry.load_model(name))
        self.spec: InputSpec = subject.spec()
        self.settings, training = subject.settings()
        values = {**training.model_dump(), "batch_size": 4, "epochs": 2, "patience": 2, "average_decay": 0.9}
        self.training = validated(TrainerSettings, values)
        self.model_class: Any = subject.loaded.model_class
        self.train = sample_split(self.spec, 1, lengths, dtype=torch.float32)
        self.dev = sample_split(self.spec, 2, lengths, dtype=torch.float32)

    def build(self) -> Model:
        model: Model = self.model_class(self.spec, self.settings)
        return model

    def fit(self, device: torch.device, on_epoch: OnEpoch | None = None, saved: Any = None) -> tuple[Trained, Tensor]:
        """Train on a device; the model at its best epoch, and every dev score that it was chosen by.

        Args:
            saved: A state to go on from.
        """
        seen: list[Tensor] = []
        names = [f"u{number}" for number in range(self.dev.utterance_count)]

        def score_dev(log_probabilities: Tensor) -> Scores:
            seen.append(log_probabilities.clone())
            return score(runner.predictions_of(self.dev, (names, names), self.spec.classes, log_probabilities))

        trainer = Trainer(self.build, self.training, "weighted_f1", 7, device)
        if saved is not None:
            trainer.state.load_state_dict(saved)
        trained = trainer.fit(moved(self.train, device), moved(self.dev, device), score_dev, on_epoch)
        return trained, torch.stack(seen)
