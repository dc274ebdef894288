"""A community release as it was recognised, and the corpus that it holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.community.layouts import Layout, Modality, Scores
from mer_bench.data.community.recognition import Part
from mer_bench.data.community.structure import describe, is_number, plain, sized, turns, width_of
from mer_bench.data.corpus import Corpus, Measurements
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, SettingError

_WINDOWS = {code: bytes([code]).decode("cp1252", errors="ignore") or None for code in range(0x80, 0xA0)}
"""Punctuation of Windows in texts that were read as latin-1, where control characters stand for it."""


@dataclass(frozen=True)
class Summary:
    """What was recognised, to be told before anything is converted.

    Attributes:
        widths: By modality. splits: Dialogues and utterances of each list of the files.
        labels: Classes by annotation; () where their names are not known.
        missing: What a complete release would have. caveats: What a reader of a table must know.
    """

    layout: str
    title: str
    corpus: str
    files: tuple[Path, ...]
    dialogues: int
    utterances: int
    widths: Mapping[str, int]
    splits: Mapping[str, tuple[int, int]]
    labels: Mapping[str, tuple[str, ...]]
    missing: tuple[str, ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True)
class Release:
    """A release that was read: one file, or several that belong together.

    Attributes:
        parts: Its files in the order of the layout's parts, each with the fields by role.
    """

    layout: Layout
    parts: tuple[Part, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in the order of the layout's parts."""
        return tuple(part.file for part in self.parts)

    @property
    def origin(self) -> str:
        """The files' names for a message."""
        return " with ".join(str(file) for file in self.files)

    def classes(self, labels: str | None = None, edges: Sequence[float] | None = None) -> tuple[str, ...]:
        """Names of the classes of an annotation; numbered where they are not known.

        Args:
            labels: As in `layout.labels`; None is the first.
            edges: Where the labels are scores: what parts the classes, instead of the layout's own.

        Raises:
            SettingError: If there is no such annotation, or no classes are known for its scores.
        """
        known = self._label_set(labels)
        if isinstance(known, Scores):
            return _scores(known, edges, self.origin).classes
        if known:
            return known
        role = labels or next(iter(self.layout.labels))
        highest = max(
            (
                int(value)
                for of in _Reading(self).field(role).values()
                for value in map(plain, sized(of))
                if is_number(value)
            ),
            default=0,
        )
        return tuple(f"class {number}" for number in range(max(highest + 1, 2)))

    def summary(self) -> Summary:
        """What was recognised."""
        reading = _Reading(self)
        lists = {name: reading.listed(name) for name in SPLITS if reading.has(name)}
        lengths = reading.lengths()
        layout = self.layout
        missing = [layout.incomplete] if layout.incomplete else []
        if not layout.incomplete:
            if "dev" not in lists:
                missing.append("a list of dev dialogues")
            if not reading.has("sentences"):
                missing.append("sentences")
            missing += [f"{name} features" for name in ("text", "audio", "visual") if name not in layout.modalities]
        return Summary(
            layout=layout.id,
            title=layout.title,
            corpus=layout.corpus,
            files=self.files,
            dialogues=len(lengths),
            utterances=sum(lengths.values()),
            widths={name: reading.width(each) for name, each in layout.modalities.items()},
            splits={
                name: (len(dialogues), sum(lengths.get(dialogue, 0) for dialogue in dialogues))
                for name, dialogues in lists.items()
            },
            labels={
                role: known.classes if isinstance(known, Scores) else known for role, known in layout.labels.items()
            },
            missing=tuple(missing),
            caveats=layout.caveats,
        )

    def corpus(
        self,
        labels: str | None = None,
        *,
        dev: Collection[str | int] | None = None,
        splits: Mapping[str, int] | None = None,
        counts: tuple[int, int, int] | None = None,
        edges: Sequence[float] | None = None,
    ) -> Corpus:
        """The dialogues with the labels in the release's own numbering (see `classes`), nothing scaled.

        Dialogues are put in the order of their names; those of MELD are named by their place in their split, as the
        csv files have it: `dev/dia0`. A row of zeros is what releases write where there is no measurement: it is
        missing. Where the files list no dev dialogues these must be told, except for MELD, whose numbering tells them.

        Args:
            labels: Which annotation; None is the first of the layout.
            dev: Dialogues that are dev, taken out of the list that holds them.
            splits: Split of every dialogue (index into SPLITS), instead of the lists of the files.
            counts: Dialogues of train, dev and test by which a numbered corpus is parted; None: as published.
            edges: What parts scores into classes, instead of the layout's own.

        Raises:
            SettingError: If the labels do not exist, or which dialogues are dev is not known.
            DataError: If the fields disagree or hold what they should not; names dialogue and turn.
        """
        if self.layout.incomplete:
            raise SettingError(f"{self.origin}: {self.layout.incomplete}.")
        known = self._label_set(labels)
        role = labels or next(iter(self.layout.labels))
        scores = _scores(known, edges, self.origin) if isinstance(known, Scores) else None
        reading = _Reading(self)
        split_of = reading.splits(dev, splits, counts)
        order = sorted(split_of, key=lambda dialogue: (split_of[dialogue], dialogue))
        lengths = [reading.length(dialogue, role) for dialogue in order]
        names = reading.names(order, split_of)
        notes: dict[str, Any] = {"layout": f"{self.layout.id}: {self.layout.title}"}
        if left_out := len(reading.lengths()) - len(order):
            notes["dialogues in no list of the files, left out"] = left_out
        measurements = {}
        for name, modality in self.layout.modalities.items():
            measurements[name] = reading.measured(modality, order, lengths, self.layout.title)
            if missing := int((~measurements[name].present).sum()):
                notes[f"{name}: rows of zeros, taken as missing"] = missing
        classes = None if scores else self.classes(role)
        return Corpus(
            dialogue_ids=names,
            lengths=lengths,
            splits=[split_of[dialogue] for dialogue in order],
            utterance_ids=reading.utterance_names(order, names, lengths),
            speakers=[who for dialogue in order for who in reading.speakers(dialogue)],
            labels=[label for dialogue in order for label in reading.labels(role, dialogue, classes, scores)],
            texts=[text for dialogue in order for text in reading.texts(dialogue)]
            if reading.has("sentences")
            else None,
            measurements=measurements,
            notes=notes,
        )

    def _label_set(self, labels: str | None) -> tuple[str, ...] | Scores:
        if not self.layout.labels:
            raise SettingError(f"{self.origin}: {self.layout.incomplete or 'it has no labels'}.")
        if labels is None:
            return next(iter(self.layout.labels.values()))
        if labels not in self.layout.labels:
            there = " and ".join(self.layout.labels)
            raise SettingError(f"{self.origin} has {there} alone, but labels '{labels}' were asked for.")
        return self.layout.labels[labels]


