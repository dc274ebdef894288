"""Dialogues as a user's files tell them: rows of any format put together, checked and labelled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from mer_bench.cards import SplitName
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, nearest_names

DEFAULT_LABEL = "label"
"""Name of the label set, and of its column, where no card says otherwise."""

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
"""What a user may call a split, in lower case."""

Label = str | int | None


class Place(NamedTuple):
    """Where a value stands, for an error: the file, its line or row, and what it calls a column."""

    where: str
    column: str = "column"

    def fault(self, name: str, what: str) -> DataError:
        """The error for one value: `talks.csv, line 12, column speaker: is blank.`"""
        end = "" if what.endswith(("?", ".")) else "."
        return DataError(f"{self.where}, {self.column} {name}: {what}{end}")


class Spoken(NamedTuple):
    """One utterance as a file tells it, nothing compared with its neighbours yet.

    Attributes:
        utterance: Its id; None where the file has none.
        labels: Name or number of its class, by label set; None without one.
        text: What is said; "" where the file does not say.
        split: As the file calls it; None where it does not say.
        opens: Place of the dialogue where one begins whatever its id: a line of its own in JSONL.
    """

    place: Place
    dialogue: str
    utterance: str | None
    speaker: str
    labels: Mapping[str, Label]
    text: str
    split: str | None
    opens: Place | None = None
    subsets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Part:
    """The utterances of one file, in order.

    Attributes:
        split: Where the file's name says it.
    """

    file: Path
    spoken: Sequence[Spoken]
    split: SplitName | None = None


@dataclass(frozen=True)
class RandomSplit:
    """Shares of train, dev and test in percent, drawn by dialogue."""

    shares: tuple[int, int, int]
    seed: int = 0

    def __str__(self) -> str:
        return f"{'/'.join(map(str, self.shares))} by dialogue, seed {self.seed}"

    def draw_dev(self, dialogues: Sequence[str]) -> list[bool]:
        """Which of the dialogues of train become dev, where test is settled: by the shares of train and dev.

        Raises:
            DataError: If there is but one.
        """
        if len(dialogues) < 2:
            raise DataError(f"train and dev need at least 2 dialogues, but there are {len(dialogues)}.")
        train, dev, _ = self.shares
        count = min(max(1, round(len(dialogues) * dev / (train + dev))), len(dialogues) - 1)
        chosen = set(self._ranked(dialogues)[:count])
        return [index in chosen for index in range(len(dialogues))]

    def _ranked(self, dialogues: Sequence[str]) -> list[int]:
        """The dialogues in an order that depends on their ids and the seed alone."""

        def rank(index: int) -> str:
            return hashlib.sha256(f"{self.seed}/{dialogues[index]}".encode()).hexdigest()

        return sorted(range(len(dialogues)), key=rank)

    def draw(self, dialogues: Sequence[str]) -> list[int]:
        """Index into SPLITS of each dialogue: the same on any machine, for it depends on ids and seed alone.

        Raises:
            DataError: If there are too few dialogues for three splits.
        """
        if len(dialogues) < 3:
            raise DataError(f"three splits need at least 3 dialogues, but there are {len(dialogues)}.")
        order = self._ranked(dialogues)
        dev, test = (max(1, round(len(dialogues) * share / 100)) for share in self.shares[1:])
        dev = min(dev, len(dialogues) - 2)
        test = min(test, len(dialogues) - 1 - dev)
        drawn = [0] * len(dialogues)
        for place, index in enumerate(order):
            drawn[index] = 1 if place < dev else 2 if place < dev + test else 0
        return drawn


@dataclass(frozen=True)
class Dialogues:
    """Dialogues one after the other, in the order in which they were given.

    Attributes:
        splits: Index into SPLITS of each dialogue.
        classes: Names of the classes in the order of their index, by label set.
        labels: Class index of each utterance, -1 without one, by label set.
        texts: What is said, "" where it is not known; None where no utterance has a text.
        subsets: Named subsets that each dialogue belongs to.
        notes: What the user should be told, one sentence each.
        given_ids: Ids as the files had them, which the keys of feature arrays may use.
    """

    dialogue_ids: list[str]
    lengths: list[int]
    splits: list[int]
    utterance_ids: list[str]
    speakers: list[str]
    classes: dict[str, tuple[str, ...]]
    labels: dict[str, list[int]]
    texts: list[str] | None
    subsets: list[frozenset[str]]
    notes: list[str] = field(default_factory=list)
    given_ids: list[str] = field(default_factory=list)

    @property
    def split_of_utterance(self) -> list[int]:
        """Index into SPLITS of each utterance."""
        return [split for split, length in zip(self.splits, self.lengths, strict=True) for _ in range(length)]

    @property
    def dialogue_of_utterance(self) -> list[str]:
        """Id of the dialogue of each utterance."""
        return [name for name, length in zip(self.dialogue_ids, self.lengths, strict=True) for _ in range(length)]


def assemble(
    parts: Sequence[Part],
    label_sets: Mapping[str, tuple[str, ...] | None],
    random_split: RandomSplit | None = None,
    every_class_occurs: bool = True,
) -> Dialogues:
    """Put the utterances of one file, or of one for each split, together.

    Args:
        label_sets: Classes by label set; None: those that occur, in the order of their names.
        random_split: Draws the splits where the files have none; never used unless asked for.
        every_class_occurs: Whether a class that no utterance has is an error, or told alone.

    Raises:
        DataError: For the first thing that is wrong; names file, line or row, column and value.
    """
    notes: list[str] = []
    dialogues = _dialogues(parts, notes)
    names = [dialogue.name for dialogue in dialogues]
    spoken = [each for dialogue in dialogues for each in dialogue.spoken]
    lengths = [len(dialogue.spoken) for dialogue in dialogues]
    splits = _splits(dialogues, random_split)
    dialogue_of = [name for name, length in zip(names, lengths, strict=True) for _ in range(length)]
    given, ids = _utterance_ids(spoken, dialogue_of, notes)
    classes: dict[str, tuple[str, ...]] = {}
    labels: dict[str, list[int]] = {}
    split_of = [split for split, length in zip(splits, lengths, strict=True) for _ in range(length)]
    for label_set, known in label_sets.items():
        classes[label_set], labels[label_set] = _labels(spoken, label_set, known)
        notes += check_labels(label_set, classes[label_set], labels[label_set], split_of, every_class_occurs)
    without_text = sum(not each.text.strip() for each in spoken)
    if 0 < without_text < len(spoken):
        notes.append(f"{without_text} of {len(spoken)} utterances have no text.")
    return Dialogues(
        dialogue_ids=names,
        lengths=lengths,
        splits=splits,
        utterance_ids=ids,
        speakers=[each.speaker for each in spoken],
        classes=classes,
        labels=labels,
        texts=None if without_text == len(spoken) else [each.text for each in spoken],
        subsets=[dialogue.spoken[0].subsets for dialogue in dialogues],
        notes=notes,
        given_ids=given,
    )


class _Dialogue(NamedTuple):
    """One dialogue; `split` is what its file's name says."""

    name: str
    spoken: list[Spoken]
    split: SplitName | None


