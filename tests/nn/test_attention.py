"""Attention over a dialogue: PyTorch's own module as reference, windows, speakers, empty key sets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mer_bench.nn.attention import DialogueAttention, key_set

WIDTH, HEADS = 8, 2


def attention(**options: float) -> DialogueAttention:
    torch.manual_seed(0)
    return DialogueAttention(WIDTH, HEADS, **options).double()  # type: ignore[arg-type]


def reference(ours: DialogueAttention, queries: Tensor, source: Tensor, blocked: Tensor) -> Tensor:
    """The same weights in `nn.MultiheadAttention`; blocked is (B, T, T), True where not allowed."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key_value.weight]))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(ours.result.weight)
        theirs.out_proj.bias.copy_(ours.result.bias)
    result: Tensor = theirs(queries, source, source, attn_mask=blocked.repeat_interleave(HEADS, 0))[0]
    return result


@pytest.mark.parametrize("window", [0, 1, 2])
def test_agrees_with_pytorchs_own_module(window: int) -> None:
    ours = attention()
    queries, source = torch.randn(2, 3, 5, WIDTH, dtype=torch.float64)
    present = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [0, 0, 1, 0, 0]], dtype=torch.bool)
    keys = key_set(present, window)
    blocked = torch.zeros(3, 5, 5, dtype=torch.bool)
    for dialogue in range(3):
        for query in range(5):
            for key in range(5):
                near = not window or abs(query - key) <= window
                blocked[dialogue, query, key] = not (near and bool(present[dialogue, key]))
    some = ~blocked.all(-1)
    expected = reference(ours, queries, source, blocked & some.unsqueeze(-1))
    got = ours(queries, source, keys)
    torch.testing.assert_close(got[some], expected[some])
    assert bool((got[~some] == 0).all())
    assert bool(keys.found.expand(3, 5, 1).squeeze(-1).eq(some).all())


def test_an_empty_key_set_gives_zero_and_a_gradient_without_nan() -> None:
    ours = attention()
    assert bool(key_set(torch.zeros(1, 3, dtype=torch.bool), window=1).allowed.any(-1).all())
    queries = torch.randn(2, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    source = torch.randn(2, 4, WIDTH, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True, False, False], [False] * 4])
    result = ours(queries, source, key_set(present))
    assert bool((result[1] == 0).all())
    assert bool((result[0] != 0).all())
    result.square().sum().backward()
    for value in (queries.grad, source.grad, *(parameter.grad for parameter in ours.parameters())):
        assert value is not None
        assert bool(value.isfinite().all())
    assert queries.grad is not None
    assert source.grad is not None
    assert bool((queries.grad[1] == 0).all())
    assert bool((source.grad[1] == 0).all())
    assert bool((source.grad[0, 2:] == 0).all())


def test_the_speaker_bias_moves_weight_to_the_same_speaker() -> None:
    ours = attention(speaker_bias=True)
    source = torch.randn(1, 4, WIDTH, dtype=torch.float64)
    speakers = torch.tensor([[0, 1, 0, 1]])
    same = (speakers.unsqueeze(1) == speakers.unsqueeze(2)).unsqueeze(1)
    keys = key_set(torch.tensor([[True, True, True, False]]))
    plain = ours(source, source, keys, same)
    unbiased = attention()
    torch.testing.assert_close(plain, unbiased(source, source, keys))  # it starts at 0
    assert ours.speaker_bias is not None
    with torch.no_grad():
        ours.speaker_bias.fill_(1e4)
    # Turn 0 then sees turns 0 and 2 alone, turn 1 itself alone.
    blocked = ~(same[:, 0] & torch.tensor([True, True, True, False]))
    torch.testing.assert_close(ours(source, source, keys, same)[:, :3], reference(ours, source, source, blocked)[:, :3])


def test_dropout_of_weights_is_off_in_evaluation() -> None:
    ours = attention(dropout=0.5).eval()
    source = torch.randn(1, 4, WIDTH, dtype=torch.float64)
    keys = key_set(torch.ones(1, 4, dtype=torch.bool))
    assert torch.equal(ours(source, source, keys), ours(source, source, keys))
    ours.train()
    assert not torch.equal(ours(source, source, keys), ours(source, source, keys))


def test_relative_positions_are_a_bias_by_distance_that_starts_on_the_own_turn() -> None:
    ours = attention(reach=2)
    assert ours.distance_bias is not None
    expected = torch.tensor([[0.0, 0.0, 3.0, 0.0, 0.0], [-0.2, -0.1, 3.0, -0.1, -0.2]]).to(ours.distance_bias)
    torch.testing.assert_close(ours.distance_bias[:2], expected)
    bias = ours._distances(4)
    assert bias[1, 0].tolist() == pytest.approx([3.0, -0.1, -0.2, -0.2])  # beyond the reach all alike
    assert bias[1, 3].tolist() == pytest.approx([-0.2, -0.2, -0.1, 3.0])


def test_a_large_bias_on_the_own_turn_reads_that_utterance_alone() -> None:
    ours = attention(reach=1)
    queries, source = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 8, dtype=torch.float64)
    keys = key_set(torch.ones(2, 5, dtype=torch.bool))
    with torch.no_grad():
        assert ours.distance_bias is not None
        ours.distance_bias.zero_()[:, 1] = 1e4
        alone = ours.result(ours.key_value(source).chunk(2, dim=-1)[1])
        torch.testing.assert_close(ours(queries, source, keys), alone)
