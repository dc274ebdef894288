"""The prepared feature store: one folder of memory-mapped arrays a (dataset, features, labels, protocol, fold).

manifest.json               what it is, from which sources, with which checksums
features.<modality>.npy     (utterances, width) float32
present.<modality>.npy      (utterances,) bool; False: the modality is missing there
speakers.npy, labels.npy    (utterances,) int16; label -1: context only
utterance_ids.npy           (utterances,) UTF-8 bytes of fixed width
dialogue_ids.npy            (dialogues,) UTF-8 bytes of fixed width
offsets.npy                 (dialogues + 1,) int64: dialogue d is rows offsets[d] to offsets[d + 1]
splits.npy                  (dialogues,) uint8: index into SPLITS; dialogues stand in this order
texts.npy                   (bytes,) uint8: all texts as UTF-8, one after the other; only where there are texts
text_offsets.npy            (utterances + 1,) int64: utterance u is bytes text_offsets[u] to text_offsets[u + 1]
subset.<name>.npy           (dialogues,) bool: which dialogues belong to a named part of the corpus
pipeline.npz                arrays that apply the same preparation to new dialogues

A store that was written before texts and subsets were kept has neither, and is read like any other.

Every file is little-endian and has no time stamp: the same content gives the same bytes, and so the
same checksums, on any machine.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mer_bench import __version__
from mer_bench.atomic import flush_to_disk, remove, remove_abandoned, storage_errors, temporary_beside
from mer_bench.cards import Identifier, Modality, SplitName
from mer_bench.data.files import sha256_of_file
from mer_bench.data.overlap import Overlap, measure_overlap
from mer_bench.errors import DataError, MissingDataError, PluginError, UnknownNameError
from mer_bench.locations import StoreKey

if TYPE_CHECKING:
    import torch

    from mer_bench.data.batches import Split

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
SCHEMA = 1
MANIFEST = "manifest.json"
PIPELINE = "pipeline.npz"
TEXTS = "texts.npy"
_CHUNK_BYTES = 1 << 22
_SUBSET_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class StoreContent:
    """Everything a store holds, in memory; what a dataset's `prepare` returns.

    Dialogues stand in the order train, dev, test, each with at least one utterance.

    Attributes:
        features: By modality, (utterances, width), float32; zero rows where not present.
        present: By modality, (utterances,), bool.
        speakers: (utterances,), index by first appearance in the dialogue.
        labels: (utterances,), class index, -1 for context only.
        utterance_ids, dialogue_ids: Unique strings. offsets: (dialogues + 1,), int64.
        splits: (dialogues,), index into SPLITS.
        classes: Names of the classes.
        texts: What is said in each utterance; None where the corpus has no text.
        subsets: Named parts of the corpus: (dialogues,), bool, by name.
        settings: How it was prepared, as JSON values: encoder, widths, seeds, checksums of options.
        notes: What was noticed: rows ignored, clips missing, blanks filled; name -> count or text.
        pipeline: Arrays that apply the preparation to new dialogues, by name.
    """

    features: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]
    speakers: NDArray[np.int16]
    labels: NDArray[np.int16]
    utterance_ids: Sequence[str]
    dialogue_ids: Sequence[str]
    offsets: NDArray[np.int64]
    splits: NDArray[np.uint8]
    classes: tuple[str, ...]
    texts: Sequence[str] | None = None
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    pipeline: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class ManifestPart(BaseModel):
    """A part of a manifest: frozen, and a key that no field has is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class StoredFile(ManifestPart):
    """One file of a store; `dtype` and `shape` are empty for what is no .npy file."""

    bytes: Count
    sha256: Sha256
    dtype: str = ""
    shape: tuple[Count, ...] = ()


class SplitCounts(ManifestPart):
    """How much a split holds; `labelled` utterances are the ones that are scored."""

    dialogues: Count
    utterances: Count
    labelled: Count


