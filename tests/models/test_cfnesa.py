"""CFN-ESA against a slow reading of its formulas in PyTorch's own layers: one dialogue and one modality at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_bench_models.cfnesa.config import CfnEsaConfig
from mer_bench_models.cfnesa.encoders import CrossModalLayer, UnimodalLayer, packed_order
from mer_bench_models.cfnesa.model import CfnEsa
from mer_bench_models.cfnesa.shift import EmotionShift, labelled_pairs, shift_loss
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.api import InputSpec
from mer_bench.data.batches import NO_LABEL, Batch
from mer_bench.errors import SettingError
from mer_bench.nn.recurrent import GruWeights
from mer_bench.nn.stacked import StackedAttention, StackedFeedForward, StackedLinear, StackedNorm, real_turns
from mer_bench.registry import load_model

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
ALL = ("text", "audio", "visual")
NARROW: dict[str, Any] = {"hidden_dim": 8, "heads": 2, "shift_width": 5}


def make_batch(lengths: list[int], names: tuple[str, ...] = ALL, seed: int = 0, gaps: bool = False) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths) + 1) < torch.tensor(lengths).unsqueeze(1)
    present = {name: mask & (torch.rand(mask.shape, generator=generator) > (0.3 if gaps else -1)) for name in names}
    features = {
        name: torch.randn(*mask.shape, WIDTHS[name], generator=generator, dtype=torch.float64)
        * present[name].unsqueeze(-1)
        for name in names
    }
    return Batch(
        features=features,
        present=present,
        mask=mask,
        speakers=torch.zeros_like(mask, dtype=torch.long),
        lengths=torch.tensor(lengths),
        dialogues=torch.arange(len(lengths)),
        labels=torch.randint(0, 3, mask.shape, generator=generator).masked_fill(~mask, NO_LABEL),
    )


def small_model(names: tuple[str, ...] = ALL, seed: int = 0, **changes: Any) -> CfnEsa:
    """With weights away from their start, so that norms and biases count."""
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, 2)
    model = CfnEsa(spec, CfnEsaConfig(**{**NARROW, **changes})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


# The formulas, one dialogue at a time ------------------------------------------------------------


def linear(layer: StackedLinear, member: int, rows: Tensor) -> Tensor:
    result = rows @ layer.weight[member]
    return result if layer.bias is None else result + layer.bias[member, 0]


def norm(layer: StackedNorm, member: int, rows: Tensor) -> Tensor:
    return F.layer_norm(rows, rows.shape[-1:], layer.weight[member, 0], layer.bias[member, 0])


def feedforward(layer: StackedFeedForward, member: int, rows: Tensor) -> Tensor:
    return linear(layer.outer, member, linear(layer.inner, member, rows).relu())


def attention(layer: StackedAttention, member: int, queries: Tensor, source: Tensor) -> Tensor:
    """One head and one query at a time; zeros without a key."""
    if not len(source):
        return torch.zeros_like(queries)
    query, key, value = (
        linear(part, member, rows).chunk(layer.heads, dim=-1)
        for part, rows in ((layer.query, queries), (layer.key, source), (layer.value, source))
    )
    heads = []
    for q, k, v in zip(query, key, value, strict=True):
        heads.append(torch.stack([(k @ one / math.sqrt(len(one))).softmax(0) @ v for one in q]))
    return linear(layer.result, member, torch.cat(heads, dim=-1))


def recurrence(cell: GruWeights, rows: Tensor) -> Tensor:
    """PyTorch's bidirectional GRU with the same weights."""
    width = cell.width
    gru = nn.GRU(rows.shape[1], width, bidirectional=True).double()
    with torch.no_grad():
        for side, suffix in enumerate(("", "_reverse")):
            new, reset, update = cell.inputs[0][side].T.chunk(3)
            getattr(gru, f"weight_ih_l0{suffix}").copy_(torch.cat([reset, update, new]))
            new, reset, update = cell.input_bias[side, 0].chunk(3)
            getattr(gru, f"bias_ih_l0{suffix}").copy_(torch.cat([reset, update, new]))
            getattr(gru, f"weight_hh_l0{suffix}").copy_(cell.state[side].T)
            getattr(gru, f"bias_hh_l0{suffix}").copy_(cell.state_bias[side, 0])
        result: Tensor = gru(rows)[0]
    return result


