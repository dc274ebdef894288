"""Hierarchical distillation: the coarse-grained representation teaches the fine-grained ones.

Stated by the paper: a distillation framework that keeps representations of different granularity
consistent. Ours: both levels, the direction, the widened teacher.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mer_bench.nn.masking import masked_mean

from .fusion import Gaussian, kl_divergence


def response_loss(teacher: Tensor, student: Tensor, present: Tensor, temperature: float) -> Tensor:
    """One student's part of `L_logit`: `T^2 KL(softmax(sg(y_F) / T) || softmax(y_m / T))` (Hinton et al. 2015).

    Shapes:
        teacher, student: (B, T, classes), logits. present: (B, T), bool. returns: scalar.
    """
    target = F.log_softmax(teacher.detach() / temperature, dim=-1)
    answer = F.log_softmax(student / temperature, dim=-1)
    divergence = (target.exp() * (target - answer)).sum(dim=-1)  # (B, T)
    return temperature**2 * masked_mean(divergence, present)


def latent_teacher(product: Gaussian, present: Tensor) -> Gaussian:
    """`t = N(mu, (K + 1) sigma^2)`, K the experts present: the product with its experts' mean precision.

    The product is always narrower than each of its experts; it would drive their precision up without end.
    No gradient passes.

    Shapes:
        product: (B, T, d_z). present: (K, B, T), bool. returns: (B, T, d_z).
    """
    widened = product.log_variance + (1 + present.sum(dim=0)).to(product.mean.dtype).log().unsqueeze(-1)
    return Gaussian(product.mean, widened).detach()


def latent_loss(product: Gaussian, experts: Gaussian, present: Tensor) -> Tensor:
    """`L_latent = sum_m KL(sg(t) || q_m) / d_z`.

    Shapes:
        product: (B, T, d_z). experts: (K, B, T, d_z). present: (K, B, T), bool. returns: scalar.
    """
    divergence = kl_divergence(latent_teacher(product, present), experts).mean(dim=-1)  # (K, B, T)
    return torch.stack([masked_mean(*pair) for pair in zip(divergence, present, strict=True)]).sum()


def agreement(teacher: Tensor, student: Tensor, present: Tensor) -> Tensor:
    """Share of utterances on which student and teacher name the same class.

    Shapes:
        teacher, student: (B, T, classes), logits. present: (B, T), bool. returns: scalar, detached.
    """
    same = teacher.argmax(dim=-1) == student.argmax(dim=-1)
    return masked_mean(same.to(teacher.dtype), present)
