"""What a run predicted for each utterance of a split: the only input of every metric.

One file a run, `<run>.predictions.npz`, of one of two kinds. `Predictions` has one row an utterance.
`DialogueCounts` has one confusion matrix a dialogue and no labels of utterances: it is what may be
committed for a corpus whose card says `redistribute = false`. Neither holds any text.

The file is an ordinary compressed npz of plain arrays, `numpy.load` opens it, and the same
predictions give the same bytes. Ids are taken apart into a few patterns and columns of numbers::

    header                      JSON as bytes: format, version, kind, classes
    <list>.patterns             JSON as bytes: [["dia", 0, "_utt", 0, ""], ...]; texts, and between them
                                the digits that a number has at least (0: as many as it needs)
    <list>.pattern              (n,) uint32: pattern of each string
    <list>.numbers              (n, most in a pattern) int32: its numbers, each row minus the one before
    kind "predictions":         lists `ids` and `dialogues` (each dialogue once, by first appearance)
      dialogue                  (utterances,) uint32: index into dialogues
      positions, speakers, true, predicted, log_probabilities (no rows where only labels were predicted)
    kind "dialogue counts":     list `dialogues`
      confusion, shift, calibration (no rows where only labels were predicted)
    either kind, where there are any:
      subsets                   (names, dialogues) uint8: 1 where the dialogue belongs to the subset; the header's
                                `subsets` holds the names
      folds                     (dialogues,) int16: the fold, from 1, that tested the dialogue; the header has
                                `folds`: true
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.atomic import write_atomically
from mer_bench.errors import RecordError

FORMAT = "mer-bench predictions"
VERSION = 1
CALIBRATION_BINS = 15

_LARGEST_BYTES = 256 * 2**20
_SUM_TOLERANCE = 0.02  # float16 is off by less than 0.002; raw logits are off by far more
_KINDS = ("|u1", "<u4", "<i2", "<i4", "<f2", "<f8")
# Version 1.0 of numpy's format: magic, length of the header, the header, padding.
_MEMBER = re.compile(
    rb"\x93NUMPY\x01\x00(..)"
    rb"\{'descr': '([<>|=][A-Za-z][0-9]{0,4})', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,12},(?: [0-9]{1,12},?)*)\), \} *\n",
    re.DOTALL,
)
# What the standard library raises for a damaged archive, encrypted members (RuntimeError) included.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_DIGITS = re.compile(r"([0-9]{1,9})")  # nine digits fit an int32


@dataclass(frozen=True)
class Predictions:
    """One row an utterance of the split, in the order of the store.

    Whatever it is given is checked and brought to the types below, so that a metric can rely on it.

    Attributes:
        classes: Names of the classes in the order of their index.
        ids: Utterance ids. dialogues: Dialogue id of each utterance.
        positions: Turn within the dialogue, from 0. speakers: Speaker index within the dialogue.
        true, predicted: Class index; `true` is -1 where the utterance has no label (not scored).
        log_probabilities: (utterances, classes), float16; None where only labels were predicted.
        subsets: Parts of the corpus that are scored by themselves too: (dialogues,), bool, in the order of
            `dialogue_names`, by name.
        folds: (dialogues,), int16: which fold, from 1, tested the dialogue; None under one fixed split.

    Raises:
        RecordError: If lengths differ, an index is no class, an id or a turn occurs twice, rows of
            log-probabilities are none, or `predicted` is not the most probable class.
    """

    classes: tuple[str, ...]
    ids: Sequence[str]
    dialogues: Sequence[str]
    positions: NDArray[np.int32]
    speakers: NDArray[np.int16]
    true: NDArray[np.int16]
    predicted: NDArray[np.int16]
    log_probabilities: NDArray[np.float16] | None
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    folds: NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _distinct("classes", self.classes))
        object.__setattr__(self, "ids", _distinct("ids", self.ids))
        object.__setattr__(self, "dialogues", _texts("dialogues", self.dialogues))
        rows, count = len(self.ids), len(self.classes)
        if len(self.dialogues) != rows:
            raise RecordError(f"dialogues should have {rows} entries, one an id, but has {len(self.dialogues)}.")
        highest = {"positions": 2**31 - 1, "speakers": 2**15 - 1, "true": count - 1, "predicted": count - 1}
        for name, high in highest.items():
            low = -1 if name == "true" else 0
            values = _integers(name, getattr(self, name), (rows,), (low, high))
            object.__setattr__(self, name, values.astype(np.int32 if name == "positions" else np.int16))
        turns = self.dialogue_index * 2**31 + self.positions
        turn, seen = np.unique(turns, return_counts=True)
        if len(turn) != rows:
            twice = int(np.flatnonzero(turns == turn[seen > 1][0])[1])
            raise RecordError(
                f"turn {self.positions[twice]} of dialogue '{self.dialogues[twice]}' occurs twice, "
                f"the second time as '{self.ids[twice]}'."
            )
        if self.log_probabilities is not None:
            object.__setattr__(self, "log_probabilities", self._checked(self.log_probabilities))
        _check_parts(self, len(self.dialogue_names))

    @property
    def utterances(self) -> int:
        """How many utterances were predicted."""
        return len(self.ids)

    @cached_property
    def dialogue_names(self) -> tuple[str, ...]:
        """Each dialogue once, by first appearance."""
        return tuple(dict.fromkeys(self.dialogues))

    @cached_property
    def dialogue_index(self) -> NDArray[np.int64]:
        """Index of each utterance's dialogue in `dialogue_names`: (utterances,)."""
        index = {name: number for number, name in enumerate(self.dialogue_names)}
        return np.fromiter((index[name] for name in self.dialogues), np.int64, len(self.dialogues))

    def with_results(self, predicted: NDArray[np.int16], log_probabilities: NDArray[np.float16] | None) -> Predictions:
        """Other predictions for the same utterances; only what is new is checked.

        Raises:
            RecordError: If a class or the log-probabilities are none.
        """
        values = _integers("predicted", predicted, (len(self.ids),), (0, len(self.classes) - 1)).astype(np.int16)
        other = object.__new__(Predictions)
        # What the cached properties hold depends on the dialogues alone.
        other.__dict__.update(self.__dict__, predicted=values, log_probabilities=None)
        if log_probabilities is not None:
            object.__setattr__(other, "log_probabilities", other._checked(log_probabilities))
        return other

    def _checked(self, given: NDArray[Any]) -> NDArray[np.float16]:
        values = np.asarray(given)
        shape = (len(self.ids), len(self.classes))
        if values.shape != shape or values.dtype.kind != "f":
            raise RecordError(
                f"log_probabilities should be numbers of shape (utterances, classes) = {shape}, "
                f"but is {values.dtype} of shape {values.shape}."
            )
        with np.errstate(over="ignore"):  # below float16's range a probability is 0
            rounded = np.minimum(values.astype(np.float16), np.float16(0))
        total = np.exp(values.astype(np.float32)).sum(axis=1)
        if not bool(np.all(np.abs(total - 1) <= _SUM_TOLERANCE)):  # false for NaN as well
            row = int(np.argmin(np.abs(total - 1) <= _SUM_TOLERANCE))
            raise RecordError(
                f"the probabilities of '{self.ids[row]}' should sum to 1, but sum to {total[row]:.4g}; "
                "log-probabilities are the logarithm of a softmax, not logits."
            )
        chosen = np.take_along_axis(rounded, self.predicted[:, None].astype(np.int64), axis=1)[:, 0]
        wrong = np.flatnonzero(chosen != rounded.max(axis=1))
        if len(wrong):
            row = int(wrong[0])
            raise RecordError(
                f"'{self.ids[row]}' is predicted as {self.classes[self.predicted[row]]}, "
                f"but {self.classes[int(rounded[row].argmax())]} has the largest log-probability."
            )
        return rounded


