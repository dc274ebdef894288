"""Every registered model: does it stack, and does each seed then get the loss and the gradient that it has alone?"""

from __future__ import annotations

import copy

import pytest
import torch

from mer_bench import registry
from mer_bench.api import Model
from mer_bench.errors import NotStackableError
from mer_bench.nn.seeds import RandomNumbers
from mer_bench.seeding import derived_seed, seed_everything
from mer_bench.stacking.network import StackedNetwork
from mer_bench.stacking.trial import check_stackable
from mer_bench.testing.model_checks.subject import ModelSubject
from mer_bench.testing.samples import sample_split
from mer_bench.trainer import Criterion, loss_terms

NAMES = sorted(registry.models().plugins)
CRITERION = Criterion(torch.tensor([0.5, 1.0, 1.5, 1.0, 1.0], dtype=torch.float64), 1.0, 0.1)
FURTHER = {
    "dialoguernn": ["ablations.listener", "ablations.second-attention"],
    "cmath": ["defaults of the class", "ablations.speakers-and-positions"],
    "mmgcn": ["published.meld"],
}
"""Settings that take other ways through a model; all variants of all models were tried when this was written."""

CASES = [(name, "") for name in NAMES] + [(name, variant) for name, each in FURTHER.items() for variant in each]


def subject_of(name: str, variant: str) -> ModelSubject:
    subject = ModelSubject(registry.load_model(name))
    return subject.variants().get(variant, subject) if variant else subject


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_each_seed_gets_the_loss_and_the_gradient_that_it_has_alone(name: str, variant: str) -> None:
    subject = subject_of(name, variant)
    spec = subject.spec()
    split = sample_split(spec)
    models = [subject.build(spec, seed) for seed in (3, 4, 5)]
    batch = split.batch(range(6))
    if subject.is_fitted:
        with pytest.raises(NotStackableError, match=f"the seeds of {name} can't be stacked: it is fitted at one go"):
            check_stackable(name, models, batch, CRITERION)
        return
    alone = [copy.deepcopy(model).double().train() for model in models]
    stacked: list[Model] = [model.double().train() for model in models]
    numbers = []
    for seed in range(3):
        seed_everything(derived_seed(seed, "dropout"))
        numbers.append(RandomNumbers(torch.device("cpu")))
    network = StackedNetwork(stacked, numbers)
    for progress in (0.04, 0.7):  # twice, so that the second draw goes on from the first
        terms, diagnostics = network.loss(batch, CRITERION, progress)
        for model in [*alone, *stacked]:
            model.zero_grad()
        terms["total"].sum().backward()
        network.hand_out_gradients()
    for seed, model in enumerate(alone):
        seed_everything(derived_seed(seed, "dropout"))
        for progress in (0.04, 0.7):
            model.zero_grad()
            output = model(batch)
            expected = loss_terms(output, batch, CRITERION, progress)
            expected["total"].backward()
        assert list(terms) == list(expected)
        for term, value in expected.items():
            assert terms[term][seed].item() == pytest.approx(value.item(), abs=1e-10), term
        for term, value in output.diagnostics.items():
            assert diagnostics[term][seed].item() == pytest.approx(value.item(), abs=1e-10), term
        for (parameter, own), other in zip(model.named_parameters(), stacked[seed].parameters(), strict=True):
            assert (own.grad is None) == (other.grad is None), parameter
            if own.grad is not None and other.grad is not None:
                torch.testing.assert_close(other.grad, own.grad, rtol=0, atol=1e-10, msg=parameter)
        for (buffer, kept), changed in zip(model.named_buffers(), stacked[seed].buffers(), strict=True):
            assert torch.allclose(kept.double(), changed.double(), rtol=0, atol=1e-10), buffer


@pytest.mark.parametrize("name", ["cmath", "dialoguernn", "mmgcn"])
def test_without_the_seeds_own_numbers_it_would_show(name: str) -> None:
    """The test above can see a wrong mask: with another seed's numbers the loss is another."""
    subject = subject_of(name, "")
    models = [subject.build(subject.spec(), seed).train() for seed in (3, 4)]
    batch = sample_split(subject.spec(), dtype=torch.float32).batch(range(6))
    losses = []
    for first in (0, 1):
        numbers = []
        for seed in (first, 1 - first):
            seed_everything(seed)
            numbers.append(RandomNumbers(torch.device("cpu")))
        terms, _ = StackedNetwork([copy.deepcopy(model) for model in models], numbers).loss(batch, Criterion(), 1.0)
        losses.append(terms["total"].detach())
    assert bool(((losses[0] - losses[1]).abs() > 1e-4).all())
