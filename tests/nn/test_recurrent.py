"""The packed recurrences against PyTorch's own modules and numerical derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mer_bench.nn.recurrent import GruWeights, LstmWeights, gru_chain, party_chain, turn_order

LENGTHS = torch.tensor([3, 1, 5, 3])
SPEAKERS = torch.tensor([[0, 1, 0, 9, 9], [0, 9, 9, 9, 9], [0, 1, 2, 1, 0], [0, 0, 0, 9, 9]])


@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    surplus=st.integers(0, 3),
    seed=st.integers(0, 99),
    directions=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_rows_are_where_they_should_be(lengths: list[int], surplus: int, seed: int, directions: int) -> None:
    longest = max(lengths) + surplus
    generator = torch.Generator().manual_seed(seed)
    speakers = torch.randint(0, 3, (len(lengths), longest), generator=generator)
    order = turn_order(torch.tensor(lengths), longest, directions)
    assert order.turns == sum(lengths)
    assert sum(order.counts) == order.turns
    sorted_dialogues = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    previous = order.previous_turn_of(speakers)
    for side in range(directions):
        for place, dialogue in enumerate(sorted_dialogues):
            length = lengths[dialogue]
            said = speakers[dialogue, :length].tolist()
            turns = list(range(length)) if side == 0 else list(range(length))[::-1]
            for time, turn in enumerate(turns):
                row = order.starts[time] + place
                assert order.cells[side, row] == dialogue * longest + turn
                earlier = [t for t in range(time) if said[turns[t]] == said[turn]]
                expected = order.starts[earlier[-1]] + place if earlier else order.turns
                assert previous[side, row] == expected


def test_unpack_undoes_pack_and_leaves_padding_zero() -> None:
    values = torch.randn(4, 6, 3)
    order = turn_order(LENGTHS, 6)
    there = torch.arange(6) < LENGTHS.unsqueeze(1)
    expected = (values * there.unsqueeze(-1)).repeat(1, 1, 2)
    assert torch.equal(order.unpack(order.pack(values)), expected)


def _side_names() -> list[str]:
    return ["", "_reverse"]


def _packed_module(module: nn.GRU | nn.LSTM, values: Tensor) -> Tensor:
    packed = pack_padded_sequence(values, LENGTHS, batch_first=True, enforce_sorted=False)
    result: Tensor = pad_packed_sequence(module(packed)[0], batch_first=True, total_length=values.shape[1])[0]
    return result


def test_gru_equals_pytorchs_with_its_gradients() -> None:
    module = nn.GRU(3, 4, bidirectional=True, batch_first=True).double()
    weights = GruWeights([3], 4).double()

    def load(values: dict[str, Tensor], into: GruWeights) -> None:
        for side, ending in enumerate(_side_names()):
            names = [f"{kind}_l0{ending}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            into.load_cell(side, *(values[name] for name in names))

    load(dict(module.named_parameters()), weights)
    ours = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    order = turn_order(LENGTHS, 5)
    packed = order.pack(ours)
    result = order.unpack(gru_chain(torch.baddbmm(weights.input_bias, packed, weights.inputs[0]), weights, order))
    expected = _packed_module(module, theirs)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)
    seed = torch.randn_like(expected)
    result.backward(seed)
    expected.backward(seed)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)
    gradients = GruWeights([3], 4).double()
    load({name: value.grad for name, value in module.named_parameters() if value.grad is not None}, gradients)
    for (name, mine), wanted in zip(weights.named_parameters(), gradients.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.detach(), rtol=1e-10, atol=1e-13, msg=name)


def test_lstm_equals_pytorchs_with_its_gradients() -> None:
    module = nn.LSTM(3, 4, bidirectional=True, batch_first=True).double()
    weights = LstmWeights(3, 4).double()

    def load(values: dict[str, Tensor], into: LstmWeights) -> None:
        for side, ending in enumerate(_side_names()):
            names = [f"{kind}_l0{ending}" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            into.load_layer(side, *(values[name] for name in names))

    load(dict(module.named_parameters()), weights)
    ours = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    order = turn_order(LENGTHS, 5)
    result = order.unpack(weights(order.pack(ours), order))
    expected = _packed_module(module, theirs)
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-14)
    seed = torch.randn_like(expected)
    result.backward(seed)
    expected.backward(seed)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-13)
    gradients = LstmWeights(3, 4).double()
    load({name: value.grad for name, value in module.named_parameters() if value.grad is not None}, gradients)
    for (name, mine), wanted in zip(weights.named_parameters(), gradients.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, wanted.detach(), rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("lengths", [[3, 1, 4], [1, 1], [1]])
def test_derivatives_of_the_chains_are_the_numerical_ones(directions: int, dropped: bool, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(5)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()

    longest = max(lengths)
    order = turn_order(torch.tensor(lengths), longest, directions)
    turns = order.turns
    speakers = torch.tensor([0, 1, 0, 1])[:longest].expand(len(lengths), -1)
    global_cell, party_cell = GruWeights([2, 3], 2, directions).double(), GruWeights([2, 2], 3, directions).double()
    drops: tuple[Tensor | None, Tensor | None] = (None, None)
    if dropped:
        drops = (
            torch.randint(0, 2, (directions, turns, 2), generator=generator) * 2.0,
            torch.randint(0, 2, (directions, turns, 3), generator=generator) * 2.0,
        )
        drops = tuple(drop.double() for drop in drops if drop is not None)  # type: ignore[assignment]
    previous = order.previous_turn_of(speakers)

    def both(global_in: Tensor, party_in: Tensor, query: Tensor, *_: Tensor) -> Tensor:
        parties = party_chain(global_in, party_in, query, global_cell, party_cell, previous, order, drops[0], drops[1])
        return gru_chain(parties.repeat(1, 1, 3), emotion_cell, order, drops[1])

    emotion_cell = GruWeights([3], 3, directions).double()
    weights = [*global_cell.parameters(), *party_cell.parameters(), *emotion_cell.parameters()]
    for weight in weights:
        weight.data.normal_(generator=generator)
    inputs = (drawn(directions, turns, 6), drawn(directions, turns, 9), drawn(directions, turns, 2))
    assert torch.autograd.gradcheck(both, (*inputs, *weights), atol=1e-7, fast_mode=True)