@dataclass(frozen=True)
class DialogueCounts:
    """Predictions summed up by dialogue: enough for every metric and test, no labels of utterances.

    Attributes:
        classes: Names of the classes in the order of their index.
        dialogues: Dialogue ids, each once.
        confusion: (dialogues, classes, classes), int32: rows true, columns predicted.
        shift: (dialogues, 2), int32: emotion shifts that were predicted right, and all of them.
        calibration: (15, 3), float64, over the whole split: utterances in each bin of confidence,
            those predicted right, sum of their confidences; None where only labels were predicted.
        subsets, folds: As those of `Predictions`, in the order of `dialogues`.

    Raises:
        RecordError: If shapes differ, a count is negative or parts exceed their whole.
    """

    classes: tuple[str, ...]
    dialogues: Sequence[str]
    confusion: NDArray[np.int32]
    shift: NDArray[np.int32]
    calibration: NDArray[np.float64] | None
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    folds: NDArray[np.int16] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _distinct("classes", self.classes))
        object.__setattr__(self, "dialogues", _distinct("dialogues", self.dialogues))
        rows, count = len(self.dialogues), len(self.classes)
        _check_parts(self, rows)
        for name, shape in (("confusion", (rows, count, count)), ("shift", (rows, 2))):
            values = _integers(name, getattr(self, name), shape, (0, 2**31 - 1))
            object.__setattr__(self, name, values.astype(np.int32))
        shifts = self.shift
        if bool((shifts[:, 0] > shifts[:, 1]).any()) or bool((shifts[:, 1] > self.confusion.sum(axis=(1, 2))).any()):
            raise RecordError("shift counts more than the utterances of its dialogue.")
        if self.calibration is None:
            return
        bins = np.asarray(self.calibration, np.float64)
        if bins.shape != (CALIBRATION_BINS, 3):
            raise RecordError(f"calibration should be of shape ({CALIBRATION_BINS}, 3), but is {bins.shape}.")
        parts_fit = (bins >= 0).all() and (bins[:, 1:] <= bins[:, :1] * (1 + 1e-9)).all()
        right = int(np.trace(self.confusion.sum(axis=0)))
        if not parts_fit or bins[:, 0].sum() != self.utterances or bins[:, 1].sum() != right:
            raise RecordError("calibration does not count the same utterances as confusion.")
        object.__setattr__(self, "calibration", bins)

    @property
    def utterances(self) -> int:
        """Labelled utterances; those without a label are not counted."""
        return int(self.confusion.sum())

    def part(self, chosen: NDArray[np.bool_]) -> DialogueCounts:
        """The counts of some dialogues, in the order they have; the calibration is that of the whole and goes.

        Raises:
            RecordError: If none is chosen.

        Shapes:
            chosen: (dialogues,), bool.
        """
        rows = np.flatnonzero(chosen)
        return DialogueCounts(
            classes=self.classes,
            dialogues=[self.dialogues[row] for row in rows.tolist()],
            confusion=self.confusion[rows],
            shift=self.shift[rows],
            calibration=None,
            subsets={name: members[rows] for name, members in self.subsets.items()},
            folds=None if self.folds is None else self.folds[rows],
        )


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all folds as one; the first of `parts` is fold 1.

    Raises:
        RecordError: If there are none, their classes differ, or two folds hold the same dialogue.
    """
    if not parts:
        raise RecordError("there are no folds to pool.")
    if any(part.classes != parts[0].classes for part in parts):
        raise RecordError("the folds do not have the same classes, so that they cannot be pooled.")
    seen: dict[str, int] = {}
    for number, part in enumerate(parts, 1):
        for name in part.dialogue_names:
            if name in seen:
                raise RecordError(f"dialogue '{name}' is in fold {seen[name]} and in fold {number}.")
            seen[name] = number
    scores = [part.log_probabilities for part in parts if part.log_probabilities is not None]
    if scores and len(scores) != len(parts):
        raise RecordError("some folds have log-probabilities and some do not, so that they cannot be pooled.")
    names = sorted({name for part in parts for name in part.subsets})
    sizes = [len(part.dialogue_names) for part in parts]
    nowhere = [np.zeros(size, np.bool_) for size in sizes]
    return Predictions(
        classes=parts[0].classes,
        ids=[name for part in parts for name in part.ids],
        dialogues=[name for part in parts for name in part.dialogues],
        positions=np.concatenate([part.positions for part in parts]),
        speakers=np.concatenate([part.speakers for part in parts]),
        true=np.concatenate([part.true for part in parts]),
        predicted=np.concatenate([part.predicted for part in parts]),
        log_probabilities=np.concatenate(scores) if scores else None,
        subsets={
            name: np.concatenate([part.subsets.get(name, none) for part, none in zip(parts, nowhere, strict=True)])
            for name in names
        },
        folds=np.repeat(np.arange(1, len(parts) + 1, dtype=np.int16), sizes),
    )


def write_predictions(file: Path, predictions: Predictions | DialogueCounts) -> str:
    """Write predictions in one step; the same predictions give the same bytes.

    Returns:
        SHA-256 of the file's bytes, for the record.

    Raises:
        StorageError: If the file cannot be written.
    """
    content = _encoded(predictions)
    write_atomically(file, content)
    return hashlib.sha256(content).hexdigest()


def read_predictions(file: Path) -> Predictions:
    """Read and check predictions by utterance.

    Raises:
        RecordError: If the file is absent, damaged, foreign, or holds dialogue counts only.
    """
    found = read_outcomes(file)
    if isinstance(found, DialogueCounts):
        raise RecordError(f"{file} holds dialogue counts, no predictions by utterance: its corpus forbids them.")
    return found


def read_outcomes(file: Path) -> Predictions | DialogueCounts:
    """Read and check a predictions file of either kind. Nothing is ever unpickled.

    Raises:
        RecordError: If the file is absent, damaged or foreign; names it and the reason.
    """
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise RecordError("it is larger than any predictions file")
        return decode_outcomes(file.read_bytes())
    except OSError as error:
        raise RecordError(f"{file} cannot be read: {error.strerror or error}.") from None
    except RecordError as error:
        raise RecordError(f"{file} is not a valid predictions file: {str(error).rstrip('.')}.") from None


def decode_outcomes(content: bytes) -> Predictions | DialogueCounts:
    """The same for the bytes of a file.

    Raises:
        RecordError: If they are damaged or foreign.
    """
    return _decoded(_unzipped(content))


class Decoder:
    """Decodes many files of few test splits: ids, turns and labels that they share are unpacked and checked once."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, str, bytes], ...], Predictions] = {}

    def decode(self, content: bytes) -> Predictions | DialogueCounts:
        """The same as `decode_outcomes`.

        Raises:
            RecordError: As that.
        """
        arrays = _unzipped(content)
        shared = tuple(
            (name, f"{array.dtype.str}{array.shape}", array.tobytes())
            for name, array in arrays.items()
            if name not in ("predicted", "log_probabilities")
        )
        known = self._known.get(shared)
        if known is None:
            found = _decoded(arrays)
            if isinstance(found, Predictions):
                self._known[shared] = found
            return found
        predicted = _take(arrays, "predicted", np.int16, 1)
        scores = _take(arrays, "log_probabilities", np.float16, 2)
        return known.with_results(predicted, scores if len(scores) else None)


