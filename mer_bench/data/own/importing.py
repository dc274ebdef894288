"""From a user's folder to a dataset of this machine: read, checked, kept in the raw form, and its first store made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from mer_bench import registry
from mer_bench.atomic import flush_to_disk, remove, remove_abandoned, storage_errors, temporary_beside
from mer_bench.cards import DatasetCard, is_identifier, read_card
from mer_bench.data.corpus import make_store
from mer_bench.data.files import sha256_of_file
from mer_bench.data.own.describing import OFFICIAL, StatedCard, card_text, is_export, make_card, read_stated
from mer_bench.data.own.dialogues import RandomSplit
from mer_bench.data.own.folder import CARD, OwnData, look_around, read_contents
from mer_bench.data.own.raw_form import DIALOGUES, FEATURES, corpus_of, read_raw, write_raw
from mer_bench.data.preparation import PreparationRequest
from mer_bench.data.store import SPLITS, Store, StoreContent, write_store
from mer_bench.errors import CardError, DataError, MissingDataError, RequestError, UnknownNameError, nearest_names
from mer_bench.locations import StoreKey, raw_folder, store_folder

RELEASES = (".pkl", ".pickle", ".p", ".npz")
"""Endings of single files that are taken for a community feature release; its structure says which."""


@dataclass(frozen=True)
class SplitReport:
    """What a split holds; `speakers` is the number of different names in it."""

    dialogues: int
    utterances: int
    speakers: int
    labelled: Mapping[str, int]


@dataclass(frozen=True)
class ModalityReport:
    """One modality: its width as given, and by split the utterances without it and the values that are blank."""

    width: int
    files: tuple[str, ...]
    missing: Mapping[str, int]
    blanks: Mapping[str, int]


@dataclass(frozen=True)
class OwnReport:
    """What an import of a user's own dialogues found and wrote.

    Attributes:
        version: Of the dataset; `changed` is False where the same content was there already.
        made_card: True where the folder had no card.toml. recognised: What a feature release is, in words.
        histogram: Labelled utterances by label set, split and class.
        most_speakers: In any one dialogue.
        texts: Utterances with a text.
        features: Ids of the feature sets, the default first. needs: Options that some of them need.
        notes: What the user should know. passed_over: What the folder holds besides.
    """

    dataset: str
    raw: Path
    store: Path
    version: int
    changed: bool
    made_card: bool
    recognised: str
    splits: Mapping[str, SplitReport]
    histogram: Mapping[str, Mapping[str, Mapping[str, int]]]
    most_speakers: int
    texts: int
    modalities: Mapping[str, ModalityReport]
    features: tuple[str, ...]
    notes: tuple[str, ...]
    passed_over: tuple[str, ...]


def check_name(name: str) -> None:
    """Check that a user's dataset may have that name.

    Raises:
        RequestError: If it is no name, or that of an installed dataset or model.
    """
    if not is_identifier(name):
        raise RequestError(
            f"'{name}' cannot be the name of a dataset: it is made of lower-case letters and digits, with hyphens "
            "between them, as in my-talks."
        )
    for kind, taken in (("dataset", registry.installed_datasets().plugins), ("model", registry.models().plugins)):
        if name in taken:
            raise RequestError(f"'{name}' is the name of a {kind} that is installed; choose another.")


@dataclass(frozen=True)
class Brought:
    """What a user brings, read and checked: what they say of it, and the data.

    Attributes:
        recognised: What a feature release is, in words; "" where a folder of the user's own form was read.
    """

    stated: StatedCard
    data: OwnData
    split_note: str = ""
    passed_over: tuple[str, ...] = ()
    recognised: str = ""


def read_brought(given: Sequence[Path], random_split: RandomSplit | None = None, layout: str | None = None) -> Brought:
    """Read a folder, a file of dialogues, or the files of a community feature release.

    Raises:
        DataError, CardError, MissingDataError: For the first thing that is wrong with the files.
        SettingError: If a release does not say which dialogues are dev.
    """
    places = [place.expanduser() for place in given]
    if layout is not None or len(places) > 1 or (places[0].is_file() and places[0].suffix.lower() in RELEASES):
        from mer_bench.data.own.from_release import read_own_release

        release, stated, data = read_own_release(places, layout, random_split)
        note = f"Dev was drawn at random from train by mer-bench: {random_split}." if random_split else ""
        return Brought(stated, data, note, recognised=f"{release.layout.id}, {release.layout.title}")
    contents = look_around(places[0])
    manifest = contents.manifest if contents.manifest is not None and is_export(contents.manifest) else None
    stated = read_stated(contents.card, manifest)
    data = read_contents(contents, stated.classes, random_split, every_class_occurs=contents.card is not None)
    if manifest is not None and contents.card is None:
        # An export holds what a store held: to scale it again would change it.
        whole = {name: replace(array, scaled=not np.isnan(array.values).any()) for name, array in data.arrays.items()}
        data = replace(data, arrays=whole)
    note = f"The splits were drawn at random by mer-bench: {random_split}." if random_split else ""
    return Brought(stated, data, note, contents.passed_over)


def import_own(
    name: str,
    given: Sequence[Path],
    root: Path,
    random_split: RandomSplit | None = None,
    layout: str | None = None,
) -> OwnReport:
    """Bring a user's dialogues to the data folder, and make their default store.

    Everything is read and checked before anything is replaced; where it fails, what was there stays.

    Args:
        given: A folder of dialogues and feature arrays, one file of dialogues, or the files of a feature release.
        random_split: Draws the splits where the files have none.
        layout: What a feature release is, where it cannot be told.

    Raises:
        RequestError: For a name that may not be used.
        UnknownNameError: If the name resembles an installed one and the folder holds no dialogues.
        DataError, CardError, MissingDataError: For the first thing that is wrong with the files; names file, line
            or row, column and value.
        StorageError: If something cannot be written.
    """
    check_name(name)
    try:
        brought = read_brought(given, random_split, layout)
    except MissingDataError:
        if nearest_names(name, registry.installed_datasets().plugins):
            raise UnknownNameError(
                "dataset", name, registry.datasets(root).plugins, "mer-bench list datasets"
            ) from None
        raise
    data = brought.data
    _check_train(data)
    raw = raw_folder(root, name)
    _check_former(raw)
    with storage_errors(f"write {raw}"):
        raw.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(raw)
        staged = temporary_beside(raw)
        try:
            staged.mkdir()
            files = write_raw(staged, data)
            pins = {file.name: (file.stat().st_size, sha256_of_file(file)) for file in files}
            card = make_card(name, brought.stated, data, pins, brought.stated.version, brought.split_note)
            key = StoreKey(name, next(iter(card.feature_sets)), next(iter(card.label_sets)), OFFICIAL)
            content = _content(staged, card, key)
            card = _with_widths(card, data, content)
            card, changed = _with_version(card, raw)
            (staged / CARD).write_text(card_text(card), encoding="utf-8")
            flush_to_disk(staged / CARD)
            flush_to_disk(staged)
            store = _publish(staged, raw, root, key, content, card)
        finally:
            remove(staged)
            registry.forget()
        if changed:
            _remove_stale(root / "prepared" / name, store.folder)
    return _report(name, raw, store, brought, card, changed)


def _content(folder: Path, card: DatasetCard, key: StoreKey) -> StoreContent:
    """The default store's content, made from the files that were just written."""
    files = {source.name: folder / source.name for source in card.sources}
    request = PreparationRequest(key.features, key.labels, key.protocol, None, files)
    return make_store(corpus_of(read_raw(files, card), card, key.labels), card, request)