def _scores(known: Scores, edges: Sequence[float] | None, origin: str) -> Scores:
    if edges is None:
        if not known.classes:
            raise SettingError(f"{origin} has scores for labels, and no classes are known for them; give edges.")
        return known
    ordered = tuple(sorted(float(edge) for edge in edges))
    if not ordered or len(set(ordered)) != len(ordered) or not np.isfinite(ordered).all():
        raise SettingError(f"the edges between classes should be one number or more, all different, but are {edges}.")
    shown = [f"{edge:g}" for edge in ordered]
    between = [f"{low} to {high}" for low, high in pairwise(shown)]
    return Scores((f"under {shown[0]}", *between, f"{shown[-1]} and over"), ordered, tuple("above" for _ in ordered))


class _Reading:
    """Goes through the fields of a release, dialogue by dialogue, and checks what it hands out."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.layout = release.layout
        self.fields: dict[str, Any] = {}
        self.places: dict[str, str] = {}
        for part in release.parts:
            fields = _from_arrays(part) if "train values" in part.fields and "longest" in part.fields else part.fields
            for place, (role, field) in enumerate(fields.items()):
                if role not in self.fields:
                    self.fields[role] = field
                    self.places[role] = f"{part.file}: field {place} ({role})"
                elif role in part.layout.labels and part is not release.parts[0]:
                    self._same_labels(role, field, part)

    def has(self, role: str) -> bool:
        return role in self.fields

    def field(self, role: str) -> Any:
        return self.fields[role]

    def fault(self, role: str, problem: str) -> DataError:
        return DataError(f"{self.places[role]}: {problem}")

    def _same_labels(self, role: str, field: Any, part: Part) -> None:
        """Two files of one release must agree on the dialogues that both hold."""
        for dialogue, labels in self.fields[role].items():
            others = field.get(dialogue)
            if others is not None and [*map(plain, sized(labels))] != [*map(plain, sized(others))]:
                raise DataError(
                    f"{part.file} and {self.release.parts[0].file} disagree: the labels ({role}) of dialogue "
                    f"{dialogue!r} are not the same. They are of two releases."
                )

    def lengths(self) -> dict[Any, int]:
        """Utterances by dialogue, of the first annotation; empty where dialogues are not known."""
        role = next(
            (name for name in (*self.layout.labels, "sentences") if isinstance(self.fields.get(name), dict)), ""
        )
        field = self.fields.get(role, {})
        return {dialogue: len(sized(of)) for dialogue, of in field.items()}

    def listed(self, split: str) -> list[Any]:
        """Dialogues that a list of the files names, in order."""
        field = self.fields[split]
        if not isinstance(field, list | tuple | set | frozenset | np.ndarray):
            return []
        return [plain(dialogue) for dialogue in field]

    def width(self, modality: Modality) -> int:
        widths = []
        for role in modality.roles:
            first = turns(self.fields[role])
            widths.append(len(_row(first[0])[0]) if len(first) else 0)
        return sum(widths) if modality.how == "side by side" else widths[0]

    # Splits and names.

    def splits(
        self,
        dev: Collection[str | int] | None,
        given: Mapping[str, int] | None,
        counts: tuple[int, int, int] | None,
    ) -> dict[Any, int]:
        """Split of each dialogue that is in one."""
        known = {plain(dialogue) for dialogue in self.lengths()}
        lists: dict[str, list[Any]] = {name: self.listed(name) for name in SPLITS if self.has(name)}
        for name, dialogues in lists.items():
            if len(set(dialogues)) != len(dialogues):
                raise self.fault(name, f"the list of {name} dialogues holds a dialogue twice.")
            if strange := [dialogue for dialogue in dialogues if dialogue not in known]:
                raise self.fault(name, f"dialogue {strange[0]!r} is listed, but the other fields do not have it.")
        for one, other in (("train", "test"), ("dev", "test")):
            if both := set(lists.get(one, ())) & set(lists.get(other, ())):
                raise self.fault(other, f"dialogue {sorted(both)[0]!r} is listed in {one} and in {other}.")
        if given is not None:
            if lacking := sorted(str(dialogue) for dialogue in known if str(dialogue) not in given):
                raise DataError(f"{self.release.origin} has the dialogue {lacking[0]}, which is in no split.")
            return {dialogue: given[str(dialogue)] for dialogue in known}
        if self.layout.numbering is not None and dev is None:
            return self._by_number(known, lists, counts)
        found = {dialogue: index for index, name in enumerate(SPLITS) for dialogue in lists.get(name, ())}
        if dev is not None:
            wanted = {dialogue for dialogue in known if dialogue in dev or str(dialogue) in {str(each) for each in dev}}
            if len(wanted) != len(set(map(str, dev))):
                absent = sorted(set(map(str, dev)) - set(map(str, wanted)))
                raise SettingError(f"{self.release.origin} has no dialogue {absent[0]}, which should be dev.")
            if both := wanted & set(lists.get("test", ())):
                raise SettingError(
                    f"dialogue {sorted(both)[0]} should be dev, but {self.release.origin} has it in test."
                )
            found.update(dict.fromkeys(wanted, SPLITS.index("dev")))
        elif "dev" not in lists:
            raise SettingError(
                f"{self.release.origin} lists {' and '.join(lists) or 'no'} dialogues alone: its train list holds "
                "train and dev together. Say which dialogues are dev."
            )
        return found

    def _by_number(
        self, known: set[Any], lists: Mapping[str, list[Any]], counts: tuple[int, int, int] | None
    ) -> dict[Any, int]:
        """Splits of a corpus whose numbering runs through train, dev and test, checked against the lists."""
        published = counts or self.layout.numbering or (0, 0, 0)
        numbers = sorted(known)
        if len(numbers) != sum(published):
            raise DataError(
                f"{self.release.origin} holds {len(numbers)} dialogues, but the published file holds {sum(published)}. "
                "It may be cut off or another release; obtain it again."
            )
        found: dict[str, set[Any]] = {}
        start = 0
        for name, count in zip(SPLITS, published, strict=True):
            found[name] = set(numbers[start : start + count])
            start += count
        listed = {name: set(dialogues) for name, dialogues in lists.items()}
        if listed["test"] != found["test"]:
            odd = min(listed["test"] ^ found["test"])
            raise self.fault(
                "test",
                f"its test dialogues should be the {len(found['test'])} of the highest numbers, but it lists "
                f"{len(listed['test'])}, and dialogue {odd} is {'not among' if odd in found['test'] else 'one of'} "
                "them.",
            )
        merged = found["train"] | found["dev"]
        if listed["train"] not in (found["train"], merged) or listed.get("dev", found["dev"]) != found["dev"]:
            raise self.fault(
                "train",
                f"its train dialogues should be the {len(found['train'])} of the lowest numbers, or those and the next "
                f"{len(found['dev'])} (dev), but it lists {len(listed['train'])} others.",
            )
        return {number: index for index, name in enumerate(SPLITS) for number in found[name]}

    def names(self, order: Sequence[Any], split_of: Mapping[Any, int]) -> list[str]:
        """Name of each dialogue."""
        if self.layout.numbering is None:
            return [str(dialogue) for dialogue in order]
        firsts: dict[int, int] = {}
        for dialogue in order:
            firsts.setdefault(split_of[dialogue], dialogue)
        return [f"{SPLITS[split_of[number]]}/dia{number - firsts[split_of[number]]}" for number in order]

    def utterance_names(self, order: Sequence[Any], names: Sequence[str], lengths: Sequence[int]) -> list[str]:
        """The file's own names where it has one for each utterance, and all differ; else the turn."""
        field = self.fields.get("utterance ids")
        if isinstance(field, dict) and self.layout.numbering is None:
            own = [str(plain(name)) for dialogue in order for name in sized(field.get(dialogue))]
            fits = all(len(sized(field.get(key))) == length for key, length in zip(order, lengths, strict=True))
            if fits and len(set(own)) == len(own):
                return own
        return [f"{name}_turn{turn}" for name, length in zip(names, lengths, strict=True) for turn in range(length)]

    # Utterances.

    def length(self, dialogue: Any, role: str) -> int:
        """Utterances of a dialogue, the same in every field that is read."""
        needed = [
            role,
            "speakers",
            "sentences",
            *(each for one in self.layout.modalities.values() for each in one.roles),
        ]
        length = 0
        for name in (each for each in needed if self.has(each)):
            of = self.fields[name].get(dialogue)
            if of is None:
                raise self.fault(name, f"dialogue {dialogue!r} is missing, and field {role} has it.")
            if of is not sized(of):
                raise self.fault(name, f"dialogue {dialogue!r} should have a list, but has {describe(of)}.")
            length = length or len(of)
            if len(of) != length or not length:
                raise DataError(
                    f"{self.places[name].partition(': field')[0]}: dialogue {dialogue} has {length} labels ({role}) "
                    f"and {len(of)} {name}."
                )
        return length

    def speakers(self, dialogue: Any) -> list[str]:
        """Who speaks each utterance: a name or a number."""
        found = []
        first = turns(self.fields["speakers"])
        width = width_of(first[0]) if len(first) else None
        for turn, value in enumerate(self.fields["speakers"][dialogue]):
            if isinstance(value, str):
                found.append(value)
            elif is_number(value):
                found.append(str(int(value)))
            else:
                hot = [] if width_of(value) is None else [float(each) for each in value]
                if hot.count(1.0) != 1 or hot.count(0.0) != len(hot) - 1 or len(hot) != width:
                    raise self.fault(
                        "speakers",
                        f"dialogue {dialogue}, turn {turn}: the speaker should be a one-hot list of width {width}, "
                        f"but is {str(value)[:60]}.",
                    )
                found.append(str(hot.index(1.0)))
        return found

    def texts(self, dialogue: Any) -> list[str]:
        """What is said in each utterance."""
        found = []
        for turn, text in enumerate(self.fields["sentences"][dialogue]):
            if not isinstance(text, str):
                raise self.fault(
                    "sentences",
                    f"dialogue {dialogue}, turn {turn}: there should be a text, but there is {describe(text)}.",
                )
            found.append(text.translate(_WINDOWS))
        return found

    def labels(self, role: str, dialogue: Any, classes: tuple[str, ...] | None, scores: Scores | None) -> list[int]:
        """Class index of each utterance."""
        found = []
        for turn, value in enumerate(self.fields[role][dialogue]):
            here = f"dialogue {dialogue}, turn {turn}: the {role}"
            if scores is not None:
                found.append(self._class_of(value, scores, role, here))
                continue
            whole = plain(value)
            if not is_number(whole) or not 0 <= int(whole) < len(classes or ()):
                raise self.fault(
                    role, f"{here} should be a number from 0 to {len(classes or ()) - 1}, but is {whole!r}."
                )
            found.append(int(whole))
        return found

    def _class_of(self, value: Any, scores: Scores, role: str, here: str) -> int:
        score = plain(value)
        if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
            raise self.fault(role, f"{here} should be a number, but is {score!r}.")
        return sum(
            score > edge or (score == edge and side == "above")
            for edge, side in zip(scores.edges, scores.at_edge, strict=True)
        )

    def measured(self, modality: Modality, order: Sequence[Any], lengths: Sequence[int], source: str) -> Measurements:
        """One modality of every utterance: (utterances, width)."""
        width = self.width(modality)
        values = np.empty((sum(lengths), width), dtype=np.float32)
        start = 0
        for dialogue, length in zip(order, lengths, strict=True):
            layers = [self._vectors(role, dialogue) for role in modality.roles]
            rows = values[start : start + length]
            if modality.how == "side by side":
                rows[:] = np.concatenate(layers, axis=1)
            elif len(layers) == 1:
                rows[:] = layers[0]
            else:
                rows[:] = np.mean(layers, axis=0, dtype=np.float64)
            if rows.shape[1] != width or not np.isfinite(rows).all():  # a value that float32 cannot hold
                raise self.fault(modality.roles[0], f"dialogue {dialogue} has a value that is too large.")
            start += length
        present: NDArray[np.bool_] = np.concatenate(
            [(values[part : part + 4096] != 0).any(axis=1) for part in range(0, len(values), 4096)]
        )
        return Measurements(values, present, source)

    def _vectors(self, role: str, dialogue: Any) -> NDArray[np.floating[Any]]:
        """One dialogue's vectors: (turns, width)."""
        of = self.fields[role][dialogue]
        width = self.width(Modality((role,)))
        if isinstance(of, np.ndarray) and of.dtype.kind in "biuf" and of.ndim == 2 and of.shape[1] == width:
            rows: NDArray[np.floating[Any]] = of if of.dtype.kind == "f" else of.astype(np.float64)
        else:
            found = []
            for turn, vector in enumerate(of):
                row, reason = _row(vector)
                if reason or len(row) != width:
                    raise self.fault(
                        role,
                        f"dialogue {dialogue}, turn {turn}: {role} should be a vector of width {width}, but is "
                        f"{describe(vector)}.",
                    )
                found.append(row)
            rows = np.stack(found)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise self.fault(role, f"dialogue {dialogue}, turn {int((~finite).argmax())}: {role} is NaN or infinite.")
        return rows