def _decoded(arrays: dict[str, NDArray[Any]]) -> Predictions | DialogueCounts:
    header = _json(arrays, "header")
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise RecordError("its header is not that of mer-bench predictions")
    if header.get("version") != VERSION:
        raise RecordError(f"it has version {header.get('version')!r}, and this mer-bench reads version {VERSION}")
    classes = header.get("classes")
    if not isinstance(classes, list):
        raise RecordError("its header names no classes")
    kind = header.get("kind")
    parts = _unpacked_parts(arrays, header)
    if kind == "predictions":
        names = _unpacked(arrays, "dialogues")
        index = _take(arrays, "dialogue", np.uint32, 1)
        if len(index) and (not names or int(index.max()) >= len(names)):
            raise RecordError("dialogue points beyond the list of dialogues")
        scores = _take(arrays, "log_probabilities", np.float16, 2)
        found: Predictions | DialogueCounts = Predictions(
            classes=tuple(classes),
            ids=_unpacked(arrays, "ids"),
            dialogues=[names[number] for number in index.tolist()],
            positions=_take(arrays, "positions", np.int32, 1),
            speakers=_take(arrays, "speakers", np.int16, 1),
            true=_take(arrays, "true", np.int16, 1),
            predicted=_take(arrays, "predicted", np.int16, 1),
            log_probabilities=scores if len(scores) else None,
            **parts,
        )
    elif kind == "dialogue counts":
        bins = _take(arrays, "calibration", np.float64, 2)
        found = DialogueCounts(
            classes=tuple(classes),
            dialogues=_unpacked(arrays, "dialogues"),
            confusion=_take(arrays, "confusion", np.int32, 3),
            shift=_take(arrays, "shift", np.int32, 2),
            calibration=bins if len(bins) else None,
            **parts,
        )
    else:
        raise RecordError(f"its kind is {kind!r}, which is neither 'predictions' nor 'dialogue counts'")
    if arrays:
        raise RecordError(f"it holds '{next(iter(arrays))}', which a predictions file does not have")
    return found


