"""Variational fusion network: the fine-grained representations as Gaussian experts of one latent space.

Stated by the paper: a variational fusion network makes one coarse-grained representation of the
fine-grained ones. Ours: the product of experts with a prior, the weights, the free bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mer_bench.nn.dropout import Dropout
from mer_bench.nn.masking import masked_softmax

LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE = -6.0, 3.0


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution with independent dimensions.

    Shapes:
        mean, log_variance: (..., d_z), float.
    """

    mean: Tensor
    log_variance: Tensor

    def detach(self) -> Gaussian:
        """The same without a way back for gradients."""
        return Gaussian(self.mean.detach(), self.log_variance.detach())

    def sample(self, noise: float = 1.0) -> Tensor:
        """A draw that gradients pass (reparameterisation; Kingma & Welling 2014, section 2.4).

        Args:
            noise: Factor on the deviation.
        """
        return self.mean + noise * (0.5 * self.log_variance).exp() * torch.randn_like(self.mean)


def product_of_experts(experts: Gaussian, present: Tensor) -> Gaussian:
    """Product of the experts that are present with the prior expert N(0, I) (Wu & Goodman 2018, section 2.2).

    `1/sigma^2 = 1 + sum_m 1/sigma_m^2`, `mu = sigma^2 sum_m mu_m / sigma_m^2`.

    Shapes:
        experts: (K, B, T, d_z). present: (K, B, T), bool. returns: (B, T, d_z).
    """
    precision = (-experts.log_variance).exp().masked_fill(~present.unsqueeze(-1), 0)  # (K, B, T, d_z)
    total = 1 + precision.sum(dim=0)  # (B, T, d_z)
    mean = (precision * experts.mean).sum(dim=0) / total
    return Gaussian(mean, -total.log())


def kl_divergence(left: Gaussian, right: Gaussian) -> Tensor:
    """`KL(left || right)` of each dimension, in nats.

    Shapes:
        returns: (..., d_z).
    """
    gap = left.log_variance - right.log_variance
    distance = (left.mean - right.mean).square() * (-right.log_variance).exp()
    return 0.5 * (gap.exp() + distance - 1 - gap)


def variational_loss(product: Gaussian, mask: Tensor, free_bits: float) -> Tensor:
    """`L_var = sum_k max(tau, mean over utterances of KL_k) / d_z`, KL_k of dimension k from N(0, 1).

    Free bits after Kingma et al. 2016, appendix C.8: a dimension below tau is not pressed further.

    Shapes:
        product: (B, T, d_z). mask: (B, T), bool. returns: scalar.
    """
    prior = Gaussian(torch.zeros_like(product.mean), torch.zeros_like(product.mean))
    divergence = kl_divergence(product, prior).masked_fill(~mask.unsqueeze(-1), 0)  # (B, T, d_z)
    by_dimension = divergence.sum(dim=(0, 1)) / mask.sum().clamp_min(1)  # (d_z,)
    return by_dimension.clamp_min(free_bits).mean()


@dataclass(frozen=True)
class Coarse:
    """What the fusion makes of the fine-grained representations.

    Shapes:
        representation: (B, T, width), F. weights: (K, B, T), w_m; 0 where a modality is not there.
        experts: (K, B, T, d_z), q_m; product: (B, T, d_z), q; both None without the variational part.
    """

    representation: Tensor
    weights: Tensor
    experts: Gaussian | None = None
    product: Gaussian | None = None


class VariationalFusion(nn.Module):
    """`F = Fuse([z; sum_m w_m H_m])`, z from the product of the experts.

    Training draws z, evaluation takes its mean. `w_m` is the softmax of each expert's mean log
    precision. With `variational` off z is the mean of linear maps of H_m, and the weights are equal.

    Args:
        modalities: Those that have a fine-grained representation.
        noise: Factor on the deviation of the draw; 1 is the Gaussian itself.

    Shapes:
        fine[m]: (B, T, width), H_m. present: (K, B, T), bool, in the order of modalities.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        latent: int,
        *,
        dropout: float = 0.0,
        variational: bool = True,
        noise: float = 1.0,
    ) -> None:
        super().__init__()
        self.variational = variational
        self.noise = noise
        self.experts = nn.ModuleDict(
            {name: nn.Linear(width, 2 * latent if variational else latent) for name in modalities}
        )
        self.fuse = nn.Sequential(Dropout(dropout), nn.Linear(latent + width, width), nn.GELU(), nn.Dropout(dropout))

    def forward(self, fine: Mapping[str, Tensor], present: Tensor) -> Coarse:
        maps = torch.stack([expert(fine[name]) for name, expert in self.experts.items()])  # (K, B, T, 2 d_z or d_z)
        experts = product = None
        if self.variational:
            mean, log_variance = maps.chunk(2, dim=-1)  # 2 x (K, B, T, d_z)
            experts = Gaussian(mean, log_variance.clamp(LOWEST_LOG_VARIANCE, HIGHEST_LOG_VARIANCE))
            product = product_of_experts(experts, present)
            latent = product.sample(self.noise) if self.training else product.mean  # (B, T, d_z)
            trust = -experts.log_variance.mean(dim=-1)  # (K, B, T)
        else:
            there = present.unsqueeze(-1)
            latent = maps.masked_fill(~there, 0).sum(dim=0) / there.sum(dim=0).clamp_min(1)  # (B, T, d_z)
            trust = torch.zeros_like(maps[..., 0])
        weights = masked_softmax(trust, present, dim=0)  # (K, B, T)
        stacked = torch.stack([fine[name] for name in self.experts])  # (K, B, T, width)
        mixed = (weights.unsqueeze(-1) * stacked).sum(dim=0)  # (B, T, width)
        return Coarse(self.fuse(torch.cat([latent, mixed], dim=-1)), weights, experts, product)
