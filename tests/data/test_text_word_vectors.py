"""Files of word vectors in every format, and what is wrong with a bad one."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_bench.data.text import word_vectors
from mer_bench.data.text.word_vectors import read_vectors
from mer_bench.errors import DataError, MissingDataError


def test_vectors_from_text(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2 3\n. . . 4 5 6\noh -1e-1 0.5 7 \nunwanted x y z\noh 9 9 9\n", encoding="utf-8")
    found = read_vectors(file, {"oh", "the", "missing", ". . ."})
    assert {word: vector.tolist() for word, vector in found.vectors.items()} == {
        "the": [1, 2, 3],
        ". . .": [4, 5, 6],
        "oh": [pytest.approx(-0.1), 0.5, 7],
    }
    assert found.width == 3
    file.write_text("2 3\nthe 1 2 3\noh 1 2 3\n")
    assert set(read_vectors(file, {"oh", "2"}).vectors) == {"oh"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("the 1 2 3\noh 1 2\n", "line 2: expected a word and 3 numbers, but found 3 parts"),
        ("the\n", "line 1: expected a word and some numbers, but found 1 parts"),
        ("the 1 2 3\noh 1 x 3\n", "line 2: the vector of 'oh' has a value that is not finite"),
        ("the 1 2 3\noh 1 nan 3\n", "line 2: the vector of 'oh' has a value that is not finite"),
        ("the 1 2 3\n", "has not one of the 1 words"),
        ("", "has not one of the 1 words"),
    ],
)
def test_bad_vectors_in_text(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=re.escape(expected)):
        read_vectors(file, {"oh"})


def test_vectors_from_npz_are_those_from_text(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    words = ["oh", "no", "caf\u00e9"]
    np.savez(tmp_path / "v.npz", words=np.array(words), vectors=table)
    lines = [f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, table, strict=True)]
    (tmp_path / "v.txt").write_text("".join(lines), encoding="utf-8")
    one, two = (read_vectors(tmp_path / name, {"oh", "caf\u00e9"}) for name in ("v.npz", "v.txt"))
    assert one.vectors.keys() == two.vectors.keys() == {"oh", "caf\u00e9"}
    for word in one.vectors:
        assert np.array_equal(one.vectors[word], two.vectors[word])
    assert one.sha256 != two.sha256


def test_bad_vectors_in_npz(tmp_path: Path) -> None:
    file = tmp_path / "v.npz"

    def refused(**arrays: Any) -> str:
        np.savez(file, **arrays)
        with pytest.raises(DataError) as caught:
            read_vectors(file, {"oh"})
        return str(caught.value)

    words, table = np.array(["oh"]), np.ones((1, 2))
    assert "but holds: words" in refused(words=words)
    assert "1 words, but vectors of shape (2, 2)" in refused(words=words, vectors=np.ones((2, 2)))
    assert "is not a readable npz" in refused(words=np.array(["oh"], dtype=object), vectors=table)
    assert "but has (1,) <U2 and (1, 2) int64" in refused(words=words, vectors=table.astype(np.int64))
    assert "not finite in the vector of 'oh'" in refused(words=words, vectors=table * np.inf)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not a readable npz"):
        read_vectors(file, {"oh"})
    with pytest.raises(MissingDataError, match="is not there"):
        read_vectors(tmp_path / "none.txt", {"oh"})


def in_word2vec(vectors: dict[str, NDArray[np.float32]], line_ends: bool = False) -> bytes:
    """The binary format as word2vec's own program writes it, or, without line ends, as others do."""
    width = len(next(iter(vectors.values())))
    parts = [f"{len(vectors)} {width}\n".encode()]
    for word, vector in vectors.items():
        parts += [word.encode(), b" ", struct.pack(f"<{width}f", *vector.tolist()), b"\n" if line_ends else b""]
    return b"".join(parts)


def some_vectors(words: int, width: int = 4) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    # Values whose bytes hold blanks and line ends, which the reader must not take for the format's own.
    table = rng.normal(size=(words, width)).astype(np.float32)
    table[0] = np.frombuffer(b" \n \n" * width, dtype="<f4")
    return {f"w\u00f6rd{row}": vector for row, vector in enumerate(table)}


@pytest.mark.parametrize("line_ends", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_vectors_from_word2vec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line_ends: bool, chunk: int, packed: bool
) -> None:
    monkeypatch.setattr(word_vectors, "_CHUNK_BYTES", chunk)
    vectors = some_vectors(20)
    content = in_word2vec(vectors, line_ends)
    file = tmp_path / ("v.bin.gz" if packed else "v.bin")
    file.write_bytes(gzip.compress(content) if packed else content)
    wanted = {"w\u00f6rd0", "w\u00f6rd7", "w\u00f6rd19", "missing"}
    found = read_vectors(file, wanted)
    assert found.vectors.keys() == wanted - {"missing"}
    for word, vector in found.vectors.items():
        assert np.array_equal(vector, vectors[word])


def test_bad_word2vec_files(tmp_path: Path) -> None:
    file = tmp_path / "v.bin"
    content = in_word2vec(some_vectors(3))

    def refused(given: bytes, wanted: str = "w\u00f6rd2") -> str:
        file.write_bytes(given)
        with pytest.raises(DataError) as caught:
            read_vectors(file, {wanted})
        return str(caught.value)

    for cut in range(len(b"3 4\n"), len(content)):
        assert "is cut off: 3 words announced" in refused(content[:cut])
    assert "should begin with two counts" in refused(b"oh 1 2 3\n")
    assert "should begin with two counts" in refused(b"3 0\n")
    assert "should begin with two counts" in refused(b"")
    assert "word 1: is no word of any language" in refused(b"3 4\n" + b"x" * 20_000)
    broken = in_word2vec({"oh": np.full(4, np.nan, dtype=np.float32)})
    assert "word 1: the vector of 'oh' has a value not finite" in refused(broken, "oh")
    assert "is a model of fastText" in refused((793712314).to_bytes(4, "little") + bytes(40))


def test_text_in_gzip(tmp_path: Path) -> None:
    text = b"oh 1 2\nno 3 4\n" * 2000
    plain, packed = tmp_path / "v.txt", tmp_path / "v.txt.gz"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    for file in (plain, packed):
        assert {word: row.tolist() for word, row in read_vectors(file, {"no"}).vectors.items()} == {"no": [3, 4]}
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is cut off or damaged"):
        read_vectors(packed, {"no"})
    packed.write_bytes(whole[:12] + bytes(8) + whole[20:])
    with pytest.raises(DataError, match="is cut off or damaged"):
        read_vectors(packed, {"no"})


def test_a_bomb_without_a_line_end_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_vectors, "_LONGEST_LINE_BYTES", 1 << 16)
    file = tmp_path / "v.txt.gz"
    file.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(DataError, match="line 1: is no word with its numbers"):
        read_vectors(file, {"oh"})


@given(content=st.binary(max_size=200), name=st.sampled_from(["v.txt", "v.bin", "v.npz", "v.gz"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    file = tmp_path_factory.getbasetemp() / name
    for given_bytes in (content, b"PK\x03\x04" + content, b"\x1f\x8b\x08" + content, b"2 2\n" + content):
        file.write_bytes(given_bytes)
        try:
            found = read_vectors(file, {"oh"})
        except DataError:
            continue
        assert found.width > 0