# --- checks ---


def _texts(name: str, given: Iterable[str]) -> tuple[str, ...]:
    values = tuple(given)
    if not values:
        raise RecordError(f"{name} should name at least one, but is empty.")
    wrong = next((value for value in values if not isinstance(value, str) or not value), None)
    if wrong is not None:
        raise RecordError(f"{name} should be non-empty texts, but holds {wrong!r}.")
    return values


def _distinct(name: str, given: Iterable[str]) -> tuple[str, ...]:
    values = _texts(name, given)
    if len(set(values)) != len(values):
        seen: set[str] = set()
        twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
        raise RecordError(f"{name} should name each once, but '{twice}' occurs twice.")
    return values


def _integers(name: str, given: NDArray[Any], shape: tuple[int, ...], bounds: tuple[int, int]) -> NDArray[Any]:
    values = np.asarray(given)
    low, high = bounds
    if values.shape != shape or values.dtype.kind not in "iu":
        raise RecordError(
            f"{name} should be whole numbers of shape {shape}, but is {values.dtype} of shape {values.shape}."
        )
    if values.size and (int(values.min()) < low or int(values.max()) > high):
        wrong = int(values.min()) if int(values.min()) < low else int(values.max())
        raise RecordError(f"{name} should lie in [{low}, {high}], but holds {wrong}.")
    return values


