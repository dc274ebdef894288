"""The checks of a dataset: its card, and what `Dataset.prepare` makes of the data on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer_bench.api import Dataset, DatasetCard, PreparationRequest, StoreContent
from mer_bench.data.preparation import find_sources
from mer_bench.data.store import SPLITS
from mer_bench.locations import data_root
from mer_bench.metrics import METRICS
from mer_bench.registry import Plugin
from mer_bench.testing.checks import Check, Failed, NotApplicable, expect_excusable, register
from mer_bench.testing.folders import check_folder

CENTRED = 1e-3
"""A column mean this small, relative to the column's deviation, was subtracted on purpose."""

LONG_DIALOGUE = 4
"""Turns from which two dialogues of equal features are one dialogue twice, and no coincidence."""

DATASET_CHECKS: dict[str, Check[DatasetSubject]] = {}


@dataclass(frozen=True)
class DatasetSubject:
    """A dataset as the checks see it.

    Attributes:
        root: Folder of the data; None: where every command looks for them.
    """

    plugin: Plugin[DatasetCard]
    dataset: Dataset
    root: Path | None = None

    @property
    def card(self) -> DatasetCard:
        """The card of the dataset."""
        return self.plugin.card

    def requests(self) -> list[PreparationRequest]:
        """What can be prepared here: each feature set that is there, and with the first of them the rest.

        The rest is every further label set and protocol, and the first and the last fold.
        """
        found: list[PreparationRequest] = []
        for features, declared in self.card.feature_sets.items():
            if declared.needs:
                continue
            files: Mapping[str, Path] = {}
            if declared.sources:
                files, missing = find_sources(self.plugin, features, data_root(self.root))
                if missing:
                    continue
            chosen = self._labels_and_protocols()
            found += [
                PreparationRequest(features, labels, protocol, fold, files)
                for labels, protocol, fold in (chosen if not found else chosen[:1])
            ]
        return found

    def _labels_and_protocols(self) -> list[tuple[str, str, int | None]]:
        folds: list[tuple[str, int | None]] = []
        for protocol, declared in self.card.protocols.items():
            folds += (
                [(protocol, fold) for fold in sorted({1, declared.folds})] if declared.folds else [(protocol, None)]
            )
        first, *others = self.card.label_sets
        return [(first, *fold) for fold in folds] + [(labels, *folds[0]) for labels in others]

    @cached_property
    def prepared(self) -> list[tuple[PreparationRequest, StoreContent]]:
        """The contents of every store that can be prepared here; made once."""
        return [(request, self.dataset.prepare(request)) for request in self.requests()]

    def contents(self) -> Iterator[tuple[str, PreparationRequest, StoreContent]]:
        """The same, each with the words that name it in a message.

        Raises:
            NotApplicable: If nothing can be prepared here.
        """
        if not self.prepared:
            raise NotApplicable(f"the data of {self.plugin.name} are not on this machine")
        for request, content in self.prepared:
            fold = "" if request.fold is None else f", fold {request.fold}"
            yield f"{request.features}, {request.labels}, {request.protocol}{fold}", request, content

    def sound_contents(self) -> Iterator[tuple[str, PreparationRequest, StoreContent]]:
        """The same, for checks that could not read arrays which do not even fit each other.

        Raises:
            NotApplicable: If nothing can be prepared here, or it fails the check `arrays`.
        """
        for what, request, content in self.contents():
            try:
                _expect_rows(content)
            except Failed as found:
                raise NotApplicable(f"the arrays do not fit each other: {found}") from found
            yield what, request, content


def dataset_check(
    name: str, excusable: bool = True
) -> Callable[[Callable[[DatasetSubject], None]], Callable[[DatasetSubject], None]]:
    """Put a function among the checks of datasets."""
    return register(DATASET_CHECKS, name, excusable)


@dataset_check("card", excusable=False)
def check_card(subject: DatasetSubject) -> None:
    """The card is complete: words, licence, pinned sources, metrics and counts of every protocol."""
    card = subject.card
    for name in ("title", "summary", "licence"):
        if not getattr(card, name).strip():
            raise Failed(f"the card's {name} is empty.")
    expect_excusable(card.excused, DATASET_CHECKS)
    _expect_sources(card)
    _expect_feature_sets(card)
    for name, labels in card.label_sets.items():
        if len(set(labels.classes)) != len(labels.classes):
            raise Failed(f"the label set {name} has a class twice.")
    for name, protocol in card.protocols.items():
        for metric in (protocol.selection, protocol.headline):
            if metric not in METRICS:
                raise Failed(f"the protocol {name} names the metric {metric}; known are {', '.join(METRICS)}.")
        if not protocol.folds and set(card.counts.get(name, {})) != set(SPLITS):
            raise Failed(f"the card gives no counts of train, dev and test for the protocol {name}.")


def _expect_sources(card: DatasetCard) -> None:
    for source in card.sources:
        if source.repository and not (source.commit and source.path and (source.git_blob or source.sha256)):
            raise Failed(f"the source {source.name} is published, but its commit, path or checksum is missing.")
    used = {name for features in card.feature_sets.values() for name in features.sources}
    idle = [source.name for source in card.sources if source.name not in used]
    if idle:
        raise Failed(f"no feature set is made from the source {idle[0]}.")


