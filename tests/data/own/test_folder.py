"""A folder of any form gives the same dialogues; what is not clear is an error."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench.data.own.folder import OwnData, look_around, read_contents
from mer_bench.data.own.raw_form import read_raw, write_raw
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, MissingDataError, RequestError

from .writing import (
    ARRAY_FORMS,
    DIALOGUE_FORMS,
    Given,
    corpora,
    save_npz,
    write_arrays,
    write_csv,
    write_dialogues,
    write_jsonl,
    write_parquet,
)

SOME = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(folder: Path, classes: tuple[str, ...] | None = None) -> OwnData:
    return read_contents(look_around(folder), {"label": classes})


def check_same(data: OwnData, expected: Given) -> None:
    """Compare what was read with what was written, value by value."""
    found = data.dialogues
    assert found.dialogue_ids == [talk.name for talk in expected.talks]
    assert found.lengths == [len(talk.turns) for talk in expected.talks]
    assert [SPLITS[split] for split in found.splits] == [talk.split for talk in expected.talks]
    assert found.utterance_ids == [turn.utterance for turn in expected.turns]
    assert found.speakers == [turn.speaker for turn in expected.turns]
    classes = found.classes["label"]
    labels = [None if label < 0 else classes[label] for label in found.labels["label"]]
    assert labels == [turn.label for turn in expected.turns]
    assert (found.texts or [""] * len(labels)) == [
        turn.text if found.texts is not None else "" for turn in expected.turns
    ]
    assert (found.texts is None) == all(not turn.text.strip() for turn in expected.turns)
    assert set(data.arrays) == set(expected.arrays)
    for name, values in expected.arrays.items():
        missing = np.isnan(values).all(axis=1)
        assert data.arrays[name].present.tolist() == (~missing).tolist()
        np.testing.assert_array_equal(data.arrays[name].values[~missing], values[~missing])
        assert not data.arrays[name].values[missing].any()


@SOME
@given(
    corpus=corpora(),
    dialogue_form=st.sampled_from(DIALOGUE_FORMS),
    array_form=st.sampled_from(sorted(ARRAY_FORMS)),
    dialogues_by_split=st.booleans(),
    arrays_by_split=st.booleans(),
)
def test_every_pair_of_forms_gives_the_same_dialogues(
    corpus: Given, dialogue_form: str, array_form: str, dialogues_by_split: bool, arrays_by_split: bool
) -> None:
    used = {turn.label for turn in corpus.turns}
    corpus = corpus.by_split() if dialogues_by_split else corpus
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dialogues(folder, corpus, dialogue_form, dialogues_by_split)
        write_arrays(folder, corpus, array_form, arrays_by_split)
        data = read(folder, tuple(each for each in corpus.classes if each in used))
        check_same(data, corpus)
        # And once more through the form in which it is kept.
        (folder / "raw").mkdir()
        files = {file.name: file for file in write_raw(folder / "raw", data)}
        bytes_before = {file: path.read_bytes() for file, path in files.items()}
        again = read_raw(files, _card(data))
        check_same(again, corpus)
        write_raw(folder / "raw", again)
        assert {file: path.read_bytes() for file, path in files.items()} == bytes_before


def _card(data: OwnData) -> Any:
    from types import SimpleNamespace

    labels = {name: SimpleNamespace(classes=classes) for name, classes in data.dialogues.classes.items()}
    return SimpleNamespace(label_sets=labels)


ROWS = [
    {"dialogue": name, "speaker": "A", "label": label, "split": split}
    for name, label, split in (("a", "x", "train"), ("b", "y", "train"), ("c", "x", "dev"), ("d", "y", "test"))
]


def test_a_single_file_is_a_folder_of_dialogues_alone(tmp_path: Path) -> None:
    write_csv(tmp_path / "talks.csv", ROWS)
    assert read_contents(look_around(tmp_path / "talks.csv"), {"label": None}).dialogues.lengths == [1, 1, 1, 1]
    (tmp_path / "talks.txt").write_text("x")
    with pytest.raises(DataError, match=r"talks.txt holds no dialogues: its name should end in .jsonl, .csv, .parquet"):
        look_around(tmp_path / "talks.txt")


def test_a_split_in_a_row_must_be_that_of_the_files_name(tmp_path: Path) -> None:
    for split in SPLITS:
        write_csv(tmp_path / f"{split}.csv", [{**ROWS[0], "split": "train"}, {**ROWS[1], "split": split}])
    with pytest.raises(DataError, match=r"dev.csv, line 2, column split: is 'train', but the file's name says dev"):
        read(tmp_path)


def test_what_is_no_data_is_passed_over_and_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "dialogues.csv", ROWS)
    for name in ("README.md", "LICENSE", ".hidden", "notes.txt", "audio.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "wav").mkdir()
    assert look_around(tmp_path).passed_over == ("audio.csv", "notes.txt", "wav/")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "holds no dialogues. It should hold dialogues.jsonl"),
        (["notes.txt"], "holds no dialogues. It holds notes.txt."),
        (["train.csv", "dev.csv"], "holds train.csv, but no file of dialogues for test"),
        (["dialogues.csv", "dialogues.jsonl"], "may hold the dialogues; keep one of them"),
        (["dialogues.csv", "utterances.csv"], "may hold the dialogues; keep one of them"),
        (["dialogues.csv", "train.csv"], "may hold the dialogues; keep one of them"),
        (["train.csv", "dev.csv", "val.csv", "test.csv"], "dev.csv and "),
        (["dialogues.csv", "Audio.npy"], "that of its modality in lower-case letters"),
        (["dialogues.csv", "train.npy"], "that of its modality in lower-case letters"),
        (["dialogues.csv", "audio-1.npy"], "that of its modality in lower-case letters"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path: Path, names: list[str], says: str) -> None:
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(RequestError) as caught:
        look_around(tmp_path)
    assert says in str(caught.value)
    with pytest.raises(MissingDataError, match="is not there"):
        look_around(tmp_path / "absent")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"audio.npy": (3, 2)}, "audio.npy: audio has 3 rows, but there are the 4 utterances"),
        ({"train.audio.npy": (3, 2), "dev.audio.npy": (1, 2), "test.audio.npy": (1, 2)}, "the 2 utterances of train"),
        ({"train.audio.npy": (2, 2), "dev.audio.npy": (1, 2)}, "no such file for test"),
        ({"train.audio.npy": (2, 2), "dev.audio.npy": (1, 3), "test.audio.npy": (1, 2)}, "dev.audio.npy has 3 columns"),
        ({"audio.npy": (4, 2), "dev_audio.npy": (1, 2)}, "hold audio; keep one of them"),
        ({"dev.audio.npy": (1, 2), "dev_audio.npy": (1, 2)}, "hold audio; keep one of them"),
        ({"audio.present.npy": (4,)}, "there is no array of audio"),
        ({"audio.npy": (4, 2), "audio.present.npy": (4, 2)}, "one row of truth values"),
        ({"audio.npy": (4, 2), "audio.present.npy": (3,)}, "audio.present has 3 rows, but audio has 4"),
        ({"audio.npy": (4, 0)}, "at least one column"),
        ({"audio.npy": (4, 1, 2)}, "has the shape (4, 1, 2)"),
        ({"features.npy": (4, 2)}, "an npy file holds one modality"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, tuple[int, ...]], says: str) -> None:
    write_csv(tmp_path / "dialogues.csv", ROWS)
    for name, shape in arrays.items():
        np.save(tmp_path / name, np.ones(shape))
    with pytest.raises(RequestError) as caught:
        read(tmp_path)
    assert says in str(caught.value)


def test_the_split_may_stand_before_or_after_the_modality(tmp_path: Path) -> None:
    write_csv(tmp_path / "dialogues.csv", ROWS)
    np.save(tmp_path / "train_audio.npy", np.array([[1.0], [2]]))
    np.save(tmp_path / "audio.val.npy", np.array([[3.0]]))
    np.save(tmp_path / "test.audio.npy", np.array([[4.0]]))
    np.save(tmp_path / "audio.train.present.npy", np.array([0, 1]))
    array = read(tmp_path).arrays["audio"]
    assert array.values[:, 0].tolist() == [0, 2, 3, 4]
    assert array.present.tolist() == [False, True, True, True]


def test_columns_that_differ_between_splits_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "dialogues.csv", ROWS)
    for split, rows, names in (
        ("train", 2, ("pitch", "level")),
        ("dev", 1, ("level", "pitch")),
        ("test", 1, ("a", "b")),
    ):
        write_parquet(tmp_path / f"{split}.audio.parquet", {name: [1.0] * rows for name in names})
    with pytest.raises(DataError, match=r"dev.audio.parquet and .*train.audio.parquet name their columns differently"):
        read(tmp_path)


def test_keys_may_be_the_ids_of_a_split_alone(tmp_path: Path) -> None:
    for split, labels in (("train", "xy"), ("dev", "xx"), ("test", "yx")):
        rows = [
            {"id": 0, "utterances": [{"id": turn, "speaker": "A", "label": each} for turn, each in enumerate(labels)]}
        ]
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
        save_npz(tmp_path / f"{split}.audio.npz", {"0/1": np.array([1.0]), "0/0": np.array([5.0])})
    data = read(tmp_path)
    assert data.dialogues.dialogue_ids == ["train/0", "dev/0", "test/0"]
    assert data.dialogues.utterance_ids[:3] == ["train/0/0", "train/0/1", "dev/0/0"]
    assert data.arrays["audio"].values[:, 0].tolist() == [5, 1] * 3
    assert len(data.dialogues.notes) == 2