def literal_fused(model: CfnEsa, batch: Batch, index: int) -> Tensor:
    """What is classified, of one dialogue: (turns, width)."""
    names, config = model.spec.modalities, model.settings
    length = int(batch.lengths[index])
    there = {name: batch.present[name][index, :length] for name in names}
    x = {}
    for name in names:
        layer = cast(nn.Linear, model.projections[name])
        x[name] = layer(batch.features[name][index, :length]) * there[name].unsqueeze(1)
    for layer in model.unimodal.layers:
        assert isinstance(layer, UnimodalLayer)
        for place, name in enumerate(names):
            member = 0 if config.shared_recurrence else place
            read = linear(layer.mix, member, recurrence(cast(GruWeights, layer.cells[member]), x[name]))
            r = norm(layer.read_norm, member, x[name] + read)
            x[name] = norm(layer.norm, member, x[name] + r + feedforward(layer.feedforward, member, r))
    primary = config.primary if config.primary in names else names[0]
    others = [name for name in names if name != primary]
    for layer in model.crossmodal.layers:
        assert isinstance(layer, CrossModalLayer)
        s, y = {}, {}
        for place, name in enumerate(names):
            s[name] = norm(layer.own_norm, place, x[name] + attention(layer.own, place, x[name], x[name][there[name]]))
        c = dict.fromkeys(names, torch.zeros(length, config.hidden_dim).double())
        if layer.cross is not None:
            found = [
                attention(layer.cross, member, s[primary], s[name][there[name]]) for member, name in enumerate(others)
            ]
            c[primary] = layer.join(torch.cat(found, dim=-1)).relu()
            for member, name in enumerate(others):
                c[name] = attention(layer.cross, len(others) + member, s[name], s[primary][there[primary]])
        for place, name in enumerate(names):
            d = norm(layer.cross_norm, place, x[name] + s[name] + c[name])
            y[name] = norm(layer.norm, place, x[name] + d + feedforward(layer.feedforward, place, d))
        x = y
    fused: Tensor = model.fusion(torch.cat([x[name] * there[name].unsqueeze(1) for name in names], dim=-1)).relu()
    return fused


def literal_shift(model: CfnEsa, batch: Batch) -> float:
    """The mean over all pairs, one pair at a time, with the map over both utterances side by side."""
    assert model.shift is not None
    assert batch.labels is not None
    weight = torch.cat([model.shift.left.weight, model.shift.right.weight], dim=1)
    terms = []
    for index, length in enumerate(batch.lengths.tolist()):
        fused = literal_fused(model, batch, index)
        labels = batch.labels[index].tolist()
        for i in range(length):
            for j in range(length):
                if NO_LABEL in (labels[i], labels[j]):
                    continue
                hidden = (weight @ torch.cat([fused[i], fused[j]]) + model.shift.left.bias).relu()
                answer = model.shift.kinds(hidden).softmax(-1)
                terms.append(-math.log(float(answer[int(labels[i] != labels[j])].detach())))
    return sum(terms) / len(terms) if terms else 0.0


@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    names=st.sampled_from([ALL, ("audio", "text", "visual"), ("text", "audio"), ("audio", "visual"), ("visual",)]),
    depths=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    shared=st.booleans(),
    primary=st.sampled_from(ALL),
    seed=st.integers(0, 999),
)
@settings(max_examples=25, deadline=None)
def test_the_model_is_what_the_formulas_say(
    lengths: list[int], names: tuple[str, ...], depths: tuple[int, int], shared: bool, primary: str, seed: int
) -> None:
    model = small_model(
        names, seed, recurrent_layers=depths[0], cross_layers=depths[1], shared_recurrence=shared, primary=primary
    )
    batch = make_batch(lengths, names, seed, gaps=True)
    assert batch.labels is not None
    labels = batch.labels.clone()
    labels[0, 0] = NO_LABEL  # an utterance without a label has no part in a pair
    batch = replace(batch, labels=labels)
    output = model(batch)
    for index, length in enumerate(lengths):
        expected = model.classes(literal_fused(model, batch, index))
        torch.testing.assert_close(output.logits[index, :length], expected, rtol=1e-9, atol=1e-10)
        assert not bool(output.logits[index, length:].any())
    assert float(output.losses["shift"].value.detach()) == pytest.approx(literal_shift(model, batch), rel=1e-9)


# Recurrence and attention -----------------------------------------------------------------------


def test_a_shared_recurrence_reads_every_modality_of_every_dialogue_from_its_own_ends() -> None:
    """Rows of the packed order, two copies of dialogues of 2 and 3 turns: 0 1 | 2 3 4 and 5 6 | 7 8 9."""
    mask = torch.tensor([[True, True, False, False], [True, True, True, False]])
    order = packed_order(torch.tensor([2, 3]), real_turns(mask), 2)
    assert order.counts == (4, 4, 2)
    assert order.cells.tolist() == [[2, 7, 0, 5, 3, 8, 1, 6, 4, 9], [4, 9, 1, 6, 3, 8, 0, 5, 2, 7]]
    values = torch.randn(10, 1, 3)
    torch.testing.assert_close(order.unpack(order.pack(values)), torch.cat([values, values], dim=-1))