def _dialogues(parts: Sequence[Part], notes: list[str]) -> list[_Dialogue]:
    """The dialogues in order; where files of different splits share ids, the split goes before each id."""
    found: list[_Dialogue] = []
    begun: dict[tuple[str, str], Place] = {}
    for part in parts:
        if not part.spoken:
            raise DataError(f"{part.file} holds no utterance.")
        current: str | None = None
        for each in part.spoken:
            if each.dialogue == current and not each.opens:
                found[-1].spoken.append(each)
                continue
            key = (str(part.file), each.dialogue)
            place = each.opens or each.place
            if key in begun:
                again = "occurs twice" if each.opens else "goes on here after another began"
                name = "id" if each.opens else "dialogue"
                raise place.fault(name, f"'{each.dialogue}' {again}; it began at {begun[key].where}")
            begun[key] = place
            current = each.dialogue
            found.append(_Dialogue(each.dialogue, [each], part.split))
    if len({dialogue.name for dialogue in found}) == len(found):
        return found
    # The same id in two files: only files of different splits can be put side by side at all.
    notes.append("files of different splits use the same dialogue ids; each id begins with its split, as in train/1.")
    return [dialogue._replace(name=f"{dialogue.split}/{dialogue.name}") for dialogue in found]


def _splits(dialogues: Sequence[_Dialogue], random_split: RandomSplit | None) -> list[int]:
    """Index into SPLITS of each dialogue."""
    if random_split is None:
        splits = [SPLITS.index(_split(dialogue)) for dialogue in dialogues]
    else:
        for dialogue in dialogues:
            for each in dialogue.spoken:
                if each.split is not None or dialogue.split is not None:
                    raise DataError(f"{each.place.where}: a random split was asked for, but there is a split already.")
        splits = random_split.draw([dialogue.name for dialogue in dialogues])
    for index, split in enumerate(SPLITS):
        if index not in splits:
            raise DataError(
                f"no dialogue is in the split {split}. A run learns from train, chooses its epoch on dev and is "
                "scored on test; give each of the three some dialogues."
            )
    return splits


def _split(dialogue: _Dialogue) -> SplitName:
    """The split of one dialogue, on which its utterances and the file's name agree."""
    name, of_file = dialogue.name, dialogue.split
    chosen: tuple[SplitName, Place] | None = None
    for each in dialogue.spoken:
        place = each.opens or each.place
        if each.split is None:
            if of_file is not None:
                continue
            if chosen is not None:
                raise place.fault("split", f"is blank, but that of {chosen[1].where} is {chosen[0]}")
            raise DataError(
                f"{place.where}: the dialogue '{name}' has no split. Give every row or dialogue a split of train, "
                "dev or test; or use three files: train.*, dev.* and test.*; or let mer-bench draw one by "
                "dialogue: --split 80/10/10 --seed 0"
            )
        if each.split.strip().lower() not in SPLIT_WORDS:
            raise place.fault("split", f"should be train, dev or test, but is {shown(each.split)}")
        split = SPLIT_WORDS[each.split.strip().lower()]
        if of_file not in (None, split):
            raise place.fault("split", f"is {shown(each.split)}, but the file's name says {of_file}")
        if chosen is not None and chosen[0] != split:
            raise place.fault(
                "split", f"is {split}, but the dialogue '{name}' began in {chosen[0]}, at {chosen[1].where}"
            )
        chosen = chosen or (split, place)
    found = of_file if chosen is None else chosen[0]
    assert found is not None
    return found


