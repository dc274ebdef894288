"""Means and softmaxes over the entries that count; what does not count has no value and no gradient."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where the mask is True; 0 when it is True nowhere.

    Shapes:
        values: any, float. mask: the same, bool. returns: scalar.
    """
    # masked_fill and not a product: a NaN in an entry that does not count must not come through.
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp_min(1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Softmax over the entries where the mask is True; the others are 0, also where all are masked.

    Shapes:
        scores: any, float. mask: the same, bool. returns: the same, float.
    """
    lowest = torch.finfo(scores.dtype).min  # finite, so that a row without entries has no NaN gradient
    return scores.masked_fill(~mask, lowest).softmax(dim).masked_fill(~mask, 0)
