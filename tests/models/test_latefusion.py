"""Late fusion against the formulas of its README, one utterance at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.latefusion.config import LateFusionConfig
from mer_bench_models.latefusion.model import LateFusion
from torch import Tensor, nn

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = tuple(WIDTHS)


def make_batch(lengths: list[int], names: tuple[str, ...] = ALL, seed: int = 0, gaps: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    there = {
        name: mask & (torch.rand(mask.shape, generator=generator) > 0.4) if gaps else mask.clone() for name in names
    }
    return Batch(
        features={
            name: torch.randn(*mask.shape, WIDTHS[name], generator=generator, dtype=torch.float64)
            * there[name].unsqueeze(-1)
            for name in names
        },
        present=there,
        mask=mask,
        speakers=torch.zeros_like(mask, dtype=torch.long),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
    )


def small_model(names: tuple[str, ...] = ALL, **changes: Any) -> LateFusion:
    """A model away from its start: weights that differ and a bias that is not zero."""
    torch.manual_seed(0)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, 2)
    model = LateFusion(spec, LateFusionConfig(**{"hidden_width": 5, "own_weight": 0.5, **changes})).double()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([0.3, -0.2, 0.5]))
        if model.scores is not None:
            model.scores.copy_(torch.tensor([1.0, -0.5, 0.2])[: len(names)])
    return model.eval()


def literal_said(model: LateFusion, name: str, row: Tensor) -> Tensor:
    """The MLP of one modality, layer by layer."""
    layers = [part for part in model.experts[name].children() if isinstance(part, nn.Linear)]
    for layer in layers[:-1]:
        row = (layer.weight @ row + layer.bias).clamp_min(0)
    return layers[-1].weight @ row


def literal_probabilities(model: LateFusion, batch: Batch, dialogue: int, turn: int) -> Tensor:
    names = [name for name in model.spec.modalities if bool(batch.present[name][dialogue, turn])]
    scores = dict(
        zip(model.spec.modalities, [0.0] * 3 if model.scores is None else model.scores.tolist(), strict=False)
    )
    total = sum(math.exp(scores[name]) for name in names)
    mixed = model.bias.detach().clone() if model.settings.fusion == "logits" or not names else torch.zeros(3)
    for name in names:
        weight = math.exp(scores[name]) / total
        said = literal_said(model, name, batch.features[name][dialogue, turn])
        if model.settings.fusion == "logits":
            mixed = mixed + weight * said
        else:
            mixed = mixed + weight * (model.bias + said).softmax(-1)
    return mixed.softmax(-1) if model.settings.fusion == "logits" or not names else mixed


@pytest.mark.parametrize("fusion", ["logits", "probabilities"])
@pytest.mark.parametrize("weights", ["learned", "equal"])
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("names", [ALL, ("text", "visual"), ("audio",)])
def test_each_utterance_is_what_the_formulas_say(
    fusion: str, weights: str, layers: int, names: tuple[str, ...]
) -> None:
    model = small_model(names, fusion=fusion, weights=weights, layers=layers)
    batch = make_batch([12, 1, 9, 14], names, seed=3, gaps=True)
    counts = sum(there.long() for there in batch.present.values())
    assert isinstance(counts, Tensor)
    assert {int(count) for count in counts[batch.mask].unique()} == set(range(len(names) + 1))
    got = model(batch).logits.softmax(-1)
    for dialogue, turn in batch.mask.nonzero().tolist():
        expected = literal_probabilities(model, batch, dialogue, turn)
        torch.testing.assert_close(got[dialogue, turn], expected, rtol=1e-10, atol=1e-12)


def test_weights_by_hand() -> None:
    """Scores 0 and ln 3: weights 1/4 and 3/4; constant experts, since a linear map reads features of 1."""
    model = small_model(("text", "audio"), layers=0)
    batch = make_batch([3], ("text", "audio"))
    with torch.no_grad():
        assert model.scores is not None
        model.scores[1] = math.log(3)
        model.scores[0] = 0
        model.bias.copy_(torch.tensor([10.0, 20.0, 30.0]))
        for name, value in (("text", 4.0), ("audio", 8.0)):
            linear = model.experts[name][-1]
            assert isinstance(linear, nn.Linear)
            linear.weight.zero_()
            linear.weight[0, 0] = value
    there = {"text": torch.tensor([[True, True, False]]), "audio": torch.tensor([[True, False, False]])}
    ones = {name: torch.ones_like(value) for name, value in batch.features.items()}
    logits = model(replace(batch, features=ones, present=there)).logits[0]
    expected = torch.tensor([[17.0, 20, 30], [14.0, 20, 30], [10.0, 20, 30]], dtype=torch.float64)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=0)


def test_a_mean_of_logits_is_one_of_log_probabilities() -> None:
    model = small_model()
    batch = make_batch([4, 2])
    output = model(batch)
    assert model.scores is not None
    each = torch.stack([output.auxiliary[name].logits.log_softmax(-1) for name in ALL])
    mean = (model.scores.softmax(0)[:, None, None, None] * each).sum(0)
    torch.testing.assert_close(mean.log_softmax(-1), output.logits.log_softmax(-1), rtol=1e-10, atol=1e-12)


def test_each_modality_has_its_own_loss_where_it_is_there() -> None:
    batch = make_batch([4, 2], gaps=True)
    model = small_model(own_weight=0.25)
    auxiliary = model(batch).auxiliary
    assert tuple(auxiliary) == ALL
    for name, item in auxiliary.items():
        assert item.weight == 0.25
        assert torch.equal(item.mask, batch.present[name]) if item.mask is not None else False
        dialogue, turn = batch.present[name].nonzero()[0].tolist()
        said = literal_said(model, name, batch.features[name][dialogue, turn]) + model.bias
        torch.testing.assert_close(item.logits[dialogue, turn], said, rtol=1e-10, atol=1e-12)
    assert small_model(own_weight=0.0)(batch).auxiliary == {}
    assert small_model(("text",))(batch).auxiliary == {}


@pytest.mark.parametrize("fusion", ["logits", "probabilities"])
def test_an_utterance_without_anything_leaves_finite_gradients(fusion: str) -> None:
    model = small_model(fusion=fusion).float().train()
    batch = make_batch([3, 1]).to("cpu", torch.float32)
    nothing = replace(
        batch,
        features={name: torch.full_like(value, torch.nan) for name, value in batch.features.items()},
        present={name: torch.zeros_like(batch.mask) for name in ALL},
    )
    logits = model(nothing).logits
    torch.testing.assert_close(logits.softmax(-1), model.bias.softmax(-1).expand_as(logits))
    (logits * torch.arange(3.0)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
    assert bool((model.bias.grad != 0).any()) if model.bias.grad is not None else False


def test_the_weights_of_an_epoch_are_reported() -> None:
    found = small_model()(make_batch([2])).diagnostics
    expected = torch.tensor([1.0, -0.5, 0.2], dtype=torch.float64).softmax(0)
    assert tuple(found) == tuple(f"weight_{name}" for name in ALL)
    torch.testing.assert_close(torch.stack(list(found.values())), expected)
    assert small_model(weights="equal")(make_batch([2])).diagnostics == {}


def test_dropout_acts_in_training_alone() -> None:
    for at_input, inside in ((0.5, 0.0), (0.0, 0.5)):
        model = small_model(input_dropout=at_input, dropout=inside).train()
        batch = make_batch([4, 2])
        assert not torch.allclose(model(batch).logits, model(batch).logits)
        model.eval()
        assert torch.equal(model(batch).logits, model(batch).logits)
