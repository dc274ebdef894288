"""Files against their pins, stores against their manifests and against the files that lie there now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mer_bench.cards import DatasetCard, Source, parse_card
from mer_bench.data.store import StoreContent, write_store
from mer_bench.data.verification import verify_dataset
from mer_bench.locations import StoreKey, raw_folder, store_folder
from mer_bench.registry import Plugin

from .content import make_content

CARD = """
title = "Mine"
summary = "Dialogues of a user."
entry = "reader:Mine"
version = 2
licence = "mine"
modalities = ["text"]
[label_sets.emotion]
title = "Three"
classes = ["calm", "glad", "cross"]
[feature_sets.default]
title = "d"
summary = "d"
widths = { text = 4 }
sources = ["a.csv", "b.csv"]
[feature_sets.other]
title = "o"
summary = "o"
widths = { text = 4 }
[protocols.official]
title = "one"
[protocols.folds]
title = "two"
folds = 2
[[sources]]
name = "a.csv"
sha256 = "SHA"
[[sources]]
name = "b.csv"
"""
CONTENT = {"a.csv": b"pinned\n", "b.csv": b"brought\n", "deep/c.json": b"[]"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def plugin() -> Plugin[DatasetCard]:
    card = parse_card(CARD.replace("SHA", sha(CONTENT["a.csv"])), DatasetCard, "card")
    return Plugin("mine", card, "shelf.mine", "made-up")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in CONTENT.items():
        file = raw_folder(tmp_path, "mine") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path


def content(texts: bool = True) -> StoreContent:
    spoken = ["said it all before", "b", "c", "Said it all BEFORE!", "said it all before.", "never said at all"]
    return make_content([3, 1, 2], [0, 1, 2], {"text": 4}, texts=spoken if texts else None)


def add(root: Path, version: int = 2, texts: bool = True, **key: object) -> Path:
    """A prepared store made from the files that are there now."""
    whole = StoreKey(**{"dataset": "mine", "features": "default", "labels": "emotion", "protocol": "official", **key})  # type: ignore[arg-type]
    raw = raw_folder(root, "mine")
    sources = {name: sha((raw / name).read_bytes()) for name in CONTENT}
    return write_store(store_folder(root, whole), content(texts), whole, sources, dataset_version=version).folder


def states(plugin: Plugin[DatasetCard], root: Path) -> dict[str, str]:
    return {each.what: each.state for each in verify_dataset(plugin, root)}


def test_everything_is_good(plugin: Plugin[DatasetCard], root: Path) -> None:
    add(root)
    add(root, features="other", protocol="folds", fold=2)
    found = verify_dataset(plugin, root)
    assert {each.what: each.state for each in found} == {
        "a.csv": "good",
        "b.csv": "not pinned",
        "mine/default (emotion, official)": "good",
        "mine/other (emotion, folds, fold 2)": "good",
    }
    assert [each.problem for each in found] == [""] * 4
    assert found[2].overlap is not None
    assert [each.split for each in found[2].overlap] == ["dev", "test"]
    assert found[0].overlap is None


def test_nothing_there_is_nothing_found(plugin: Plugin[DatasetCard], tmp_path: Path) -> None:
    assert verify_dataset(plugin, tmp_path) == []


@pytest.mark.parametrize("name", list(CONTENT))
def test_a_store_made_from_other_files_is_told(plugin: Plugin[DatasetCard], root: Path, name: str) -> None:
    add(root)
    (raw_folder(root, "mine") / name).write_bytes(b"changed")
    found = {each.what: each for each in verify_dataset(plugin, root)}
    store = found["mine/default (emotion, official)"]
    assert store.state == "other sources"
    assert store.problem == (
        f"the store mine/default (emotion, official) was prepared from another {name} than the one that is there now. "
        "Prepare it again with: mer-bench data prepare mine --features default --labels emotion --protocol official"
    )
    assert found["a.csv"].state == ("damaged" if name == "a.csv" else "good")
    add(root)
    assert states(plugin, root)["mine/default (emotion, official)"] == "good"


def test_sources_that_were_taken_away_are_no_fault(plugin: Plugin[DatasetCard], root: Path) -> None:
    add(root)
    for name in CONTENT:
        (raw_folder(root, "mine") / name).unlink()
    assert states(plugin, root) == {"mine/default (emotion, official)": "good"}


def test_a_store_of_an_older_card_is_told(plugin: Plugin[DatasetCard], root: Path) -> None:
    add(root, version=1)
    assert states(plugin, root)["mine/default (emotion, official)"] == "older card"


def test_damage_is_told_and_goes_before_everything(plugin: Plugin[DatasetCard], root: Path) -> None:
    folder = add(root)
    good = add(root, features="other")
    file = folder / "labels.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    (raw_folder(root, "mine") / "a.csv").write_bytes(b"changed")
    found = {each.what: each for each in verify_dataset(plugin, root)}
    assert found["mine/default (emotion, official)"].state == "damaged"
    assert "labels.npy is damaged" in found["mine/default (emotion, official)"].problem
    assert found["mine/other (emotion, official)"].state == "other sources"
    assert "a.csv is not the published file: its SHA-256 is" in found["a.csv"].problem
    (good / "manifest.json").unlink()
    assert states(plugin, root)["mine/other (emotion, official)"] == "damaged"


def test_sources_in_the_manifest_cannot_be_changed_unseen(plugin: Plugin[DatasetCard], root: Path) -> None:
    file = add(root) / "manifest.json"
    values = json.loads(file.read_text())
    values["sources"]["b.csv"] = sha(b"changed")
    file.write_text(json.dumps(values))
    (raw_folder(root, "mine") / "b.csv").write_bytes(b"changed")
    (store,) = (each for each in verify_dataset(plugin, root) if each.key)
    assert store.state == "damaged"
    assert "manifest.json was changed" in store.problem


def test_a_store_in_the_place_of_another_is_told(plugin: Plugin[DatasetCard], root: Path) -> None:
    folder = add(root)
    (folder.parents[2] / "other" / "emotion").mkdir(parents=True)
    folder.rename(folder.parents[2] / "other" / "emotion" / "official")
    (store,) = (each for each in verify_dataset(plugin, root) if each.key)
    assert store.state == "damaged"
    assert "is that of mine/default (emotion, official), not of mine/other" in store.problem


def test_a_store_without_texts_has_no_overlap(plugin: Plugin[DatasetCard], root: Path) -> None:
    add(root, texts=False)
    (store,) = (each for each in verify_dataset(plugin, root) if each.key)
    assert store.overlap is None


def test_what_is_unfinished_or_foreign_is_passed_over(plugin: Plugin[DatasetCard], root: Path) -> None:
    folder = add(root)
    (folder.parent / ".official.1-a.partial").mkdir()
    (folder.parent / "folds" / "fold01").mkdir(parents=True)
    (folder.parent / "folds" / "foldx").mkdir()
    (raw_folder(root, "mine") / ".part").write_bytes(b"x")
    stores = [each.what for each in verify_dataset(plugin, root) if each.key]
    assert "mine/default (emotion, official)" in stores
    assert not any("fold 1" in name or "partial" in name for name in stores)


def test_the_pin_of_a_git_blob_counts(plugin: Plugin[DatasetCard], root: Path) -> None:
    blob = hashlib.sha1(b"blob 8\0" + CONTENT["b.csv"], usedforsecurity=False).hexdigest()
    for digest, state in ((blob, "good"), ("0" * 40, "damaged")):
        sources = (plugin.card.sources[0], Source(name="b.csv", git_blob=digest))
        card = plugin.card.model_copy(update={"sources": sources})
        assert states(Plugin("mine", card, "", ""), root)["b.csv"] == state
