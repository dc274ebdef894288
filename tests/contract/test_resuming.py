"""Every registered model, stopped after an epoch and taken up from a file, ends with the bits of an undisturbed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mer_bench import registry, runner
from mer_bench.checkpoint import read_state, saved_states, write_state
from mer_bench.config import TrainerSettings, validated
from mer_bench.metrics import score
from mer_bench.records import Scores
from mer_bench.seeding import deterministic_algorithms
from mer_bench.testing import ModelSubject
from mer_bench.testing.checks import torch_settled
from mer_bench.testing.samples import sample_split
from mer_bench.trainer import Trained, Trainer

CONTEXT = {"identity": "0" * 64}


def trainer_of(name: str, **changes: Any) -> tuple[Trainer, Any]:
    subject = ModelSubject(registry.load_model(name))
    spec = subject.spec()
    settings, training = subject.settings()
    values = {**training.model_dump(), "batch_size": 4, "epochs": 4, "patience": 4, "average_decay": 0.9, **changes}
    # Dialogues long enough for the batches to differ, and few enough to be quick.
    train = sample_split(spec, seed=1, dtype=torch.float32)
    dev = sample_split(spec, seed=2, dtype=torch.float32)

    def score_dev(log_probabilities: Tensor) -> Scores:
        names = [f"u{number}" for number in range(dev.utterance_count)]
        return score(runner.predictions_of(dev, (names, names), spec.classes, log_probabilities))

    machine = Trainer(
        lambda: subject.loaded.model_class(spec, settings),
        validated(TrainerSettings, values),
        "weighted_f1",
        7,
        torch.device("cpu"),
    )

    def fit(on_epoch: Any = None) -> Trained:
        return machine.fit(train, dev, score_dev, on_epoch)

    return machine, fit


@pytest.mark.parametrize("name", list(registry.models().plugins))
def test_a_model_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    def save(epoch: Any, state: Any) -> None:
        if epoch.epoch == 2 and runner.can_be_saved(state):
            write_state(tmp_path, "epoch-000002", CONTEXT, state.parts())

    with torch_settled():
        deterministic_algorithms()
        _, fit = trainer_of(name)
        undisturbed = fit(save)
        torch.manual_seed(31)
        machine, fit = trainer_of(name)
        for saved in saved_states(tmp_path):  # a model that is fitted at one go begins again
            machine.state.load_state_dict(read_state(saved)[1])
        resumed = fit()
    assert resumed.curve == undisturbed.curve
    assert resumed.selection == undisturbed.selection
    for (key, left), right in zip(
        resumed.model.state_dict().items(), undisturbed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(left, right), key
