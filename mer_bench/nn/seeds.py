"""Several seeds of one network in one pass: what the blocks of a network must know of it.

Where seeds are trained together (`mer_bench.stacking`), the forward pass runs under `torch.func.vmap`: parameters,
and all that follows from them, have a dimension of seeds that the network does not see, and the batch has none. Two
kinds of block can't leave that to PyTorch, and say here what they want instead: those with a backward pass of their
own, and those that draw random numbers, which must be the very numbers that each seed draws alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class RandomNumbers:
    """The random numbers of one seed, in the state that the next draw goes on from.

    Begins where PyTorch's global generators are.

    Args:
        device: Where the network is; what a network draws on the CPU then comes from a generator of its own.
    """

    def __init__(self, device: torch.device) -> None:
        self.cpu = torch.Generator()
        self.device = self.cpu if device.type == "cpu" else torch.Generator(device)
        self._take()

    def on(self, device: torch.device) -> torch.Generator:
        """The generator for values on a device: the network's, or the CPU."""
        return self.cpu if device.type == "cpu" else self.device

    @contextmanager
    def as_global(self) -> Iterator[None]:
        """Let PyTorch's global generators go on where these are, and these where those end."""
        cpu = torch.get_rng_state()
        other = None if self.device is self.cpu else torch.cuda.get_rng_state(self.device.device)
        torch.set_rng_state(self.cpu.get_state())
        if other is not None:
            torch.cuda.set_rng_state(self.device.get_state(), self.device.device)
        try:
            yield
        finally:
            self._take()
            torch.set_rng_state(cpu)
            if other is not None:
                torch.cuda.set_rng_state(other, self.device.device)

    def _take(self) -> None:
        self.cpu.set_state(torch.get_rng_state())
        if self.device is not self.cpu:
            self.device.set_state(torch.cuda.get_rng_state(self.device.device))


@dataclass(frozen=True)
class SeedStack:
    """The seeds that share the forward pass that is going on.

    Attributes:
        index: A number whose hidden dimension is that of the seeds; it marks as theirs what is made beside the
            parameters.
        numbers: Each seed's random numbers.
    """

    index: Tensor
    numbers: Sequence[RandomNumbers]


_stack: ContextVar[SeedStack | None] = ContextVar("stack", default=None)


def stacked_seeds() -> SeedStack | None:
    """The seeds that share this forward pass; None where it is that of one seed, as everywhere but in a stack."""
    return _stack.get()


@contextmanager
def seeds_stacked(stack: SeedStack | None) -> Iterator[None]:
    """What is called inside belongs to these seeds; None: to one alone."""
    before = _stack.set(stack)
    try:
        yield
    finally:
        _stack.reset(before)


class _WithSeeds(torch.autograd.Function):
    """The one way through `vmap` that PyTorch documents: its rule gets the hidden dimension as an ordinary one."""

    generate_vmap_rule = False

    @staticmethod
    def forward(function: Callable[..., Tensor], *values: Any) -> Tensor:
        raise AssertionError("seeds are stacked, but no value has a dimension of seeds")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept: what the rule calls has gradients of its own."""

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], function: Callable[..., Tensor], *values: Any) -> Any:
        def seeds_first(value: Any, dim: int | None) -> Any:
            if not isinstance(value, Tensor):
                return value
            return value.expand(info.batch_size, *value.shape) if dim is None else value.movedim(dim, 0)

        with seeds_stacked(None):
            return function(*(seeds_first(*pair) for pair in zip(values, in_dims[1:], strict=True))), 0


def with_seeds(function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
    """Call a function for all seeds at once, with the seeds as an ordinary first dimension.

    Args:
        function: Gets each value as (seeds, ...), None as None; returns (seeds, ...).

    Returns:
        The result, its seeds hidden again.
    """
    stack = _stack.get()
    assert stack is not None
    # The index comes along so that something has a dimension of seeds, even where no value depends on a parameter.
    result: Tensor = _WithSeeds.apply(  # type: ignore[no-untyped-call]
        lambda index, *given: function(*given), stack.index, *values
    )
    return result


def folded(function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
    """`function(*values)`; where seeds are stacked they are further members of the first dimension of every value.

    For functions whose first dimension holds members that have nothing to do with each other: the directions of a
    recurrence, the dialogues of a batch.

    Args:
        function: Takes values, and returns a result, with any number of members.
    """
    stack = _stack.get()
    if stack is None:
        return function(*values)
    count = len(stack.numbers)

    def over_all(*given: Tensor | None) -> Tensor:
        result = function(*(None if value is None else value.flatten(0, 1) for value in given))
        return result.view(count, -1, *result.shape[1:])

    return with_seeds(over_all, *values)


def each_seed(function: Callable[..., Tensor], *values: Tensor | None) -> Tensor:
    """`function(*values)`; where seeds are stacked once for each of them, with its own random numbers.

    For what can't be computed for all seeds at once. What it draws from PyTorch's global generators is what the seed
    alone would have drawn.
    """
    stack = _stack.get()
    if stack is None:
        return function(*values)
    numbers = stack.numbers

    def one_by_one(*given: Tensor | None) -> Tensor:
        results = []
        for seed, own in enumerate(numbers):
            with own.as_global():
                results.append(function(*(value if value is None else value[seed] for value in given)))
        return torch.stack(results)

    return with_seeds(one_by_one, *values)
