"""What a run predicted for each utterance of a split: the only input of every metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Predictions:
    """One row an utterance of the split, in the order of the store.

    Attributes:
        classes: Names of the classes in the order of their index.
        ids: Utterance ids. dialogues: Dialogue id of each utterance.
        positions: Turn within the dialogue, from 0. speakers: Speaker index within the dialogue.
        true, predicted: Class index; `true` is -1 where the utterance has no label (not scored).
        log_probabilities: (utterances, classes), float16; None where only labels were predicted.
    """

    classes: tuple[str, ...]
    ids: Sequence[str]
    dialogues: Sequence[str]
    positions: NDArray[np.int32]
    speakers: NDArray[np.int16]
    true: NDArray[np.int16]
    predicted: NDArray[np.int16]
    log_probabilities: NDArray[np.float16] | None
