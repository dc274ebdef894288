"""N networks of one shape as one: parameters and buffers on top of each other, one pass for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap

from mer_bench.api import Batch, Model, Output
from mer_bench.errors import NotStackableError
from mer_bench.nn.seeds import RandomNumbers, SeedStack, seeds_stacked
from mer_bench.stacking.calls import StackedCalls
from mer_bench.trainer import Criterion, loss_terms


class StackedNetwork:
    """The networks of several seeds, whose parameters become views of stacked ones.

    What changes a network's parameters in place, such as its own optimiser, changes them in the stack too; nothing
    is ever copied back and forth.

    Args:
        models: One a seed, alike but for the values of their parameters and buffers.
        numbers: Each seed's random numbers, drawn from as the seed alone would.
    """

    def __init__(self, models: Sequence[Model], numbers: Sequence[RandomNumbers]) -> None:
        self.models = list(models)
        self.numbers = list(numbers)
        each = [dict(model.named_parameters()) for model in models]
        self._own = {name: [parameters[name] for parameters in each] for name in each[0]}
        self.parameters = _stacked(each)
        self.buffers = _stacked([dict(model.named_buffers()) for model in models])
        for name, value in self.parameters.items():
            value.requires_grad_(self._own[name][0].requires_grad)

    def loss(self, batch: Batch, criterion: Criterion, progress: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Every term of each seed's loss, as `loss_terms` names them, and its diagnostics.

        Shapes:
            returns: name -> (seeds,), twice; the terms with gradients.
        """

        def of_one(output: Output) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            terms = loss_terms(output, batch, criterion, progress)
            return terms, {name: value.detach() for name, value in output.diagnostics.items()}

        terms, diagnostics = self._over_seeds(batch, of_one)
        return terms, diagnostics

    def hand_out_gradients(self) -> None:
        """Give every network its share of the gradients of the stacked parameters, which go."""
        for name, stacked in self.parameters.items():
            if stacked.grad is None:
                continue
            for parameter, share in zip(self._own[name], stacked.grad.unbind(), strict=True):
                parameter.grad = share
            stacked.grad = None

    def _over_seeds(self, batch: Batch, of_one: Callable[[Output], Any]) -> Any:
        first = self.models[0]

        def run(parameters: dict[str, Tensor], buffers: dict[str, Tensor], index: Tensor) -> Any:
            given = parameters | buffers
            with seeds_stacked(SeedStack(index, self.numbers)), StackedCalls(), _holding(first, given):
                return of_one(first(batch))

        index = torch.arange(len(self.models), device=batch.mask.device)
        # "error": whatever draws and is not known to `StackedCalls` is refused, instead of drawing something else.
        return vmap(run, randomness="error")(self.parameters, self.buffers, index)


@contextmanager
def _holding(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Put values in the places of a model's parameters and buffers, and the model's own back afterwards.

    As `torch.func.functional_call`, which doesn't put back those of a module that is in a model under two names.

    Raises:
        NotStackableError: If meanwhile the model put something else in one of the places.
    """
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    value_of = {id(tensor): values[name] for name, tensor in own.items()}
    places = [
        (table, name, tensor)
        for module in model.modules()
        for table in (module._parameters, module._buffers)
        for name, tensor in table.items()
        if tensor is not None
    ]
    try:
        for table, name, tensor in places:
            table[name] = value_of[id(tensor)]  # type: ignore[assignment]
        yield
        if changed := [name for table, name, tensor in places if table.get(name) is not value_of[id(tensor)]]:
            raise NotStackableError(f"its forward pass puts another tensor in the place of its buffer {changed[0]}")
    finally:
        for table, name, tensor in places:
            table[name] = tensor  # type: ignore[assignment]


def _stacked(each: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """Tensors of all networks on top of each other, (seeds, ...); those of each network become views of them."""
    found = {}
    for name in each[0]:
        found[name] = torch.stack([values[name].detach() for values in each])
        for values, view in zip(each, found[name].unbind(), strict=True):
            values[name].data = view
    return found


def give_own_storage(model: Model) -> None:
    """Make an end of a network's share in a stack: what happens to the others no longer touches it."""
    for value in [*model.parameters(), *model.buffers()]:
        value.data = value.data.clone()