class Manifest(ManifestPart):
    """What a store is, where it comes from, and what its files should be.

    Attributes:
        dataset_version, protocol_version: Of the card it was prepared by.
        counts: By split, for every split. class_histogram: Labelled utterances by split and class.
        speakers: Most speakers that any dialogue has.
        missing: Utterances without the modality, by modality and split.
        subsets: Counts of each named part of the corpus, by its name and split.
        overlap: How much of dev and test stands word for word in train; None where no texts are kept.
        sources: SHA-256 of each raw source, by name.
        sources_checksum: SHA-256 over the sources' checksums, the key, the versions and the settings:
            the same wherever the same files were prepared in the same way.
        store_checksum: SHA-256 over the files' checksums and the classes.
        settings: How it was prepared. notes: What was noticed.
        version: Of this package, when it was prepared.
    """

    schema_version: Literal[1] = 1
    dataset: str
    dataset_version: Annotated[int, Field(ge=1)]
    features: str
    labels: str
    protocol: str
    protocol_version: Annotated[int, Field(ge=1)]
    fold: Annotated[int, Field(ge=1)] | None
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    widths: Annotated[dict[Modality, Annotated[int, Field(ge=1)]], Field(min_length=1)]
    counts: dict[SplitName, SplitCounts]
    class_histogram: dict[SplitName, dict[str, Count]]
    speakers: Annotated[int, Field(ge=1)]
    missing: dict[str, dict[SplitName, Count]]
    subsets: dict[Identifier, dict[SplitName, SplitCounts]] = {}
    overlap: tuple[Overlap, ...] | None = None
    sources: dict[str, Sha256]
    sources_checksum: Sha256
    store_checksum: Sha256
    files: dict[str, StoredFile]
    settings: dict[str, Any]
    notes: dict[str, Any]
    version: str

    @property
    def key(self) -> StoreKey:
        """What the store is of: dataset, feature set, label set, protocol and fold."""
        return StoreKey(self.dataset, self.features, self.labels, self.protocol, self.fold)

    @property
    def utterances(self) -> int:
        """Utterances of all splits."""
        return sum(count.utterances for count in self.counts.values())

    @property
    def dialogues(self) -> int:
        """Dialogues of all splits."""
        return sum(count.dialogues for count in self.counts.values())

    @property
    def has_texts(self) -> bool:
        """Whether the store keeps what is said."""
        return TEXTS in self.files