@pytest.mark.parametrize("primary", ALL)
def test_who_looks_at_whom(primary: str) -> None:
    """Another turn of a modality reaches its own stream, the primary one's, and all where it is primary itself."""
    model = small_model(primary=primary)
    layer = cast(CrossModalLayer, model.crossmodal.layers[0])
    turns = real_turns(torch.ones(1, 3, dtype=torch.bool))
    present = torch.ones(3, 1, 3, dtype=torch.bool)
    values = torch.randn(3, 3, 8, dtype=torch.float64)
    before = layer(values, present, turns)
    for place, name in enumerate(ALL):
        other = values.clone()
        other[place, 2] += torch.randn(8, dtype=torch.float64)
        changed = (layer(other, present, turns) - before)[:, 0].abs().amax(-1) > 1e-6
        reached = {place, ALL.index(primary)} if name != primary else {0, 1, 2}
        assert {index for index, is_changed in enumerate(changed.tolist()) if is_changed} == reached


def test_a_missing_modality_is_looked_past() -> None:
    """Nothing of the recurrence's state at an utterance without text is a key of text or part of the fusion."""
    model = small_model(recurrent_layers=0)
    batch = make_batch([3])
    there = batch.present["text"].clone()
    there[0, 1] = False
    lacking = replace(batch, present={**batch.present, "text": there})
    noisy = {**lacking.features, "text": lacking.features["text"] + 5 * (~there & batch.mask).unsqueeze(-1)}
    torch.testing.assert_close(model(lacking).logits, model(replace(lacking, features=noisy)).logits)
    assert not torch.allclose(model(lacking).logits[0, 0], model(batch).logits[0, 0])


# The emotion-shift task -------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    labels = torch.tensor([[1, 1, NO_LABEL, 0], [2, NO_LABEL, NO_LABEL, NO_LABEL]])
    left, right, shifted = labelled_pairs(labels)
    found = list(zip(left.tolist(), right.tolist(), shifted.tolist(), strict=True))
    assert found == [
        *((0, 0, 0), (0, 1, 0), (0, 3, 1)),
        *((1, 0, 0), (1, 1, 0), (1, 3, 1)),
        *((3, 0, 1), (3, 1, 1), (3, 3, 0)),
        (4, 4, 0),
    ]


def test_the_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]])
    assert float(shift_loss(logits, torch.tensor([1, 1]))) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert float(shift_loss(logits[:0], torch.zeros(0, dtype=torch.long))) == 0.0


def test_the_sides_of_a_pair() -> None:
    torch.manual_seed(0)
    task = EmotionShift(4, 6, 0.0)
    first, second = torch.randn(2, 3, 4)
    got = task(first, second, torch.tensor([2, 0]), torch.tensor([1, 1]))
    side_by_side = nn.Linear(8, 6)
    with torch.no_grad():
        side_by_side.weight.copy_(torch.cat([task.left.weight, task.right.weight], dim=1))
        side_by_side.bias.copy_(task.left.bias)
    pairs = torch.cat([first[[2, 0]], second[[1, 1]]], dim=-1)
    torch.testing.assert_close(got, task.kinds(side_by_side(pairs).relu()))


@pytest.mark.parametrize("lengths", [[1], [1, 1], [1, 4]])
def test_one_utterance_and_none_with_a_label_have_finite_gradients(lengths: list[int]) -> None:
    model = small_model().train()
    batch = make_batch(lengths)
    assert batch.labels is not None
    bare = replace(batch, labels=torch.full_like(batch.labels, NO_LABEL))
    for given_batch in (batch, bare):
        model.zero_grad()
        term = model(given_batch).losses["shift"].value
        term.backward()
        assert math.isfinite(float(term.detach()))
        assert all(value.grad is None or bool(value.grad.isfinite().all()) for value in model.parameters())
    assert float(term.detach()) == 0.0


def test_the_second_draw_is_of_dropout_alone() -> None:
    """In training it is a pass of its own, whose result differs; without dropout or labels there is none."""
    batch = make_batch([3, 2])
    passes = []
    model = small_model()
    model.crossmodal.register_forward_hook(lambda *_: passes.append(1))

    def passes_of(given_batch: Batch) -> int:
        passes.clear()
        model(given_batch)
        return len(passes)

    assert passes_of(batch) == 1
    model.train()
    assert passes_of(batch) == 2
    assert passes_of(batch.without_labels()) == 1
    one = small_model(second_draw=False).train()
    one.crossmodal.register_forward_hook(lambda *_: passes.append(1))
    passes.clear()
    one(batch)
    assert len(passes) == 1
    still: dict[str, Any] = {f"{name}_dropout": 0.0 for name in ("input", "recurrent", "cross", "shift")}
    terms = [small_model(second_draw=draw, **still).train()(batch).losses["shift"] for draw in (True, False)]
    torch.testing.assert_close(terms[0].value, terms[1].value)


def test_no_share_no_task() -> None:
    model = small_model(shift_weight=0.0)
    assert model.shift is None
    assert not model.train()(make_batch([3])).losses
    assert small_model(shift_weight=0.3)(make_batch([3])).losses["shift"].weight == 0.3


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(SettingError, match="hidden_dim must be a multiple of heads, but hidden_dim is 100"):
        load_model("cfnesa").settings({"hidden_dim": 100, "heads": 8})
