"""The prepared store: round trip, checksums, damage, kills, rivals and speed."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench import atomic
from mer_bench.atomic import TEMPORARY_SUFFIX, remove_abandoned, temporary_beside
from mer_bench.data import store as store_module
from mer_bench.data.store import (
    SPLITS,
    Manifest,
    SplitCounts,
    Store,
    StoreContent,
    StoredFile,
    check_content,
    open_store,
    write_store,
)
from mer_bench.errors import DataError, MissingDataError, PluginError, StorageError, UnknownNameError

from .content import CLASSES, KEY, contents, make_content

SOURCES = {"train.csv": "ab" * 32}


@pytest.fixture(autouse=True, scope="module")
def without_waiting_for_the_disk() -> Iterator[None]:
    """A flush takes most of a small store's time; processes that are killed still do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "flush_to_disk", lambda path: None)
        yield


@pytest.fixture
def content() -> StoreContent:
    texts = ["Hi.", "", "Grüße", "a\0b", "👩‍🚀", "six", "seven", "日本", "nine", "ten"]
    subsets = {"scripted": [True, False, True, False], "improvised": [False, True, False, True]}
    return make_content([3, 1, 2, 4], [0, 0, 1, 2], {"text": 4, "audio": 2}, texts=texts, subsets=subsets)


@pytest.fixture
def bare() -> StoreContent:
    """As before texts and subsets were kept."""
    return make_content([3, 1, 2, 4], [0, 0, 1, 2], {"text": 4, "audio": 2})


@pytest.fixture
def store(tmp_path: Path, content: StoreContent) -> Store:
    return write_store(tmp_path / "store", content, KEY, SOURCES)


