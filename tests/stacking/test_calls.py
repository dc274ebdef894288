"""What a stacked pass does with single functions: each seed's own random numbers, attention, recurrent cells."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mer_bench.errors import NotStackableError
from mer_bench.nn.dropout import dropout
from mer_bench.nn.seeds import RandomNumbers, SeedStack, each_seed, folded, seeds_stacked, stacked_seeds
from mer_bench.stacking.calls import StackedCalls

CPU = torch.device("cpu")
LSTM, GRU = nn.LSTMCell(5, 3), nn.GRUCell(5, 3)
TWO_LAYERS = nn.LSTM(5, 3, num_layers=2, dropout=0.4, bidirectional=True, batch_first=True)


def attention(values: Tensor, mask: Tensor | None, rate: float) -> Tensor:
    heads = values.view(2, 3, 4, 5)
    return F.scaled_dot_product_attention(heads, 2 * heads, heads + 1, attn_mask=mask, dropout_p=rate)


def two_layers(values: Tensor) -> Tensor:
    states, (last, memory) = TWO_LAYERS(values.view(4, 6, 5))
    return torch.cat([states.flatten(), last.flatten(), 2 * memory.flatten()])


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "our dropout": lambda values: dropout(values, 0.4, True),
    "dropout": lambda values: F.dropout(values, 0.4),
    "dropout by name": lambda values: F.dropout(input=values, p=0.4, training=True),
    "dropout in evaluation": lambda values: F.dropout(values, 0.4, False),
    "dropout of channels": lambda values: F.dropout1d(values, 0.4),
    "alpha dropout": lambda values: F.alpha_dropout(values, 0.4, True),
    "dropout, then noise": lambda values: F.dropout(values, 0.2) + torch.randn_like(values),
    "noise of the batch's shape": lambda values: values + torch.randn(5),
    "noise by chance": lambda values: torch.where(torch.rand(24, 1) < 0.3, values, torch.zeros(())),
    "bernoulli": lambda values: torch.bernoulli(values.sigmoid()) * values,
    "gumbel": lambda values: F.gumbel_softmax(values, 0.5),
    "permuted": lambda values: values[torch.randperm(24)],
    "attention": lambda values: attention(values, None, 0.0),
    "attention that drops": lambda values: attention(values, None, 0.3),
    "attention with a mask": lambda values: attention(values, torch.ones(4, 4, dtype=torch.bool).tril(), 0.0),
    "attention with a learned mask": lambda values: attention(values, values.view(2, 3, 4, 5)[..., :4], 0.0),
    "attention with a mask, dropping": lambda values: attention(values, values.view(6, 4, 5)[:3, :, :4], 0.5),
    "lstm cell": lambda values: torch.cat(LSTM(values, (values[:, :3], values[:, 1:4])), 1),
    "lstm cell from zero": lambda values: LSTM(values)[0],
    "gru cell": lambda values: GRU(values, values[:, :3]),
    "lstm": two_layers,
    "noise, then our dropout": lambda values: dropout(values + torch.randn_like(values), 0.4, True),
}


def stacked(function: Callable[[Tensor], Tensor], values: Tensor, seeds: tuple[int, ...]) -> Tensor:
    numbers = []
    for seed in seeds:
        torch.manual_seed(seed)
        numbers.append(RandomNumbers(CPU))

    def run(each: Tensor, index: Tensor) -> Tensor:
        with seeds_stacked(SeedStack(index, numbers)), StackedCalls():
            return function(each)

    torch.manual_seed(99)
    result: Tensor = torch.func.vmap(run, randomness="error")(values, torch.arange(len(seeds)))
    assert stacked_seeds() is None
    return result


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_seed_draws_what_it_draws_alone(name: str) -> None:
    function = FUNCTIONS[name]
    seeds = (4, 7, 4)
    torch.manual_seed(0)
    values = torch.randn(3, 24, 5, dtype=torch.float64)
    for module in (LSTM, GRU, TWO_LAYERS):
        module.double()
    ours, theirs = values.clone().requires_grad_(), values.clone().requires_grad_()
    found = stacked(function, ours, seeds)
    expected = []
    for seed, each in zip(seeds, theirs.unbind(), strict=True):
        torch.manual_seed(seed)
        expected.append(function(each))
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-12)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (torch.stack(expected) * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)


def test_a_stacked_pass_leaves_the_global_numbers_alone() -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    stacked(lambda values: dropout(F.dropout(values), 0.5, True), torch.randn(2, 24, 5), (1, 2))
    torch.manual_seed(99)
    assert torch.equal(before, torch.get_rng_state())


def test_numbers_go_on_where_they_were() -> None:
    torch.manual_seed(5)
    numbers = RandomNumbers(CPU)
    drawn = []
    for _ in range(2):
        torch.manual_seed(1)  # others draw in between
        with numbers.as_global():
            drawn.append(torch.rand(3))
    torch.manual_seed(5)
    assert torch.equal(torch.cat(drawn), torch.cat([torch.rand(3), torch.rand(3)]))


@pytest.mark.parametrize("draw", ["bernoulli_", "normal_", "uniform_", "exponential_", "random_"])
def test_drawing_in_place_is_refused_by_name(draw: str) -> None:
    with pytest.raises(NotStackableError, match=rf"draws random numbers in place \(Tensor.{draw}\)"):
        stacked(lambda values: values + getattr(torch.empty(5), draw)(), torch.randn(2, 24, 5), (1, 2))


def test_without_a_stack_functions_are_called_as_they_are() -> None:
    one, two = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(folded(torch.add, one, two), one + two)
    assert torch.equal(each_seed(torch.sub, one, two), one - two)


def test_folded_seeds_are_further_members() -> None:
    """Three seeds of two members are six members, in that order, also where a value is the same for all."""
    shared = torch.arange(2.0).view(2, 1)
    shapes = []

    def function(values: Tensor | None, other: Tensor | None, nothing: Tensor | None) -> Tensor:
        assert values is not None
        assert other is not None
        assert nothing is None
        shapes.append((values.shape, other.shape))
        return values + other

    values = torch.arange(6.0).view(3, 2, 1)
    found = stacked(lambda each: folded(function, each, shared, None), values, (0, 1, 2))
    assert shapes == [((6, 1), (6, 1))]
    assert torch.equal(found, values + shared)
