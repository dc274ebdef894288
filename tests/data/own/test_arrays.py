"""Feature arrays: every form, and files that lie about themselves."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors

from mer_bench.data.own.arrays import Rows, joined, read_arrays, read_present
from mer_bench.errors import DataError, MerBenchError, MissingDataError

from .writing import save_npz, write_parquet

IDS = ["a/1", "a/2", "b/1"]
ROWS = Rows("the 3 utterances", np.arange(3), IDS, {name: index for index, name in enumerate(IDS)})
NAN = float("nan")


def read(file: Path, modality: str = "audio") -> tuple[list[list[float]], list[bool]]:
    values, present = joined(read_arrays(file, modality)[modality], ROWS)
    return values.tolist(), present.tolist()


@pytest.mark.parametrize("kind", ["f2", "f4", ">f8", "i1", "u8", "?"])
def test_numbers_of_any_kind_are_read(tmp_path: Path, kind: str) -> None:
    np.save(tmp_path / "audio.npy", np.array([[1, 0], [0, 1], [1, 1]]).astype(kind))
    assert read(tmp_path / "audio.npy") == ([[1, 0], [0, 1], [1, 1]], [True] * 3)


def test_float32_stays_float32_and_whole_numbers_lose_nothing(tmp_path: Path) -> None:
    for kind, kept in (("f2", "f4"), ("f4", "f4"), ("f8", "f8"), ("i4", "f8")):
        np.save(tmp_path / "audio.npy", np.full((3, 1), 16777217, kind) if kind != "f2" else np.ones((3, 1), kind))
        assert read_arrays(tmp_path / "audio.npy", "audio")["audio"].values.dtype == np.dtype(kept)
    assert read(tmp_path / "audio.npy")[0][0] == [16777217]


def test_a_row_of_nan_and_a_key_that_is_absent_are_missing(tmp_path: Path) -> None:
    np.save(tmp_path / "audio.npy", np.array([[1, NAN], [NAN, NAN], [2, 3]]))
    values, present = joined(read_arrays(tmp_path / "audio.npy", "audio")["audio"], ROWS)
    np.testing.assert_array_equal(values, [[1, NAN], [0, 0], [2, 3]])
    assert present.tolist() == [True, False, True]
    save_npz(tmp_path / "audio.npz", {"b/1": np.array([2.0, 3]), "a/1": np.array([[1.0, 4]])})
    assert read(tmp_path / "audio.npz") == ([[1, 4], [0, 0], [2, 3]], [True, False, True])
    np.savez(tmp_path / "audio.npz", values=np.ones((2, 1)), ids=np.array([b"b/1", b"a/2"]), present=np.array([1, 0]))
    assert read(tmp_path / "audio.npz") == ([[0], [0], [1]], [False, False, True])


def test_a_file_of_all_modalities(tmp_path: Path) -> None:
    arrays = {"audio": np.ones((3, 2), "f4"), "audio.present": np.array([True, False, True]), "text": np.ones((3, 1))}
    save_file(
        arrays, tmp_path / "features.safetensors", {"mer_bench": json.dumps({"columns": {"audio": ["pitch", "level"]}})}
    )
    found = read_arrays(tmp_path / "features.safetensors", "features")
    assert sorted(found) == ["audio", "text"]
    assert found["audio"].columns == ("pitch", "level")
    assert joined(found["audio"], ROWS)[1].tolist() == [True, False, True]
    save_npz(tmp_path / "features.npz", arrays)
    assert sorted(read_arrays(tmp_path / "features.npz", "features")) == ["audio", "text"]


def test_bfloat16_is_read_and_float8_refused(tmp_path: Path) -> None:
    save_tensors({"audio": torch.tensor([[1.5], [2], [3]], dtype=torch.bfloat16)}, tmp_path / "audio.safetensors")
    assert read(tmp_path / "audio.safetensors")[0] == [[1.5], [2], [3]]
    save_tensors({"audio": torch.ones(3, 1).to(torch.float8_e4m3fn)}, tmp_path / "audio.safetensors")
    with pytest.raises(DataError, match="'audio' is of the type F8_E4M3; save it as float16 or float32"):
        read(tmp_path / "audio.safetensors")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"values": np.ones((2, 1))}, "values has 2 rows, but there are the 3 utterances. It needs a row for each"),
        ({"values": [[1, 2], [np.inf, 2], [3, -np.inf]]}, "values is inf in row 1, column 0, counted from 0, of the"),
        ({"values": [[1, 2], [np.inf, 2], [3, -np.inf]]}, "utterance 'a/2'; 1 more are infinite"),
        ({"values": np.full((3, 2), NAN)}, "values has not one value for the 3 utterances"),
        ({"values": np.array([["a"]] * 3)}, "values should hold numbers, but is of the type <U1"),
        ({"values": np.ones((3, 1), complex)}, "should hold numbers, but is of the type complex128"),
        ({"values": np.array([[1], [None], [2]], object)}, "it holds Python objects (dtype object), which are never"),
        ({"values": np.ones((3, 1)), "ids": np.array(["a/1", "a/2"])}, "there are 2 ids, but 3 rows"),
        ({"values": np.ones((2, 1)), "ids": np.array(["a/1", "a/1"])}, "'a/1' occurs twice, as the id of two rows"),
        (
            {"values": np.ones((2, 1)), "ids": np.array(["x", "y"])},
            "'x' and 1 more is the id of none of the 3 utteranc",
        ),
        ({"values": np.ones((2, 1)), "ids": np.ones(2)}, "ids should be one row of texts"),
        ({"values": np.ones((3, 1)), "present": np.array([0, 1])}, "present has 2 rows, but values has 3"),
        ({"values": np.ones((3, 1)), "present": np.array([0, 1, 2])}, "should be one row of truth values"),
        ({"a/1": [1.0, 2], "a/2": [1.0]}, "'a/2' has 1 values, but 'a/1' has 2; all need the same width"),
        ({"a/1": [[1.0], [2]]}, "'a/1' should be one vector of an utterance, but has the shape (2, 1)"),
        ({"a/1": 1.0}, "should be one vector of an utterance, but has the shape ()"),
        ({"a/9": [1.0]}, "'a/9' is the id of none of the 3 utterances; the first is 'a/1'"),
        ({}, "holds no array"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    save_npz(tmp_path / "audio.npz", arrays)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "audio.npz")
    assert says in str(caught.value)
    assert str(tmp_path / "audio.npz") in str(caught.value)


def test_parquet_lists_and_columns(tmp_path: Path) -> None:
    file = tmp_path / "audio.parquet"
    write_parquet(file, {"utterance": IDS, "pitch": [1.0, None, 2.0], "level": [3, 4, 5]})
    raw = read_arrays(file, "audio")["audio"]
    assert raw.columns == ("pitch", "level")
    np.testing.assert_array_equal(raw.values, [[1, 3], [NAN, 4], [2, 5]])
    write_parquet(file, {"utterance": ["b/1", "a/1"], "x": [[1.0, None], None]})
    values, present = joined(read_arrays(file, "audio")["audio"], ROWS)
    np.testing.assert_array_equal(values, [[0, 0], [0, 0], [1, NAN]])
    assert present.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [[1.0, 2], None, [1.0]]}, "row 3, column x: the list has 1 values, but that of row 1 has 2"),
        ({"x": [[], [], []]}, "column x: there is not one list of numbers"),
        ({"x": ["a", "b", "c"]}, "column x: should hold numbers or lists of numbers, not string"),
        ({"x": [1, 2, 3], "y": [[1], [2], [3]]}, "should have columns of numbers, or one column of lists"),
        ({"utterance": IDS}, "should have columns of numbers, or one column of lists"),
        ({"utterance": ["a/1", None, "b/1"], "x": [1, 2, 3]}, "row 2, column utterance: is blank"),
        ({"x": [[["a"]], [["b"]], [["c"]]]}, "should hold numbers"),
    ],
)
def test_parquet_of_another_form_is_named(tmp_path: Path, columns: dict[str, Any], says: str) -> None:
    write_parquet(tmp_path / "audio.parquet", columns)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "audio.parquet")
    assert says in str(caught.value)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("own-arrays-bomb",)


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_nothing_of_a_hostile_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("audio.npy", np.array([[Bomb()]], dtype=object))
    np.savez("audio.npz", values=np.array([[Bomb()]], dtype=object))
    Path("text.npy").write_bytes(pickle.dumps(Bomb()))
    Path("text.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("audio.npy", "audio.npz", "text.npy", "text.npz"):
        with pytest.raises(DataError, match=r"cannot be read as np[yz]"):
            read_arrays(Path(name), name.partition(".")[0])
    assert not Path("own-arrays-bomb").exists()


def test_a_file_that_claims_more_than_it_has_is_refused_at_once(tmp_path: Path) -> None:
    huge = header((10**9, 10**6))
    (tmp_path / "audio.npy").write_bytes(huge)
    with zipfile.ZipFile(tmp_path / "audio.npz", "w") as archive:
        archive.writestr("values.npy", huge)
    content = json.dumps({"audio": {"dtype": "F32", "shape": [10**9, 10], "data_offsets": [0, 4 * 10**10]}}).encode()
    (tmp_path / "audio.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    for suffix in ("npy", "npz", "safetensors"):
        with pytest.raises(DataError, match=f"audio.{suffix} cannot be read as {suffix}"):
            read(tmp_path / f"audio.{suffix}")
    # Said before anything of that size is asked of the machine.
    with pytest.raises(DataError, match=f"the array 'values.npy' claims {8 * 10**15} bytes, but has {len(huge)}"):
        read(tmp_path / "audio.npz")


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mer_bench.data.own.arrays._MOST_UNPACKED_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "audio.npz", values=np.zeros((3, 1 << 18)))
    with pytest.raises(DataError, match="it would unpack to 6291584 bytes, which no features do"):
        read(tmp_path / "audio.npz")
    np.savez(tmp_path / "audio.npz", values=np.zeros((3, 1 << 18)))
    assert len(read(tmp_path / "audio.npz")[0]) == 3


def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "audio.npz", "w") as archive:
        for name in ("a/1.npy", "a/1"):
            archive.writestr(name, header((1,)) + struct.pack("<d", 1))
    with pytest.raises(DataError, match="two arrays are called 'a/1'"):
        read(tmp_path / "audio.npz")


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "parquet"])
def test_a_file_that_was_cut_off_is_named_at_every_place(tmp_path: Path, suffix: str) -> None:
    whole = tmp_path / f"audio.{suffix}"
    values = np.arange(6, dtype=np.float64).reshape(3, 2)
    if suffix == "npy":
        np.save(whole, values)
    elif suffix == "npz":
        np.savez_compressed(whole, values=values)
    elif suffix == "safetensors":
        save_file({"audio": values}, whole)
    else:
        write_parquet(whole, {"a": values[:, 0], "b": values[:, 1]})
    content = whole.read_bytes()
    for end in range(0, len(content), 7):
        whole.write_bytes(content[:end])
        with pytest.raises(DataError, match=f"audio.{suffix}"):
            read(whole)
    whole.write_bytes(content)
    assert read(whole)[0] == values.tolist()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["npy", "npz", "safetensors"]),
    place=st.integers(0, 400),
    change=st.binary(min_size=1, max_size=4),
)
def test_changed_bytes_are_read_or_refused_in_one_sentence(
    tmp_path: Path, suffix: str, place: int, change: bytes
) -> None:
    file = tmp_path / f"audio.{suffix}"
    if suffix == "npy":
        np.save(file, np.ones((3, 2)))
    elif suffix == "npz":
        np.savez(file, values=np.ones((3, 2)))
    else:
        save_file({"audio": np.ones((3, 2))}, file)
    content = bytearray(file.read_bytes())
    content[place : place + len(change)] = change
    file.write_bytes(content)
    assert "\n" not in refusal(file)


def refusal(file: Path) -> str:
    try:
        read(file)
    except MerBenchError as error:
        return str(error)
    return ""


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("audio.npy", "audio.npz", "audio.safetensors", "audio.parquet"):
        with pytest.raises(MissingDataError, match=f"{name} is not there"):
            read_arrays(tmp_path / name, "audio")
    np.save(tmp_path / "audio.present.npy", np.array([1, 0, 1]))
    assert read_present(tmp_path / "audio.present.npy").tolist() == [True, False, True]
    np.savez(tmp_path / "audio.present.npz", np.array([1]))
    with pytest.raises(DataError, match="should be an npy file of truth values"):
        read_present(tmp_path / "audio.present.npz")
