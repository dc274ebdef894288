"""Import, prepare, open and status, on a small dataset plugin that is written for the purpose."""

from __future__ import annotations

import hashlib
import os
import textwrap
from pathlib import Path

import pytest

from mer_bench import registry
from mer_bench.cards import DatasetCard, parse_card
from mer_bench.data import preparation
from mer_bench.data.files import git_blob_of, git_blob_of_file
from mer_bench.data.preparation import find_sources, import_files, open_or_prepare, prepare, resolve, status
from mer_bench.errors import DataError, MissingDataError, SettingError, StorageError, UnknownNameError
from mer_bench.locations import StoreKey, raw_folder, store_folder
from mer_bench.registry import Plugin, Shelf

TALK = b"text,emotion\r\nhello,glad\r\nbye,calm\r\nhello,glad\r\n"
EXTRA = b"1,2,3\n"

CARD = f"""
title = "Small talk"
summary = "Three utterances."
entry = "reader:SmallTalk"
licence = "ours"
modalities = ["text"]
[label_sets.emotion]
title = "Emotion"
classes = ["calm", "glad"]
[label_sets.other]
title = "Other"
classes = ["a", "b"]
[feature_sets.words]
title = "Words"
summary = "Word lengths."
widths = {{ text = 1 }}
sources = ["talk.csv"]
[feature_sets.scaled]
title = "Scaled words"
summary = "Word lengths times a number."
widths = {{ text = 1 }}
sources = ["talk.csv"]
needs = ["factor"]
[feature_sets.extra]
title = "Extra"
summary = "With a second file."
widths = {{ text = 1 }}
sources = ["talk.csv", "extra.csv", "own.csv"]
[protocols.official]
title = "Official"
[protocols.crossed]
title = "Two folds"
folds = 2
[[sources]]
name = "talk.csv"
repository = "someone/talk"
commit = "abc"
path = "data/Talk/talk_v1.csv"
bytes = {len(TALK)}
sha256 = "{hashlib.sha256(TALK).hexdigest()}"
[[sources]]
name = "extra.csv"
repository = "someone/talk"
commit = "abc"
path = "extra.csv"
git_blob = "{git_blob_of(EXTRA)}"
[[sources]]
name = "own.csv"
"""

READER = """
import numpy as np
from mer_bench.api import Dataset, StoreContent
from mer_bench.data.tables import read_table

class SmallTalk(Dataset):
    def prepare(self, request):
        table = read_table(request.files["talk.csv"], ["text", "emotion"])
        factor = float(request.options.get("factor", 1))
        return StoreContent(
            features={"text": np.array([[factor * len(text)] for text in table.texts("text")], dtype=np.float32)},
            present={"text": np.ones(3, dtype=bool)},
            speakers=np.zeros(3, dtype=np.int16),
            labels=np.array(table.choices("emotion", self.card.label_sets["emotion"].classes), dtype=np.int16),
            utterance_ids=["a", "b", "c"],
            dialogue_ids=["x", "y", "z"],
            offsets=np.arange(4),
            splits=np.arange(3, dtype=np.uint8),
            classes=self.card.label_sets[request.labels].classes,
            settings={"factor": factor, "fold": request.fold},
        )

    def examine(self, source, file):
        if source == "talk.csv":
            read_table(file, ["text", "emotion"]).choices("emotion", self.card.label_sets["emotion"].classes)
"""

KEY = StoreKey("small-talk", "words", "emotion", "official")


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin[DatasetCard]:
    # A name of its own for each test, since Python keeps what it imported.
    package = "small_talk_" + hashlib.sha1(str(tmp_path).encode()).hexdigest()[:8]
    folder = tmp_path / "plugins" / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "reader.py").write_text(textwrap.dedent(READER))
    monkeypatch.syspath_prepend(folder.parent)
    plugin = Plugin("small-talk", parse_card(CARD, DatasetCard, "card.toml"), package, "test")
    use(monkeypatch, plugin)
    return plugin


