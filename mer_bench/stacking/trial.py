"""Does a model stack? Two seeds of it go through one pass together and apart, on a few dialogues of train."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mer_bench.api import Batch, FittedModel, Model
from mer_bench.errors import DataError, NotStackableError
from mer_bench.nn.seeds import RandomNumbers
from mer_bench.seeding import derived_seed, seed_everything
from mer_bench.stacking.network import StackedNetwork
from mer_bench.trainer import Criterion, loss_terms

TOLERANCE = 1e-3
"""Share by which loss and gradient may differ from those of the seed alone; wrong masks make more than that."""

_PROGRESS = 0.5
_HINDRANCES = (
    (r"\.item\(\)", "it reads a number out of what its parameters give (Tensor.item)"),
    (r"data-dependent control flow", "it chooses its way by what its parameters give (an if over a tensor)"),
    (r"dynamic shape|nonzero|output shape", "the shape of a tensor in it depends on what its parameters give"),
    (r"random operation", "it draws random numbers in a way that is not known here"),
    (r"setup_context", "it has an autograd.Function without a rule of vmap"),
    (r"in-?place|extra_args", "it writes what depends on its parameters into a tensor that does not"),
    (r"rule not implemented for (aten::\w+)", "PyTorch's vmap has no rule for {}"),
)


def check_stackable(name: str, models: Sequence[Model], batch: Batch, criterion: Criterion) -> None:
    """See that the seeds of a model can be trained together, and that each then gets what it gets alone.

    Args:
        name: Of the model. models: Fresh ones of two seeds; they are left as they are.
        batch: A few dialogues with labels.

    Raises:
        NotStackableError: If they can't; says what stands in the way.
    """
    if any(isinstance(module, FittedModel) for module in models[0].modules()):
        raise refusal(name, "it is fitted at one go, without batches")
    stacked, alone = ([copy.deepcopy(model).train() for model in models] for _ in range(2))
    numbers = []
    for seed, _ in enumerate(models):
        seed_everything(derived_seed(seed, "trial"))
        numbers.append(RandomNumbers(batch.mask.device))
    try:
        network = StackedNetwork(stacked, numbers)
        terms, _ = network.loss(batch, criterion, _PROGRESS)
        terms["total"].sum().backward()
        network.hand_out_gradients()
    except DataError:
        raise  # the dialogues are at fault, and would be without a stack
    except NotStackableError as error:
        raise refusal(name, str(error)) from None
    except Exception as error:  # a model's code may fail under vmap in any way
        raise refusal(name, _reason(error)) from error
    for seed, model in enumerate(alone):
        seed_everything(derived_seed(seed, "trial"))
        loss = loss_terms(model(batch), batch, criterion, _PROGRESS)["total"]
        loss.backward()
        together = terms["total"][seed].detach()
        if _differ(together, loss.detach()) or _differ(_gradient(stacked[seed]), _gradient(model)):
            raise refusal(
                name,
                f"together its seeds get another loss or gradient than alone ({float(together):.6g}, and "
                f"alone {loss.item():.6g}), as where a model draws random numbers outside PyTorch",
            )


def refusal(name: str, reason: str) -> NotStackableError:
    """The sentence for a model that does not stack."""
    return NotStackableError(f"the seeds of {name} can't be stacked: {reason}. Leave --stack-seeds out.")


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    for pattern, told in _HINDRANCES:
        if found := re.search(pattern, text, re.IGNORECASE):
            return told.format(*found.groups())
    return f"{type(error).__name__}: {text.partition('. ')[0].rstrip('.')[:200]}"


def _gradient(model: nn.Module) -> Tensor:
    shares = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(shares) if shares else torch.zeros(1)


def _differ(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return True
    return not bool((found - expected).norm() <= TOLERANCE * (expected.norm() + 1e-6))
