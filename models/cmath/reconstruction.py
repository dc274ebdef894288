"""Modality Reconstruction: a compressed representation of each modality from which it can be rebuilt.

Stated by the paper: a high-quality compressed representation; by a review of it: a U-Net of 1-D
convolutions and a Frobenius-norm loss. Ours: the channel schedule, the masks, the normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedConvolution(nn.Module):
    """A 1-D convolution over the dialogue axis whose input is zero where the modality is not there.

    Shapes:
        values: (B, T, channels_in), float. present: (B, T), bool. returns: (B, T, channels_out).
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(channels_in, channels_out, kernel, padding=kernel // 2)

    def forward(self, values: Tensor, present: Tensor) -> Tensor:
        values = values.masked_fill(~present.unsqueeze(-1), 0)
        if self.convolution.kernel_size == (1,):  # the same as a linear map, which is faster
            return F.linear(values, self.convolution.weight.squeeze(-1), self.convolution.bias)
        result: Tensor = self.convolution(values.transpose(1, 2)).transpose(1, 2)
        return result


def bottleneck_width(width: int, hidden: int) -> int:
    """Channels of the bottleneck: `b_m = min(d, max(4, d_m // 2))`."""
    return min(hidden, max(4, width // 2))


def channel_steps(width: int, bottleneck: int, levels: int) -> list[int]:
    """Channels after each step down: `levels + 1` numbers from the width to the bottleneck, evenly spaced."""
    return [round(width + (bottleneck - width) * level / levels) for level in range(levels + 1)]


class Compressed(nn.Sequential):
    """From the bottleneck to h_m: a linear map, and a layer norm that puts every modality on one scale."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.LayerNorm(hidden))


class ModalityReconstruction(nn.Module):
    """A U-Net over the dialogue axis: down to a bottleneck and back up to the modality itself.

    Args:
        width: Width of the modality's features (d_m).
        hidden: Width of the model (d).
        levels: Steps down, and as many up.
        kernel: 1 or 3 turns.
        skips: Whether a step up also sees the step down of its level.

    Shapes:
        features: (B, T, width), float. present: (B, T), bool; real and there.
        returns: compressed h_m (B, T, hidden), and reconstructed x'_m (B, T, width).
    """

    def __init__(self, width: int, hidden: int, levels: int, kernel: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        channels = channel_steps(width, bottleneck_width(width, hidden), levels)
        self.down = nn.ModuleList(
            MaskedConvolution(channels[level], channels[level + 1], kernel) for level in range(levels)
        )
        self.up = nn.ModuleList()
        for level in reversed(range(levels)):
            joined = channels[level + 1] * (2 if skips and level + 1 < levels else 1)
            self.up.append(MaskedConvolution(joined, channels[level], kernel))
        self.compressed = Compressed(channels[-1], hidden)

    def forward(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        values, passed = features, []
        for number, step in enumerate(self.down):
            if number:
                values = F.gelu(values)
                passed.append(values)
            values = step(values, present)  # (B, T, channels of the level)
        compressed = self.compressed(values)  # (B, T, hidden)
        for number, step in enumerate(self.up):
            values = F.gelu(values)
            if number and self.skips:
                values = torch.cat([values, passed.pop()], dim=-1)  # (B, T, 2 x channels of the level)
            values = step(values, present)  # (B, T, channels of the level)
        return compressed, values


class ModalityProjection(nn.Module):
    """What stands in for the reconstruction when it is switched off: one linear map.

    Shapes:
        features: (B, T, width), float. present: (B, T), bool. returns: (B, T, hidden), and None.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.compressed = Compressed(width, hidden)

    def forward(self, features: Tensor, present: Tensor) -> tuple[Tensor, None]:
        return self.compressed(features.masked_fill(~present.unsqueeze(-1), 0)), None


def reconstruction_loss(
    reconstructed: Mapping[str, Tensor], features: Mapping[str, Tensor], present: Mapping[str, Tensor]
) -> Tensor:
    """`L_rec = mean over modalities with sum(p_m) > 0 of ||p_m (x'_m - x_m)||_F^2 / (sum(p_m) d_m)`.

    Shapes:
        reconstructed[m], features[m]: (B, T, d_m), float. present[m]: (B, T), bool. returns: scalar.
    """
    errors, counted = [], []
    for name, rebuilt in reconstructed.items():
        gap = (rebuilt - features[name]).masked_fill(~present[name].unsqueeze(-1), 0)  # (B, T, d_m)
        count = present[name].sum()
        errors.append(gap.square().sum() / (count.clamp_min(1) * gap.shape[-1]))
        counted.append(count > 0)
    return torch.stack(errors).sum() / torch.stack(counted).sum().clamp_min(1)