def _expect_feature_sets(card: DatasetCard) -> None:
    for name, features in card.feature_sets.items():
        if not features.widths:
            raise Failed(f"the feature set {name} gives no widths (0 where the data decide).")
        order = [modality for modality in card.modalities if modality in features.widths]
        if list(features.widths) != order:
            raise Failed(f"the widths of the feature set {name} should stand in the order {', '.join(order)}.")
        strange = [modality for modality in features.modalities if modality not in features.widths]
        if strange:
            raise Failed(f"the feature set {name} is run on {strange[0]}, of which it gives no width.")


@dataset_check("folder")
def check_dataset_folder(subject: DatasetSubject) -> None:
    """Reading the card runs no code: `__init__.py` holds a docstring alone."""
    check_folder(subject.plugin, None)


@dataset_check("prepares")
def check_prepares(subject: DatasetSubject) -> None:
    """Every feature set whose files are here can be prepared, and needs no option that its card hides."""
    if not isinstance(subject.dataset, Dataset):
        raise Failed(f"{subject.card.entry} should be a child of mer_bench.data.dataset.Dataset.")
    for what, _, content in subject.contents():
        if not isinstance(content, StoreContent):
            raise Failed(f"{what}: prepare should return a StoreContent, but returned {type(content).__name__}.")
        for name, values in (("settings", content.settings), ("notes", content.notes)):
            try:
                json.dumps(values, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise Failed(f"{what}: the {name} should be JSON values: {error}.") from None
        for name, array in content.pipeline.items():
            if np.asarray(array).dtype.hasobject:
                raise Failed(f"{what}: the pipeline array {name} holds Python objects, which need a pickle.")


@dataset_check("arrays")
def check_arrays(subject: DatasetSubject) -> None:
    """Arrays have the shapes, types and values of the store's contract, widths and classes those of the card."""
    for what, request, content in subject.contents():
        try:
            _expect_rows(content)
            widths = subject.card.feature_sets[request.features].widths
            _expect_features(content, {name: widths[name] for name in subject.card.modalities if name in widths})
            _expect_classes(content, subject.card.label_sets[request.labels].classes)
            _expect_speakers(content)
        except Failed as found:
            raise Failed(f"{what}: {found}") from found


def _expect_rows(content: StoreContent) -> None:
    offsets, splits = np.asarray(content.offsets), np.asarray(content.splits)
    if offsets.ndim != 1 or not np.issubdtype(offsets.dtype, np.integer) or len(offsets) < 2 or offsets[0] != 0:
        raise Failed("offsets should be whole numbers that start at 0, one more than there are dialogues.")
    if (np.diff(offsets) < 1).any():
        raise Failed("a dialogue has no utterance: offsets should rise.")
    rows, dialogues = int(offsets[-1]), len(offsets) - 1
    lengths: dict[str, tuple[Sized, int]] = {
        "speakers": (content.speakers, rows),
        "labels": (content.labels, rows),
        "splits": (splits, dialogues),
    }
    lengths["utterance_ids"] = (content.utterance_ids, rows)
    lengths["dialogue_ids"] = (content.dialogue_ids, dialogues)
    for name, (values, expected) in lengths.items():
        if len(values) != expected:
            raise Failed(f"{name} should have {expected} entries, but has {len(values)}.")
    if (np.diff(splits.astype(np.int64)) < 0).any() or set(splits.tolist()) != set(range(len(SPLITS))):
        raise Failed("dialogues should stand in the order train, dev, test, and each split should have some.")
    if len(set(content.utterance_ids)) != rows:
        raise Failed("an utterance id occurs twice.")


def _expect_features(content: StoreContent, widths: Mapping[str, int]) -> None:
    if list(content.features) != list(widths) or set(content.present) != set(widths):
        raise Failed(f"the modalities should be {', '.join(widths)}, but are {', '.join(content.features)}.")
    rows = int(content.offsets[-1])
    for name, values in content.features.items():
        there = content.present[name]
        if values.dtype != np.float32 or values.ndim != 2 or len(values) != rows:
            raise Failed(f"{name} should be ({rows}, width) float32, but is {values.shape} {values.dtype}.")
        if widths[name] and values.shape[1] != widths[name]:
            raise Failed(f"{name} should be {widths[name]} wide as in the card, but is {values.shape[1]}.")
        if there.dtype != np.bool_ or there.shape != (rows,):
            raise Failed(f"the presence of {name} should be ({rows},) bool, but is {there.shape} {there.dtype}.")
        if not np.isfinite(values).all():
            raise Failed(f"{name} holds NaN or infinite values.")
        if values[~there].any():
            raise Failed(f"{name} should be zero where it is not present.")
        if not there.any():
            raise Failed(f"{name} is present nowhere.")


def _expect_classes(content: StoreContent, classes: tuple[str, ...]) -> None:
    labels = np.asarray(content.labels)
    if tuple(content.classes) != classes:
        raise Failed(
            f"the classes should be {', '.join(classes)} as in the card, but are {', '.join(content.classes)}."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < -1 or labels.max() >= len(classes):
        raise Failed(f"labels should be whole numbers from -1 to {len(classes) - 1}.")
    for index, split in enumerate(SPLITS):
        if not (labels[_in_split(content, index)] >= 0).any():
            raise Failed(f"no utterance of {split} has a label.")
    unseen = set(range(len(classes))) - set(labels[_in_split(content, 0)].tolist())
    if unseen:
        raise Failed(f"no train utterance has the label {classes[min(unseen)]}.")


def _expect_speakers(content: StoreContent) -> None:
    for start, end in zip(content.offsets[:-1], content.offsets[1:], strict=True):
        speakers = np.asarray(content.speakers[start:end], dtype=np.int64)
        # By first appearance: a new index is one more than all before it.
        highest = np.maximum.accumulate(np.concatenate([[-1], speakers[:-1]]))
        if speakers.min() < 0 or (speakers > highest + 1).any():
            name = content.utterance_ids[int(start)]
            raise Failed(f"speakers should be numbered by first appearance, which they are not from {name} on.")


def _in_split(content: StoreContent, index: int) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = np.repeat(np.asarray(content.splits) == index, np.diff(content.offsets))
    return mask


@dataset_check("counts")
def check_counts(subject: DatasetSubject) -> None:
    """Dialogues and utterances of every split are as many as the card says."""
    for what, request, content in subject.sound_contents():
        for split, expected in subject.card.counts.get(request.protocol, {}).items():
            index = SPLITS.index(split)
            dialogues = int((np.asarray(content.splits) == index).sum())
            utterances = int(_in_split(content, index).sum())
            if (dialogues, utterances) != (expected.dialogues, expected.utterances):
                raise Failed(
                    f"{what}: {split} should have {expected.dialogues} dialogues and {expected.utterances} utterances, "
                    f"but has {dialogues} and {utterances}."
                )


@dataset_check("splits-apart")
def check_splits_apart(subject: DatasetSubject) -> None:
    """No dialogue is in two splits: neither its id nor, from four turns on, its content."""
    for what, _, content in subject.sound_contents():
        if len(set(content.dialogue_ids)) != len(content.dialogue_ids):
            raise Failed(f"{what}: a dialogue id occurs twice.")
        seen: dict[bytes, int] = {}
        for index in range(len(content.dialogue_ids)):
            rows = slice(int(content.offsets[index]), int(content.offsets[index + 1]))
            if rows.stop - rows.start < LONG_DIALOGUE:
                continue
            key = b"".join(np.ascontiguousarray(values[rows]).tobytes() for values in content.features.values())
            twin = seen.setdefault(key, index)
            if content.splits[twin] != content.splits[index]:
                raise Failed(
                    f"{what}: the dialogues {content.dialogue_ids[twin]} of {SPLITS[content.splits[twin]]} and "
                    f"{content.dialogue_ids[index]} of {SPLITS[content.splits[index]]} have the same features."
                )


@dataset_check("train-statistics")
def check_train_statistics(subject: DatasetSubject) -> None:
    """Features that were centred or scaled were so by the train split alone."""
    for what, _, content in subject.sound_contents():
        train = _in_split(content, 0)
        for name, values in content.features.items():
            there = content.present[name]
            everywhere, trained = values[there].astype(np.float64), values[there & train].astype(np.float64)
            if _is_centred(everywhere) and not _is_centred(trained):
                raise Failed(f"{what}: {name} is centred over all splits and not over train, so test data shaped it.")
            if _has_unit_scale(everywhere) and not _has_unit_scale(trained):
                raise Failed(f"{what}: {name} is scaled over all splits and not over train, so test data shaped it.")


def _is_centred(values: NDArray[np.float64]) -> bool:
    return bool((np.abs(values.mean(axis=0)) <= CENTRED * (values.std(axis=0) + 1e-12)).all())


def _has_unit_scale(values: NDArray[np.float64]) -> bool:
    deviation = values.std(axis=0)
    varied = deviation[deviation > 1e-6]  # a constant column stays constant however it is scaled
    return bool(len(varied) and (np.abs(varied - 1) <= CENTRED).all())


@dataset_check("same-twice")
def check_same_twice(subject: DatasetSubject) -> None:
    """Preparing again gives the same bits."""
    for what, request, content in list(subject.sound_contents())[:1]:
        again = subject.dataset.prepare(request)
        pairs = {
            **{f"features of {name}": (content.features[name], again.features.get(name)) for name in content.features},
            **{f"presence of {name}": (content.present[name], again.present.get(name)) for name in content.present},
            **{f"pipeline array {name}": (value, again.pipeline.get(name)) for name, value in content.pipeline.items()},
        }
        for field in ("speakers", "labels", "offsets", "splits", "utterance_ids", "dialogue_ids"):
            pairs[field] = (getattr(content, field), getattr(again, field))
        for name, (first, second) in pairs.items():
            if second is None or not np.array_equal(np.asarray(first), np.asarray(second)):
                raise Failed(f"{what}: preparing twice gives different {name}.")