def _utterance_ids(
    spoken: Sequence[Spoken], dialogue_of: Sequence[str], notes: list[str]
) -> tuple[list[str], list[str]]:
    """Ids as given, and as they are kept: unique in the whole corpus."""
    named = [each.utterance is not None for each in spoken]
    if not all(named):
        if any(named):
            blank = spoken[named.index(False)].place
            other = spoken[named.index(True)].place.where
            raise blank.fault("utterance", f"has no id, but that of {other} has one; give all an id, or none")
        count: dict[str, int] = {}
        given = []
        for dialogue in dialogue_of:
            count[dialogue] = count.get(dialogue, 0) + 1
            given.append(f"{dialogue}/{count[dialogue]}")
        return given, given
    given = [str(each.utterance) for each in spoken]
    if len(set(given)) == len(given):
        return given, given
    first: dict[tuple[str, str], Place] = {}
    for each, dialogue, name in zip(spoken, dialogue_of, given, strict=True):
        if (dialogue, name) in first:
            raise each.place.fault(
                "utterance", f"'{name}' occurs twice in its dialogue, first at {first[dialogue, name].where}"
            )
        first[dialogue, name] = each.place
    ids = [f"{dialogue}/{name}" for dialogue, name in zip(dialogue_of, given, strict=True)]
    seen: dict[str, Place] = {}
    for each, name in zip(spoken, ids, strict=True):
        if name in seen:
            raise each.place.fault("utterance", f"'{name}' is also the id of the utterance at {seen[name].where}")
        seen[name] = each.place
    notes.append(f"utterance ids are unique within their dialogue alone; each begins with its dialogue: {ids[0]}")
    return given, ids


def _labels(
    spoken: Sequence[Spoken], label_set: str, known: tuple[str, ...] | None
) -> tuple[tuple[str, ...], list[int]]:
    """Classes of a label set, and each utterance's index into them."""
    values = [each.labels.get(label_set) for each in spoken]
    if known is None:
        known = _classes_that_occur(values, label_set)
    index_of = {name: index for index, name in enumerate(known)}
    found = []
    for each, value in zip(spoken, values, strict=True):
        if value is None:
            found.append(-1)
        elif str(value) in index_of:
            found.append(index_of[str(value)])
        elif (number := _whole_number(value)) is not None and 0 <= number < len(known):
            found.append(number)
        else:
            _refuse_label(each.place, label_set, value, known)
    return known, found


def _classes_that_occur(values: Sequence[Label], label_set: str) -> tuple[str, ...]:
    """Names that occur, in alphabetical order; numbers in theirs."""
    names = {str(value) for value in values if value is not None}
    if len(names) < 2:
        told = f"only the class '{next(iter(names))}' occurs" if names else "no utterance has a label"
        raise DataError(f"{told} in the column {label_set}; a label set needs two classes or more.")
    if all(_whole_number(name) is not None for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def _refuse_label(place: Place, label_set: str, value: str | int, known: tuple[str, ...]) -> NoReturn:
    if _whole_number(value) is not None:
        raise place.fault(
            label_set,
            f"is {value}, but the {len(known)} classes have the numbers 0 to {len(known) - 1}. An utterance without a "
            "label has a blank there (null in JSON).",
        )
    nearest = nearest_names(str(value), known, 1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    raise place.fault(label_set, f"should be one of {', '.join(known)}, but is {shown(value)}.{hint}")


def check_labels(
    label_set: str,
    classes: tuple[str, ...],
    labels: Sequence[int],
    split_of: Sequence[int],
    every_class_occurs: bool = True,
) -> list[str]:
    """Check that each split has labels; returns what the user should know of the classes.

    Raises:
        DataError: If a split has none, or a class that should occur does not.
    """
    notes: list[str] = []
    for index, split in enumerate(SPLITS):
        if not any(label >= 0 and of == index for label, of in zip(labels, split_of, strict=True)):
            raise DataError(f"no utterance of {split} has a label of {label_set}; each split needs some.")
    there, in_train = set(labels), {label for label, of in zip(labels, split_of, strict=True) if of == 0}
    for index, name in enumerate(classes):
        if index not in there and every_class_occurs:
            raise DataError(
                f"no utterance has the class '{name}' of {label_set}, which the card lists. Take it out of the card, "
                "or look for another spelling in the data."
            )
        if index not in in_train:
            notes.append(f"no train utterance has the class '{name}' of {label_set}; no model can learn it.")
    folded: dict[str, str] = {}
    for name in classes:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            notes.append(f"the classes '{other}' and '{name}' of {label_set} differ in upper and lower case alone.")
    return notes


def _whole_number(value: str | int) -> int | None:
    text = str(value)
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else None


def shown(value: Any) -> str:
    """A value in an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