SHAPE_OF_TEN = Manifest(
    dataset="made-up",
    dataset_version=1,
    features="default",
    labels="emotion",
    protocol="official",
    protocol_version=1,
    fold=None,
    classes=CLASSES,
    widths={"text": 1},
    counts={
        "train": SplitCounts(dialogues=4, utterances=4, labelled=0),
        "dev": SplitCounts(dialogues=2, utterances=2, labelled=0),
        "test": SplitCounts(dialogues=4, utterances=4, labelled=0),
    },
    class_histogram={},
    speakers=1,
    missing={},
    sources={},
    sources_checksum="ab" * 32,
    store_checksum="ab" * 32,
    files={name: StoredFile(bytes=0, sha256="ab" * 32) for name in ("texts.npy", "text_offsets.npy")},
    settings={},
    notes={},
    version="0",
)
"""A manifest of four, two and four utterances with texts."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=60, deadline=None)
@given(content=contents())
def test_what_is_written_is_read(content: StoreContent) -> None:
    with TemporaryDirectory() as name:
        write_store(Path(name) / "a/store", content, KEY, SOURCES)
        store = open_store(Path(name) / "a/store")
        store.verify()
        lengths = np.diff(content.offsets)
        assert store.classes == content.classes
        assert store.speakers == content.speakers.max() + 1
        assert list(store.widths) == list(content.features)
        for index, split_name in enumerate(SPLITS):
            rows = np.flatnonzero(np.repeat(content.splits, lengths) == index)
            split = store.split(split_name)
            for modality, values in content.features.items():
                assert np.array_equal(split.features[modality].numpy(), values[rows])
                assert np.array_equal(split.present[modality].numpy(), content.present[modality][rows])
                assert store.manifest.missing[modality][split_name] == (~content.present[modality][rows]).sum()
            assert split.labels is not None
            assert split.labels.tolist() == content.labels[rows].tolist()
            assert split.speakers.tolist() == content.speakers[rows].tolist()
            assert split.lengths.tolist() == lengths[content.splits == index].tolist()
            utterances, dialogues = store.identifiers(split_name)
            assert utterances == [content.utterance_ids[row] for row in rows.tolist()]
            owner = np.repeat(np.arange(len(lengths)), lengths)
            assert dialogues == [content.dialogue_ids[owner[row]] for row in rows]
            counts = store.manifest.counts[split_name]
            assert (counts.dialogues, counts.utterances) == (split.dialogue_count, split.utterance_count)
            histogram = store.manifest.class_histogram[split_name]
            assert histogram == {c: (content.labels[rows] == i).sum() for i, c in enumerate(CLASSES)}
            assert counts.labelled == sum(histogram.values())
            spoken = None if content.texts is None else [content.texts[row] for row in rows.tolist()]
            assert store.texts(split_name) == spoken
            here = content.splits == index
            assert list(store.subsets(split_name)) == list(content.subsets)
            for part, chosen in content.subsets.items():
                assert store.subsets(split_name)[part].tolist() == chosen[here].tolist()
                in_part = chosen[owner[rows]]
                told = store.manifest.subsets[part][split_name]
                assert (told.dialogues, told.utterances) == (chosen[here].sum(), in_part.sum())
                assert told.labelled == (content.labels[rows][in_part] >= 0).sum()
        assert store.measure_overlap() == store.manifest.overlap
        assert (store.manifest.overlap is None) == (content.texts is None)
        pipeline = store.pipeline()
        assert sorted(pipeline) == sorted(content.pipeline)
        for part, array in content.pipeline.items():
            assert np.array_equal(pipeline[part], array)
        assert store.manifest.settings == content.settings
        assert store.manifest.notes == content.notes
        del store, split


def test_arrays_can_be_read_by_numpy_alone(store: Store, content: StoreContent) -> None:
    assert np.array_equal(np.load(store.folder / "features.text.npy"), content.features["text"])
    assert np.load(store.folder / "utterance_ids.npy")[1].decode() == "ü1"


def test_the_same_content_has_the_same_checksums_anywhere(tmp_path: Path, content: StoreContent) -> None:
    first = write_store(tmp_path / "one", content, KEY, SOURCES)
    time.sleep(0.01)
    big_endian = dataclasses.replace(
        content,
        features={name: np.asfortranarray(values.astype(">f4")) for name, values in content.features.items()},
        labels=content.labels.astype(np.int64),
        settings=dict(reversed(list(content.settings.items()))),
    )
    second = write_store(tmp_path / "some/where/two", big_endian, KEY, SOURCES)
    assert first.manifest == second.manifest
    for file in first.folder.iterdir():
        assert file.read_bytes() == (second.folder / file.name).read_bytes()


def test_what_differs_changes_its_checksum(tmp_path: Path, content: StoreContent, store: Store) -> None:
    labels = content.labels.copy()
    labels[0] = 1 - labels[0] if labels[0] >= 0 else 0
    other = write_store(tmp_path / "b", dataclasses.replace(content, labels=labels), KEY, SOURCES)
    assert other.manifest.store_checksum != store.manifest.store_checksum
    assert other.manifest.sources_checksum == store.manifest.sources_checksum
    renamed = write_store(tmp_path / "c", dataclasses.replace(content, classes=("a", "b", "c")), KEY, SOURCES)
    assert renamed.manifest.store_checksum != store.manifest.store_checksum
    for changed in (
        write_store(tmp_path / "d", dataclasses.replace(content, settings={"seed": 1}), KEY, SOURCES),
        write_store(tmp_path / "e", content, KEY, {"train.csv": "cd" * 32}),
        write_store(tmp_path / "f", content, KEY, SOURCES, dataset_version=2),
        write_store(tmp_path / "g", content, dataclasses.replace(KEY, fold=1), SOURCES),
    ):
        assert changed.manifest.store_checksum == store.manifest.store_checksum
        assert changed.manifest.sources_checksum != store.manifest.sources_checksum


def test_modalities_in_the_order_asked_for(store: Store) -> None:
    assert list(store.split("dev", ["audio", "text"]).features) == ["audio", "text"]
    assert list(store.split("dev", ["audio"]).present) == ["audio"]
    with pytest.raises(UnknownNameError, match="Did you mean 'audio'"):
        store.split("dev", ["audios"])
    with pytest.raises(UnknownNameError, match=r"no split is called 'tests'. Did you mean 'test'"):
        store.split("tests")


def test_a_split_without_dialogues_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "s", make_content([2, 2], [0, 2], {"text": 1}), KEY, {})
    assert store.identifiers("dev") == ([], [])
    with pytest.raises(DataError, match="has no dialogues in its dev split"):
        store.split("dev")


def test_labels_out_of_reach_are_not_even_read(store: Store) -> None:
    class Forbidden:
        def __getitem__(self, key: Any) -> Any:
            raise AssertionError("the labels were read")

    arrays: dict[str, Any] = {**store.arrays, "labels": Forbidden()}
    guarded = Store(store.folder, store.manifest, arrays)
    assert guarded.split("test", labels=False).labels is None
    with pytest.raises(AssertionError, match="the labels were read"):
        guarded.split("test")


def test_features_are_read_without_copying_and_never_written(store: Store) -> None:
    split = store.split("train")
    assert np.shares_memory(split.features["text"].numpy(), store.arrays["features.text"])
    split.features["text"].add_(1)
    store.verify()


def test_every_damaged_file_is_named(store: Store, content: StoreContent) -> None:
    for name in store.manifest.files:
        file = store.folder / name
        good = file.read_bytes()
        file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(DataError, match=f"{name} is damaged: its SHA-256"):
            store.verify()
        file.write_bytes(good[:-1])
        with pytest.raises(DataError, match=f"{name} should have {len(good)} bytes, but has {len(good) - 1}"):
            open_store(store.folder)
        file.unlink()
        with pytest.raises(DataError, match=f"{name} is not there"):
            open_store(store.folder)
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            store.verify()
        file.write_bytes(good)
    open_store(store.folder).verify()


def test_a_damaged_header_is_found_when_opening(store: Store) -> None:
    file = store.folder / "labels.npy"
    file.write_bytes(file.read_bytes().replace(b"<i2", b"<u2"))
    with pytest.raises(DataError, match=r"labels.npy should hold an array of shape \(10,\) and type <i2"):
        open_store(store.folder)


def test_a_damaged_manifest_is_named(store: Store) -> None:
    file = store.folder / "manifest.json"
    good = json.loads(file.read_text())

    def opened(**changes: Any) -> None:
        file.write_text(json.dumps({**good, **changes}))
        open_store(store.folder)

    with pytest.raises(DataError, match="has schema version 2, and this version of mer-bench reads 1"):
        opened(schema_version=2)
    with pytest.raises(DataError, match=r"not a valid manifest: speakers: "):
        opened(speakers="many")
    with pytest.raises(
        DataError, match=r"features.text.npy is \(10, 4\) <f4, but its counts and widths demand \(10, 5\)"
    ):
        opened(widths={**good["widths"], "text": 5})
    with pytest.raises(DataError, match="does not list the files that a store has"):
        opened(files={**good["files"], "../../passwords": good["files"]["labels.npy"]})
    moved = {"train": {"dialogues": 1}, "test": {"dialogues": 2}}
    counts = {split: {**count, **moved.get(split, {})} for split, count in good["counts"].items()}
    with pytest.raises(DataError, match=r"offsets\.npy does not agree with the manifest's counts of the train split"):
        opened(counts=counts)
    file.write_text(json.dumps({**good, "classes": ["x", "y", "z"]}))
    with pytest.raises(DataError, match=r"manifest\.json was changed after it was written"):
        open_store(store.folder).verify()
    file.write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is not JSON"):
        open_store(store.folder)
    file.unlink()
    with pytest.raises(DataError, match="so the store is incomplete"):
        open_store(store.folder)


def test_no_store_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="there is no prepared store"):
        open_store(tmp_path / "none")


def breaks(content: StoreContent, **changes: Any) -> str:
    with pytest.raises(PluginError, match="breaks its contract") as caught:
        check_content(dataclasses.replace(content, **changes))
    return str(caught.value)


def test_content_that_breaks_the_contract_is_refused(content: StoreContent) -> None:
    rows = len(content.utterance_ids)
    not_finite = content.features["text"].copy()
    not_finite[np.flatnonzero(content.present["text"])[0], 0] = np.nan
    not_zero = content.features["text"] + 1
    assert "features[text] has a value" in breaks(content, features={**content.features, "text": not_finite})
    assert "zero where the modality" in breaks(content, features={**content.features, "text": not_zero})
    assert "(10, width), but is (9, 4)" in breaks(content, features={**content.features, "text": not_zero[1:]})
    assert "present has" not in breaks(content, present={"text": content.present["text"]})
    assert "bool, but is" in breaks(content, present={name: np.ones(rows) for name in content.features})
    assert "'ü0' occurs twice" in breaks(content, utterance_ids=["ü0", *["ü0"], *content.utterance_ids[2:]])
    assert "NUL" in breaks(content, dialogue_ids=["a\0", "b", "c", "d"])
    assert "offsets should rise" in breaks(content, offsets=np.array([0, 3, 3, 6, 10]))
    assert "offsets should rise" in breaks(content, offsets=np.array([0, 3, 4, 6, 9]))
    assert "splits should be" in breaks(content, splits=np.array([0, 1, 0, 2], dtype=np.uint8))
    assert "labels should lie in [-1, 2]" in breaks(content, labels=np.full(rows, 3))
    assert "by first appearance" in breaks(content, speakers=np.full(rows, 1))
    assert "classes should be" in breaks(content, classes=("a", "a", "b"))
    assert "labels should be whole numbers" in breaks(content, labels=np.zeros(rows))
    assert "speakers should be whole numbers of at most 32767" in breaks(content, speakers=np.full(rows, 32768))
    assert "texts should have 10 rows, but has 9" in breaks(content, texts=["a"] * 9)
    assert "texts should be strings" in breaks(content, texts=[*["a"] * 9, None])
    assert "texts has in row 1 the code 0xd83d" in breaks(content, texts=["é", "cut \ud83d", *["a"] * 8])
    assert "utterance_ids has in row 0 the code 0xdc00" in breaks(content, utterance_ids=["\udc00", *"abcdefghi"])
    everywhere = np.ones(4, dtype=np.bool_)
    for name in ("../escape", "Scripted", "", "a--b", "a\n"):
        assert "subsets should have names of lower-case" in breaks(content, subsets={name: everywhere})
    assert "subsets[a] should be (4,) bool, but is (3,)" in breaks(content, subsets={"a": everywhere[1:]})
    assert "subsets[a] should be (4,) bool, but is (4,) int8" in breaks(content, subsets={"a": everywhere.view("i1")})
    with pytest.raises(PluginError, match="should be JSON values"):
        write_store(Path("never-made/store"), dataclasses.replace(content, settings={"a": float("nan")}), KEY, {})
    shutil.rmtree("never-made", ignore_errors=True)


def test_another_store_in_its_place_is_replaced(tmp_path: Path, content: StoreContent, store: Store) -> None:
    before = store.split("train").features["text"].clone()
    other = make_content([2, 1, 1], [0, 1, 2], {"text": 3}, seed=7)
    again = write_store(store.folder, other, KEY, SOURCES)
    assert again.widths == {"text": 3}
    assert torch.equal(store.split("train").features["text"], before)  # who had it open keeps it
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_damaged_store_is_repaired_and_a_good_one_left_alone(content: StoreContent, store: Store) -> None:
    file = store.folder / "labels.npy"
    inode = file.stat().st_ino
    write_store(store.folder, content, KEY, SOURCES)
    assert file.stat().st_ino == inode
    good = file.read_bytes()
    file.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    write_store(store.folder, content, KEY, SOURCES).verify()


def test_a_full_disk_leaves_nothing(tmp_path: Path, content: StoreContent, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk(io.FileIO):
        def write(self, data: Any) -> int:
            super().write(bytes(data)[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

    original = Path.open
    opened = 0

    def open_file(self: Path, mode: str = "r", *arguments: Any) -> Any:
        nonlocal opened
        opened += mode == "wb"
        return FullDisk(self, mode) if mode == "wb" and opened == 4 else original(self, mode, *arguments)

    monkeypatch.setattr(Path, "open", open_file)
    with pytest.raises(StorageError, match="the disk is full"):
        write_store(tmp_path / "sub" / "store", content, KEY, SOURCES)
    assert opened == 4
    assert list((tmp_path / "sub").iterdir()) == []


def test_a_folder_that_may_not_be_written(
    tmp_path: Path, content: StoreContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(StorageError, match="may not be written to"):
        write_store(tmp_path / "sub/store", content, KEY, SOURCES)


def test_ctrl_c_leaves_nothing(tmp_path: Path, content: StoreContent, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "flush_to_disk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", content, KEY, SOURCES)
    assert list(tmp_path.iterdir()) == []


def test_a_store_from_before_texts_and_subsets_opens(tmp_path: Path, bare: StoreContent) -> None:
    store = write_store(tmp_path / "old", bare, KEY, SOURCES)
    file = store.folder / "manifest.json"
    values = json.loads(file.read_text())
    assert values.pop("subsets") == {}
    assert values.pop("overlap") is None
    file.write_text(json.dumps(values))
    old = open_store(store.folder)
    old.verify()
    assert old.texts("train") is None
    assert old.subsets("train") == {}
    assert old.measure_overlap() is None
    assert old.manifest == store.manifest


def rewrite(store: Store, name: str, array: np.ndarray[Any, Any]) -> Store:
    """Other content of one array, with a manifest that agrees: what no checksum finds."""
    file = store.folder / "manifest.json"
    manifest = json.loads(file.read_text())
    (store.folder / name).unlink()  # another file of that name: this one is mapped
    entry = store_module._write_file(
        store.folder / name, [store_module._npy_header(array.dtype, array.shape), array.tobytes()]
    )
    manifest["files"][name] = {**entry.model_dump(), "dtype": array.dtype.str, "shape": array.shape}
    checksums = {each: values["sha256"] for each, values in manifest["files"].items()}
    manifest["store_checksum"] = store_module.store_checksum(checksums, manifest["classes"])
    file.write_text(json.dumps(manifest))
    opened = open_store(store.folder)
    opened.verify()
    return opened


HUGE = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (0, 1, "does not end where texts.npy ends"),
        (0, -1, "does not end where texts.npy ends"),
        (10, 10_000, "does not end where texts.npy ends"),
        (10, 5, "does not end where texts.npy ends"),
        (1, 10_000, "text_offsets.npy is damaged"),
        (1, -5, "text_offsets.npy is damaged"),
        (2, HUGE, "text_offsets.npy is damaged"),
        (4, HUGE, "text_offsets.npy is damaged"),  # the last of train
        (4, -HUGE, "text_offsets.npy is damaged"),
        (3, 6, "it is not UTF-8"),  # in the middle of a letter
    ],
)
def test_hostile_offsets_of_texts_are_refused(store: Store, place: int, value: int, fault: str) -> None:
    offsets = np.array(store.arrays["text_offsets"])
    offsets[place] = value
    with pytest.raises(DataError, match=fault):
        rewrite(store, "text_offsets.npy", offsets).texts("train")


@settings(max_examples=150, deadline=None)
@given(values=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 12), min_size=11, max_size=11))
def test_any_offsets_of_texts_give_texts_or_an_error(values: list[int]) -> None:
    arrays: dict[str, Any] = {
        "texts": np.frombuffer("aé👩b".encode(), dtype=np.uint8),
        "text_offsets": np.array(values, dtype=np.int64),
    }
    manifest = SHAPE_OF_TEN.model_copy()
    store = Store(Path("store"), manifest, arrays)
    for split in SPLITS:
        try:
            spoken = store.texts(split)
        except DataError:
            continue
        assert spoken is not None
        assert len(spoken) == manifest.counts[split].utterances
        assert "".join(spoken) in "aé👩b"


def test_texts_that_are_no_text_are_refused(store: Store) -> None:
    content = np.array(store.arrays["texts"])
    content[4] = 0xFF
    with pytest.raises(DataError, match=r"texts.npy is damaged: it is not UTF-8 \(invalid start byte\)"):
        rewrite(store, "texts.npy", content).texts("train")


def test_offsets_of_dialogues_that_fall_are_refused(store: Store, content: StoreContent) -> None:
    for value in (9, 0, -1, HUGE, -HUGE):
        offsets = np.array(content.offsets)
        offsets[1] = value
        damaged = rewrite(store, "offsets.npy", offsets)
        for read in (damaged.split, damaged.identifiers, damaged.lengths):
            with pytest.raises(DataError, match=r"offsets.npy is damaged: it falls"):
                read("train")
        damaged.split("dev")


def test_a_manifest_of_other_texts_or_subsets_is_refused(store: Store) -> None:
    file = store.folder / "manifest.json"
    good = json.loads(file.read_text())

    def opened(**changes: Any) -> None:
        file.write_text(json.dumps({**good, **changes}))
        open_store(store.folder)

    without = {name: entry for name, entry in good["files"].items() if name != "text_offsets.npy"}
    with pytest.raises(DataError, match="does not list the files that a store has"):
        opened(files=without)
    with pytest.raises(DataError, match="does not list the files that a store has"):
        opened(subsets={})
    with pytest.raises(DataError, match=r"not a valid manifest: subsets"):
        opened(subsets={"../../x": good["subsets"]["scripted"]})
    with pytest.raises(DataError, match=r"not a valid manifest: widths"):
        opened(widths={"../../x": 3})
    for shape in ([], [3, 4], [2**62]):
        entry = {**good["files"]["texts.npy"], "shape": shape}
        with pytest.raises(DataError, match=r"texts\.npy"):
            opened(files={**good["files"], "texts.npy": entry})
    file.write_text(json.dumps({**good, "sources": {"train.csv": "cd" * 32}}))
    with pytest.raises(DataError, match=r"manifest\.json was changed after it was written"):
        open_store(store.folder).verify()


def test_subsets_are_part_of_the_checksum_and_not_of_the_sources(tmp_path: Path, content: StoreContent) -> None:
    first = write_store(tmp_path / "a", content, KEY, SOURCES).manifest
    other = dataclasses.replace(content, subsets={**content.subsets, "scripted": content.subsets["improvised"]})
    second = write_store(tmp_path / "b", other, KEY, SOURCES).manifest
    third = write_store(tmp_path / "c", dataclasses.replace(content, texts=["a"] * 10), KEY, SOURCES).manifest
    assert len({first.store_checksum, second.store_checksum, third.store_checksum}) == 3
    assert first.sources_checksum == second.sources_checksum == third.sources_checksum


@st.composite
def numbered_speakers(draw: st.DrawFn) -> list[int]:
    """Speakers of a dialogue as they should be numbered."""
    numbers: dict[int, int] = {}
    names = draw(st.lists(st.integers(0, 5), min_size=1, max_size=8))
    return [numbers.setdefault(name, len(numbers)) for name in names]


@settings(max_examples=300, deadline=None)
@given(dialogues=st.lists(numbered_speakers(), min_size=1, max_size=6), data=st.data())
def test_speakers_by_first_appearance(dialogues: list[list[int]], data: st.DataObject) -> None:
    for dialogue in data.draw(st.lists(st.sampled_from(dialogues), max_size=1)):
        dialogue[data.draw(st.integers(0, len(dialogue) - 1))] = data.draw(st.integers(-1, 6))

    def fits(speakers: list[int]) -> bool:
        known: list[int] = []
        for speaker in speakers:
            if speaker not in known:
                if speaker != len(known):
                    return False
                known.append(speaker)
        return True

    offsets = np.cumsum([0, *map(len, dialogues)])
    for dtype in (np.int8, np.int16, np.int64):
        speakers = np.concatenate([np.array(each, dtype=dtype) for each in dialogues])
        assert store_module._speakers_by_first_appearance(speakers, offsets) == all(map(fits, dialogues))


def test_a_value_that_is_not_finite_is_found_in_every_part(
    content: StoreContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 48)  # three rows of four numbers
    for row in np.flatnonzero(content.present["text"]).tolist():
        values = content.features["text"].copy()
        values[row, 3] = np.inf
        assert "not finite" in breaks(content, features={**content.features, "text": values})
    for row in np.flatnonzero(~content.present["text"]).tolist():
        values = content.features["text"].copy()
        values[row, 0] = 1
        assert "zero where" in breaks(content, features={**content.features, "text": values})


def test_parts_make_the_same_file(tmp_path: Path, content: StoreContent, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_store(tmp_path / "whole", content, KEY, SOURCES)
    monkeypatch.setattr(store_module, "_CHUNK_BYTES", 1)
    assert write_store(tmp_path / "parts", content, KEY, SOURCES).manifest == whole.manifest


WRITER = """
import os, sys, time
from pathlib import Path
from mer_bench.data import store as store_module
from {module} import KEY, make_content
folder, kill_at, start = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
calls = 0
original = store_module.flush_to_disk
def flush(path):
    global calls
    calls += 1
    if calls == kill_at:
        os.kill(os.getpid(), 9)
    original(path)
