"""A community feature release under a name of the user's own: its corpus in the form of the user's other data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mer_bench.data.community import Release, read_release
from mer_bench.data.corpus import Corpus
from mer_bench.data.own.arrays import FeatureArray
from mer_bench.data.own.describing import GIVEN, StatedCard
from mer_bench.data.own.dialogues import Dialogues, RandomSplit, check_labels
from mer_bench.data.own.folder import OwnData
from mer_bench.errors import DataError, SettingError

UNNAMED = "unknown"
"""Speaker of an utterance where a release leaves the name blank."""


def read_own_release(
    files: Sequence[Path], layout: str | None = None, random_split: RandomSplit | None = None
) -> tuple[Release, StatedCard, OwnData]:
    """Read the files of a release, whose layout is told by their structure.

    Args:
        layout: What the release is, where it cannot be told.
        random_split: Takes dev from train where the release has no list of dev; its test stays as it is.

    Raises:
        DataError, UnsafePickleError: If a file is damaged, of no known layout, or asks for anything but data.
        SettingError: If the release has no dev dialogues and none are to be drawn.
    """
    release = read_release(files, layout)
    roles = list(release.layout.labels)
    if not roles:
        raise SettingError(f"{release.origin}: {release.layout.incomplete or 'it has no labels'}.")
    corpora = {role: _corpus(release, role, random_split) for role in roles}
    classes = {role: release.classes(role) for role in roles}
    data = from_corpora(corpora, classes, [file.name for file in release.files])
    stated = StatedCard.model_validate(
        {
            "summary": f"From a feature release: {release.layout.title}.",
            "label_sets": {role: {"classes": classes[role]} for role in roles},
            "feature_sets": {
                GIVEN: {
                    "label_supervised": release.layout.label_supervised or None,
                    "caveats": [f"Arrays of a feature release: {release.layout.title}.", *release.layout.caveats],
                }
            },
        }
    )
    return release, stated, data


def _corpus(release: Release, role: str, random_split: RandomSplit | None) -> Corpus:
    if random_split is None:
        try:
            return release.corpus(role)
        except SettingError as error:
            raise SettingError(f"{error} Or have some of train drawn, with test as it is: --split 80/10/10") from None
    corpus = release.corpus(role, dev=())
    if 1 in corpus.splits:
        raise DataError(f"{release.origin}: a random split was asked for, but there is a list of dev already.")
    train = [index for index, split in enumerate(corpus.splits) if split == 0]
    drawn = random_split.draw_dev([corpus.dialogue_ids[index] for index in train])
    chosen = {index for index, is_dev in zip(train, drawn, strict=True) if is_dev}
    return replace(corpus, splits=[1 if index in chosen else split for index, split in enumerate(corpus.splits)])


def from_corpora(corpora: dict[str, Corpus], classes: dict[str, tuple[str, ...]], files: Sequence[str]) -> OwnData:
    """One corpus, given with the labels of each label set, as a user's data.

    Raises:
        DataError: If a split is empty or has no labels.
    """
    corpus = next(iter(corpora.values()))
    # The report says of itself what the layout is.
    notes = [f"{name}: {value}" for name, value in corpus.notes.items() if name != "layout"]
    split_of = [split for split, length in zip(corpus.splits, corpus.lengths, strict=True) for _ in range(length)]
    for role, each in corpora.items():
        notes += check_labels(role, classes[role], each.labels, split_of, every_class_occurs=False)
    speakers = [str(speaker).strip() or UNNAMED for speaker in corpus.speakers]
    if UNNAMED in speakers:
        notes.append(f"{speakers.count(UNNAMED)} utterances have no speaker's name; they are called '{UNNAMED}'.")
    texts = None if corpus.texts is None or not any(map(str.strip, corpus.texts)) else list(corpus.texts)
    dialogues = Dialogues(
        dialogue_ids=list(corpus.dialogue_ids),
        lengths=list(corpus.lengths),
        splits=list(corpus.splits),
        utterance_ids=list(corpus.utterance_ids),
        speakers=speakers,
        classes=classes,
        labels={role: list(each.labels) for role, each in corpora.items()},
        texts=texts,
        subsets=[frozenset() for _ in corpus.dialogue_ids],
        notes=notes,
        given_ids=list(corpus.utterance_ids),
    )
    arrays = {
        name: FeatureArray(
            values=np.where(measured.present[:, None], measured.values, 0).astype(measured.values.dtype),
            present=measured.present,
            columns=measured.columns,
            files=tuple(files[:1]),
        )
        for name, measured in sorted(corpus.measurements.items())
    }
    return OwnData(dialogues, arrays)
