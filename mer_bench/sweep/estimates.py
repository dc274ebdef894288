"""How long a run may take: what runs like it took, by the records that are there."""

from __future__ import annotations

import heapq
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mer_bench.records import Record
from mer_bench.request import Plan

Likeness = tuple[Any, ...]


class Estimates:
    """Seconds of runs, by what they were runs of.

    The nearest that there is counts: runs of the same settings, else of the same model, features, protocol and
    modalities, else of the same model on the same dataset. Nothing is reckoned from one model to another.

    Attributes:
        count: Records that it was made from.
    """

    def __init__(self) -> None:
        self.count = 0
        self._seconds: dict[Likeness, list[float]] = defaultdict(list)

    def add(self, values: dict[str, Any]) -> None:
        """Take a record, as JSON values; one that is no complete run tells nothing."""
        if values.get("kind") != "run" or values.get("status") != "done" or values.get("test_condition"):
            return
        try:
            seconds = float(values["cost"]["wall_seconds"])
            likenesses = _likenesses(
                values["model"],
                values["dataset"],
                (values["features"], values["labels"], values["protocol"], tuple(values["modalities"])),
                (values["settings"], values["training"]),
            )
        except (KeyError, TypeError, ValueError):
            return
        self.count += 1
        for likeness in likenesses:
            self._seconds[likeness].append(seconds)

    def add_record(self, record: Record) -> None:
        """Take the record of a run that has just ended."""
        self.add(record.model_dump(mode="json"))

    def seconds(self, plan: Plan) -> float | None:
        """The median of the runs most like this one; None where there is none."""
        likenesses = _likenesses(
            plan.model,
            plan.dataset,
            (plan.features, plan.labels, plan.protocol, plan.modalities),
            (plan.settings.model_dump(mode="json"), plan.training.model_dump(mode="json")),
        )
        for likeness in likenesses:
            if likeness in self._seconds:
                return statistics.median(self._seconds[likeness])
        return None


def _likenesses(model: str, dataset: str, cell: tuple[Any, ...], settings: tuple[Any, ...]) -> tuple[Likeness, ...]:
    """What a run is one of, the narrowest first."""
    exact = json.dumps(settings, sort_keys=True)
    return ((model, *cell, exact), (model, *cell), (model, dataset, cell[2]), (model, dataset))


def read_estimates(folders: Iterable[Path]) -> Estimates:
    """From every record below some folders; a file that is none is passed over."""
    estimates = Estimates()
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        for file in sorted(folder.rglob("*.json")):
            try:
                values = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                estimates.add(values)
    return estimates


def time_to_go(seconds: Sequence[float], workers: int) -> float:
    """When the last of some runs ends, where each worker begins the next as soon as it is free."""
    free = [0.0] * max(1, workers)
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)