store_module.flush_to_disk = flush
content = make_content([3, 1, 2, 4], [0, 0, 1, 2], {{"text": 4, "audio": 2}}, texts=list("abcdefghij"))
time.sleep(max(0.0, start - time.time()))
for _ in range(int(sys.argv[4])):
    store_module.write_store(folder, content, KEY, {{}}).verify()
"""


def start_writer(folder: Path, kill_at: int = 0, start: float = 0.0, times: int = 1) -> subprocess.Popen[bytes]:
    script = textwrap.dedent(WRITER).format(module="content")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    arguments = [str(folder), str(kill_at), str(start), str(times)]
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment)


def test_a_process_killed_while_writing_leaves_a_whole_store_or_none(folder: Path, content: StoreContent) -> None:
    # 13 files, the manifest, the folder, and after the rename the folder above.
    steps = (1, 6, 11, 13, 14, 15, 16)
    killed = [start_writer(folder / f"{step}/store", step) for step in steps]
    for process in killed:
        assert process.wait(60) == -9
    for step in steps:
        target = folder / f"{step}/store"
        assert target.exists() == (step == 16)
        if step == 16:
            open_store(target).verify()
        else:
            left = [path.name for path in target.parent.iterdir()]
            assert len(left) == 1
            assert left[0].endswith(TEMPORARY_SUFFIX)
            write_store(target, content, KEY, {}).verify()


def test_processes_that_write_the_same_store_do_not_harm_each_other(folder: Path) -> None:
    begin = time.time() + 4
    rivals = [start_writer(folder / "store", start=begin, times=20) for _ in range(3)]
    assert [process.wait(120) for process in rivals] == [0, 0, 0]
    assert [path.name for path in folder.iterdir()] == ["store"]
    open_store(folder / "store").verify()


def test_what_a_killed_process_left_is_removed_after_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, fresh = temporary_beside(tmp_path / "store"), temporary_beside(tmp_path / "store")
    for left in (old, fresh):
        left.mkdir()
        (left / "labels.npy").write_bytes(b"")
    os.utime(old, (0, time.time() - atomic.ABANDONED_AFTER_SECONDS - 1))
    remove_abandoned(tmp_path / "store")
    assert not old.exists()
    assert fresh.exists()


def test_opening_is_fast_and_flat(folder: Path) -> None:
    def seconds(dialogues: int) -> float:
        lengths, splits = [10] * dialogues, [0] * (dialogues - 2) + [1, 2]
        write_store(folder / str(dialogues), make_content(lengths, splits, {"text": 64, "audio": 8}), KEY, {})
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            open_store(folder / str(dialogues))
            times.append(time.perf_counter() - begin)
        return min(times)

    small, large = seconds(10), seconds(10_000)
    assert large < 0.05
    assert large < 3 * small + 0.005


OPENER = """
import sys
from pathlib import Path
from mer_bench.data.store import open_store

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
store = open_store(Path(sys.argv[1]))
print(before, peak(), "torch" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak memory of a process is read from /proc")
def test_opening_takes_next_to_no_memory(folder: Path) -> None:
    lengths, splits = [10] * 6_000, [0] * 5_998 + [1, 2]
    texts = ["what is said in it, some words"] * 60_000
    subsets = {"odd": [index % 2 == 1 for index in range(6_000)]}
    write_store(folder / "store", make_content(lengths, splits, {"text": 200}, texts=texts, subsets=subsets), KEY, {})
    answer = subprocess.run(
        [sys.executable, "-c", OPENER, str(folder / "store")], capture_output=True, check=True, text=True
    ).stdout.split()
    before, after = int(answer[0]), int(answer[1])
    assert after - before < 6_000  # kB, of a store of 50 MB
    assert after < 200_000
    assert answer[2] == "False"