def _check_parts(outcomes: Predictions | DialogueCounts, dialogues: int) -> None:
    """Check subsets and folds and bring them to their types; the subsets come in the order of their names."""
    if not isinstance(outcomes.subsets, Mapping):
        raise RecordError(f"subsets should be arrays by name, but is {outcomes.subsets!r}.")
    found: dict[str, NDArray[np.bool_]] = {}
    for name in _distinct("subsets", outcomes.subsets) if outcomes.subsets else ():
        members = np.asarray(outcomes.subsets[name])
        if members.shape != (dialogues,) or members.dtype != np.bool_:
            raise RecordError(
                f"the subset '{name}' should be true or false for each of the {dialogues} dialogues, "
                f"but is {members.dtype} of shape {members.shape}."
            )
        found[name] = members
    object.__setattr__(outcomes, "subsets", dict(sorted(found.items())))
    if outcomes.folds is not None:
        folds = _integers("folds", outcomes.folds, (dialogues,), (1, 2**15 - 1))
        object.__setattr__(outcomes, "folds", folds.astype(np.int16))


# --- bytes ---


def _encoded(predictions: Predictions | DialogueCounts) -> bytes:
    arrays: dict[str, NDArray[Any]] = {}
    header: dict[str, Any] = {"format": FORMAT, "version": VERSION, "classes": list(predictions.classes)}
    if isinstance(predictions, Predictions):
        header["kind"] = "predictions"
        arrays |= _packed("ids", predictions.ids)
        arrays |= _packed("dialogues", predictions.dialogue_names)
        arrays["dialogue"] = predictions.dialogue_index.astype(np.uint32)
        arrays |= {name: getattr(predictions, name) for name in ("positions", "speakers", "true", "predicted")}
        scores = predictions.log_probabilities
        arrays["log_probabilities"] = np.zeros((0, 0), np.float16) if scores is None else scores
    else:
        header["kind"] = "dialogue counts"
        arrays |= _packed("dialogues", predictions.dialogues)
        arrays |= {"confusion": predictions.confusion, "shift": predictions.shift}
        bins = predictions.calibration
        arrays["calibration"] = np.zeros((0, 3)) if bins is None else bins
    # Only where there are any: files of other corpora keep the bytes that they always had.
    if predictions.subsets:
        header["subsets"] = list(predictions.subsets)
        arrays["subsets"] = np.stack(list(predictions.subsets.values())).astype(np.uint8)
    if predictions.folds is not None:
        header["folds"] = True
        arrays["folds"] = predictions.folds
    return _zipped({"header": _json_bytes(header), **arrays})


