"""Dropout: the right share, the right scale, independent values, and nothing in evaluation."""

from __future__ import annotations

import pytest
import torch

from mer_bench.nn.dropout import Dropout


@pytest.mark.parametrize("share", [0.1, 0.4, 0.5, 0.9])
def test_share_scale_and_mean(share: float) -> None:
    torch.manual_seed(0)
    values = torch.full((1000, 403), 2.0)
    dropped = Dropout(share)(values)
    kept = dropped[dropped != 0]
    assert (dropped == 0).double().mean().item() == pytest.approx(share, abs=0.005)
    assert torch.allclose(kept, torch.tensor(2 / (1 - share)), rtol=1e-4)
    assert dropped.mean().item() == pytest.approx(2.0, rel=0.02)


def test_values_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zero = (Dropout(0.3)(torch.ones(40_000, 8)) == 0).double()
    shares = zero.mean(0)
    assert torch.allclose(shares, torch.full((8,), 0.3, dtype=torch.float64), atol=0.01)
    correlation = torch.corrcoef(zero.T) - torch.eye(8)
    assert correlation.abs().max().item() < 0.02
    assert torch.corrcoef(torch.stack([zero[1:, 0], zero[:-1, 0]]))[0, 1].abs().item() < 0.02


def test_gradient_passes_what_stays() -> None:
    values = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    dropped = Dropout(0.5)(values)
    dropped.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values, dropped)


def test_evaluation_and_a_share_of_zero_change_nothing() -> None:
    values = torch.randn(5, 3)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    state = torch.get_rng_state()
    assert torch.equal(Dropout(0.0)(values), values)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeded_alike_it_drops_alike_and_odd_shapes_work() -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(4)
        results.append(Dropout(0.5)(torch.ones(3, 1, 5)))
    assert torch.equal(*results)
    assert Dropout(0.5)(torch.ones(0, 4)).shape == (0, 4)
    assert bool((Dropout(0.9999999)(torch.ones(4)) == 0).all())
