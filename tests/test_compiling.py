"""Training through PyTorch's compiler: equal mathematics and random numbers, safe to stop, refused in a sentence."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

from mer_bench.api import Batch, InputSpec, Model, Output
from mer_bench.config import Settings, TrainerSettings
from mer_bench.errors import RequestError, RunError
from mer_bench.trainer import Trained

from .test_trainer import DEV, TRAIN, make, score_dev


class Perceptron(Model):
    """An MLP with dropout over the utterances of a batch; they are counted, so that a shape depends on the data."""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.layers = nn.Sequential(
            nn.Linear(sum(spec.widths.values()), 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, spec.class_count)
        )

    def forward(self, batch: Batch) -> Output:
        utterances = torch.cat(list(batch.features.values()), dim=-1)[batch.mask]  # (N, widths)
        logits = utterances.new_zeros(*batch.mask.shape, self.spec.class_count)
        return Output(logits.masked_scatter(batch.mask.unsqueeze(-1), self.layers(utterances)))


class Reluctant(Perceptron):
    def forward(self, batch: Batch) -> Output:
        torch._dynamo.comptime.comptime(lambda _: 1 / 0)
        return super().forward(batch)


class Miscompiled(Perceptron):
    """As if the compiler erred: its numbers are others than the model's own."""

    def forward(self, batch: Batch) -> Output:
        output = super().forward(batch)
        return Output(output.logits * 1.2) if torch.compiler.is_compiling() else output


def weights(trained: Trained) -> list[torch.Tensor]:
    return list(trained.model.state_dict().values())


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch compiles with g++, which is not here")


@needs_compiler
def test_it_trains_alike_and_goes_on_from_a_saved_state_with_the_same_bits() -> None:
    plain = make(Perceptron, epochs=3).fit(TRAIN, DEV, score_dev)
    states = []
    whole = make(Perceptron, epochs=3, compile=True).fit(
        TRAIN, DEV, score_dev, lambda epoch, state: states.append(state.state_dict())
    )
    for ours, compiled in zip(plain.curve, whole.curve, strict=True):
        # Only with dropout masks of its own would it be further off than rounding.
        assert compiled.train == pytest.approx(ours.train, rel=1e-5)
    for plainly, quickly in zip(weights(plain), weights(whole), strict=True):
        torch.testing.assert_close(quickly, plainly, rtol=1e-4, atol=1e-5)
    resumed = make(Perceptron, epochs=3, compile=True)
    resumed.state.load_state_dict(states[0])
    for first, second in zip(weights(whole), weights(resumed.fit(TRAIN, DEV, score_dev)), strict=True):
        assert torch.equal(first, second)


@needs_compiler
def test_what_cannot_be_compiled_is_named() -> None:
    with pytest.raises(RunError, match=r"Reluctant can't be compiled: \w+: .* Leave compile at false\."):
        make(Reluctant, compile=True).fit(TRAIN, DEV, score_dev)


@needs_compiler
def test_what_is_compiled_wrongly_is_told_before_it_is_trained() -> None:
    trainer = make(Miscompiled, compile=True)
    with pytest.raises(RunError, match=r"gives Miscompiled other numbers than it should: .* Leave compile at false\."):
        trainer.fit(TRAIN, DEV, score_dev)
    assert trainer.state.step == 0


def test_without_a_compiler_it_is_refused_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with pytest.raises(RequestError, match="needs a C"):
        make(Perceptron, compile=True)


def test_runs_that_are_not_compiled_keep_their_identity() -> None:
    assert "compile" not in TrainerSettings().model_dump()
    assert TrainerSettings(compile=True).model_dump(mode="json")["compile"] is True
    assert TrainerSettings.model_validate(TrainerSettings(compile=True).model_dump()).compile