def _zipped(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An npz without times and in a fixed order, so that equal arrays give equal bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            # Little-endian and in C order on every machine; `<` is what numpy writes for its own order.
            plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            member = io.BytesIO()
            np.lib.format.write_array(member, plain, version=(1, 0), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.getvalue(), compresslevel=9)
    return stream.getvalue()


def _unzipped(content: bytes) -> dict[str, NDArray[Any]]:
    """Every array of an npz; sizes are checked before anything is unpacked."""
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _LARGEST_BYTES:
                raise RecordError("unpacked it would be larger than any predictions file")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise RecordError(f"'{name}' is compressed in another way than deflate")
                if name in arrays:
                    raise RecordError(f"'{name}' is there twice")
                arrays[name] = _array(name, archive.read(entry))
    except _DAMAGE as error:
        raise RecordError(f"it is damaged or no npz file ({error})") from None
    return arrays


def _array(name: str, content: bytes) -> NDArray[Any]:
    """One member, in the one form that `_zipped` writes; nothing here can evaluate or unpickle anything."""
    match = _MEMBER.match(content)
    if match is None:
        raise RecordError(f"'{name}' is not an array as mer-bench writes it")
    length, kind, sizes = int.from_bytes(match[1], "little"), match[2].decode(), match[3].decode()
    if kind == "|O":
        raise RecordError(f"'{name}' holds Python objects, which would have to be unpickled")
    if kind not in _KINDS:
        raise RecordError(f"'{name}' has the type {kind}, which a predictions file does not have")
    shape = tuple(int(size) for size in sizes.split(",") if size)
    values = content[match.end() :]
    if match.end() != 10 + length or math.prod(shape) * np.dtype(kind).itemsize != len(values):
        raise RecordError(f"'{name}' is not as long as its header says")
    return np.frombuffer(values, kind).reshape(shape)


def _take(arrays: dict[str, NDArray[Any]], name: str, kind: type[np.generic], dimensions: int) -> NDArray[Any]:
    """Take an array out; what is left at the end does not belong there."""
    if name not in arrays:
        raise RecordError(f"'{name}' is missing")
    found = arrays.pop(name)
    if found.dtype != np.dtype(kind) or found.ndim != dimensions:
        wanted = f"{np.dtype(kind)} of {dimensions} dimensions"
        raise RecordError(f"'{name}' should be {wanted}, but is {found.dtype} of {found.ndim}")
    return found


def _unpacked_parts(arrays: dict[str, NDArray[Any]], header: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `subsets` and `folds`, where the file has them."""
    parts: dict[str, Any] = {}
    if "subsets" in header:
        names = header["subsets"]
        members = _take(arrays, "subsets", np.uint8, 2)
        if not isinstance(names, list) or len(_distinct("subsets", names)) != len(members) or bool((members > 1).any()):
            raise RecordError("'subsets' does not say of each dialogue whether it belongs to each subset")
        parts["subsets"] = dict(zip(names, members.astype(np.bool_), strict=True))
    if "folds" in header:
        parts["folds"] = _take(arrays, "folds", np.int16, 1)
    return parts


def _json_bytes(value: Any) -> NDArray[np.uint8]:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _json(arrays: dict[str, NDArray[Any]], name: str) -> Any:
    try:
        return json.loads(_take(arrays, name, np.uint8, 1).tobytes().decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise RecordError(f"'{name}' is not JSON ({error})") from None


# --- lists of ids ---


def _packed(name: str, strings: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Ids as patterns and numbers: a few hundred bytes where the text would take thousands."""
    patterns: dict[tuple[str | int, ...], int] = {}
    chosen = np.zeros(len(strings), np.uint32)
    rows: list[list[int]] = []
    for row, string in enumerate(strings):
        parts = _DIGITS.split(string)  # text, digits, text, ..., text
        digits = parts[1::2]
        widths = [len(run) if run[0] == "0" and len(run) > 1 else 0 for run in digits]
        interleaved = itertools.zip_longest(parts[0::2], widths)
        pattern = tuple(part for pair in interleaved for part in pair if part is not None)
        chosen[row] = patterns.setdefault(pattern, len(patterns))
        rows.append([int(run) for run in digits])
    numbers = np.zeros((len(strings), max(map(len, rows), default=0)), np.int32)
    for row, values in enumerate(rows):
        numbers[row, : len(values)] = values
    return {
        f"{name}.patterns": _json_bytes([list(pattern) for pattern in patterns]),
        f"{name}.pattern": chosen,
        # Nine digits either way: a difference always fits.
        f"{name}.numbers": np.diff(numbers, axis=0, prepend=np.int32(0)).astype(np.int32),
    }


def _unpacked(arrays: dict[str, NDArray[Any]], name: str) -> list[str]:
    patterns = _json(arrays, f"{name}.patterns")
    chosen = _take(arrays, f"{name}.pattern", np.uint32, 1)
    steps = _take(arrays, f"{name}.numbers", np.int32, 2)
    if not isinstance(patterns, list) or not all(_is_pattern(pattern, steps.shape[1]) for pattern in patterns):
        raise RecordError(f"'{name}.patterns' does not hold patterns of ids")
    if len(steps) != len(chosen) or (len(chosen) and int(chosen.max()) >= len(patterns)):
        raise RecordError(f"'{name}.pattern' and '{name}.numbers' do not fit together")
    numbers = np.cumsum(steps, axis=0, dtype=np.int64)
    if numbers.size and (int(numbers.min()) < 0 or int(numbers.max()) >= 10**9):
        raise RecordError(f"'{name}.numbers' holds a number that no id has")
    strings = []
    for pattern, values in zip(chosen.tolist(), numbers.tolist(), strict=True):
        parts = patterns[pattern]
        pieces = [parts[0]]
        for place, width in enumerate(parts[1::2]):
            pieces += (str(values[place]).zfill(width), parts[2 * place + 2])
        strings.append("".join(pieces))
    return strings


def _is_pattern(pattern: Any, columns: int) -> bool:
    return (
        isinstance(pattern, list)
        and len(pattern) % 2 == 1
        and len(pattern) // 2 <= columns
        and all(isinstance(text, str) for text in pattern[0::2])
        and all(type(width) is int and 0 <= width <= 9 for width in pattern[1::2])
    )
