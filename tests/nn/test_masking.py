"""Masked means and softmaxes: what does not count has no value and no gradient."""

from __future__ import annotations

import pytest
import torch

from mer_bench.nn.masking import masked_mean, masked_softmax


def test_mean_counts_only_what_the_mask_holds() -> None:
    values = torch.tensor([[1.0, 2.0, 50.0], [3.0, float("nan"), float("inf")]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    mean = masked_mean(values, mask)
    assert mean.item() == pytest.approx(2.0)
    mean.backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3, 0, 0])


def test_mean_over_nothing_is_zero_with_a_gradient_of_zero() -> None:
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    mean = masked_mean(values, torch.zeros(2, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert values.grad is not None
    assert values.grad.tolist() == [0, 0]


def test_softmax_over_the_masked_entries_by_hand() -> None:
    scores = torch.tensor([[0.0, 9.0], [float(torch.tensor(3.0).log()), 1.0], [7.0, 2.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, False], [False, False]])
    share = masked_softmax(scores, mask, dim=0)
    assert share[:, 0].tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert share[:, 1].tolist() == [0, 0, 0]
    share.square().sum().backward()
    assert scores.grad is not None
    assert bool(scores.grad.isfinite().all())
    assert scores.grad[:, 1].tolist() == [0, 0, 0]
    assert scores.grad[2, 0] == 0
