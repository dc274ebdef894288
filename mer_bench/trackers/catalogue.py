"""Which trackers there are, what each needs, and whether that is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

from mer_bench.errors import RequestError, UnknownNameError


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker that `--track` knows.

    Attributes:
        title: As its makers write it.
        package: What is imported; the extra of mer-bench has the tracker's own name.
        entry: `module:Class` of the `Tracker`; imported in its own process alone.
    """

    title: str
    package: str
    entry: str


TRACKERS = {
    "tensorboard": TrackerEntry("TensorBoard", "tensorboard", "mer_bench.trackers.to_tensorboard:ToTensorBoard"),
    "mlflow": TrackerEntry("MLflow", "mlflow", "mer_bench.trackers.to_mlflow:ToMlflow"),
    "wandb": TrackerEntry("Weights & Biases", "wandb", "mer_bench.trackers.to_wandb:ToWandb"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Fail before an hour of training rather than after it.

    Raises:
        UnknownNameError: If there is no such tracker.
        RequestError: If one is named twice, or the library that it needs is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UnknownNameError("tracker", name, TRACKERS)
        if names.count(name) > 1:
            raise RequestError(f"the tracker {name} is named twice.")
        entry = TRACKERS[name]
        if importlib.util.find_spec(entry.package) is None:
            raise RequestError(
                f"--track {name} needs {entry.title}, which is not installed. Install it with: python -m pip install "
                f"'mer-bench[{name}]'"
            )
