"""Read the weights of a published implementation into one of ours, entry by entry, leaving none unnoticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from mer_bench.errors import DataError


class PublishedEntries:
    """The entries of a published state dict, each to be taken once or to be named as unused.

    Args:
        state_dict: Names and tensors as the published code saves them.
        model: Name of the model, for messages.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], model: str) -> None:
        self.model = model
        self._left = dict(state_dict)
        self._ignored: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def refusal(self, reason: str) -> DataError:
        """The error that says why the checkpoint is not taken."""
        return DataError(f"the published {self.model} checkpoint {reason}.")

    def peek(self, name: str, dimensions: int) -> Tensor:
        """An entry that stays to be taken, to read a width from.

        Raises:
            DataError: If it is missing or has another number of dimensions.
        """
        if name not in self._left:
            raise self.refusal(f"has no entry '{name}'")
        value = self._left[name]
        if not isinstance(value, Tensor) or value.ndim != dimensions:
            raise self.refusal(f"has '{name}' as {_described(value)}, but it should have {dimensions} dimensions")
        return value

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """An entry, which then counts as used.

        Raises:
            DataError: If it is missing or has another shape.
        """
        if name not in self._left:
            raise self.refusal(f"has no entry '{name}', which should be {tuple(shape)} under these settings")
        value = self._left.pop(name)
        if not isinstance(value, Tensor) or tuple(value.shape) != tuple(shape):
            raise self.refusal(
                f"has '{name}' as {_described(value)}, but it should be {tuple(shape)} under these settings"
            )
        return value

    @torch.no_grad()
    def load_linear(self, name: str, layer: nn.Linear, columns: Tensor | None = None) -> None:
        """Copy `name.weight` and `name.bias` into a layer, the weight's columns reordered first."""
        weight = self.take(f"{name}.weight", tuple(layer.weight.shape))
        layer.weight.copy_(weight if columns is None else weight[:, columns])
        if layer.bias is not None:
            layer.bias.copy_(self.take(f"{name}.bias", tuple(layer.bias.shape)))

    def ignore(self, *patterns: str) -> None:
        """Set aside entries that cannot change the output; `*` stands for anything, none need be there."""
        for name in [name for name in self._left if any(fnmatchcase(name, pattern) for pattern in patterns)]:
            del self._left[name]
            self._ignored.append(name)

    def finish(self) -> tuple[str, ...]:
        """Names of the entries set aside.

        Raises:
            DataError: If an entry was neither taken nor set aside.
        """
        if self._left:
            names = sorted(self._left)
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise self.refusal(f"has the entry '{names[0]}'{more}, which has no place under these settings")
        return tuple(sorted(self._ignored))


def _described(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"
