"""Dropout whose random numbers cost a tenth of PyTorch's own on a CPU: sixteen bits a value are enough.

`torch.nn.functional.dropout` draws a Bernoulli number for each value at about nine nanoseconds; in small
networks that is a quarter of an epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_bench.nn.seeds import stacked_seeds, with_seeds

_LEVELS = 1 << 16


def dropout_factors(shape: tuple[int, ...] | torch.Size, rate: float, like: Tensor) -> Tensor:
    """Independent factors, 0 with probability `rate` (to 1/65536) and else such that their mean is 1.

    Args:
        like: Gives the float type and the device.
    """
    stack = stacked_seeds()
    count = torch.Size(shape).numel()
    if stack is None:
        return kept_layers(1, count, rate, like).mul_(dropout_scale(rate)).view(shape)

    def of_all() -> Tensor:
        kept = [kept_layers(1, count, rate, like, numbers.on(like.device)) for numbers in stack.numbers]
        return torch.cat(kept).mul_(dropout_scale(rate)).view(len(kept), *shape)

    return with_seeds(of_all)


def kept_layers(layers: int, count: int, rate: float, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Which of `count` values each of several layers keeps, drawn at one go: (layers, count), 1 or 0.

    On a CPU the numbers are those that one call for each layer would draw.

    Args:
        like: Gives the float type and the device.
        generator: Where the numbers come from; None: PyTorch's global one.
    """
    words = torch.empty(layers, (count + 3) // 4, dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[:, :count]
    # Compared into floats at once: by way of a bool, comparing and multiplying take five times as long on a CPU.
    kept = torch.empty(layers, count, dtype=like.dtype, device=like.device)
    return torch.ge(bits, _dropped_levels(rate) - _LEVELS // 2, out=kept)


def dropout_scale(rate: float) -> float:
    """What a kept value is multiplied by."""
    return _LEVELS / (_LEVELS - _dropped_levels(rate))


def _dropped_levels(rate: float) -> int:
    return min(round(rate * _LEVELS), _LEVELS - 1)


def dropout(values: Tensor, rate: float, training: bool) -> Tensor:
    """The values with a share of them set to zero and the rest scaled up; as they are outside training."""
    if not training or rate == 0:
        return values
    return values * dropout_factors(values.shape, rate, values)


class Dropout(nn.Dropout):
    """The same as a module."""

    def forward(self, values: Tensor) -> Tensor:
        return dropout(values, self.p, self.training)
