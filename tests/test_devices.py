"""Models and the core make every tensor where it is needed: found on any machine by a second device without a GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mer_bench import registry, runner
from mer_bench.api import Batch, InputSpec, Model, Output, Settings, Split
from mer_bench.applying import trained as applying
from mer_bench.errors import RunError
from mer_bench.records import Epoch
from mer_bench.runner import Listener, RunRequest
from mer_bench.testing.samples import sample_split
from tests.elsewhere import Subject, moved
from tests.second_device import ELSEWHERE, There, WrongPlaceError, second_device
from tests.trios import Place, place

__all__ = ["place"]

ROUNDING = 1e-4
"""Between the kernels that PyTorch takes for the CPU and those that it takes for any device."""


@pytest.mark.parametrize("name", list(registry.models().plugins))
def test_a_model_trains_and_scores_elsewhere_as_on_the_cpu(name: str) -> None:
    subject = Subject(name)
    here, scores_here = subject.fit(torch.device("cpu"))
    with second_device():
        there, scores_there = subject.fit(ELSEWHERE)
        assert all(isinstance(value, There) for value in there.model.state_dict().values())
    torch.testing.assert_close(scores_there, scores_here, atol=ROUNDING, rtol=0)
    assert there.selection.epoch == here.selection.epoch


class Careless(Model):
    """Makes a tensor without saying where, in the way that its settings name."""

    kind = ""

    def __init__(self, spec: InputSpec, settings: Settings) -> None:
        super().__init__(spec, settings)
        self.output = torch.nn.Linear(spec.widths["text"], spec.class_count)
        self.plain = torch.zeros(spec.class_count)

    def forward(self, batch: Batch) -> Output:
        logits = self.output(batch.features["text"])
        turns = logits.shape[1]
        if self.kind == "arange":
            logits = logits + torch.arange(turns).unsqueeze(-1)
        if self.kind == "attribute, no buffer":
            logits = logits + self.plain
        if self.kind == "in place":
            torch.zeros(logits.shape).add_(logits)
        if self.kind == "values here, indices there":
            logits = logits + torch.ones(99)[batch.speakers].unsqueeze(-1).to(logits.device)
        if self.kind == "mask":
            logits = logits.masked_fill(torch.ones(turns, 1, dtype=torch.bool), 0.0)
        if self.kind == "joined":
            logits = torch.cat([logits, torch.zeros(logits.shape)], dim=1)[:, :turns]
        if self.kind == "numpy":
            logits = logits + torch.as_tensor(batch.speakers.numpy()).to(logits.device).unsqueeze(-1)
        return Output(logits)


class CarelessSubject(Subject):
    """The same training with a careless model."""

    def __init__(self, kind: str) -> None:
        super().__init__("latefusion")
        self.model_class = type("Careless", (Careless,), {"kind": kind})


KINDS = ("arange", "attribute, no buffer", "in place", "values here, indices there", "mask", "joined", "numpy")


@pytest.mark.parametrize("kind", KINDS)
def test_a_careless_model_is_found(kind: str) -> None:
    CarelessSubject(kind).fit(torch.device("cpu"))  # which the CPU alone doesn't show
    with second_device(), pytest.raises((WrongPlaceError, RuntimeError), match=r"both devices|numpy\(\)"):
        CarelessSubject(kind).fit(ELSEWHERE)


def test_a_careful_model_is_not() -> None:
    with second_device() as device:
        CarelessSubject("").fit(ELSEWHERE)
    assert device.waits > 0  # the means of the losses are read at the end of an epoch


def test_the_second_device_does_as_a_gpu_does() -> None:
    with second_device():
        there = torch.arange(6.0, device=ELSEWHERE)
        assert there.device.type == ELSEWHERE.type
        assert there.cpu().tolist() == [0, 1, 2, 3, 4, 5]
        assert there[torch.tensor([1, 2])].cpu().tolist() == [1, 2]  # indices may be here
        assert (there + torch.tensor(1.0)).cpu().tolist() == [1, 2, 3, 4, 5, 6]  # and numbers
        assert torch.tensor([1.0], device=ELSEWHERE).device.type == ELSEWHERE.type
        assert type(there.to("cpu")) is torch.Tensor
        assert isinstance(torch.zeros(2).to(ELSEWHERE), There)
        here = torch.zeros(6)
        here.copy_(there)
        assert type(here) is torch.Tensor
        assert here.tolist() == there.tolist()
        changed = there.add_(1)
        assert changed is there
        with pytest.raises(WrongPlaceError, match="add was given tensors of both devices"):
            there + here


def test_a_batch_of_a_split_elsewhere_is_elsewhere() -> None:
    subject = Subject("latefusion")
    with second_device():
        split: Split = moved(sample_split(subject.spec), ELSEWHERE)
        for batch in (split.batch([0, 2]), next(iter(split.in_order(3))), split.batch([1]).to(ELSEWHERE)):
            tensors = [*batch.features.values(), *batch.present.values(), batch.mask, batch.speakers, batch.lengths]
            assert all(isinstance(tensor, There) for tensor in [*tensors, batch.dialogues, batch.labels])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--device cpu` opens the second device instead."""
    monkeypatch.setattr(runner, "open_device", lambda request: ELSEWHERE)


class StopsAfterOne(Listener):
    """Wants the run saved and stopped after its first epoch."""

    def __init__(self) -> None:
        self.epochs = 0

    def epoch_ended(self, epoch: Epoch, *_: Any) -> None:
        self.epochs += 1

    def stop_wanted(self) -> str:
        return "the test" if self.epochs == 1 else ""


def test_a_run_elsewhere_is_stopped_goes_on_and_is_audited_and_applied(
    place: Place, tmp_path: Path, elsewhere: None
) -> None:
    settings = {"epochs": 3, "patience": 3, "batch_size": 4}
    request = RunRequest("latefusion", "trios", settings=settings, data_root=place.data, out=tmp_path / "there")
    request = replace(request, device="cpu", threads=1, audit_selection=True)
    here = replace(request, out=tmp_path / "here")
    with second_device():
        with pytest.raises(Exception, match="stopped by the test after epoch 1, which is saved"):
            runner.run(request, StopsAfterOne())
        found = runner.run(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "open_device", lambda request: torch.device("cpu"))
        wanted = runner.run(here)
    assert found.test == wanted.test
    assert found.selection == wanted.selection
    assert found.audit is not None
    # Weights that were trained elsewhere are read on the CPU, and the other way round.
    (file,) = request.out.rglob("*.json")
    on_cpu = applying.open_trained(file, None, place.data, torch.device("cpu"))
    assert all(type(value) is torch.Tensor for value in on_cpu.network.state_dict().values())
    with second_device():
        back = applying.open_trained(file, None, place.data, ELSEWHERE)
        assert all(isinstance(value, There) for value in back.network.state_dict().values())


def test_a_tensor_that_stayed_there_is_never_written(tmp_path: Path) -> None:
    with second_device():
        tensor = torch.zeros(2, device=ELSEWHERE)
        with pytest.raises((WrongPlaceError, RunError, RuntimeError)):
            torch.save(tensor, tmp_path / "x.pt")
