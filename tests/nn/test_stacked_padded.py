"""Stacked layers over padded batches, against PyTorch's own modules, one network after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_bench.nn.attention import key_set
from mer_bench.nn.stacked import StackedAttention, StackedLinear, StackedNorm

COUNT, DIALOGUES, TURNS, WIDTH, HEADS = 3, 4, 5, 8, 2


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(module: nn.Module) -> nn.Module:
    """Away from the start, so that a bias of zero or a factor of one is not overlooked."""
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.copy_(rows(*parameter.shape, seed=number + 7))
    return module


def torch_attention(stack: StackedAttention, index: int) -> nn.MultiheadAttention:
    """Network `index` of a stack as PyTorch's module."""
    plain = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    with torch.no_grad():
        plain.in_proj_weight.copy_(torch.cat([part.weight[index].T for part in (stack.query, stack.key, stack.value)]))
        assert stack.query.bias is not None
        assert stack.value.bias is not None
        assert stack.result.bias is not None
        no_bias = torch.zeros(WIDTH, dtype=torch.float64)
        plain.in_proj_bias.copy_(torch.cat([stack.query.bias[index, 0], no_bias, stack.value.bias[index, 0]]))
        plain.out_proj.weight.copy_(stack.result.weight[index].T)
        plain.out_proj.bias.copy_(stack.result.bias[index, 0])
    return plain


def test_linear_maps() -> None:
    values = rows(COUNT, 6, WIDTH)
    for bias in (True, False):
        stack = StackedLinear(COUNT, WIDTH, 4, bias).double()
        moved(stack)
        for index, result in enumerate(stack(values)):
            own = None if stack.bias is None else stack.bias[index, 0]
            torch.testing.assert_close(result, nn.functional.linear(values[index], stack.weight[index].T, own))


def test_layer_norms() -> None:
    values = rows(COUNT, 6, WIDTH)
    stack = StackedNorm(COUNT, WIDTH).double()
    moved(stack)
    for index, result in enumerate(stack(values)):
        expected = nn.functional.layer_norm(values[index], (WIDTH,), stack.weight[index, 0], stack.bias[index, 0])
        torch.testing.assert_close(result, expected)


def test_attention_is_that_of_pytorch() -> None:
    stack = StackedAttention(COUNT, WIDTH, HEADS).double()
    moved(stack)
    queries, source = rows(COUNT, DIALOGUES * TURNS, WIDTH), rows(COUNT, DIALOGUES * TURNS, WIDTH, seed=1)
    present = rows(COUNT, DIALOGUES, TURNS, seed=2) > 0
    present[..., 0] = True
    got = stack(queries, source, key_set(present.flatten(0, 1))).view(COUNT, DIALOGUES, TURNS, WIDTH)
    for index in range(COUNT):
        asked = source[index].view(DIALOGUES, TURNS, WIDTH)
        expected, _ = torch_attention(stack, index)(
            queries[index].view(DIALOGUES, TURNS, WIDTH), asked, asked, key_padding_mask=~present[index]
        )
        torch.testing.assert_close(got[index], expected)


def test_attention_without_keys_is_zero_and_has_a_gradient() -> None:
    stack = StackedAttention(COUNT, WIDTH, HEADS).double()
    moved(stack)
    queries = rows(COUNT, DIALOGUES * TURNS, WIDTH).requires_grad_()
    present = torch.ones(COUNT, DIALOGUES, TURNS, dtype=torch.bool)
    present[1, 2] = False
    got = stack(queries, queries, key_set(present.flatten(0, 1))).view(COUNT, DIALOGUES, TURNS, WIDTH)
    assert bool((got[1, 2] == 0).all())
    assert bool((got[1, 1] != 0).all())
    got.sum().backward()
    assert queries.grad is not None
    assert bool(queries.grad.isfinite().all())


def test_attention_weights_are_dropped_in_training_alone() -> None:
    stack = StackedAttention(COUNT, WIDTH, HEADS, dropout=0.9).double()
    values = rows(COUNT, DIALOGUES * TURNS, WIDTH)
    keys = key_set(torch.ones(COUNT * DIALOGUES, TURNS, dtype=torch.bool))
    assert not torch.equal(stack(values, values, keys), stack(values, values, keys))
    stack.eval()
    assert torch.equal(stack(values, values, keys), stack(values, values, keys))