@dataclass(frozen=True)
class Store:
    """A prepared store, opened: its arrays are mapped into memory and read as they are used.

    The mapping is private: whatever is written into an array or tensor never reaches the files.
    """

    folder: Path
    manifest: Manifest
    arrays: Mapping[str, NDArray[Any]]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their index."""
        return self.manifest.classes

    @property
    def widths(self) -> dict[str, int]:
        """Width of each modality's features, in the store's order."""
        return dict(self.manifest.widths)

    @property
    def speakers(self) -> int:
        """Most speakers that any dialogue has."""
        return self.manifest.speakers

    def split(
        self,
        name: str,
        modalities: Sequence[str] | None = None,
        device: torch.device | str = "cpu",
        labels: bool = True,
    ) -> Split:
        """One split as tensors; on the CPU the features are the mapped files themselves.

        Args:
            modalities: Which, in the order wanted; None is all of them in the store's order.
            labels: False leaves the labels out of reach: they are not even read.

        Raises:
            UnknownNameError: For a modality or a split that the store does not have.
            DataError: If the split has no dialogues.
        """
        import torch

        from mer_bench.data.batches import Split

        wanted = tuple(self.widths) if modalities is None else tuple(modalities)
        for modality in wanted:
            if modality not in self.widths:
                raise UnknownNameError(f"modality of {self.manifest.key}", modality, self.widths)
        dialogues, utterances = self.rows(name)
        if dialogues.start == dialogues.stop:
            raise DataError(f"the store {self.folder} has no dialogues in its {name} split.")
        offsets = np.concatenate([[0], np.cumsum(self.lengths(name))])

        def tensor(array: str, dtype: torch.dtype | None = None) -> torch.Tensor:
            return torch.from_numpy(np.asarray(self.arrays[array][utterances])).to(device=device, dtype=dtype)

        return Split(
            name=name,
            features={modality: tensor(f"features.{modality}") for modality in wanted},
            present={modality: tensor(f"present.{modality}") for modality in wanted},
            speakers=tensor("speakers", torch.long),
            offsets=torch.from_numpy(np.asarray(offsets, dtype=np.int64)),
            labels=tensor("labels", torch.long) if labels else None,
            dialogue_ids=self.arrays["dialogue_ids"][dialogues],
        )

    def identifiers(self, name: str) -> tuple[list[str], list[str]]:
        """Id of each utterance of a split, and of the dialogue it belongs to.

        Raises:
            UnknownNameError: For a split that does not exist.
        """
        dialogues, utterances = self.rows(name)
        ids = list(map(bytes.decode, self.arrays["utterance_ids"][utterances].tolist()))
        names = map(bytes.decode, self.arrays["dialogue_ids"][dialogues].tolist())
        lengths = self.lengths(name).tolist()
        return ids, list(chain.from_iterable(map(repeat, names, lengths)))

    def lengths(self, name: str) -> NDArray[np.int64]:
        """Utterances of each dialogue of a split: (dialogues,).

        Raises:
            UnknownNameError: For a split that does not exist. DataError: If the offsets are damaged.
        """
        dialogues, _ = self.rows(name)
        offsets = self.arrays["offsets"][dialogues.start : dialogues.stop + 1]
        # The borders of the splits are right, so what rises stays within them. Compared, since differences overflow.
        if (offsets[1:] <= offsets[:-1]).any():
            raise DataError(f"{self.folder / 'offsets.npy'} is damaged: it falls. {_again(self.manifest.key)}")
        lengths: NDArray[np.int64] = np.diff(offsets)
        return lengths

    def texts(self, name: str) -> list[str] | None:
        """What is said in each utterance of a split; None where the store keeps no texts.

        Raises:
            UnknownNameError: For a split that does not exist. DataError: If the texts are damaged.
        """
        _, utterances = self.rows(name)
        if not self.manifest.has_texts:
            return None
        offsets = self.arrays["text_offsets"][utterances.start : utterances.stop + 1]
        content = self.arrays["texts"]
        if offsets[0] < 0 or offsets[-1] > len(content) or (offsets[1:] < offsets[:-1]).any():
            raise DataError(
                f"{self.folder / 'text_offsets.npy'} is damaged: it falls, or points past the texts. "
                f"{_again(self.manifest.key)}"
            )
        spoken = content[offsets[0] : offsets[-1]].tobytes()
        bounds = (offsets - offsets[0]).tolist()
        try:
            return [spoken[start:end].decode() for start, end in pairwise(bounds)]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.folder / TEXTS} is damaged: it is not UTF-8 ({error.reason}). {_again(self.manifest.key)}"
            ) from None

    def subsets(self, name: str) -> dict[str, NDArray[np.bool_]]:
        """Which dialogues of a split belong to each named part of the corpus: (dialogues,) bool, by name.

        Raises:
            UnknownNameError: For a split that does not exist.
        """
        dialogues, _ = self.rows(name)
        return {subset: self.arrays[f"subset.{subset}"][dialogues] for subset in self.manifest.subsets}

    def measure_overlap(self) -> tuple[Overlap, ...] | None:
        """Count again what `Manifest.overlap` says, from the texts; None where the store keeps none.

        Raises:
            DataError: If the texts are damaged.
        """
        texts: list[str] = []
        for split in SPLITS:
            spoken = self.texts(split)
            if spoken is None:
                return None
            texts += spoken
        lengths = np.concatenate([self.lengths(split) for split in SPLITS])
        subsets = {name: self.arrays[f"subset.{name}"] for name in self.manifest.subsets}
        return measure_overlap(texts, self.arrays["labels"], lengths, self.arrays["splits"], subsets)

    def pipeline(self) -> dict[str, NDArray[Any]]:
        """Arrays that apply the same preparation to new dialogues; read from the disk at each call."""
        try:
            with np.load(self.folder / PIPELINE, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.folder / PIPELINE} cannot be read: {error}. {_again(self.manifest.key)}") from error

    def verify(self) -> None:
        """Read every file again and compare it with the manifest.

        Raises:
            DataError: If any byte of any file differs; names the file.
        """
        for name, entry in self.manifest.files.items():
            file = self.folder / name
            try:
                found = sha256_of_file(file)
            except OSError as error:
                raise DataError(f"{file} cannot be read: {error}. {_again(self.manifest.key)}") from error
            if found != entry.sha256:
                raise DataError(
                    f"{file} is damaged: its SHA-256 is {found}, and the manifest says {entry.sha256}. "
                    f"{_again(self.manifest.key)}"
                )
        files = {name: entry.sha256 for name, entry in self.manifest.files.items()}
        if (
            store_checksum(files, self.manifest.classes) != self.manifest.store_checksum
            or sources_checksum(self.manifest) != self.manifest.sources_checksum
        ):
            raise DataError(f"{self.folder / MANIFEST} was changed after it was written. {_again(self.manifest.key)}")

    def rows(self, name: str) -> tuple[slice, slice]:
        """Where the dialogues of a split stand in the arrays, and where their utterances.

        Raises:
            UnknownNameError: For a split that does not exist.
        """
        if name not in SPLITS:
            raise UnknownNameError("split", name, SPLITS)
        before = SPLITS[: SPLITS.index(name)]
        dialogue = sum(self.manifest.counts[split].dialogues for split in before)
        utterance = sum(self.manifest.counts[split].utterances for split in before)
        count = self.manifest.counts[name]
        return slice(dialogue, dialogue + count.dialogues), slice(utterance, utterance + count.utterances)


def write_store(
    folder: Path,
    content: StoreContent,
    key: StoreKey,
    source_checksums: Mapping[str, str],
    *,
    dataset_version: int = 1,
    protocol_version: int = 1,
) -> Store:
    """Write a store so that it is there as a whole or not at all, and open it.

    It is written into a folder beside, flushed to the disk, and renamed. Of two processes that write
    the same store at once one rename wins and the other finds it done. A store of other content that
    stood there is replaced; whoever has that one open keeps it.

    Raises:
        PluginError: If the content breaks its contract; names the field.
        StorageError: If it cannot be written; nothing is left behind.
    """
    check_content(content)
    with storage_errors(f"write the store {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        unfinished = temporary_beside(folder)
        try:
            unfinished.mkdir()
            manifest = _write_files(unfinished, content, key, source_checksums, (dataset_version, protocol_version))
            flush_to_disk(unfinished)
            _publish(unfinished, folder, manifest)
        finally:
            remove(unfinished)
    for _ in range(20):
        try:
            return open_store(folder)
        except MissingDataError:  # for a moment, while a rival replaces it by other content
            time.sleep(0.05)
    return open_store(folder)


def open_store(folder: Path) -> Store:
    """Map a store's files into memory, which takes as long for a large store as for a small one.

    The manifest, and the size, type and shape of every file are checked; the content is what
    `Store.verify` checks.

    Raises:
        MissingDataError: If there is no such store. DataError: If it is incomplete or damaged; names the file.
    """
    # Read twice when the store was replaced by another between the manifest and the last array.
    for _ in range(10):
        manifest, content = _read_manifest(folder)
        try:
            store = Store(folder, manifest, _map_arrays(folder, manifest))
        except DataError:
            if _manifest_is_still(folder, content):
                raise
            continue
        if _manifest_is_still(folder, content):
            _check_offsets(store)
            return store
    raise DataError(f"the store {folder} keeps changing while it is read; wait for the preparation to end.")


def store_checksum(files: Mapping[str, str], classes: Sequence[str]) -> str:
    """The checksum of a store from those of its files."""
    return _checksum_of({"files": dict(files), "classes": list(classes)})


def sources_checksum(manifest: Manifest) -> str:
    """The checksum of what a store was prepared from and how, from what its manifest says of that."""
    return _sources_checksum(
        manifest.key, (manifest.dataset_version, manifest.protocol_version), manifest.sources, manifest.settings
    )


def _sources_checksum(
    key: StoreKey, versions: tuple[int, int], sources: Mapping[str, str], settings: Mapping[str, Any]
) -> str:
    dataset_version, protocol_version = versions
    return _checksum_of(
        {
            "dataset": [key.dataset, dataset_version],
            "features": key.features,
            "labels": key.labels,
            "protocol": [key.protocol, protocol_version, key.fold],
            "sources": dict(sources),
            "settings": dict(settings),
        }
    )


def check_content(content: StoreContent) -> None:
    """Check what a dataset returned against the contract of `StoreContent`.

    Raises:
        PluginError: Names the field and what is wrong with it.
    """
    rows = len(content.utterance_ids)
    dialogues = len(content.dialogue_ids)
    offsets = np.asarray(content.offsets)
    splits = np.asarray(content.splits)
    if len(content.classes) < 2 or len(set(content.classes)) != len(content.classes):
        raise _broken("classes", f"should be two or more different names, but is {content.classes}")
    if not content.features:
        raise _broken("features", "has no modality")
    if list(content.present) != list(content.features):
        raise _broken(
            "present", f"should have the modalities {list(content.features)}, but has {list(content.present)}"
        )
    _check_identifiers("utterance_ids", content.utterance_ids)
    _check_identifiers("dialogue_ids", content.dialogue_ids)
    if offsets.shape != (dialogues + 1,) or offsets[0] != 0 or offsets[-1] != rows or (np.diff(offsets) < 1).any():
        raise _broken(
            "offsets", f"should rise from 0 to {rows} in {dialogues + 1} numbers, every dialogue having a row"
        )
    if splits.shape != (dialogues,) or (np.diff(splits.astype(int)) < 0).any() or splits.max() >= len(SPLITS):
        raise _broken("splits", f"should be {dialogues} indices into {SPLITS} in rising order")
    for name, numbers in (("speakers", np.asarray(content.speakers)), ("labels", np.asarray(content.labels))):
        if numbers.shape != (rows,):
            raise _broken(name, f"should have {rows} rows, but is {numbers.shape}")
        if not np.issubdtype(numbers.dtype, np.integer) or numbers.max() > np.iinfo(np.int16).max:
            raise _broken(name, "should be whole numbers of at most 32767")
    labels = np.asarray(content.labels)
    if labels.min() < -1 or labels.max() >= len(content.classes):
        raise _broken("labels", f"should lie in [-1, {len(content.classes) - 1}]")
    if not _speakers_by_first_appearance(np.asarray(content.speakers), offsets):
        raise _broken("speakers", "should be numbered by first appearance in the dialogue, from 0")
    for modality, values in content.features.items():
        _check_modality(modality, values, np.asarray(content.present[modality]), rows)
    if content.texts is not None:
        _check_texts(content.texts, rows)
    _check_subsets(content.subsets, dialogues)


def _check_modality(modality: str, values: NDArray[np.float32], there: NDArray[np.bool_], rows: int) -> None:
    if there.shape != (rows,) or there.dtype != np.bool_:
        raise _broken(f"present[{modality}]", f"should be ({rows},) bool, but is {there.shape} {there.dtype}")
    if values.ndim != 2 or values.shape[0] != rows or values.shape[1] < 1:
        raise _broken(f"features[{modality}]", f"should be ({rows}, width), but is {values.shape}")
    for here in _chunks(values):
        if not np.isfinite(values[here]).all():
            raise _broken(f"features[{modality}]", "has a value that is not finite")
        if values[here][~there[here]].any():
            raise _broken(f"features[{modality}]", "should be zero where the modality is missing")


def _check_identifiers(name: str, values: Sequence[str]) -> None:
    if not values:
        raise _broken(name, "is empty")
    if len(set(values)) != len(values):
        seen: set[str] = set()
        twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
        raise _broken(name, f"should be unique, but '{twice}' occurs twice")
    if not all(values) or any("\0" in value for value in values):
        raise _broken(name, "has an empty id or one with a NUL character")
    _check_characters(name, values)


def _check_texts(texts: Sequence[str], rows: int) -> None:
    if len(texts) != rows:
        raise _broken("texts", f"should have {rows} rows, but has {len(texts)}")
    if not all(isinstance(text, str) for text in texts):
        raise _broken("texts", "should be strings; an utterance without words has an empty one")
    _check_characters("texts", texts)


def _check_characters(name: str, values: Sequence[str]) -> None:
    """Half of a surrogate pair, which a text cut in the middle of an emoji ends in, has no place in UTF-8."""
    for row, value in enumerate(values):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise _broken(
                    name, f"has in row {row} the code {ord(value[error.start]):#x}, which is no character"
                ) from None


def _check_subsets(subsets: Mapping[str, NDArray[np.bool_]], dialogues: int) -> None:
    for name, chosen in subsets.items():
        if not _SUBSET_NAME.fullmatch(name):
            raise _broken("subsets", f"should have names of lower-case letters, digits and hyphens, but has '{name}'")
        if np.shape(chosen) != (dialogues,) or np.asarray(chosen).dtype != np.bool_:
            found = f"{np.shape(chosen)} {np.asarray(chosen).dtype}"
            raise _broken(f"subsets[{name}]", f"should be ({dialogues},) bool, but is {found}")


def _speakers_by_first_appearance(speakers: NDArray[np.integer[Any]], offsets: NDArray[np.integer[Any]]) -> bool:
    """Whether each dialogue's first speaker is 0 and nobody's number is more than one above all before it."""
    numbers = speakers.astype(np.int64)
    if (numbers < 0).any():
        return False
    starts = np.asarray(offsets[:-1])
    # Every dialogue a step above the last, so that the highest so far never comes from the dialogue before.
    step = int(numbers.max()) + 2
    base = np.repeat(np.arange(1, len(starts) + 1) * step, np.diff(offsets))
    highest = np.maximum.accumulate(base + numbers)
    before = np.concatenate([[0], highest[:-1]])
    before[starts] = base[starts] - 1
    return bool((base + numbers <= before + 1).all())


def _broken(name: str, fault: str) -> PluginError:
    return PluginError(f"the dataset's content breaks its contract: {name} {fault}.")


def _write_files(
    folder: Path,
    content: StoreContent,
    key: StoreKey,
    sources: Mapping[str, str],
    versions: tuple[int, int],
) -> Manifest:
    dataset_version, protocol_version = versions
    arrays: dict[str, NDArray[Any]] = {
        "speakers": np.asarray(content.speakers, dtype="<i2"),
        "labels": np.asarray(content.labels, dtype="<i2"),
        "utterance_ids": np.asarray([value.encode() for value in content.utterance_ids]),
        "dialogue_ids": np.asarray([value.encode() for value in content.dialogue_ids]),
        "offsets": np.asarray(content.offsets, dtype="<i8"),
        "splits": np.asarray(content.splits, dtype="|u1"),
    }
    for modality, values in content.features.items():
        arrays[f"features.{modality}"] = np.asarray(values)
        arrays[f"present.{modality}"] = np.asarray(content.present[modality], dtype="|b1")
    for name, chosen in content.subsets.items():
        arrays[f"subset.{name}"] = np.asarray(chosen, dtype="|b1")
    overlap = None
    lengths = np.diff(content.offsets)
    if content.texts is not None:
        arrays["texts"], arrays["text_offsets"] = _joined(content.texts)
        overlap = measure_overlap(content.texts, np.asarray(content.labels), lengths, content.splits, content.subsets)
    files: dict[str, StoredFile] = {}
    for name, array in sorted(arrays.items()):
        dtype = np.dtype("<f4") if name.startswith("features.") else array.dtype
        written = _write_file(folder / f"{name}.npy", [_npy_header(dtype, array.shape), *_little_endian(array, dtype)])
        files[f"{name}.npy"] = written.model_copy(update={"dtype": dtype.str, "shape": array.shape})
    files[PIPELINE] = _write_file(folder / PIPELINE, [_npz_bytes(content.pipeline)])
    settings = json.loads(_canonical_json(dict(content.settings)))
    counts, histogram, missing = _counts(content)
    manifest = Manifest(
        dataset=key.dataset,
        dataset_version=dataset_version,
        features=key.features,
        labels=key.labels,
        protocol=key.protocol,
        protocol_version=protocol_version,
        fold=key.fold,
        classes=content.classes,
        widths={modality: values.shape[1] for modality, values in content.features.items()},
        counts=counts,
        class_histogram=histogram,
        speakers=int(np.max(content.speakers)) + 1,
        missing=missing,
        subsets=_subset_counts(content),
        overlap=overlap,
        sources=dict(sorted(sources.items())),
        sources_checksum=_sources_checksum(key, versions, sources, settings),
        store_checksum=store_checksum({name: file.sha256 for name, file in files.items()}, content.classes),
        files=files,
        settings=settings,
        notes=json.loads(_canonical_json(dict(content.notes))),
        version=__version__,
    )
    _write_file(folder / MANIFEST, [(manifest.model_dump_json(indent=1) + "\n").encode()])
    return manifest


def _counts(
    content: StoreContent,
) -> tuple[dict[SplitName, SplitCounts], dict[SplitName, dict[str, int]], dict[str, dict[SplitName, int]]]:
    lengths = np.diff(content.offsets)
    split_of_row = np.repeat(content.splits, lengths)
    labels = np.asarray(content.labels)
    counts, histogram = {}, {}
    for index, split in enumerate(SPLITS):
        here = labels[split_of_row == index]
        labelled = here[here >= 0]
        dialogues = int((np.asarray(content.splits) == index).sum())
        counts[split] = SplitCounts(dialogues=dialogues, utterances=len(here), labelled=len(labelled))
        tally = np.bincount(labelled, minlength=len(content.classes)).tolist()
        histogram[split] = dict(zip(content.classes, tally, strict=True))
    missing = {
        modality: {split: int((~there[split_of_row == index]).sum()) for index, split in enumerate(SPLITS)}
        for modality, there in content.present.items()
    }
    return counts, histogram, missing


def _subset_counts(content: StoreContent) -> dict[str, dict[SplitName, SplitCounts]]:
    lengths = np.diff(content.offsets)
    splits = np.asarray(content.splits)
    labelled = np.add.reduceat(np.asarray(content.labels) >= 0, content.offsets[:-1], dtype=np.int64)
    found: dict[str, dict[SplitName, SplitCounts]] = {}
    for name, chosen in content.subsets.items():
        found[name] = {}
        for index, split in enumerate(SPLITS):
            here = chosen & (splits == index)
            found[name][split] = SplitCounts(
                dialogues=int(here.sum()), utterances=int(lengths[here].sum()), labelled=int(labelled[here].sum())
            )
    return found


def _joined(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All texts as UTF-8, one after the other, and where each begins and the last ends."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(texts) + 1, dtype="<i8")
    np.cumsum([len(content) for content in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype="|u1"), offsets


def _write_file(file: Path, parts: Iterable[bytes]) -> StoredFile:
    """Write what comes in parts, so that no second copy of a large array is made."""
    digest = hashlib.sha256()
    size = 0
    with file.open("wb") as stream:
        for part in parts:
            stream.write(part)
            digest.update(part)
            size += len(part)
    flush_to_disk(file)
    return StoredFile(bytes=size, sha256=digest.hexdigest())


def _publish(unfinished: Path, folder: Path, manifest: Manifest) -> None:
    """Rename the finished folder to its place, where the same or another store may stand already."""
    for _ in range(10):
        try:
            unfinished.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            flush_to_disk(folder.parent)
            return
        if _holds(folder, manifest):
            return
        aside = temporary_beside(folder)
        try:
            folder.rename(aside)
        except FileNotFoundError:  # another process moved it at the same moment
            continue
        remove(aside)
    raise DataError(f"the store {folder} keeps changing while it is written; prepare it in one process at a time.")


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Whether a whole, undamaged store with that very manifest stands there."""
    try:
        store = open_store(folder)
        store.verify()
    except (DataError, MissingDataError):
        return False
    return store.manifest == manifest


