"""Whether a path has become slower, on a machine that is slower or busy: ratios, and a baseline of ratios.

Path and kernels are timed in turns, by the processor's time and not by the clock, children included; the least of each
counts. Where the ratio is more than `MOST_LOSS` above the baseline's, they are timed further, up to `TRIES` times: what
else a machine does comes and goes, a loss stays.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.speed.kernels import KERNELS

BASELINE = Path(__file__).with_name("baseline.json")
MOST_LOSS = 0.30
TRIES = 5
ROUNDS = 3
ROUND_SECONDS = 0.05
"""A path is repeated within a round until it has taken about so long: shorter ones drown in the clock's own noise."""

Work = Callable[[], object]
Fresh = Callable[[], Work]
"""Makes ready, untimed, what is then timed."""


def processor_seconds() -> float:
    """What this process and its finished children have computed so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def seconds_of(work: Work) -> float:
    """Processor seconds of a piece of work, garbage collection apart."""
    gc.collect()
    gc.disable()
    try:
        begun = processor_seconds()
        work()
        return processor_seconds() - begun
    finally:
        gc.enable()


@dataclass
class Timing:
    """A path beside its kernels, and how often they were timed.

    Attributes:
        path, kernels: The seconds of each round.
    """

    names: Sequence[str]
    path: list[float] = field(default_factory=list)
    kernels: dict[str, list[float]] = field(default_factory=dict)

    def kernel_round(self) -> None:
        """Time every kernel once."""
        for name in self.names:
            self.kernels.setdefault(name, []).append(seconds_of(KERNELS[name]))

    def path_round(self, work: Work, repeats: int = 1) -> None:
        """Time the path once, as the mean of some repeats."""

        def repeated() -> None:
            for _ in range(repeats):
                work()

        self.path.append(seconds_of(repeated) / repeats)

    @property
    def ratio(self) -> float:
        """The least of the path over the least of the kernels together."""
        return min(self.path) / sum(min(self.kernels[name]) for name in self.names)

    def rounds(self, fresh: Fresh, repeats: int = 1, count: int = ROUNDS) -> None:
        """Time kernels and path in turns."""
        for _ in range(count):
            work = fresh()
            self.kernel_round()
            self.path_round(work, repeats)


def repeats_of(fresh: Fresh) -> int:
    """How often to repeat a path within a round; work that can be done once only is done once."""
    work = fresh()
    first = seconds_of(work)
    if getattr(work, "is_spent", False):
        return 1
    return max(1, min(50, round(ROUND_SECONDS / max(first, 1e-6))))


@dataclass(frozen=True)
class Verdict:
    """What became of a path.

    Attributes:
        baseline: None where none is stored.
    """

    name: str
    ratio: float
    baseline: float | None
    tries: int

    @property
    def loss(self) -> float:
        """How much slower than the baseline: 0.3 is 30 % more time; negative where it is quicker."""
        return 0.0 if self.baseline is None else self.ratio / self.baseline - 1

    @property
    def is_lost(self) -> bool:
        return self.baseline is None or self.loss > MOST_LOSS

    def __str__(self) -> str:
        if self.baseline is None:
            return (
                f"{self.name} has no baseline; renew it: python -m pytest tests/speed/test_guarded.py --renew-baseline"
            )
        change = f"{abs(self.loss):.0%} {'slower' if self.loss > 0 else 'quicker'}"
        tries = f" in {self.tries} tries" if self.tries > 1 else ""
        return f"{self.name}: {self.ratio:.3g} of its kernels, {change} than the baseline's {self.baseline:.3g}{tries}"


def judged(name: str, timing: Timing, baseline: Mapping[str, float], again: Callable[[], None]) -> Verdict:
    """A verdict, after further rounds where the first ones look like a loss.

    Args:
        again: Times further rounds into the same timing.
    """
    wanted = baseline.get(name)
    for tries in range(1, TRIES + 1):
        verdict = Verdict(name, timing.ratio, wanted, tries)
        if wanted is None or not verdict.is_lost or tries == TRIES:
            return verdict
        again()
    raise AssertionError


VERDICTS = pytest.StashKey[list[Verdict]]()
RATIOS = pytest.StashKey[dict[str, list[float]]]()
"""Where a session of pytest keeps what it found, by path."""


def read_baseline(file: Path = BASELINE) -> dict[str, float]:
    """The stored ratios by path; none where there is no file."""
    if not file.exists():
        return {}
    found: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return found


def write_baseline(ratios: Mapping[str, Sequence[float]], file: Path = BASELINE) -> None:
    """Store the median of some ratios of each path; other paths keep theirs."""
    renewed = {name: float(f"{statistics.median(found):.4g}") for name, found in ratios.items()}
    kept = read_baseline(file) | renewed
    file.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n", encoding="utf-8")
