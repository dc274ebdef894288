"""Every registered model on a GPU: it trains, repeats bit for bit, and scores as on the CPU. Skipped where none is.

`tests/test_devices.py` says on any machine whether tensors are made where they are needed; what only a GPU can say is
here: its kernels, its memory, its random numbers, and that the operators that are asked for are deterministic there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mer_bench import registry, runner
from mer_bench.api import FittedModel
from mer_bench.checkpoint import read_state, saved_states, write_state
from mer_bench.errors import OutOfMemoryError
from mer_bench.records import Epoch, read_record
from mer_bench.runner import RunRequest
from mer_bench.seeding import deterministic_algorithms
from mer_bench.testing.checks import torch_settled
from mer_bench.testing.model_checks.outputs import training_loss
from mer_bench.testing.samples import sample_split
from mer_bench.trainer import TrainingState, log_probabilities
from tests.elsewhere import Subject, moved
from tests.trios import Place, place

__all__ = ["place"]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device is there")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOLERANCE = 2e-3
"""Of a log-probability in float32: kernels of the two devices add in another order."""

MODELS = list(registry.models().plugins)
LEARNT = [name for name in MODELS if not issubclass(registry.load_model(name).model_class, FittedModel)]


@pytest.fixture(autouse=True)
def exact() -> None:
    """Products in float32 and not in TF32, so that the two devices can be compared."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_and_scores_there_as_on_the_cpu(name: str) -> None:
    subject = Subject(name)
    with torch_settled():
        deterministic_algorithms()
        trained, seen = subject.fit(CUDA)
        assert all(value.device.type == "cuda" for value in trained.model.state_dict().values())
        assert bool(torch.isfinite(seen).all())
        there = log_probabilities(trained.model, moved(subject.dev, CUDA))
        here = log_probabilities(trained.model.to(CPU), subject.dev)
    torch.testing.assert_close(there, here, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_bits_there(name: str) -> None:
    with torch_settled():
        deterministic_algorithms()
        first, second = (Subject(name).fit(CUDA)[1] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", LEARNT)
def test_loss_and_gradients_are_those_of_the_cpu(name: str) -> None:
    subject = Subject(name)

    def gradients(device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
        torch.manual_seed(3)
        model = subject.build().to(device=device, dtype=torch.float64).eval()  # dropout draws other numbers there
        split = moved(sample_split(subject.spec, 1, (5, 9, 1, 3), dtype=torch.float64), device)
        batch = split.batch(range(4))
        loss = training_loss(model(batch), batch)
        loss.backward()
        found = {key: value.grad.cpu() for key, value in model.named_parameters() if value.grad is not None}
        return loss.detach().cpu(), found

    # cuDNN has no gradient of a recurrent layer outside of training.
    with torch.backends.cudnn.flags(enabled=False):
        loss_here, here = gradients(CPU)
        loss_there, there = gradients(CUDA)
    torch.testing.assert_close(loss_there, loss_here, atol=1e-8, rtol=1e-6)
    assert set(here) == set(there)
    for key, wanted in here.items():
        torch.testing.assert_close(there[key], wanted, atol=1e-7, rtol=1e-5, msg=lambda text, key=key: f"{key}: {text}")  # type: ignore[misc]


@pytest.mark.parametrize("name", LEARNT)
def test_a_run_goes_on_bit_for_bit_there(name: str, tmp_path: Path) -> None:
    def save(epoch: Epoch, state: TrainingState) -> None:
        if epoch.epoch == 1:
            write_state(tmp_path, "epoch-000001", {"identity": "0"}, state.parts())

    with torch_settled():
        deterministic_algorithms()
        undisturbed, _ = Subject(name).fit(CUDA, save)
        (saved,) = saved_states(tmp_path)
        resumed, _ = Subject(name).fit(CUDA, saved=read_state(saved)[1])
    assert resumed.curve == undisturbed.curve


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_there(precision: str) -> None:
    subject = Subject("latefusion")
    subject.training = subject.training.model_copy(update={"precision": precision})
    _, seen = subject.fit(CUDA)
    assert bool(torch.isfinite(seen).all())


def test_a_dialogue_that_does_not_fit_is_named_there() -> None:
    subject = Subject("mult", lengths=(3, 200_000, 4))
    with pytest.raises(OutOfMemoryError, match="dialogue number 1 has 200000 utterances"):
        subject.fit(CUDA)


def test_the_command_says_what_it_ran_on(place: Place, tmp_path: Path) -> None:
    request = RunRequest("reader", "trios", data_root=place.data, out=tmp_path / "python", device="cuda")
    record = runner.run(request)
    assert record.machine is not None
    assert record.machine.device == torch.cuda.get_device_name(0)
    assert record.cost is not None
    assert record.cost.memory_bytes < torch.cuda.get_device_properties(0).total_memory
    here = runner.run(replace(request, device="cpu", out=tmp_path / "here"))
    assert record.test == here.test
    command = [sys.executable, "-m", "mer_bench", "run", "--model", "latefusion", "--dataset", "meld-synthetic"]
    command += ["--device", "cuda", "--set", "epochs=2", "--out", str(tmp_path / "runs")]
    subprocess.run(command, check=True, timeout=300)
    (file,) = (tmp_path / "runs").rglob("*.json")
    assert read_record(file).status == "done"