def _read_manifest(folder: Path) -> tuple[Manifest, bytes]:
    file = folder / MANIFEST
    try:
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            if not any(folder.glob("*.npy")):
                raise
            time.sleep(0.05)  # what is there may have been renamed to this place just now
            content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if any(folder.glob("*.npy")):
            raise DataError(f"{file} is not there, so the store is incomplete. Delete the folder {folder}.") from None
        raise MissingDataError(
            f"there is no prepared store in {folder}. Make it with: mer-bench data prepare"
        ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        values = json.loads(content)
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}. Delete the folder {folder} and prepare it again.") from None
    version = values.get("schema_version") if isinstance(values, dict) else None
    if version != SCHEMA:
        raise DataError(
            f"the store {folder} has schema version {version}, and this version of mer-bench reads {SCHEMA}. "
            "Prepare it again with: mer-bench data prepare"
        )
    try:
        return Manifest.model_validate(values), content
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{file} is not a valid manifest: {where}: {first['msg']}.") from None


def _manifest_is_still(folder: Path, content: bytes) -> bool:
    try:
        return (folder / MANIFEST).read_bytes() == content
    except OSError:
        return False


def _map_arrays(folder: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Map every array; a file's size and first bytes must be those that its dtype and shape demand."""
    arrays: dict[str, NDArray[Any]] = {}
    expected = _expected_arrays(folder, manifest)
    for name, entry in manifest.files.items():
        file = folder / name
        try:
            size = file.stat().st_size
        except OSError:
            raise DataError(f"{file} is not there, so the store is incomplete. {_again(manifest.key)}") from None
        if size != entry.bytes:
            raise DataError(f"{file} should have {entry.bytes} bytes, but has {size}. {_again(manifest.key)}")
        if name == PIPELINE:
            continue
        dtype, shape = expected[name]
        header = _npy_header(dtype, shape)
        length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        try:
            with file.open("rb") as stream:
                begin = stream.read(len(header))
            if begin != header or size != len(header) + length:
                raise DataError(
                    f"{file} should hold an array of shape {shape} and type {dtype.str}, and does not. "
                    f"{_again(manifest.key)}"
                )
            array = np.memmap(file, dtype=dtype, mode="c", offset=len(header), shape=shape)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}. {_again(manifest.key)}") from error
        arrays[name.removesuffix(".npy")] = array.view(np.ndarray)
    return arrays


