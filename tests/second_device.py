"""A second device without a GPU: real values that say they are elsewhere, and operators that refuse to mix places.

A tensor "there" reports another device than the CPU and holds its values in a tensor of the CPU. Every operator on such
tensors is computed on the CPU and answers with a tensor there, as on a GPU; one that is given a tensor there and one
here (of more than no dimensions) is refused with the name of the operator and the line of our code that called it, as
CUDA refuses it. So a tensor that a model makes without saying where is found on any machine, and the numbers that
come out are those of the CPU.

The device is `meta`: of all that PyTorch knows by name without a driver it is the only one whose gradients it computes
without a thread of the device.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mer_bench import trainer

ELSEWHERE = torch.device("lazy")
HERE = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[1]

_MAY_MIX = {"aten._to_copy", "aten.copy_", "aten.copy", "aten._copy_from"}
_INDEXING = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"}
"""Their indices may be here although the values are there; never the other way round."""


class WrongPlaceError(RuntimeError):
    """An operator was given tensors of both devices."""


class There(Tensor):
    """A tensor on the second device."""

    held: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> There:
        tensor: There = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=ELSEWHERE,
        )
        tensor.held = values
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _computed(func, args, kwargs or {})

    def tolist(self) -> Any:
        """As on a GPU: the values are brought here."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"There({self.held!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self.detach().clone().requires_grad_(self.requires_grad)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise WrongPlaceError("a tensor of the second device was written as it is; move it to the CPU first.")


class SecondDevice(TorchDispatchMode):
    """While it is open, tensors that are asked for on `ELSEWHERE` are made there.

    Attributes:
        waits: Times that a value was brought from there into Python, which stops a GPU's queue.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func._schema.name == "aten::_local_scalar_dense" and isinstance(args[0], There):
            self.waits += 1
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    name = func._schema.name.replace("::", ".")
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [leaf for leaf in given if isinstance(leaf, There)]
    wanted = kwargs.get("device")
    _refuse_mixture(name, args, given, there)
    plain_args, plain_kwargs = tree_map(_inside, (tuple(args), dict(kwargs)))
    if wanted is not None:
        plain_kwargs["device"] = HERE
    if name == "aten._to_copy" and not there and torch.device(wanted or HERE).type == ELSEWHERE.type:
        answer = func(*plain_args, **plain_kwargs).clone()
    else:
        answer = func(*plain_args, **plain_kwargs)
    goes_there = torch.device(wanted).type == ELSEWHERE.type if wanted is not None else bool(there)
    if name == "aten.copy_":
        goes_there = isinstance(args[0], There)
    if not goes_there:
        return answer
    # What an operator changed in place and gives back is the tensor that it was given.
    same = {id(leaf.held): leaf for leaf in there}

    def outside(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        known = same.get(id(leaf))
        return There(leaf) if known is None else known

    return tree_map(outside, answer)


def _inside(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, There) else leaf


def _refuse_mixture(name: str, args: Sequence[Any], given: Sequence[Tensor], there: Sequence[Tensor]) -> None:
    if not there or len(there) == len(given) or name in _MAY_MIX:
        return
    # A number in a tensor of no dimensions goes with any device, as in PyTorch.
    here = [leaf for leaf in given if not isinstance(leaf, There) and leaf.ndim > 0]
    if name in _INDEXING and isinstance(args[0], There):
        indices = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, Tensor)]
        here = [leaf for leaf in here if not any(leaf is index for index in indices)]
    if here:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in here)
        raise WrongPlaceError(f"{name} was given tensors of both devices: {shapes} on the CPU; at {_our_line()}.")


def _our_line() -> str:
    """Where in this repository, tests apart, the operator that is at work was called."""
    for frame in reversed(traceback.extract_stack()):
        file = Path(frame.filename)
        if file.is_relative_to(ROOT) and file.relative_to(ROOT).parts[0] in ("models", "mer_bench"):
            return f"{file.relative_to(ROOT)}:{frame.lineno}"
    return "an unknown line"


@contextmanager
def second_device() -> Iterator[SecondDevice]:
    """Open the second device, for modules and optimisers too."""

    def fused(*_: Any) -> list[str]:
        return ["cpu", ELSEWHERE.type]

    with pytest.MonkeyPatch.context() as patch, SecondDevice() as device:
        for place in map(
            importlib.import_module, ("torch.optim.optimizer", "torch.optim.adam", "torch.utils._foreach_utils")
        ):
            for name in ("_get_fused_kernels_supported_devices", "_get_foreach_kernels_supported_devices"):
                if hasattr(place, name):
                    patch.setattr(place, name, fused)
        # A parameter's view cannot be wrapped in inference mode.
        patch.setattr(trainer, "log_probabilities", torch.no_grad()(inspect.unwrap(trainer.log_probabilities)))
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # which knows the devices that have drivers
        # Makes `torch.tensor(numbers, device=...)` here first and moves it, as it is done for a GPU.
        lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield device
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)


__all__ = ["ELSEWHERE", "SecondDevice", "There", "WrongPlaceError", "second_device"]
