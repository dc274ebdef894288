"""A user's folder: which file is what, and everything in it read and joined."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer_bench.cards import SplitName
from mer_bench.data.own import arrays, transcripts
from mer_bench.data.own.arrays import FeatureArray, RawArray, Rows
from mer_bench.data.own.dialogues import SPLIT_WORDS, Dialogues, RandomSplit, assemble
from mer_bench.data.own.transcripts import read_part
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, MissingDataError

CARD = "card.toml"
MANIFEST = "manifest.json"
WHOLE = ("dialogues", "utterances")
"""What a file of all dialogues is called, before its ending."""

_MODALITY = re.compile(r"[a-z][a-z0-9_]*")
_NO_DATA = {"readme", "license", "licence", "copying", "changelog"}


class ArrayFile(NamedTuple):
    """A file of feature arrays: the modality that its name says, and the split, where it says one."""

    file: Path
    modality: str
    split: SplitName | None


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Attributes:
        dialogues: One file of all, or three with their splits, in the order train, dev, test.
        present: Files that say in which rows a modality is there.
        card: The card.toml, where there is one. manifest: A manifest.json, which an export has.
        passed_over: Names of files and folders that are none of these.
    """

    dialogues: tuple[tuple[Path, SplitName | None], ...]
    arrays: tuple[ArrayFile, ...] = ()
    present: tuple[ArrayFile, ...] = ()
    card: Path | None = None
    manifest: Path | None = None
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class OwnData:
    """Everything that a user's files hold, checked; `arrays` by modality in the order of their names."""

    dialogues: Dialogues
    arrays: Mapping[str, FeatureArray] = field(default_factory=dict)


def look_around(place: Path) -> Contents:
    """What a folder, or a single file of dialogues, holds.

    Raises:
        MissingDataError: If it holds no dialogues. DataError: If two files may be the same thing.
    """
    if place.is_file():
        if place.suffix.lower() not in transcripts.FORMATS:
            raise DataError(f"{place} holds no dialogues: its name should end in {', '.join(transcripts.FORMATS)}.")
        return Contents(dialogues=((place, None),))
    if not place.is_dir():
        raise MissingDataError(f"{place} is not there.")
    whole: list[Path] = []
    by_split: dict[SplitName, list[Path]] = {split: [] for split in SPLITS}
    found: list[ArrayFile] = []
    passed_over: list[str] = []
    card: Path | None = None
    manifest: Path | None = None
    for file in sorted(place.iterdir()):
        stem, suffix = file.stem.lower(), file.suffix.lower()
        if file.name.startswith("."):
            continue
        if file.is_dir():
            passed_over.append(f"{file.name}/")
        elif file.name == CARD:
            card = file
        elif file.name == MANIFEST:
            manifest = file
        elif suffix in transcripts.FORMATS and stem in WHOLE:
            whole.append(file)
        elif suffix in transcripts.FORMATS and stem in SPLIT_WORDS:
            by_split[SPLIT_WORDS[stem]].append(file)
        elif suffix in arrays.FORMATS:
            found.append(_array_file(file))
        elif stem not in _NO_DATA:
            passed_over.append(file.name)
    dialogues = _dialogue_files(place, whole, by_split, passed_over)
    present = [each for each in found if each.file.stem.lower().endswith(arrays.PRESENT)]
    return Contents(
        dialogues=dialogues,
        arrays=tuple(each for each in found if each not in present),
        present=tuple(present),
        card=card,
        manifest=manifest,
        passed_over=tuple(passed_over),
    )


def _dialogue_files(
    place: Path, whole: Sequence[Path], by_split: Mapping[SplitName, Sequence[Path]], passed_over: Sequence[str]
) -> tuple[tuple[Path, SplitName | None], ...]:
    split_files = [file for split in SPLITS for file in by_split[split]]
    doubles = [files for files in (whole, *by_split.values()) if len(files) > 1]
    if whole and split_files:
        doubles.append([whole[0], split_files[0]])
    if doubles:
        raise DataError(f"both {doubles[0][0]} and {doubles[0][1]} may hold the dialogues; keep one of them.")
    if whole:
        return ((whole[0], None),)
    absent = [split for split in SPLITS if not by_split[split]]
    if not split_files:
        other = f" It holds {', '.join(passed_over[:5])}." if passed_over else ""
        raise MissingDataError(
            f"{place} holds no dialogues.{other} It should hold dialogues.jsonl (or .csv, .parquet), or three files "
            "train.*, dev.* and test.*. An example of one's own to start from: mer-bench new dataset NAME"
        )
    if absent:
        raise MissingDataError(f"{place} holds {split_files[0].name}, but no file of dialogues for {absent[0]}.")
    return tuple((by_split[split][0], split) for split in SPLITS)


def _array_file(file: Path) -> ArrayFile:
    """Modality and split that a name says: `audio.npy`, `train.audio.npz`, `dev_audio.npy`, `audio.present.npy`."""
    stem = file.stem.removesuffix(arrays.PRESENT)
    split: SplitName | None = None
    words = re.split(r"[._]", stem)
    if len(words) > 1 and words[0].lower() in SPLIT_WORDS:
        split, stem = SPLIT_WORDS[words[0].lower()], stem[len(words[0]) + 1 :]
    elif len(words) > 1 and words[-1].lower() in SPLIT_WORDS:
        split, stem = SPLIT_WORDS[words[-1].lower()], stem[: -len(words[-1]) - 1]
    if not _MODALITY.fullmatch(stem) or stem in SPLIT_WORDS:
        raise DataError(
            f"{file}: the name of a file of features is that of its modality in lower-case letters, digits and _, with "
            "the split before it where each split has a file: audio.npy, train.audio.npy."
        )
    return ArrayFile(file, stem, split)


