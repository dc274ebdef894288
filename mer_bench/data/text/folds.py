"""Parts of the train split that a model does not see while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def dialogue_folds(dialogues: NDArray[np.integer[Any]], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row; all rows of a dialogue share one."""
    names, index = np.unique(dialogues, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    fold: NDArray[np.int64] = (shuffled % folds)[index]
    return fold
