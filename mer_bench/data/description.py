"""What a prepared store holds, in numbers that a table or a picture shows: labels, lengths, speakers, gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.cards import SplitName
from mer_bench.data.overlap import Overlap
from mer_bench.data.store import SPLITS, Store
from mer_bench.locations import StoreKey


@dataclass(frozen=True)
class Tally:
    """How often each whole number occurs: utterances of a dialogue, speakers of a dialogue.

    Attributes:
        counts: Dialogues by that number, in rising order; without those that do not occur.
    """

    counts: Mapping[int, int]

    @classmethod
    def of(cls, values: NDArray[np.integer[Any]]) -> Tally:
        """Count how often each number occurs."""
        numbers, counts = np.unique(values, return_counts=True)
        return cls(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    @property
    def lowest(self) -> int | None:
        """The smallest value; None where nothing was counted."""
        return min(self.counts, default=None)

    @property
    def highest(self) -> int | None:
        """The largest value; None where nothing was counted."""
        return max(self.counts, default=None)

    @property
    def mean(self) -> float | None:
        """The mean of the values; None where nothing was counted."""
        if not self.counts:
            return None
        return sum(number * count for number, count in self.counts.items()) / self.total

    @property
    def median(self) -> float | None:
        """The middle one; the mean of the middle two where there is none."""
        if not self.counts:
            return None
        reached, middle = 0, []
        for number, count in sorted(self.counts.items()):
            before, reached = reached, reached + count
            middle += [number for place in {(self.total - 1) // 2, self.total // 2} if before <= place < reached]
        return median(middle)


@dataclass(frozen=True)
class SplitDescription:
    """One split of a store.

    Attributes:
        labelled: Utterances that are scored; the others are context.
        labels: Labelled utterances by class, in the order of the classes.
        lengths: Dialogues by number of utterances. speakers: Dialogues by number of speakers.
        missing: Utterances without the modality, by modality.
        overlap: Share of the utterances of four words or more that stand word for word in train; None where the
            store has no texts, and for train itself.
    """

    dialogues: int
    utterances: int
    labelled: int
    labels: Mapping[str, int]
    lengths: Tally
    speakers: Tally
    missing: Mapping[str, int]
    overlap: Overlap | None

    def label_share(self, name: str) -> float | None:
        """Fraction of the labelled utterances; None where none is labelled."""
        return self.labels[name] / self.labelled if self.labelled else None

    def missing_share(self, modality: str) -> float | None:
        """Fraction of the utterances without the modality; None where there are no utterances."""
        return self.missing[modality] / self.utterances if self.utterances else None

    @property
    def unlabelled_share(self) -> float | None:
        """Share of utterances without a label, in [0, 1]; None of an empty split."""
        return 1 - self.labelled / self.utterances if self.utterances else None


@dataclass(frozen=True)
class StoreDescription:
    """A prepared store in numbers.

    Attributes:
        widths: Of each modality. splits: By name, in the order train, dev, test.
        overlaps: Overlap with train of each split, in all and by named part; () where there are no texts.
    """

    key: StoreKey
    classes: tuple[str, ...]
    widths: Mapping[str, int]
    splits: Mapping[SplitName, SplitDescription]
    overlaps: tuple[Overlap, ...]


def describe_store(store: Store) -> StoreDescription:
    """Count what a store holds; reads its offsets and speakers alone.

    Raises:
        DataError: If those are damaged.
    """
    manifest = store.manifest
    overlaps = manifest.overlap or ()
    splits = {split: _describe_split(store, split, overlaps) for split in SPLITS}
    return StoreDescription(manifest.key, manifest.classes, dict(manifest.widths), splits, overlaps)


def _describe_split(store: Store, split: SplitName, overlaps: Iterable[Overlap]) -> SplitDescription:
    manifest = store.manifest
    count = manifest.counts[split]
    lengths = store.lengths(split)
    before = sum(manifest.counts[other].utterances for other in SPLITS[: SPLITS.index(split)])
    speakers = np.asarray(store.arrays["speakers"][before : before + count.utterances])
    # Speakers are numbered from 0 by first appearance, so the highest number counts them.
    starts = np.cumsum(lengths) - lengths
    highest = np.maximum.reduceat(speakers, starts) if len(starts) else speakers[:0]
    return SplitDescription(
        dialogues=count.dialogues,
        utterances=count.utterances,
        labelled=count.labelled,
        labels={name: manifest.class_histogram[split][name] for name in manifest.classes},
        lengths=Tally.of(lengths),
        speakers=Tally.of(highest.astype(np.int64) + 1),
        missing={modality: manifest.missing[modality][split] for modality in manifest.widths},
        overlap=next((each for each in overlaps if each.split == split and not each.subset), None),
    )
