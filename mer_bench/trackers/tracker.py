"""The one interface behind which all trackers stand.

A run begins, has values after each epoch, and ends with its test scores and its record, or failed. A tracker lives
in a process of its own, sees nothing but these calls, and may raise whatever its library raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

Value = str | int | float | bool | None


class Tracker(ABC):
    """Follows runs, one after the other.

    Args:
        folder: Where it may write; made by the tracker.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def begin(self, name: str, settings: Mapping[str, Value]) -> None:
        """A run begins.

        Args:
            name: `<dataset>/<model>.<features>.seed<seed>`; several runs may share it.
            settings: Of data, model and trainer, by dotted name.
        """

    @abstractmethod
    def epoch(self, step: int, values: Mapping[str, float]) -> None:
        """An epoch is over.

        Args:
            step: Number of the epoch from 1; under folds those of all folds are counted on.
            values: By name: `train/total`, `dev/weighted_f1`, `learning_rate`; `fold2/...` in front under folds.
        """

    @abstractmethod
    def end(self, scores: Mapping[str, float], record: Path) -> None:
        """The run is done.

        Args:
            scores: By name: `test/weighted_f1`, `chosen_epoch`.
            record: Its file, which is to be kept as an artefact.
        """

    @abstractmethod
    def fail(self, reason: str) -> None:
        """The run ended without a result."""

    def close(self) -> None:  # noqa: B027 - doing nothing is a fair answer
        """No further run comes; everything must be on the disk, or sent, when this returns."""
