"""A model's training pass through PyTorch's compiler: an option that a run names, off unless it does.

What it costs and gains is measured in `docs/compiling.md`. Only the training pass is compiled: dev and test are
scored by the model as it is, the way `predict` does it later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from mer_bench.api import Batch, Model, Output
from mer_bench.errors import RequestError, RunError

RECOMPILES = 256
"""Versions of one piece of code: PyTorch's 8 are soon used up where each batch has a length of its own."""


APART = 0.05
"""Distance of what is compiled from what is not, as a share: far above the rounding of bfloat16's sums."""


def compiled_pass(model: Model, device: torch.device) -> Callable[[Batch], Output]:
    """The model's call, compiled as it is first used; it draws the same random numbers as the model's own.

    Raises:
        RequestError: If this machine has no compiler for the device.
        RunError: By the call, if PyTorch can't compile the model, or compiles it wrongly.
    """
    import torch._dynamo as dynamo

    _require_compiler(device)
    # Breaks between compiled pieces are expected where a shape depends on the data, and are told as warnings.
    torch._logging.set_logs(dynamo=logging.ERROR, inductor=logging.ERROR)  # type: ignore[attr-defined]
    dynamo.config.recompile_limit = RECOMPILES
    dynamo.config.accumulated_recompile_limit = 16 * RECOMPILES
    dynamo.config.fail_on_recompile_limit_hit = True  # else the rest of the run would silently be uncompiled
    # `fallback_random`: dropout draws from PyTorch's generator, whose state is saved with a run.
    call = torch.compile(model.__call__, dynamic=True, options={"fallback_random": True})

    is_checked = False

    def run(batch: Batch) -> Output:
        nonlocal is_checked
        try:
            if not is_checked:
                _check(model, call, batch, device)
                is_checked = True
            output: Output = call(batch)
        except dynamo.exc.TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise RunError(
                f"{type(model).__name__} can't be compiled: {type(error).__name__}: {reason} Leave compile at false."
            ) from error
        return output

    return run


def _check(model: Model, call: Callable[[Batch], Output], batch: Batch, device: torch.device) -> None:
    """Hold logits and gradients of one batch against the model's own: a compiler may err, and a run would not tell.

    Raises:
        RunError: If they are further apart than rounding explains.
    """

    def numbers(run: Callable[[Batch], Output]) -> list[Tensor]:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the same dropout for both
            logits = run(batch).logits
        parameters = [each for each in model.parameters() if each.requires_grad]
        gradients = torch.autograd.grad(logits.float().logsumexp(-1).sum(), parameters, allow_unused=True)
        return [logits.detach(), *(each for each in gradients if each is not None)]

    for own, compiled in zip(numbers(model), numbers(call), strict=True):
        apart = float((compiled.double() - own.double()).norm())
        if not apart <= APART * float(own.double().norm()) + 1e-4:
            raise RunError(
                f"PyTorch's compiler gives {type(model).__name__} other numbers than it should: {apart:.2g} off "
                f"{float(own.double().norm()):.2g} on the first batch. Leave compile at false."
            )


def _require_compiler(device: torch.device) -> None:
    if device.type != "cpu":
        return
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise RequestError(
            "compile=true needs a C++ compiler on the CPU, and none was found; install g++ or leave compile at false."
        ) from error
