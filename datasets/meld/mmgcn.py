"""MELD from the community pickle of the MMGCN release: text 600, audio 300, visual 342 values an utterance.

One list or tuple of ten fields, told by what is in them and never by the file's name:

    0  utterance ids      not read
    1  speakers           dialogue -> one-hot lists of width 9
    2  emotions           dialogue -> class indices
    3  text, 4 audio, 5 visual    dialogue -> vectors of width 600, 300, 342
    6  sentences          dialogue -> strings
    7  train dialogues, with or without the dev ones; 8 test dialogues
    9  unused

Dialogues are numbered through train (0 to 1038, without 60), dev (1039 to 1152) and test (1153 to 1432), so that the
order of the numbers and the published counts tell dev from train where the first list holds both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.api import DatasetCard, PreparationRequest, StoreContent
from mer_bench.data.restricted_pickle import load_restricted
from mer_bench.data.scaling import Standardiser
from mer_bench.data.store import SPLITS
from mer_bench.data.tables import check_counts
from mer_bench.errors import DataError, SettingError

SOURCE = "MELD_features_raw1.pkl"
FIELDS = (
    "utterance ids",
    "speakers",
    "emotions",
    "text",
    "audio",
    "visual",
    "sentences",
    "train dialogues",
    "test dialogues",
    "unused",
)
WIDTHS = {"text": 600, "audio": 300, "visual": 342}
SPEAKER_WIDTH = 9


def prepare_mmgcn(card: DatasetCard, request: PreparationRequest) -> StoreContent:
    """Read the pickle and make the arrays of a store; values are standardised on train.

    Args:
        card: Its `counts` of the protocol are checked.

    Raises:
        UnsafePickleError: If the file asks for anything but data.
        DataError: If it is damaged, of another layout, or not of the published counts.
        SettingError: If another annotation than the emotions is wanted.
    """
    if request.labels != "emotion":
        raise SettingError(f"the MMGCN release has emotions alone, but labels '{request.labels}' were asked for.")
    file = request.files[SOURCE]
    fields = _recognised(load_restricted(file), file)
    dialogues = _splits(fields, card, request.protocol, file)
    everything = [number for split in SPLITS for number in dialogues[split]]
    lengths = [_length(fields, number, file) for number in everything]
    classes = card.label_sets["emotion"].classes
    labels = [_labels(fields["emotions"][number], len(classes), number, file) for number in everything]
    for split in SPLITS:
        published = card.counts[request.protocol][split]
        utterances = sum(len(fields["emotions"][number]) for number in dialogues[split])
        check_counts(file, {f"{split} utterances": utterances}, {f"{split} utterances": published.utterances})

    in_train = np.arange(sum(lengths)) < sum(len(fields["emotions"][number]) for number in dialogues["train"])
    features, present, pipeline, scaling = {}, {}, {}, {}
    notes: dict[str, Any] = {}
    for name, width in WIDTHS.items():
        values = np.concatenate([_vectors(fields[name][number], name, width, number, file) for number in everything])
        # A row of zeros is what the release writes where it has no measurement.
        there: NDArray[np.bool_] = np.not_equal(values, 0).any(axis=1)
        scaler = Standardiser.fit(values[in_train], there[in_train], [f"{name} {column}" for column in range(width)])
        features[name], present[name] = scaler.transform(values, there), there
        arrays, _ = scaler.state()
        pipeline.update({f"{name}.{key}": array for key, array in arrays.items()})
        scaling[name] = {"width": width, "standardised": True}
        notes[f"{name}: rows of zeros, taken as missing"] = int((~there).sum())
    firsts = {split: dialogues[split][0] for split in SPLITS}
    names = [f"{split}/dia{number - firsts[split]}" for split in SPLITS for number in dialogues[split]]
    return StoreContent(
        features=features,
        present=present,
        speakers=np.concatenate(
            [_speakers(fields["speakers"][number], number, file) for number in everything], dtype=np.int16
        ),
        labels=np.concatenate(labels, dtype=np.int16),
        utterance_ids=[
            f"{name}_turn{turn}" for name, length in zip(names, lengths, strict=True) for turn in range(length)
        ],
        dialogue_ids=names,
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        splits=np.repeat(np.arange(len(SPLITS), dtype=np.uint8), [len(dialogues[split]) for split in SPLITS]),
        classes=classes,
        settings={"fitted_on": "train", "layout": "MMGCN MELD, 10 fields", **scaling},
        notes=notes,
        pipeline=pipeline,
    )


def describe(value: Any) -> str:
    """What a field of a pickle holds, in words: kind, count, and the kind and width of what is inside."""
    if isinstance(value, dict):
        first = next(iter(value.values()), None)
        inside = f" of {describe(first)}" if value else ""
        return f"dict of {len(value)}{inside}"
    if isinstance(value, np.ndarray):
        return f"array {' x '.join(map(str, value.shape))}" if value.ndim else "number"
    if isinstance(value, list | tuple | set | frozenset):
        kind = type(value).__name__
        if not value:
            return f"empty {kind}"
        first = next(iter(value))
        if isinstance(first, str):
            inside = "strings"
        elif isinstance(first, int | float | np.number | np.bool_):
            inside = "numbers"
        elif (width := _width(first)) is not None:
            inside = f"vectors of width {width}"
        else:
            inside = describe(first)
        return f"{kind} of {len(value)} {inside}"
    return type(value).__name__


def _recognised(value: Any, file: Path) -> dict[str, Any]:
    """The fields by name, when the layout is that of the release.

    Raises:
        DataError: If not; describes what is there.
    """
    reason = _difference(value)
    if reason:
        if isinstance(value, list | tuple):
            shown = [f"{place}: {describe(field)}" for place, field in enumerate(value[:20])]
            there = f"{type(value).__name__} of {len(value)} fields; " + "; ".join(shown)
        else:
            there = describe(value)
        raise DataError(f"{file} does not have the layout of the MMGCN release of MELD: {reason}. It holds: {there}.")
    return dict(zip(FIELDS, value, strict=True))


def _difference(value: Any) -> str:  # noqa: PLR0911 - one sentence a rule
    """In what a value departs from the layout, "" where it does not."""
    if not isinstance(value, list | tuple) or len(value) != len(FIELDS):
        return f"that is one list of {len(FIELDS)} fields"
    # Field 0 is not looked at: nothing is read from it, and its layout differs between releases.
    by_dialogue = dict(list(zip(FIELDS, value, strict=True))[1:7])
    for place, (name, field) in enumerate(by_dialogue.items(), start=1):
        if not isinstance(field, dict) or not field:
            return f"field {place} ({name}) should be a dict by dialogue"
    numbers = set(by_dialogue["emotions"])
    if not all(_is_number(number) for number in numbers):
        return "dialogues should be numbered"
    for place, (name, field) in enumerate(by_dialogue.items(), start=1):
        if set(field) != numbers:
            return f"field {place} ({name}) should have the dialogues of field 2"
        sized = all(isinstance(of, list | tuple) or (isinstance(of, np.ndarray) and of.ndim) for of in field.values())
        if not sized:
            return f"field {place} ({name}) should have a list for each dialogue"
    if not all(isinstance(text, str) for texts in by_dialogue["sentences"].values() for text in texts):
        return "field 6 (sentences) should hold strings"
    for name, width in {"speakers": SPEAKER_WIDTH, **WIDTHS}.items():
        first = next((of[0] for of in by_dialogue[name].values() if len(of)), None)
        if _width(first) != width:
            return f"field {FIELDS.index(name)} ({name}) should hold vectors of width {width}"
    for name in ("train dialogues", "test dialogues"):
        field = value[FIELDS.index(name)]
        if not isinstance(field, list | tuple | set | frozenset | np.ndarray) or not all(map(_is_number, field)):
            return f"field {FIELDS.index(name)} ({name}) should list dialogues by number"
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _width(value: Any) -> int | None:
    """Length of a flat list or array of numbers, None for anything else."""
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim == 1 and value.dtype.kind in "biuf" else None
    if isinstance(value, list | tuple) and all(isinstance(item, int | float | np.number | np.bool_) for item in value):
        return len(value)
    return None


def _splits(fields: Mapping[str, Any], card: DatasetCard, protocol: str, file: Path) -> dict[str, list[int]]:
    """Dialogues of each split in the order of their numbers, checked against the lists of the file."""
    published = card.counts[protocol]
    numbers = sorted(int(number) for number in fields["emotions"])
    wanted = {"dialogues": sum(published[split].dialogues for split in SPLITS)}
    check_counts(file, {"dialogues": len(numbers)}, wanted)
    found: dict[str, list[int]] = {}
    start = 0
    for split in SPLITS:
        end = start + published[split].dialogues
        found[split] = numbers[start:end]
        start = end
    train, dev, test = (set(found[split]) for split in SPLITS)
    lists = {name: [int(number) for number in fields[name]] for name in ("train dialogues", "test dialogues")}
    for name, dialogues in lists.items():
        if len(set(dialogues)) != len(dialogues):
            raise DataError(f"{file}: the list of {name} holds a dialogue twice.")
    if set(lists["test dialogues"]) != test:
        odd = min(set(lists["test dialogues"]) ^ test)
        raise DataError(
            f"{file}: its test dialogues should be the {len(test)} of the highest numbers, but it lists "
            f"{len(lists['test dialogues'])}, and dialogue {odd} is {'not among' if odd in test else 'one of'} them."
        )
    if set(lists["train dialogues"]) not in (train, train | dev):
        raise DataError(
            f"{file}: its train dialogues should be the {len(train)} of the lowest numbers, or those and the next "
            f"{len(dev)} (dev), but it lists {len(lists['train dialogues'])} others."
        )
    return found


def _length(fields: Mapping[str, Any], number: int, file: Path) -> int:
    lengths = {name: len(fields[name][number]) for name in FIELDS[1:7]}
    length = lengths["emotions"]
    for name, found in lengths.items():
        if found != length or not length:
            raise DataError(f"{file}: dialogue {number} has {length} emotions and {found} {name}.")
    return length


def _labels(values: Sequence[Any], classes: int, number: int, file: Path) -> NDArray[np.int16]:
    for turn, value in enumerate(values):
        if not _is_number(value) or not 0 <= int(value) < classes:
            raise DataError(
                f"{file}: dialogue {number}, turn {turn}: the emotion should be a number from 0 to {classes - 1}, "
                f"but is {value!r}."
            )
    return np.array([int(value) for value in values], dtype=np.int16)


def _speakers(values: Iterable[Any], number: int, file: Path) -> NDArray[np.int16]:
    """Indices by first appearance, from one-hot lists."""
    order: dict[int, int] = {}
    found = []
    for turn, value in enumerate(values):
        hot = [] if _width(value) is None else list(value)
        if sorted(hot) != [0] * (SPEAKER_WIDTH - 1) + [1]:
            raise DataError(
                f"{file}: dialogue {number}, turn {turn}: the speaker should be a one-hot list of width "
                f"{SPEAKER_WIDTH}, but is {value!r}."
            )
        found.append(order.setdefault(hot.index(1), len(order)))
    return np.array(found, dtype=np.int16)


def _vectors(values: Any, name: str, width: int, number: int, file: Path) -> NDArray[np.float64]:
    """One dialogue's vectors: (turns, width)."""
    for turn, vector in enumerate(values):
        if _width(vector) != width:
            raise DataError(
                f"{file}: dialogue {number}, turn {turn}: {name} should be a vector of width {width}, "
                f"but is {describe(vector)}."
            )
    found = np.array(values, dtype=np.float64)
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise DataError(f"{file}: dialogue {number}, turn {int((~finite).argmax())}: {name} is NaN or infinite.")
    return found