def _with_widths(card: DatasetCard, data: OwnData, content: StoreContent) -> DatasetCard:
    """The card with the widths of the arrays, indicators of blanks included; those of encoded texts stay open."""
    sets = {}
    for name, features in card.feature_sets.items():
        encoded = ("text",) if features.text else ()
        widths = {
            modality: 0 if modality in encoded or modality not in data.arrays else content.features[modality].shape[1]
            for modality in features.widths
        }
        sets[name] = features.model_copy(update={"widths": widths})
    return card.model_copy(update={"feature_sets": sets})


def _publish(staged: Path, raw: Path, root: Path, key: StoreKey, content: StoreContent, card: DatasetCard) -> Store:
    """Put the new raw folder in the place of a former one, and write the store; both or neither."""
    former = temporary_beside(raw)
    if raw.exists():
        raw.rename(former)
    try:
        staged.rename(raw)
        store = write_store(
            store_folder(root, key),
            content,
            key,
            {source.name: source.sha256 for source in card.sources},
            dataset_version=card.version,
            protocol_version=card.protocols[key.protocol].version,
        )
    except BaseException:
        remove(raw)
        if former.exists():
            former.rename(raw)
        raise
    flush_to_disk(raw.parent)
    remove(former)
    return store


def _remove_stale(prepared: Path, current: Path) -> None:
    """Remove stores of former dialogues of that name."""
    for manifest in sorted(prepared.rglob("manifest.json")):
        if manifest.parent != current:
            remove(manifest.parent)


