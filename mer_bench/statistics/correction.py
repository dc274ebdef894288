"""Several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_bench.errors import RecordError


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for how many there are, in the order given.

    Those below 0.05 afterwards are together wrong in at most 5 % of cases, however they depend on
    each other.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".

    >>> adjust_holm([0.5, 0.125, 0.25])
    [0.5, 0.375, 0.5]
    """
    given = np.asarray(p_values, np.float64)
    if given.size and not bool(((given >= 0) & (given <= 1)).all()):
        raise RecordError(f"p-values should lie in [0, 1], but are {list(p_values)}.")
    order = np.argsort(given, kind="stable")
    steps = given[order] * np.arange(len(given), 0, -1)
    adjusted = np.empty(len(given))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(value) for value in adjusted]
