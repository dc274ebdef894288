"""Standardising measurements by the train split, blanks included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import DataError

_ROWS = 2048
"""Rows that are scaled at a time."""


@dataclass(frozen=True)
class Standardiser:
    """Brings each column to mean 0 and deviation 1 over the train split.

    A blank (NaN) becomes the train mean, so 0, and every column that has blanks in train gets an
    indicator column behind the values: 1 where it was blank. A row that is missing altogether is all
    zero; its presence mask says so, not an indicator.

    Attributes:
        columns: Names of the measurements.
        mean, deviation: Of each column over present train rows that are not blank, in its own unit.
        indicated: Index of each column that has an indicator.
    """

    columns: tuple[str, ...]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    indicated: tuple[int, ...]

    @classmethod
    def fit(cls, values: NDArray[np.floating[Any]], present: NDArray[np.bool_], columns: Sequence[str]) -> Standardiser:
        """Learn from the train split.

        Shapes:
            values: (utterances, columns), NaN where blank. present: (utterances,), False: the row is missing.

        Raises:
            DataError: If a column has no value at all in train; names it.
        """
        if not present.any():
            raise DataError(f"the train split has not one value of {columns[0]}.")
        width = values.shape[1]
        mean, deviation = np.zeros(width), np.zeros(width)
        indicated: list[int] = []
        # Some columns at a time: copies in double precision of them all would take several times the memory of the
        # values. Never one alone where there are more, since numpy adds that up in another order.
        for part in np.array_split(np.arange(width), max(width // 32, 1)):
            block = values[:, part[0] : part[-1] + 1][present].astype(np.float64)
            blank = np.isnan(block)
            if blank.all(axis=0).any():
                raise DataError(f"the train split has not one value of {columns[part[blank.all(axis=0).argmax()]]}.")
            mean[part], deviation[part] = np.nanmean(block, axis=0), np.nanstd(block, axis=0)
            indicated += part[blank.any(axis=0)].tolist()
        # A column that never changes has rounding noise as its deviation, which would become features.
        constant = deviation <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        return cls(tuple(columns), mean, np.where(constant, 1.0, deviation), tuple(indicated))

    @property
    def width(self) -> int:
        """Number of features: values and indicators."""
        return len(self.columns) + len(self.indicated)

    def transform(self, values: NDArray[np.floating[Any]], present: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scale rows of any split, or of new dialogues.

        Shapes:
            values: (utterances, columns). present: (utterances,). returns: (utterances, width).
        """
        features = np.zeros((len(values), self.width), dtype=np.float32)
        for start in range(0, len(values), _ROWS):
            rows = values[start : start + _ROWS]
            blank = np.isnan(rows)
            features[start : start + _ROWS, : len(self.columns)] = np.where(
                blank, 0.0, (rows - self.mean) / self.deviation
            )
            features[start : start + _ROWS, len(self.columns) :] = blank[:, list(self.indicated)]
        features[~present] = 0
        return features

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What was learned, as arrays and JSON values; `from_state` is its inverse."""
        arrays: dict[str, NDArray[Any]] = {"mean": self.mean, "deviation": self.deviation}
        return arrays, {"columns": list(self.columns), "indicated": list(self.indicated)}

    @classmethod
    def from_state(cls, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> Standardiser:
        """The standardiser whose state a store kept; the counterpart of what wrote it."""
        return cls(tuple(settings["columns"]), arrays["mean"], arrays["deviation"], tuple(settings["indicated"]))
