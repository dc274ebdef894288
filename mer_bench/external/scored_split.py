"""What predictions are compared with: the labelled utterances of a protocol's test split, without their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.cards import DatasetCard
from mer_bench.data.preparation import open_or_prepare, prepared_stores
from mer_bench.data.store import SPLITS, Store
from mer_bench.errors import DataError, MissingDataError, PluginError
from mer_bench.identity import split_checksum
from mer_bench.locations import StoreKey


@dataclass(frozen=True)
class ScoredSplit:
    """The utterances that have a label, in the order of the store; under a protocol with folds those of all folds.

    Attributes:
        name: In words: `the test split of meld/official`.
        ids, dialogues, positions, speakers, true: As those of `Predictions`.
        subsets: Which dialogues belong to each named part: (dialogues,), bool, in their order of appearance.
        not_scored: Ids that the dataset has besides: the split of each, or "" for test utterances without a label.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    dialogues: Sequence[str]
    positions: NDArray[np.int32]
    speakers: NDArray[np.int16]
    true: NDArray[np.int16]
    subsets: Mapping[str, NDArray[np.bool_]]
    not_scored: Mapping[str, str]

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of all that a score depends on besides the predictions."""
        return split_checksum(self.classes, self.ids, self.dialogues, self.positions, self.speakers, self.true)


def open_stores(key: StoreKey, card: DatasetCard, root: Path, any_features: bool) -> tuple[Store, ...]:
    """The stores that hold the test split: one, or one a fold. Features are not read.

    Args:
        any_features: Where the feature set of the key is not there, one that is prepared here will do as well.

    Raises:
        MissingDataError: If data are missing. DataError: If they are damaged.
    """
    try:
        return tuple(open_or_prepare(each, root) for each in _of_folds(key, card))
    except MissingDataError:
        there = set(prepared_stores(root, key.dataset)) if any_features else set()
        for features in card.feature_sets:
            others = _of_folds(replace(key, features=features), card)
            if features == key.features or not there.issuperset(others):
                continue
            with suppress(MissingDataError):  # of an older version of the dataset
                return tuple(open_or_prepare(each, root) for each in others)
        raise


def _of_folds(key: StoreKey, card: DatasetCard) -> list[StoreKey]:
    folds = card.protocols[key.protocol].folds
    return [replace(key, fold=fold) for fold in range(1, folds + 1)] or [key]


def scored_split(stores: Sequence[Store], card: DatasetCard) -> ScoredSplit:
    """The labelled test utterances of some stores.

    Raises:
        DataError: If none has a label. PluginError: If folds share a dialogue or have other classes.
    """
    key = stores[0].manifest.key
    protocol = f"{key.dataset}/{key.protocol}"
    parts = [_labelled(store) for store in stores]
    for store, part in zip(stores, parts, strict=True):
        if store.classes != stores[0].classes:
            raise PluginError(f"{store.manifest.key} has other classes than {stores[0].manifest.key}.")
        if not len(part.true):
            raise DataError(f"no utterance of the test split of {store.manifest.key} has a label.")
    names = [name for part in parts for name in dict.fromkeys(part.dialogues)]
    if len(set(names)) != len(names):
        raise PluginError(f"two folds of {protocol} test the same dialogue; folds must not share what they test.")
    ids = [name for part in parts for name in part.ids]
    others: dict[str, str] = {}
    for store in stores:
        for split in SPLITS:
            others |= dict.fromkeys(store.identifiers(split)[0], "" if split == "test" else split)
    for name in ids:
        others.pop(name, None)
    return ScoredSplit(
        name=f"the test split of {protocol}",
        classes=stores[0].classes,
        ids=ids,
        dialogues=[name for part in parts for name in part.dialogues],
        positions=np.concatenate([part.positions for part in parts]),
        speakers=np.concatenate([part.speakers for part in parts]),
        true=np.concatenate([part.true for part in parts]),
        subsets={
            name: np.concatenate([part.subsets[name] for part in parts])
            for name in parts[0].subsets
            if name in card.subsets and all(name in part.subsets for part in parts)
        },
        not_scored=others,
    )


@dataclass(frozen=True)
class _Labelled:
    """What one store adds to a `ScoredSplit`."""

    ids: list[str]
    dialogues: list[str]
    positions: NDArray[np.int32]
    speakers: NDArray[np.int16]
    true: NDArray[np.int16]
    subsets: dict[str, NDArray[np.bool_]]


def _labelled(store: Store) -> _Labelled:
    _, utterances = store.rows("test")
    lengths = store.lengths("test")
    true = np.asarray(store.arrays["labels"][utterances])
    rows = np.flatnonzero(true >= 0)
    ids, dialogues = store.identifiers("test")
    positions = np.arange(len(true)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    labelled = np.zeros(len(lengths), bool)
    labelled[np.repeat(np.arange(len(lengths)), lengths)[rows]] = True
    return _Labelled(
        ids=[ids[row] for row in rows.tolist()],
        dialogues=[dialogues[row] for row in rows.tolist()],
        positions=positions[rows].astype(np.int32),
        speakers=np.asarray(store.arrays["speakers"][utterances])[rows],
        true=true[rows],
        subsets={name: members[labelled] for name, members in store.subsets("test").items()},
    )