def read_contents(
    contents: Contents,
    label_sets: Mapping[str, tuple[str, ...] | None],
    random_split: RandomSplit | None = None,
    every_class_occurs: bool = True,
) -> OwnData:
    """Read every file of a folder, check it and join the features to the utterances.

    Args:
        label_sets: Classes by label set; None: those that occur.
        every_class_occurs: Whether a class that no utterance has is an error, or told alone.

    Raises:
        DataError: For the first thing that is wrong; names file, line or row, column and value.
        MissingDataError: If a file of a split is not there, or pyarrow is needed and not installed.
    """
    parts = [read_part(file, list(label_sets), split) for file, split in contents.dialogues]
    dialogues = assemble(parts, label_sets, random_split, every_class_occurs)
    pieces: dict[str, list[tuple[RawArray, SplitName | None]]] = {}
    for each in contents.arrays:
        for modality, raw in arrays.read_arrays(each.file, each.modality).items():
            if not _MODALITY.fullmatch(modality):
                raise DataError(f"{each.file}: '{modality}' is no name of a modality (lower-case letters, digits, _).")
            pieces.setdefault(modality, []).append((raw, each.split))
    _add_present(contents.present, pieces)
    found = {modality: _combined(modality, pieces[modality], dialogues) for modality in sorted(pieces)}
    return OwnData(dialogues, found)


def _add_present(files: Sequence[ArrayFile], pieces: Mapping[str, list[tuple[RawArray, SplitName | None]]]) -> None:
    """Give each array what the file `<modality>.present` of its split says."""
    for each in files:
        there = pieces.get(each.modality, [])
        fitting = [place for place, (_, split) in enumerate(there) if split == each.split]
        if not fitting:
            raise DataError(f"{each.file}: there is no array of {each.modality} that it could speak of.")
        raw, split = there[fitting[0]]
        if raw.present is not None:
            raise DataError(f"{each.file}: {raw.file} says already where {each.modality} is present; keep one of them.")
        there[fitting[0]] = (replace(raw, present=arrays.read_present(each.file)), split)


def _combined(modality: str, pieces: Sequence[tuple[RawArray, SplitName | None]], dialogues: Dialogues) -> FeatureArray:
    """One modality of all utterances, from one file or from one for each split."""
    pieces = sorted(pieces, key=lambda piece: SPLITS.index(piece[1]) if piece[1] else -1)
    counted = Counter(split for _, split in pieces)
    double = next((split for split, count in counted.items() if count > 1), None)
    if len(pieces) > 1 and (None in counted or counted.most_common(1)[0][1] > 1):
        first, second = [raw.file for raw, split in pieces if counted.get(None, 0) == 1 or split == double][:2]
        raise DataError(f"both {first} and {second} hold {modality}; keep one of them.")
    absent = [split for split in SPLITS if None not in counted and split not in counted]
    if absent:
        raise MissingDataError(
            f"{pieces[0][0].file} holds {modality} of {pieces[0][1]}, but there is no such file for {absent[0]}. Where "
            f"{absent[0]} has no {modality} at all, give a file with rows of NaN."
        )
    parts: list[tuple[Rows, NDArray[np.floating[Any]], NDArray[np.bool_]]] = []
    for raw, split in pieces:
        rows = _rows(dialogues, split)
        parts.append((rows, *arrays.joined(raw, rows)))
        before = pieces[0][0]
        if raw.values.shape[1] != before.values.shape[1]:
            raise DataError(
                f"{raw.file} has {raw.values.shape[1]} columns of {modality}, but {before.file} has "
                f"{before.values.shape[1]}; all splits need the same."
            )
        if raw.columns != before.columns:
            raise DataError(f"{raw.file} and {before.file} name their columns differently, or order them so.")
    count = len(dialogues.utterance_ids)
    width = parts[0][1].shape[1]
    values = np.zeros((count, width), dtype=np.result_type(*[each for _, each, _ in parts]))
    present = np.zeros(count, dtype=np.bool_)
    for rows, each, there in parts:
        values[rows.places], present[rows.places] = each, there
    scaled = all(raw.scaled for raw, _ in pieces) and not np.isnan(values).any()
    return FeatureArray(values, present, pieces[0][0].columns, tuple(raw.file.name for raw, _ in pieces), scaled)


def _rows(dialogues: Dialogues, split: SplitName | None) -> Rows:
    """The utterances that a file speaks of, by every name that its keys may use."""
    of_split = dialogues.split_of_utterance
    places = [row for row, each in enumerate(of_split) if split is None or each == SPLITS.index(split)]
    ids = [dialogues.utterance_ids[row] for row in places]
    aliases: dict[str, int] = {name: index for index, name in enumerate(ids)}
    given = [dialogues.given_ids[row] for row in places]
    for names in (given, [name.removeprefix(f"{split}/") for name in ids] if split else []):
        counted = Counter(names)
        for index, name in enumerate(names):
            if counted[name] == 1:
                aliases.setdefault(name, index)
    what = f"the {len(places)} utterances" + (f" of {split}" if split else "")
    return Rows(what, np.array(places, dtype=np.int64), ids, aliases)
