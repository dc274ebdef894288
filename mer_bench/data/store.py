"""The prepared feature store: one folder of memory-mapped arrays a (dataset, features, labels, protocol, fold).

manifest.json               what it is, from which sources, with which checksums
features.<modality>.npy     (utterances, width) float32
present.<modality>.npy      (utterances,) bool; False: the modality is missing there
speakers.npy, labels.npy    (utterances,) int16; label -1: context only
utterance_ids.npy           (utterances,) UTF-8 bytes of fixed width
dialogue_ids.npy            (dialogues,) UTF-8 bytes of fixed width
offsets.npy                 (dialogues + 1,) int64: dialogue d is rows offsets[d] to offsets[d + 1]
splits.npy                  (dialogues,) uint8: index into SPLITS; dialogues stand in this order
pipeline.npz                arrays that apply the same preparation to new dialogues
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class StoreContent:
    """Everything a store holds, in memory; what a dataset's `prepare` returns.

    Dialogues stand in the order train, dev, test, each with at least one utterance.

    Attributes:
        features: By modality, (utterances, width), float32; zero rows where not present.
        present: By modality, (utterances,), bool.
        speakers: (utterances,), index by first appearance in the dialogue.
        labels: (utterances,), class index, -1 for context only.
        utterance_ids, dialogue_ids: Unique strings. offsets: (dialogues + 1,), int64.
        splits: (dialogues,), index into SPLITS.
        classes: Names of the classes.
        settings: How it was prepared, as JSON values: encoder, widths, seeds, checksums of options.
        notes: What was noticed: rows ignored, clips missing, blanks filled; name -> count or text.
        pipeline: Arrays that apply the preparation to new dialogues, by name.
    """

    features: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]
    speakers: NDArray[np.int16]
    labels: NDArray[np.int16]
    utterance_ids: Sequence[str]
    dialogue_ids: Sequence[str]
    offsets: NDArray[np.int64]
    splits: NDArray[np.uint8]
    classes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Mapping[str, NDArray[Any]] = field(default_factory=dict)