def use(monkeypatch: pytest.MonkeyPatch, plugin: Plugin[DatasetCard]) -> None:
    shelf = Shelf("dataset", {plugin.name: plugin}, ())
    monkeypatch.setattr(registry, "datasets", lambda *_: shelf)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def ready(plugin: Plugin[DatasetCard], root: Path) -> Path:
    """A data root with talk.csv in place."""
    raw_folder(root, plugin.name).mkdir(parents=True)
    (raw_folder(root, plugin.name) / "talk.csv").write_bytes(TALK)
    return root


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_a_blob_id_is_gits(tmp_path: Path) -> None:
    # The well-known ids of the empty file and of "hello world\n".
    assert git_blob_of(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_of_file(put(tmp_path / "f", b"hello world\n")) == "3b18e512dba79e4c8300dd08aeb37f8e728b8dad"


def test_names_resolve_to_the_first_in_the_card_or_the_one_given(plugin: Plugin[DatasetCard]) -> None:
    assert resolve("small-talk") == KEY
    given = resolve("small-talk", "small-talk/scaled", "small-talk/other", "crossed", fold=2)
    assert given == StoreKey("small-talk", "scaled", "other", "crossed", 2)
    assert resolve("small-talk", protocol="crossed").fold is None


def test_wrong_names_are_answered_with_the_nearest(plugin: Plugin[DatasetCard]) -> None:
    with pytest.raises(UnknownNameError, match=r"no dataset is called 'smalltalk'. Did you mean 'small-talk'"):
        resolve("smalltalk")
    with pytest.raises(UnknownNameError, match=r"no feature set of small-talk is called 'word'. Did you mean 'words'"):
        resolve("small-talk", "small-talk/word")
    with pytest.raises(UnknownNameError, match="no label set of small-talk is called 'emotions'"):
        resolve("small-talk", labels="emotions")
    with pytest.raises(UnknownNameError, match="no protocol of small-talk"):
        resolve("small-talk", protocol="offical")
    with pytest.raises(SettingError, match=r"fold must lie in \[1, 2\] under small-talk/crossed, but is 3"):
        resolve("small-talk", protocol="crossed", fold=3)
    with pytest.raises(SettingError, match="has no folds, but fold 1 was asked for"):
        resolve("small-talk", fold=1)


@pytest.mark.parametrize("place", ["talk.csv", "deep/down/talk.csv", "deep/data/Talk/talk_v1.csv", "x/talk_v1.csv"])
def test_import_finds_a_file_anywhere(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path, place: str) -> None:
    file = put(tmp_path / "found" / place, TALK)
    report = import_files("small-talk", tmp_path / "found", root)
    assert report.imported == {"talk.csv": file}
    assert report.ready == ("words", "scaled")
    assert report.missing == {"extra.csv": ("extra",), "own.csv": ("extra",)}
    assert (raw_folder(root, "small-talk") / "talk.csv").read_bytes() == TALK
    put(tmp_path / "more/extra.csv", EXTRA)
    put(tmp_path / "more/own.csv", b"mine")
    report = import_files("small-talk", tmp_path / "more", root)
    assert report.unchanged == ("talk.csv",)
    assert report.ready == ("words", "scaled", "extra")
    assert [path.name for path in raw_folder(root, "small-talk").iterdir() if path.name.startswith(".")] == []


def test_import_chooses_the_published_one_of_several(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path) -> None:
    put(tmp_path / "found/data/Talk/talk_v1.csv", TALK[:-3])
    good = put(tmp_path / "found/z/talk.csv", TALK)
    assert import_files("small-talk", tmp_path / "found", root).imported == {"talk.csv": good}


def test_import_puts_line_ends_right(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path) -> None:
    put(tmp_path / "found/talk.csv", TALK.replace(b"\r\n", b"\n"))
    import_files("small-talk", tmp_path / "found", root)
    assert (raw_folder(root, "small-talk") / "talk.csv").read_bytes() == TALK


def test_import_names_line_and_column_of_a_bad_file(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path) -> None:
    put(tmp_path / "found/extra.csv", EXTRA)
    file = put(tmp_path / "found/talk.csv", TALK.replace(b"calm", b"clam"))
    with pytest.raises(DataError, match=r"line 3, column emotion: should be one of calm, glad, but is 'clam'"):
        import_files("small-talk", tmp_path / "found", root)
    assert not root.exists()  # nothing is copied, the good file neither
    put(file, TALK.replace(b"hello", b"hullo"))  # no fault that a reader could see
    with pytest.raises(DataError, match=r"talk.csv is not the published talk.csv: its SHA-256 is [0-9a-f]{64} and"):
        import_files("small-talk", tmp_path / "found", root)
    put(file, TALK + b"late,glad\r\n")
    with pytest.raises(DataError, match=f"it has {len(TALK) + 11} bytes and the published file {len(TALK)}"):
        import_files("small-talk", tmp_path / "found", root)


def test_import_checks_a_blob_id_too(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path) -> None:
    put(tmp_path / "found/extra.csv", EXTRA + b"4,5,6\n")
    with pytest.raises(DataError, match="its git blob id is"):
        import_files("small-talk", tmp_path / "found", root)


def test_import_refuses_to_guess_between_files_that_nobody_pinned(
    plugin: Plugin[DatasetCard], root: Path, tmp_path: Path
) -> None:
    put(tmp_path / "found/a/own.csv", b"one")
    put(tmp_path / "found/b/own.csv", b"one")
    assert list(import_files("small-talk", tmp_path / "found", root).imported) == ["own.csv"]
    put(tmp_path / "found/b/own.csv", b"two")
    with pytest.raises(DataError, match="and they differ"):
        import_files("small-talk", tmp_path / "found", root)


def test_import_of_nothing(plugin: Plugin[DatasetCard], root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingDataError, match=r"no file of small-talk is anywhere below .* should hold: talk.csv"):
        import_files("small-talk", tmp_path / "empty", root)
    with pytest.raises(MissingDataError, match="is not a folder"):
        import_files("small-talk", tmp_path / "none", root)


def test_import_from_the_raw_folder_itself(ready: Path) -> None:
    import_files("small-talk", ready, ready)
    assert (raw_folder(ready, "small-talk") / "talk.csv").read_bytes() == TALK


def test_a_full_disk_while_importing(
    plugin: Plugin[DatasetCard], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    put(tmp_path / "found/talk.csv", TALK)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        import_files("small-talk", tmp_path / "found", root)
    assert list(raw_folder(root, "small-talk").iterdir()) == []


def test_prepare(ready: Path) -> None:
    store = prepare(KEY, ready)
    assert store.folder == store_folder(ready, KEY)
    assert store.split("train").features["text"].tolist() == [[5.0]]
    assert store.manifest.sources == {"talk.csv": hashlib.sha256(TALK).hexdigest()}
    assert store.manifest.key == KEY


def test_prepare_without_sources_says_how_to_obtain_them(plugin: Plugin[DatasetCard], ready: Path, root: Path) -> None:
    (raw_folder(root, "small-talk") / "talk.csv").unlink()
    with pytest.raises(
        MissingDataError, match=r"needs talk.csv in .*raw/small-talk, which is not there. .* data fetch"
    ):
        prepare(KEY, root)
    with pytest.raises(MissingDataError, match="data import small-talk --from FOLDER") as caught:
        prepare(resolve("small-talk", "extra"), root)
    assert "or fetch talk.csv, extra.csv with:" in str(caught.value)  # own.csv is published nowhere


def test_prepare_refuses_a_source_that_is_not_the_published_one(ready: Path) -> None:
    file = raw_folder(ready, "small-talk") / "talk.csv"
    file.write_bytes(TALK.replace(b"calm", b"clam"))
    with pytest.raises(DataError, match="line 3, column emotion"):
        prepare(KEY, ready)
    file.write_bytes(TALK.replace(b"hello", b"hullo"))
    with pytest.raises(DataError, match=r"is not the published talk.csv"):
        prepare(KEY, ready)
    assert not (ready / "prepared").exists()


def test_options(ready: Path) -> None:
    scaled = resolve("small-talk", "scaled")
    with pytest.raises(MissingDataError, match=r"needs the option factor. .*--features scaled --factor FILE"):
        prepare(scaled, ready)
    with pytest.raises(SettingError, match="small-talk/words takes no option, but 'factor' was given"):
        prepare(KEY, ready, {"factor": 2})
    assert prepare(scaled, ready, {"factor": 2}).split("train").features["text"].tolist() == [[10.0]]
    # Prepared again with another option it is another store in the same place.
    first = open_or_prepare(scaled, ready).manifest
    second = prepare(scaled, ready, {"factor": 3}).manifest
    assert first.sources_checksum != second.sources_checksum
    assert open_or_prepare(scaled, ready).manifest == second


def test_open_or_prepare_prepares_once(ready: Path) -> None:
    said: list[str] = []
    first = open_or_prepare(KEY, ready, said.append)
    assert said == ["Preparing small-talk/words (emotion, official)."]
    (raw_folder(ready, "small-talk") / "talk.csv").unlink()  # a prepared store needs its sources no more
    assert open_or_prepare(KEY, ready, said.append).manifest == first.manifest
    assert len(said) == 1


def test_open_or_prepare_asks_for_what_only_the_user_has(plugin: Plugin[DatasetCard], ready: Path, root: Path) -> None:
    with pytest.raises(MissingDataError, match=r"must be prepared first: mer-bench data prepare .* --factor FILE"):
        open_or_prepare(resolve("small-talk", "scaled"), root)
    with pytest.raises(MissingDataError, match=r"needs extra.csv, own.csv in .* are not there"):
        open_or_prepare(resolve("small-talk", "extra"), root)


def test_a_store_of_an_older_card_is_prepared_again(
    plugin: Plugin[DatasetCard], ready: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_or_prepare(KEY, ready)
    newer = plugin.card.model_copy(update={"version": 2})
    use(monkeypatch, Plugin(plugin.name, newer, plugin.package, plugin.distribution))
    said: list[str] = []
    assert open_or_prepare(KEY, ready, said.append).manifest.dataset_version == 2
    assert "again, since it was made by another version" in said[0]


def test_a_damaged_store_is_an_error_and_no_reason_to_prepare(ready: Path) -> None:
    folder = prepare(KEY, ready).folder
    (folder / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels.npy is not there, .*data prepare small-talk --features words"):
        open_or_prepare(KEY, ready)
    prepare(KEY, ready).verify()


def test_a_store_in_the_wrong_place_is_refused(ready: Path) -> None:
    other = resolve("small-talk", labels="other")
    folder = store_folder(ready, other)
    folder.parent.mkdir(parents=True)
    prepare(KEY, ready).folder.rename(folder)
    with pytest.raises(DataError, match=r"is that of small-talk/words \(emotion, official\), not of"):
        open_or_prepare(other, ready)


def test_folds(ready: Path) -> None:
    crossed = resolve("small-talk", protocol="crossed")
    with pytest.raises(SettingError, match="has one store for each fold; name one"):
        prepare(crossed, ready)
    with pytest.raises(SettingError, match="has one store for each fold; name one"):
        open_or_prepare(crossed, ready)
    store = open_or_prepare(resolve("small-talk", protocol="crossed", fold=2), ready)
    assert store.manifest.settings["fold"] == 2
    assert store.folder.name == "fold2"


def test_status(ready: Path) -> None:
    prepare(KEY, ready)
    damaged = prepare(resolve("small-talk", protocol="crossed", fold=1), ready).folder / "labels.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\7")
    (store_folder(ready, KEY).parent / ".official.1-ab.partial").mkdir()
    (found,) = status(ready)
    words, scaled, extra = found.features
    assert (words.found, words.missing) == (("talk.csv",), ())
    assert [(store.key.protocol, store.key.fold, store.problem) for store in words.stores] == [
        ("crossed", 1, None),
        ("official", None, None),
    ]
    assert words.stores[0].bytes > 1000
    assert (scaled.needs, scaled.stores) == (("factor",), ())
    assert extra.missing == ("extra.csv", "own.csv")
    problems = [store.problem for store in status(ready, verify=True)[0].features[0].stores]
    assert problems[0] is not None
    assert "labels.npy is damaged" in problems[0]
    assert problems[1] is None


def test_status_of_an_empty_root(plugin: Plugin[DatasetCard], root: Path) -> None:
    (found,) = status(root)
    assert [feature.found for feature in found.features] == [(), (), ()]
    assert not root.exists()


def test_find_sources(plugin: Plugin[DatasetCard], ready: Path) -> None:
    there, missing = find_sources(plugin, "extra", ready)
    assert there == {"talk.csv": raw_folder(ready, "small-talk") / "talk.csv"}
    assert missing == ["extra.csv", "own.csv"]
    assert preparation.find_sources(plugin, "words", ready)[1] == []
