"""bc-LSTM against PyTorch's own LSTM and layers, one dialogue at a time, and against small cases by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.bclstm.config import BcLstmConfig
from mer_bench_models.bclstm.model import BcLstm, ContextualLstm, ModalityAttention
from torch import Tensor, nn

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.nn.recurrent import LstmWeights, turn_order
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
NARROW: dict[str, Any] = {"lstm_width": 5, "dense_width": 4}
DRY: dict[str, Any] = {"input_dropout": 0.0, "lstm_dropout": 0.0, "dense_dropout": 0.0}
SUBSETS = (("text",), ("audio", "visual"), ("text", "audio", "visual"))
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"direction": "forward"},
    {"dense_layer": False},
    {"fusion": "concatenated"},
    {"fusion": "attentive"},
    {"fusion": "attentive", "direction": "forward", "dense_layer": False},
)


def small_model(names: tuple[str, ...] = ("text", "audio"), seed: int = 0, **changes: Any) -> BcLstm:
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, 2)
    model = BcLstm(spec, BcLstmConfig(**{**NARROW, **changes})).double().eval()
    with torch.no_grad():
        for vector in model.missing.values():
            vector.normal_()
    return model


def make_batch(
    lengths: list[int], names: tuple[str, ...] = ("text", "audio"), seed: int = 0, surplus: int = 0
) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, 2, seed, surplus)


def torch_lstm(weights: LstmWeights, rows: Tensor) -> Tensor:
    """PyTorch's LSTM with the same weights over one dialogue: (T, inputs) to (T, directions * width)."""
    sides, inputs, width = weights.input.shape[0], weights.input.shape[1], weights.width
    lstm = nn.LSTM(inputs, width, bidirectional=sides == 2).double()

    def theirs(value: Tensor) -> Tensor:
        enter, forget, leave, cell = value.chunk(4)
        return torch.cat([enter, forget, cell, leave])

    with torch.no_grad():
        for side, ending in enumerate(("", "_reverse")[:sides]):
            getattr(lstm, f"weight_ih_l0{ending}").copy_(theirs(weights.input[side].T))
            getattr(lstm, f"weight_hh_l0{ending}").copy_(theirs(weights.state[side].T))
            getattr(lstm, f"bias_ih_l0{ending}").copy_(theirs(weights.input_bias[side, 0]))
            getattr(lstm, f"bias_hh_l0{ending}").copy_(theirs(weights.state_bias[side, 0]))
    states: Tensor = lstm(rows)[0]
    return states


def literal_level(level: ContextualLstm, rows: Tensor) -> Tensor:
    states = torch_lstm(level.lstm, rows)
    if level.dense is None:
        return states
    values: Tensor = states @ level.dense.weight.T + level.dense.bias
    return values.clamp_min(0)


