"""Stacked layers against PyTorch's own, one member and one dialogue at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mer_bench.nn.attention import key_set
from mer_bench.nn.stacked import (
    StackedAttention,
    StackedFeedForward,
    StackedLinear,
    StackedNorm,
    real_turns,
)

MASK = torch.tensor([[True, True, False, False], [True, True, True, False], [True, False, False, False]])


def as_linear(layer: StackedLinear, member: int) -> nn.Linear:
    """PyTorch's layer with one member's weights."""
    inputs, outputs = layer.weight.shape[1:]
    own = nn.Linear(inputs, outputs, bias=layer.bias is not None).double()
    with torch.no_grad():
        own.weight.copy_(layer.weight[member].T)
        if layer.bias is not None:
            own.bias.copy_(layer.bias[member, 0])
    return own


def shaken(module: nn.Module) -> nn.Module:
    """In double precision and away from its start, where norms do nothing."""
    torch.manual_seed(1)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def test_real_turns_there_and_back() -> None:
    turns = real_turns(MASK)
    assert turns.cells.tolist() == [0, 1, 4, 5, 6, 8]
    assert turns.rows[turns.cells].tolist() == list(range(6))
    padded = torch.arange(2 * 12 * 2, dtype=torch.float64).view(2, 3, 4, 2) + 1
    packed = turns.pack(padded)
    assert torch.equal(packed[1], padded[1][MASK])
    back = turns.unpack(packed)
    assert torch.equal(back[:, MASK], padded[:, MASK])
    assert not bool(back[:, ~MASK].any())


@pytest.mark.parametrize("bias", [True, False])
def test_linear_norm_and_feedforward(bias: bool) -> None:
    torch.manual_seed(0)
    values = torch.randn(3, 5, 4, dtype=torch.float64)
    linear, norm, feedforward = (
        StackedLinear(3, 4, 6, bias),
        StackedNorm(3, 4),
        StackedFeedForward(3, 4, 7, 0.5),
    )
    for layer in (linear, norm, feedforward):
        shaken(layer).eval()
    for member in range(3):
        torch.testing.assert_close(linear(values)[member], as_linear(linear, member)(values[member]))
        own = nn.functional.layer_norm(values[member], (4,), norm.weight[member, 0], norm.bias[member, 0])
        torch.testing.assert_close(norm(values)[member], own)
        inner, outer = as_linear(feedforward.inner, member), as_linear(feedforward.outer, member)
        torch.testing.assert_close(feedforward(values)[member], outer(inner(values[member]).relu()))


def test_a_linear_map_starts_as_pytorchs() -> None:
    torch.manual_seed(0)
    weight = StackedLinear(50, 16, 40).weight.detach()
    assert float(weight.abs().max()) <= 0.25
    assert float(weight.std()) == pytest.approx(float(nn.Linear(16, 4000).weight.detach().std()), rel=0.02)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention(heads: int) -> None:
    attention = shaken(StackedAttention(2, 8, heads))
    assert isinstance(attention, StackedAttention)
    turns = real_turns(MASK)
    queries, source = torch.randn(2, 2, 6, 8, dtype=torch.float64)
    # The first dialogue of member 0 has one key alone, the third of member 1 none.
    present = torch.stack([MASK, MASK])
    present[0, 0, 0] = present[1, 2, 0] = False
    got = attention(queries, source, key_set(present.flatten(0, 1)), turns)
    for member in range(2):
        own = published_attention(attention, member)
        for dialogue, rows in enumerate((slice(0, 2), slice(2, 5), slice(5, 6))):
            there = present[member, dialogue][MASK[dialogue]]
            keys = source[member, rows][there]
            expected = torch.zeros_like(queries[member, rows])
            if len(keys):
                expected = own(queries[member, rows], keys, keys, need_weights=False)[0]
            torch.testing.assert_close(got[member, rows], expected)


def published_attention(attention: StackedAttention, member: int) -> nn.MultiheadAttention:
    """PyTorch's layer with one member's weights, and a bias of the keys, which changes nothing."""
    width = attention.query.weight.shape[1]
    own = nn.MultiheadAttention(width, attention.heads, batch_first=True).double()
    biases: list[Tensor | None] = [attention.query.bias, None, attention.value.bias]
    weights = [attention.query.weight, attention.key.weight, attention.value.weight]
    with torch.no_grad():
        own.in_proj_weight.copy_(torch.cat([weight[member].T for weight in weights]))
        own.in_proj_bias.copy_(
            torch.cat([torch.randn(width).double() if bias is None else bias[member, 0] for bias in biases])
        )
        assert attention.result.bias is not None
        own.out_proj.weight.copy_(attention.result.weight[member].T)
        own.out_proj.bias.copy_(attention.result.bias[member, 0])
    return own


def test_an_empty_key_set_has_no_gradient() -> None:
    attention = StackedAttention(1, 4, 2).double()
    queries, source = torch.randn(2, 1, 6, 4, dtype=torch.float64).requires_grad_()
    result = attention(queries, source, key_set(torch.zeros_like(MASK)), real_turns(MASK))
    assert not bool(result.any())
    result.sum().backward()
    for parameter in attention.parameters():
        assert parameter.grad is None or not bool(parameter.grad.any())
