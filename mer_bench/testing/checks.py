"""What a check is, and how one check on one subject becomes a result."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch

from mer_bench.errors import MerBenchError
from mer_bench.plugin_files import LOCAL_PACKAGE

Status = Literal["passed", "failed", "excused"]
Subject = TypeVar("Subject")


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes:
        status: `excused`: the check does not apply, or the card excuses it; `reason` says why.
        reason: What was found wrong, or why it is excused; "" where it passed.
    """

    name: str
    status: Status
    reason: str = ""
    seconds: float = 0.0


class Failed(Exception):  # noqa: N818 - reads as a finding: raise Failed("...")
    """What a check found wrong with its subject, as one sentence."""


class NotApplicable(Exception):  # noqa: N818
    """Why a check says nothing about its subject, as one sentence."""


@dataclass(frozen=True)
class Check(Generic[Subject]):
    """A named check: its function raises `Failed` or `NotApplicable`, or returns.

    Attributes:
        excusable: False where no card may excuse it.
    """

    name: str
    function: Callable[[Subject], None]
    excusable: bool = True

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return inspect.getdoc(self.function).splitlines()[0]  # type: ignore[union-attr]

    def run(self, subject: Subject, excused: Mapping[str, str]) -> CheckResult:
        """Run the check; whatever the plugin's code raises becomes a failure with its sentence."""
        if self.excusable and self.name in excused:
            return CheckResult(self.name, "excused", excused[self.name])
        started = time.perf_counter()
        status: Status = "passed"
        reason = ""
        try:
            with torch_settled():
                self.function(subject)
        except NotApplicable as why:
            status, reason = "excused", str(why)
        except (Failed, MerBenchError) as found:
            status, reason = "failed", str(found)
        except Exception as error:  # a stranger's code may fail in any way; it is reported by name
            status, reason = "failed", f"{type(error).__name__}: {error}{_place(error)}"
        return CheckResult(self.name, status, reason, time.perf_counter() - started)


def _place(error: Exception) -> str:
    """File and line of the plugin's code from which an error came: what its author looks for first."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        module = trace.tb_frame.f_globals.get("__name__", "")
        frames.append((module, trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    ours = ("mer_bench.testing", "torch", "numpy", "pydantic", "safetensors")
    for module, file, line in reversed(frames):
        if module and not module.startswith(ours):
            # The import name of a plugin that is not installed says nothing to its author.
            return f" ({file if module.startswith(LOCAL_PACKAGE) else module}, line {line})"
    return ""


def register(
    checks: dict[str, Check[Subject]], name: str, excusable: bool = True
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Put a function among the checks, under the name that cards and `mer-bench check` use."""

    def add(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        checks[name] = Check(name, function, excusable)
        return function

    return add


def expect_excusable(excused: Mapping[str, str], checks: Mapping[str, Check[Any]]) -> None:
    """Every excused check exists, may be excused, and has its reason."""
    for name, reason in excused.items():
        if name not in checks:
            raise Failed(f"the card excuses '{name}', which is no check; the checks are {', '.join(checks)}.")
        if not checks[name].excusable:
            raise Failed(f"the card excuses '{name}', which nothing is excused from.")
        if not reason.strip():
            raise Failed(f"the card excuses '{name}' without a reason.")


@contextmanager
def torch_settled() -> Iterator[None]:
    """One thread; afterwards threads, global generators and the determinism switch are as they were.

    Tensors as small as the samples gain nothing from a second thread, and on a busy machine threads
    that wait for each other take ten times as long.
    """
    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_state)
        torch.use_deterministic_algorithms(deterministic)