def literal(model: BcLstm, batch: Batch, index: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and unimodal logits of one dialogue, read from the formulas one utterance at a time."""
    config, turns, names = model.settings, int(batch.lengths[index]), model.spec.modalities
    values = {
        name: torch.stack(
            [
                batch.features[name][index, t] if batch.present[name][index, t] else model.missing[name]
                for t in range(turns)
            ]
        )
        for name in names
    }
    students: dict[str, Tensor] = {}
    if config.fusion != "concatenated" and len(names) > 1:
        assert model.unimodal is not None
        assert model.unimodal_classes is not None
        for name in names:
            level = model.unimodal[name]
            assert isinstance(level, ContextualLstm)
            values[name] = literal_level(level, values[name])
            head = model.unimodal_classes[name]
            students[name] = values[name] @ head.weight.T + head.bias
    if config.fusion == "attentive" and len(names) > 1:
        attention = model.modality_attention
        assert attention is not None
        rows = []
        for t in range(turns):
            there = [values[name][t] for name in names if batch.present[name][index, t]]
            scores = [(attention.score.weight[0] * torch.tanh(attention.key.weight @ row)).sum().exp() for row in there]
            total = sum(scores, torch.zeros((), dtype=torch.float64))
            mixed = torch.zeros_like(values[names[0]][t])
            for score, row in zip(scores, there, strict=True):
                mixed = mixed + score / total * row
            rows.append(mixed)
        fused = torch.stack(rows)
    else:
        fused = torch.cat([values[name] for name in names], dim=1)
    return literal_level(model.last, fused) @ model.classes.weight.T + model.classes.bias, students


@pytest.mark.parametrize("names", SUBSETS)
@pytest.mark.parametrize("changes", VARIANTS)
def test_the_network_is_what_its_formulas_say(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    model = small_model(names, **changes)
    batch = make_batch([4, 1, 6, 2], names, surplus=2)
    output = model(batch)
    for index, turns in enumerate(batch.lengths.tolist()):
        logits, students = literal(model, batch, index)
        torch.testing.assert_close(output.logits[index, :turns], logits, rtol=1e-10, atol=1e-12)
        assert set(output.auxiliary) == {f"unimodal_{name}" for name in students}
        for name, expected in students.items():
            found = output.auxiliary[f"unimodal_{name}"].logits[index, :turns]
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("changes", VARIANTS)
def test_padding_never_comes_through(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batch = make_batch([3, 1, 5])
    wider = make_batch([3, 1, 5], surplus=3)
    noise = {
        name: torch.where(wider.mask.unsqueeze(-1), nn.functional.pad(value, (0, 0, 0, 3)), 1e3)
        for name, value in batch.features.items()
    }
    present = {name: nn.functional.pad(value, (0, 3)) for name, value in batch.present.items()}
    padded = model(replace(wider, features=noise, present=present)).logits[:, :5]
    torch.testing.assert_close(padded[batch.mask], model(batch).logits[batch.mask], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("changes", VARIANTS)
def test_only_forward_never_looks_ahead(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batch = make_batch([6])
    later = {name: value.clone() for name, value in batch.features.items()}
    for value in later.values():
        value[0, 4:] += 1
    whole = dict.fromkeys(batch.present, batch.mask)
    batch = replace(batch, present=whole)
    before = model(batch).logits[0, :4]
    after = model(replace(batch, features=later)).logits[0, :4]
    assert torch.equal(before, after) == (changes.get("direction") == "forward")


def test_a_modality_in_an_utterance_without_it_is_never_read() -> None:
    model = small_model()
    batch = make_batch([5, 2])
    changed = {
        name: torch.where(batch.present[name].unsqueeze(-1), value, 7.0) for name, value in batch.features.items()
    }
    assert torch.equal(model(batch).logits, model(replace(batch, features=changed)).logits)
    everywhere = replace(batch, present=dict.fromkeys(batch.present, batch.mask))
    assert not torch.equal(model(batch).logits, model(everywhere).logits)


def test_who_speaks_is_never_read() -> None:
    model = small_model()
    batch = make_batch([5, 2])
    assert torch.equal(model(batch).logits, model(replace(batch, speakers=1 - batch.speakers)).logits)


def test_unimodal_classifiers_count_where_their_modality_is() -> None:
    batch = make_batch([5, 2])
    output = small_model(unimodal_weight=0.3)(batch)
    assert set(output.auxiliary) == {"unimodal_text", "unimodal_audio"}
    for name in ("text", "audio"):
        auxiliary = output.auxiliary[f"unimodal_{name}"]
        assert auxiliary.weight == 0.3
        assert auxiliary.mask is not None
        assert torch.equal(auxiliary.mask, batch.present[name])


def test_without_a_share_in_the_loss_there_are_no_unimodal_classifiers() -> None:
    model = small_model(unimodal_weight=0.0)
    assert model.unimodal is not None
    assert model.unimodal_classes is None
    assert model(make_batch([2])).auxiliary == {}


@pytest.mark.parametrize("fusion", ["hierarchical", "attentive", "concatenated"])
def test_one_modality_has_one_level(fusion: str) -> None:
    model = small_model(("text",), fusion=fusion)
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"missing", "last", "classes"}
    assert model(make_batch([3], ("text",))).auxiliary == {}


def test_parameters_are_as_many_as_the_formulas_have() -> None:
    def lstm(inputs: int) -> int:
        return 2 * 4 * 5 * (inputs + 5 + 2)  # two biases, as in PyTorch

    level = {inputs: lstm(inputs) + (2 * 5 + 1) * 4 for inputs in (6, 4, 8)}
    heads = 3 * (4 + 1) * 3
    expected = level[6] + level[4] + level[8] + heads + (6 + 4)
    assert sum(parameter.numel() for parameter in small_model().parameters()) == expected


def test_one_state_by_hand() -> None:
    """One utterance, one direction: h = sigmoid(o) tanh(sigmoid(i) tanh(g)), then a ReLU."""
    config = BcLstmConfig(direction="forward", lstm_width=4, dense_width=4)
    level = ContextualLstm(1, config).eval()
    with torch.no_grad():
        for parameter in level.parameters():
            parameter.zero_()
        level.lstm.input[0, 0, 0] = 1  # input gate of the first unit
        level.lstm.input[0, 0, 8] = 2  # output gate
        level.lstm.input[0, 0, 12] = 3  # cell
        assert level.dense is not None
        level.dense.weight[0, 0] = 2
        level.dense.weight[1, 0] = -2
        level.dense.bias[2] = 0.25
    found = level(torch.ones(1, 1, 1), turn_order(torch.tensor([1]), 1, 1))

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    state = sigmoid(2) * math.tanh(sigmoid(1) * math.tanh(3))
    torch.testing.assert_close(found[0, 0], torch.tensor([2 * state, 0, 0.25, 0]))


def test_modality_attention_by_hand() -> None:
    attention = ModalityAttention(2)
    with torch.no_grad():
        attention.key.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        attention.score.weight.copy_(torch.tensor([[math.log(3) / math.tanh(1), 5.0]]))
    values = torch.tensor([[1.0, 8.0], [0.0, 4.0], [9.0, 9.0]]).expand(1, 3, 3, 2)
    present = torch.tensor([[[True, True, False], [False, True, False], [False, False, False]]])
    mixed, weights = attention(values, present)
    torch.testing.assert_close(weights[0], torch.tensor([[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]))
    torch.testing.assert_close(mixed[0], torch.tensor([[0.75, 7], [0, 4], [0, 0]]))


def dropped(states: Tensor) -> float:
    return float((states == 0).double().mean())


def test_dropout_stands_where_the_settings_say() -> None:
    """The share of zeros in what each place hands on, in training alone."""
    order = turn_order(torch.tensor([50] * 20), 50, 2)
    rows = torch.randn(20, 50, 3)
    hidden = ContextualLstm(3, BcLstmConfig(**{**DRY, "dense_layer": False, "dense_dropout": 0.4}))
    assert dropped(hidden(rows, order)) == pytest.approx(0.4, abs=0.02)
    assert dropped(hidden.eval()(rows, order)) == 0
    between = ContextualLstm(3, BcLstmConfig(**{**DRY, "lstm_dropout": 0.9}))
    assert not torch.equal(between(rows, order), between(rows, order))
    between.eval()
    assert torch.equal(between(rows, order), between(rows, order))
    model = small_model(**{**DRY, "input_dropout": 0.6}).train()
    batch = make_batch([50] * 20)
    batch = replace(
        batch,
        features={name: torch.ones_like(value) for name, value in batch.features.items()},
        present=dict.fromkeys(batch.present, batch.mask),
    )
    assert dropped(model._features("text", batch)) == pytest.approx(0.6, abs=0.02)
    assert dropped(model.eval()._features("text", batch)) == 0


@pytest.mark.parametrize("changes", VARIANTS)
def test_dry_training_equals_evaluation(changes: dict[str, Any]) -> None:
    model = small_model(**DRY, **changes)
    batch = make_batch([4, 2])
    assert torch.equal(model.train()(batch).logits, model.eval()(batch).logits)
