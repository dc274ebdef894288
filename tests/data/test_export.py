"""An exported store: what other programs read, whole or not at all, and never over something else."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file

from mer_bench import registry
from mer_bench.cards import DatasetCard
from mer_bench.data import export as export_module
from mer_bench.data import store as store_module
from mer_bench.data.export import check_target, export_store
from mer_bench.data.files import sha256_of_file
from mer_bench.data.store import SPLITS, Store, StoreContent, write_store
from mer_bench.errors import DataError, RequestError, StorageError
from mer_bench.locations import StoreKey

from .content import CLASSES, contents, make_content

KEY = StoreKey("meld-synthetic", "default", "emotion", "official")


@pytest.fixture(autouse=True, scope="module")
def without_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "flush_to_disk", lambda path: None)
        patch.setattr(export_module, "flush_to_disk", lambda path: None)
        yield


def card() -> DatasetCard:
    return registry.datasets().find("meld-synthetic").card


@pytest.fixture
def store(tmp_path: Path) -> Store:
    texts = ["Hi.", "", 'a "quoted"\n\u2028line\u2029\x85\x00\x1c', "日本 👩‍🚀", "five", "six"]
    subsets = {"scripted": [True, False, True], "late": [False, False, True]}
    content = make_content([3, 1, 2], [0, 1, 2], {"text": 4, "audio": 2}, texts=texts, subsets=subsets)
    content = dataclasses.replace(content, labels=np.array([0, -1, 2, 1, 1, 0], dtype=np.int16))
    return write_store(tmp_path / "store", content, KEY, {"a.csv": "ab" * 32})


@settings(max_examples=40, deadline=None)
@given(content=contents())
def test_everything_can_be_read_again(content: StoreContent) -> None:
    with TemporaryDirectory() as name:
        store = write_store(Path(name) / "store", content, KEY, {})
        folder = export_store(store, card(), Path(name) / "out").folder
        dialogues = [json.loads(line) for line in (folder / "dialogues.jsonl").read_text("utf-8").splitlines()]
        assert [each["id"] for each in dialogues] == list(content.dialogue_ids)
        assert [SPLITS.index(each["split"]) for each in dialogues] == content.splits.tolist()
        assert [len(each["utterances"]) for each in dialogues] == np.diff(content.offsets).tolist()
        utterances = [utterance for each in dialogues for utterance in each["utterances"]]
        assert [each["id"] for each in utterances] == list(content.utterance_ids)
        assert [each["speaker"] for each in utterances] == content.speakers.tolist()
        labels = [-1 if each["label"] is None else CLASSES.index(each["label"]) for each in utterances]
        assert labels == content.labels.tolist()
        if content.texts is None:
            assert all("text" not in each for each in utterances)
        else:
            assert [each["text"] for each in utterances] == list(content.texts)
        for subset, chosen in content.subsets.items():
            assert [subset in each["subsets"] for each in dialogues] == chosen.tolist()
        arrays = load_file(folder / "features.safetensors")
        assert set(arrays) == {*content.features, *(f"{name}.present" for name in content.features)}
        for modality, values in content.features.items():
            assert arrays[modality].dtype == np.float32
            assert np.array_equal(arrays[modality], values)
            assert arrays[f"{modality}.present"].dtype == np.bool_
            assert np.array_equal(arrays[f"{modality}.present"], content.present[modality])


def test_the_lines_and_the_manifest_as_they_stand(store: Store, tmp_path: Path) -> None:
    exported = export_store(store, card(), tmp_path / "new/out")
    folder = tmp_path / "new/out"
    assert exported.folder == folder
    lines = (folder / "dialogues.jsonl").read_text("utf-8").split("\n")
    assert lines[-1] == ""
    assert lines[1] == (
        '{"id": "dialogue 1", "split": "dev", "subsets": [], "utterances": '
        '[{"id": "ü3", "speaker": 0, "label": "glad", "text": "日本 👩\u200d🚀"}]}'
    )
    assert '"label": null' in lines[0]
    assert lines[0].splitlines() == [lines[0]]  # no program finds another line in it
    told = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert told["classes"] == list(CLASSES)
    assert told["redistribute"] is True
    assert told["synthetic"] is True
    assert told["counts"]["train"] == {"dialogues": 1, "utterances": 3, "labelled": 2}
    assert told["store_checksum"] == store.manifest.store_checksum
    assert {name: sha256_of_file(folder / name) for name in told["files"]} == told["files"]
    assert exported.files == {path.name: path.stat().st_size for path in folder.iterdir()}
    modes = {path.stat().st_mode for path in folder.iterdir()}
    assert len(modes) == 1


def test_the_same_store_gives_the_same_bytes(store: Store, tmp_path: Path) -> None:
    one, two = (export_store(store, card(), tmp_path / name).folder for name in ("one", "two"))
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_an_empty_folder_is_filled_and_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    export_store(store, card(), tmp_path / "empty")
    with pytest.raises(RequestError, match="empty is not empty; name a folder that does not exist yet"):
        export_store(store, card(), tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RequestError, match="file is there and no folder"):
        export_store(store, card(), tmp_path / "file")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".mine").write_text("mine")
    with pytest.raises(RequestError, match="is not empty"):
        check_target(tmp_path / "hidden")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="is there and no folder"):
        check_target(tmp_path / "dangling")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "empty", "file", "hidden", "store"]


def test_a_link_to_an_empty_folder_stays_one(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert export_store(store, card(), tmp_path / "link").folder == tmp_path / "real"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "link" / "dialogues.jsonl").is_file()


def test_what_appears_meanwhile_is_not_overwritten(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(path: Path) -> None:
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine").write_text("mine")

    monkeypatch.setattr(export_module, "flush_to_disk", appear)
    with pytest.raises(RequestError, match="is not empty"):
        export_store(store, card(), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "full"), StorageError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: type[BaseException]
) -> None:
    def fail(path: Path) -> None:
        raise error

    for step in range(2):
        monkeypatch.setattr(export_module, ("flush_to_disk", "sha256_of_file")[step], fail)
        with pytest.raises(raised):
            export_store(store, card(), tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_damaged_store_is_not_exported(store: Store, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {**store.arrays, "texts": np.full(len(store.arrays["texts"]), 0xFF, dtype=np.uint8)}
    with pytest.raises(DataError, match=r"texts\.npy is damaged"):
        export_store(Store(store.folder, store.manifest, arrays), card(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_relative_target_and_a_home(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert export_store(store, card(), Path("here")).folder == tmp_path / "here"
    assert export_store(store, card(), Path("~/there")).folder == tmp_path / "there"