def _row(vector: Any) -> tuple[NDArray[np.floating[Any]], str]:
    """A vector as an array, the mean where it is frames, and what is wrong with it."""
    if isinstance(vector, np.ndarray) and vector.ndim == 2 and vector.dtype.kind in "biuf" and len(vector):
        return vector.mean(axis=0, dtype=np.float64), ""
    if width_of(vector) is None:
        return np.zeros(0), "no vector"
    found = np.asarray(vector)
    return (found if found.dtype.kind == "f" else found.astype(np.float64)), ""


def _from_arrays(part: Part) -> dict[str, Any]:
    """The padded arrays of bc-LSTM's CMU-MOSI files as fields by dialogue."""
    modality = next(iter(part.layout.modalities))
    fields: dict[str, Any] = {"speakers": {}, "polarity": {}, modality: {}, "train": [], "test": []}
    for split in ("train", "test"):
        values, labels = part.fields[f"{split} values"], np.asarray(part.fields[f"{split} labels"])
        lengths = [plain(length) for length in part.fields[f"{split} lengths"]]
        if labels.dtype.kind not in "biuf" or not all(math.isfinite(length) and length % 1 == 0 for length in lengths):
            raise DataError(f"{part.file}: {split} should have labels and lengths that are numbers.")
        lengths = [int(length) for length in lengths]
        if labels.ndim == 3 and labels.shape[2]:
            labels = labels[:, :, 0] if labels.shape[2] == 1 else labels.argmax(axis=2)
        if not (len(values) == len(labels) == len(lengths)) or labels.shape[1] != values.shape[1]:
            raise DataError(
                f"{part.file}: {split} has {len(values)} dialogues of values, {len(labels)} of labels and "
                f"{len(lengths)} lengths."
            )
        digits = len(str(max(len(lengths) - 1, 0)))
        for place, length in enumerate(lengths):
            name = f"{split}/{place:0{digits}}"
            if not 0 < length <= values.shape[1]:
                raise DataError(f"{part.file}: {name} should have 1 to {values.shape[1]} turns, but has {length}.")
            if labels.dtype.kind == "f" and not (labels[place, :length] % 1 == 0).all():
                raise DataError(f"{part.file}: the labels of {name} should be whole numbers.")
            fields["speakers"][name] = ["speaker"] * length
            fields["polarity"][name] = labels[place, :length].astype(np.int64).tolist()
            fields[modality][name] = values[place, :length]
            fields[split].append(name)
    return fields