def _with_version(card: DatasetCard, raw: Path) -> tuple[DatasetCard, bool]:
    """The card with a version above the former one's where anything differs, and whether it does."""
    try:
        former = read_card(raw / CARD, DatasetCard)
    except CardError:  # none, or one that cannot be used
        return card, True
    version = max(card.version, former.version)
    if card.model_copy(update={"version": version}) == former:
        return former, False
    return card.model_copy(update={"version": max(card.version, former.version + 1)}), True


def _check_former(raw: Path) -> None:
    """Check that a folder in whose place the new one is put holds nothing but an import."""
    known = {CARD, DIALOGUES, FEATURES}
    others = [file.name for file in sorted(raw.glob("[!.]*")) if file.name not in known]
    if others:
        raise DataError(
            f"{raw} holds {others[0]}, which no import wrote; move it elsewhere, for the folder is replaced."
        )


def _check_train(data: OwnData) -> None:
    """Check that every column has a value in train, by which it can be scaled."""
    in_train = np.asarray(data.dialogues.split_of_utterance) == 0
    for modality, array in data.arrays.items():
        there = in_train & array.present
        file = array.files[0]
        if not there.any():
            raise DataError(f"{file}: no utterance of train has {modality}.")
        blank = np.isnan(array.values[there]).all(axis=0)
        if blank.any():
            column = int(blank.argmax())
            named = f" ({array.columns[column]})" if array.columns else ""
            raise DataError(
                f"{file}: column {column}{named} of {modality}, counted from 0, has not one value in "
                "train; leave it out."
            )


def _report(
    name: str,
    raw: Path,
    store: Store,
    brought: Brought,
    card: DatasetCard,
    changed: bool,
) -> OwnReport:
    data = brought.data
    dialogues = data.dialogues
    of_split = np.asarray(dialogues.split_of_utterance)
    labels = {label_set: np.asarray(each) for label_set, each in dialogues.labels.items()}
    speakers = np.asarray(dialogues.speakers, dtype=object)
    histogram: dict[str, dict[str, dict[str, int]]] = {
        label_set: {
            split: dict(
                zip(
                    classes,
                    np.bincount(
                        labels[label_set][(of_split == index) & (labels[label_set] >= 0)], minlength=len(classes)
                    ).tolist(),
                    strict=True,
                )
            )
            for index, split in enumerate(SPLITS)
        }
        for label_set, classes in dialogues.classes.items()
    }
    splits: dict[str, SplitReport] = {
        split: SplitReport(
            dialogues=dialogues.splits.count(index),
            utterances=int((of_split == index).sum()),
            speakers=len(set(speakers[of_split == index].tolist())),
            labelled={label_set: sum(histogram[label_set][split].values()) for label_set in labels},
        )
        for index, split in enumerate(SPLITS)
    }
    modalities = {
        modality: ModalityReport(
            width=array.width,
            files=array.files,
            missing={split: int((~array.present[of_split == index]).sum()) for index, split in enumerate(SPLITS)},
            blanks={split: int(np.isnan(array.values[of_split == index]).sum()) for index, split in enumerate(SPLITS)},
        )
        for modality, array in data.arrays.items()
    }
    starts = np.cumsum([0, *dialogues.lengths])
    return OwnReport(
        dataset=name,
        raw=raw,
        store=store.folder,
        version=card.version,
        changed=changed,
        made_card=brought.stated == StatedCard(),
        recognised=brought.recognised,
        splits=splits,
        histogram=histogram,
        most_speakers=max(len(set(speakers[start:end])) for start, end in pairwise(starts.tolist())),
        texts=0 if dialogues.texts is None else sum(bool(text.strip()) for text in dialogues.texts),
        modalities=modalities,
        features=tuple(card.feature_sets),
        notes=tuple(dialogues.notes),
        passed_over=brought.passed_over,
    )
