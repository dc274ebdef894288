"""The two losses of MultiEMO beside cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMALLEST_MISS = 1e-6
"""Least 1 - p of a pair: below 1 the focusing exponent has no finite gradient at p = 1."""


def focal_contrastive_loss(features: Tensor, labels: Tensor, temperature: float, focus: float, rarity: float) -> Tensor:
    """The sample-weighted focal contrastive loss (SWFC), a mean over all utterances of a batch.

    ```
    p_ij = softmax over all j != i of cos(f_i, f_j) / temperature
    loss = - mean_i w(y_i) mean over j of i's class of (1 - p_ij)^focus log p_ij
    w(c) = (1 / n_c)^rarity, divided by the sum over the classes of the batch; n_c its utterances of class c
    ```

    An utterance that is alone with its class adds zero.

    Shapes:
        features: (N, width). labels: (N,), long, all of them classes. returns: scalar, zero for N < 2.
    """
    if len(labels) < 2:
        return 0.0 * features.sum()
    directions = F.normalize(features, dim=-1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (directions @ directions.T / temperature).masked_fill(itself, -torch.inf)  # (N, N)
    # The diagonal is minus infinity: it is put to zero before any product, for the gradient's sake.
    log_share = scores.log_softmax(dim=-1).masked_fill(itself, 0)
    miss = (1 - log_share.exp()).clamp_min(SMALLEST_MISS)
    alike = (labels.unsqueeze(1) == labels) & ~itself
    terms = (miss**focus * log_share * alike).sum(-1) / alike.sum(-1).clamp_min(1)  # (N,)
    return -(_class_weights(labels, rarity)[labels] * terms).mean()


def _class_weights(labels: Tensor, rarity: float) -> Tensor:
    """For each class up to the largest in the batch a weight, 0 where it is absent; their sum is 1."""
    # Compared and not counted by bincount, which has no deterministic form on every device.
    counts = (labels.unsqueeze(1) == torch.arange(int(labels.max()) + 1, device=labels.device)).sum(0)  # (classes,)
    weights = counts.clamp_min(1).to(torch.get_default_dtype()).pow(-rarity) * (counts > 0)
    return weights / weights.sum()


def soft_hgr_loss(first: Tensor, second: Tensor) -> Tensor:
    """The negative Soft-HGR objective of two representations of the same utterances, divided by their width.

    `-(E[f . g] - tr(cov(f) cov(g)) / 2) / width` with f and g centred over the utterances, each mean with N - 1
    (Wang et al. 2019, "An Efficient Approach to Informative Feature Extraction from Multimodal Data").

    Shapes:
        first, second: (N, width). returns: scalar, zero for N < 2.
    """
    count, width = first.shape
    if count < 2:
        return 0.0 * (first.sum() + second.sum())
    first, second = first - first.mean(0), second - second.mean(0)
    together = (first * second).sum() / (count - 1)
    spread = (first.T @ first) * (second.T @ second)  # (width, width); its sum is the trace, both being symmetric
    return (spread.sum() / (count - 1) ** 2 / 2 - together) / width