def _expected_arrays(folder: Path, manifest: Manifest) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Type and shape of every array, from the counts and widths; the manifest must agree with itself."""
    rows, dialogues = manifest.utterances, manifest.dialogues
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "speakers.npy": ("<i2", (rows,)),
        "labels.npy": ("<i2", (rows,)),
        "utterance_ids.npy": ("|S", (rows,)),
        "dialogue_ids.npy": ("|S", (dialogues,)),
        "offsets.npy": ("<i8", (dialogues + 1,)),
        "splits.npy": ("|u1", (dialogues,)),
    }
    for modality, width in manifest.widths.items():
        wanted[f"features.{modality}.npy"] = ("<f4", (rows, width))
        wanted[f"present.{modality}.npy"] = ("|b1", (rows,))
    for name in manifest.subsets:
        wanted[f"subset.{name}.npy"] = ("|b1", (dialogues,))
    if manifest.has_texts:
        # How many bytes they are is known from the file alone; its size is checked against it.
        length = manifest.files[TEXTS].shape[:1]
        wanted[TEXTS] = ("|u1", length or (0,))
        wanted["text_offsets.npy"] = ("<i8", (rows + 1,))
    if set(manifest.files) != {*wanted, PIPELINE} or set(manifest.counts) != set(SPLITS):
        raise DataError(f"{folder / MANIFEST} does not list the files that a store has. {_again(manifest.key)}")
    expected = {}
    for name, (kind, shape) in wanted.items():
        entry = manifest.files[name]
        digits = entry.dtype.removeprefix("|S")
        is_bytes = kind == "|S" and digits.isascii() and digits.isdigit() and 0 < int(digits) < 1 << 16
        if entry.shape != shape or not (entry.dtype == kind or is_bytes):
            raise DataError(
                f"{folder / MANIFEST} says that {name} is {entry.shape} {entry.dtype}, but its counts and widths "
                f"demand {shape} {kind}. {_again(manifest.key)}"
            )
        expected[name] = (np.dtype(entry.dtype), shape)
    return expected


def _check_offsets(store: Store) -> None:
    """The offsets at the borders of the splits must be those that the counts demand; so much is flat to check."""
    offsets = store.arrays["offsets"]
    for split in SPLITS:
        dialogues, utterances = store.rows(split)
        if offsets[dialogues.start] != utterances.start or offsets[dialogues.stop] != utterances.stop:
            raise DataError(
                f"{store.folder / 'offsets.npy'} does not agree with the manifest's counts of the {split} split. "
                f"{_again(store.manifest.key)}"
            )
    if store.manifest.has_texts:
        bounds = store.arrays["text_offsets"]
        if bounds[0] != 0 or bounds[-1] != len(store.arrays["texts"]):
            raise DataError(
                f"{store.folder / 'text_offsets.npy'} does not end where {TEXTS} ends. {_again(store.manifest.key)}"
            )


def _again(key: StoreKey) -> str:
    return f"Prepare it again with: mer-bench data prepare {key.dataset} --features {key.features}"


def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of an .npy file, version 1.0, written here so that no release of NumPy changes it."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(10 + len(text) + 1) % 64
    return (
        b"\x93NUMPY\x01\x00" + (len(text) + padding + 1).to_bytes(2, "little") + (text + " " * padding + "\n").encode()
    )


def _npy_bytes(array: NDArray[Any]) -> bytes:
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).reshape(array.shape)
    return _npy_header(little.dtype, little.shape) + little.tobytes()


def _chunks(array: NDArray[Any]) -> Iterator[slice]:
    """Some rows after the other, so that what is computed of them takes little memory."""
    width = array.itemsize * int(np.prod(array.shape[1:], dtype=np.int64))
    rows = max(1, _CHUNK_BYTES // max(1, width))
    for start in range(0, len(array), rows):
        yield slice(start, start + rows)


def _little_endian(array: NDArray[Any], dtype: np.dtype[Any]) -> Iterator[bytes]:
    """The array's bytes as they stand in a file, some rows after the other."""
    for here in _chunks(array):
        yield np.ascontiguousarray(array[here], dtype=dtype).tobytes()


def _npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """An .npz archive without time stamps."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_STORED) as archive:
        for name, array in sorted(arrays.items()):
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.create_system = 3  # else it would differ between Windows and the rest
            archive.writestr(entry, _npy_bytes(np.asarray(array)))
    return memory.getvalue()


def _canonical_json(values: Any) -> str:
    try:
        return json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise _broken("settings or notes", f"should be JSON values: {error}") from None


def _checksum_of(values: Any) -> str:
    return hashlib.sha256(_canonical_json(values).encode()).hexdigest()
