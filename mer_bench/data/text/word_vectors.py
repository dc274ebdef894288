"""Files of word vectors, in any of the usual formats, of which only the wanted words are kept.

text         `word number number ...` a line (GloVe), with or without word2vec's first line of two counts
word2vec     its binary format, recognised by the ending .bin or .bin.gz
npz          arrays `words` (n,) of text and `vectors` (n, width) of floats

The first two may be compressed with gzip.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.files import sha256_of_file
from mer_bench.errors import DataError, MissingDataError

Vectors = dict[str, NDArray[np.float32]]

_LONGEST_LINE_BYTES = 1 << 22
_LONGEST_WORD_BYTES = 1 << 14
_CHUNK_BYTES = 1 << 20
_FASTTEXT_MAGIC = (793712314).to_bytes(4, "little")


@dataclass(frozen=True)
class WordVectors:
    """Vectors of the words that are wanted, from a file of the user's.

    Attributes:
        sha256: Of the whole file. vectors: By word; all of one width.
    """

    sha256: str
    width: int
    vectors: Mapping[str, NDArray[np.float32]]


def read_vectors(file: Path, wanted: Collection[str]) -> WordVectors:
    """Read the vectors of some words; of a word that a file has twice, the first.

    Only wanted words are kept, so that a file of gigabytes needs little memory (an npz is read as a whole).

    Raises:
        MissingDataError: If the file is not there.
        DataError: If it is malformed (names the line or the word) or has not one of the wanted words.
    """
    if not file.is_file():
        raise MissingDataError(f"the vectors file {file} is not there.")
    wanted = frozenset(wanted)
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
        if magic == _FASTTEXT_MAGIC:
            raise DataError(f"the vectors file {file} is a model of fastText; give its vectors as text (.vec) instead.")
        if magic == b"PK\x03\x04":
            vectors = _from_archive(file, wanted)
        else:
            packed = magic[:2] == b"\x1f\x8b"
            binary = file.name.removesuffix(".gz").endswith(".bin")
            with cast(BinaryIO, gzip.open(file)) if packed else file.open("rb") as stream:
                vectors = (_from_word2vec if binary else _from_text)(file, stream, wanted)
        checksum = sha256_of_file(file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"the vectors file {file} is cut off or damaged: {error}.") from error
    except OSError as error:
        raise DataError(f"the vectors file {file} cannot be read: {error.strerror or error}.") from error
    if not vectors:
        raise DataError(f"the vectors file {file} has not one of the {len(wanted)} words of the corpus.")
    width = len(next(iter(vectors.values())))
    return WordVectors(checksum, width, vectors)


def _from_archive(file: Path, wanted: frozenset[str]) -> Vectors:
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = archive.files
            if not {"words", "vectors"} <= set(names):
                raise DataError(
                    f"the vectors file {file} should hold arrays called words and vectors, but holds: "
                    f"{', '.join(names)}."
                )
            words, vectors = archive["words"], archive["vectors"]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the vectors file {file} is not a readable npz: {error}.") from None
    if words.ndim != 1 or words.dtype.kind != "U" or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(
            f"the vectors file {file} should hold words (n,) as text and vectors (n, width) as floats, but has "
            f"{words.shape} {words.dtype} and {vectors.shape} {vectors.dtype}."
        )
    if len(words) != len(vectors) or vectors.shape[1] == 0:
        raise DataError(f"the vectors file {file} has {len(words)} words, but vectors of shape {vectors.shape}.")
    found: Vectors = {}
    for row, word in enumerate(words.tolist()):
        if word in wanted and word not in found:
            found[word] = vectors[row].astype(np.float32)
            if not np.isfinite(found[word]).all():
                raise DataError(f"the vectors file {file} has a value that is not finite in the vector of '{word}'.")
    return found


def _from_text(file: Path, stream: BinaryIO, wanted: frozenset[str]) -> Vectors:
    wanted_bytes = {word.encode(): word for word in wanted}
    found: Vectors = {}
    width = 0
    for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE_BYTES), b""), start=1):
        if len(line) == _LONGEST_LINE_BYTES:
            raise DataError(f"the vectors file {file}, line {number}: is no word with its numbers, but far longer.")
        values = line.rstrip().split(b" ")
        if number == 1 and len(values) == 2 and all(value.isdigit() for value in values):
            continue
        width = width or len(values) - 1
        if len(values) <= width or width == 0:
            raise DataError(
                f"the vectors file {file}, line {number}: expected a word and {width or 'some'} numbers, "
                f"but found {len(values)} parts."
            )
        # A few published words have blanks in them, so the numbers are counted from the end.
        word = wanted_bytes.get(b" ".join(values[:-width]))
        if word is None or word in found:
            continue
        try:
            vector = np.array(values[-width:], dtype=np.float32)
        except ValueError:
            vector = np.full(1, np.nan, dtype=np.float32)
        if not np.isfinite(vector).all():
            raise DataError(
                f"the vectors file {file}, line {number}: the vector of '{word}' has a value that is not finite."
            )
        found[word] = vector
    return found


def _from_word2vec(file: Path, stream: BinaryIO, wanted: frozenset[str]) -> Vectors:
    """A line of two counts, then for each word its bytes, a blank and `width` little-endian floats."""
    counts = stream.readline(64).split()
    if len(counts) != 2 or not all(count.isdigit() for count in counts) or int(counts[1]) == 0:
        raise DataError(f"the vectors file {file} should begin with two counts, as word2vec's binary files do.")
    wanted_bytes = {word.encode(): word for word in wanted}
    found: Vectors = {}
    for place, (name, values) in enumerate(_entries(file, stream, int(counts[0]), 4 * int(counts[1])), start=1):
        word = wanted_bytes.get(name)
        if word is None or word in found:
            continue
        found[word] = np.frombuffer(values, dtype="<f4").astype(np.float32)
        if not np.isfinite(found[word]).all():
            raise DataError(f"the vectors file {file}, word {place}: the vector of '{word}' has a value not finite.")
    return found


def _entries(file: Path, stream: BinaryIO, count: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Each word of a binary file, and the bytes of its vector."""
    held, start = b"", 0
    for place in range(1, count + 1):
        while (blank := held.find(b" ", start)) < 0 or len(held) < blank + 1 + size:
            if blank < 0 and len(held) - start > _LONGEST_WORD_BYTES:
                raise DataError(f"the vectors file {file}, word {place}: is no word of any language.")
            more = stream.read(_CHUNK_BYTES)
            if not more:
                raise DataError(f"the vectors file {file} is cut off: {count} words announced, {place - 1} found.")
            held, start = held[start:] + more, 0
        # Some writers end each vector with a line break.
        yield held[start:blank].lstrip(b"\n"), held[blank + 1 : blank + 1 + size]
        start = blank + 1 + size
