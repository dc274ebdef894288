"""What a model costs: how the memory of a training step grows with the length of a dialogue."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mer_bench.api import FittedModel
from mer_bench.testing.checks import Failed
from mer_bench.testing.model_checks.outputs import predict, training_loss
from mer_bench.testing.model_checks.subject import ModelSubject, model_check
from mer_bench.testing.samples import sample_split, whole

TURNS = (512, 768, 1024)
"""Lengths of the one dialogue that is measured, evenly spaced. So long that a square shows beside wide layers, and
that the busiest moment of the step is the same at all three: where it moves, the growth has a bend of its own."""

QUADRATIC_SHARE = 0.05
"""From this share of the longest dialogue's memory on, the part that grows with the square of its length counts."""

CUBIC_GROWTH = 1.65
"""Growth from the first increment to the second that no square explains: that of a square is 1.4, of a cube 1.9."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside and are alive, and the most there were at a time.

    Counted is what operators return, each storage once; what was there before counts for nothing. The
    allocator isn't asked, so the count is the same on every machine.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._alive: int = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._watch(tensor.untyped_storage())
        return result

    def _watch(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self._change(storage.nbytes())
        weakref.finalize(storage, self._change, -storage.nbytes())

    def _change(self, count: int) -> None:
        self._alive += count
        self.peak = max(self.peak, self._alive)


def step_bytes(subject: ModelSubject, turns: int) -> int:
    """Most bytes that live at a time in a training step on one dialogue; of a fitted model, in scoring it."""
    spec = subject.spec()
    model = subject.ready(spec, dtype=torch.float32)
    batch = whole(sample_split(spec, lengths=[turns], dtype=torch.float32))
    live = LiveBytes()
    with live:
        if isinstance(model, FittedModel):
            predict(model, batch)
        else:
            training_loss(model.train()(batch), batch).backward()
    return live.peak


@model_check("memory")
def check_memory(subject: ModelSubject) -> None:
    """The memory of a training step grows with the length of a dialogue as the card says."""
    declared = subject.card.memory
    sizes = [step_bytes(subject, turns) for turns in TURNS]
    first, second = sizes[1] - sizes[0], sizes[2] - sizes[1]
    step = TURNS[1] - TURNS[0]
    share = (
        (second - first) / (2 * step**2) * TURNS[-1] ** 2 / sizes[-1]
    )  # half the second derivative, times the square
    shown = ", ".join(f"{size / 2**20:.1f} MB for {turns} turns" for turns, size in zip(TURNS, sizes, strict=True))
    if second > CUBIC_GROWTH * first:
        raise Failed(f"the memory of a training step grows faster than the square of a dialogue's length: {shown}.")
    if declared == "linear" and share > QUADRATIC_SHARE:
        raise Failed(
            f"the card says memory = linear, but a part of a training step's memory ({share:.0%} at {TURNS[-1]} turns) "
            f"grows with the square of a dialogue's length: {shown}. Say memory = quadratic, or mend it."
        )
    if declared == "quadratic" and share <= QUADRATIC_SHARE:
        raise Failed(f"the card says memory = quadratic, but it grows linearly: {shown}. Say memory = linear.")
