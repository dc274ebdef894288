"""Read the files of a release, pickles and numpy archives, without running anything in them."""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy

from mer_bench.data.community.recognition import combine, find_layout, recognise_part
from mer_bench.data.community.release import Release
from mer_bench.data.restricted_pickle import MAX_BYTES, load_restricted, loads_restricted
from mer_bench.errors import DataError, MissingDataError, SettingError

SUFFIXES = (".pkl", ".pickle", ".p", ".npz", ".npy")
"""How the names of the files of releases end; what a file is, is told by its content."""

_ZIP, _NPY, _GZIP = b"PK\x03\x04", b"\x93NUMPY", b"\x1f\x8b"
_FLOOR_BYTES = 64 << 20
_MOST_RATIO = 200
"""An archive may unfold to so many bytes, or to so many times its size, and never beyond MAX_BYTES."""


def read_value(file: Path) -> Any:
    """The value in a pickle, an npy file or an npz archive (a dict of its arrays by name).

    Lists of floats come back as arrays.

    Raises:
        MissingDataError: If the file is not there.
        UnsafePickleError: If it asks for anything that data never need.
        DataError: If it is none of these, damaged, or unfolds to far more than it can rightly hold.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(8)
    except FileNotFoundError:
        raise MissingDataError(f"{file} is not there.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}.") from None
    if start.startswith(_GZIP):
        raise DataError(f"{file} is compressed with gzip; unpack it first.")
    if start.startswith(_ZIP):
        return _read_archive(file)
    if start.startswith(_NPY):
        if file.stat().st_size > MAX_BYTES:
            raise DataError(f"{file} has {file.stat().st_size} bytes; {MAX_BYTES} are the most that is read.")
        return _array(file.read_bytes(), str(file))
    return load_restricted(file, packed=True)


def recognise(value: Any, file: Path, layout: str | None = None) -> Release:
    """Tell a release of one file by the structure of its value.

    Args:
        layout: What the user says that it is.

    Raises:
        DataError: If no layout fits. SettingError: If several do. UnknownNameError: If there is no such layout.
    """
    part = recognise_part(value, file, find_layout(layout))
    return Release(part.layout, (part,))


def read_release(files: Sequence[Path], layout: str | None = None) -> Release:
    """Read and recognise a release of one or several files, in any order; a folder stands for those in it.

    Raises:
        MissingDataError, UnsafePickleError, DataError: As `read_value`.
        DataError: If a layout is not known, or the files do not belong together.
        SettingError: If more than one layout fits and none is named.
    """
    wanted = find_layout(layout)
    parts = [recognise_part(read_value(file), file, wanted) for file in release_files(files)]
    found, ordered = combine(parts, wanted)
    if wanted is not None and found.id != wanted.id:
        raise SettingError(f"the files are {found.id} ({found.title}), but --layout {wanted.id} was given.")
    return Release(found, ordered)


def release_files(given: Sequence[Path]) -> list[Path]:
    """The files that are named, and those of the folders that are named.

    Raises:
        MissingDataError: If something is not there, or a folder holds no such file.
    """
    found: list[Path] = []
    for path in (each.expanduser() for each in given):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
            if not inside:
                raise MissingDataError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
            found += inside
        elif not path.exists():
            raise MissingDataError(f"{path} is not there.")
        else:
            found.append(path)
    if not found:
        raise MissingDataError("no file was given.")
    return found


def _read_archive(file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    limit = min(max(_FLOOR_BYTES, _MOST_RATIO * size), MAX_BYTES)
    found: dict[str, Any] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if any(not member.filename.endswith(".npy") for member in members):
                raise DataError(f"{file} is an archive of other things than arrays; unpack it first.")
            total = sum(member.file_size for member in members)
            if total > limit or len(members) > 10_000:
                raise DataError(f"{file} unfolds to {total} bytes in {len(members)} arrays; {limit} are the most here.")
            for member in members:
                with archive.open(member) as stream:
                    content = stream.read(member.file_size + 1)
                if len(content) != member.file_size:
                    raise DataError(f"{file}: {member.filename} is not of the size that the archive says.")
                found[member.filename.removesuffix(".npy")] = _array(content, f"{file}: {member.filename}")
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError) as error:
        # RuntimeError, with its child NotImplementedError: encrypted, or compressed in a way that is not known.
        raise DataError(f"{file} is not a valid archive of arrays: {error}.") from None
    return found


def _array(content: bytes, origin: str) -> Any:
    """One array in numpy's own format; objects in it go through the restricted reader."""
    stream = io.BytesIO(content)
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise DataError(f"{origin} is in version {version[0]}.{version[1]} of numpy's format, which is not read.")
        shape, fortran, dtype = read_header(stream)
    except (ValueError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(f"{origin} is not a valid array: {str(error).splitlines()[0][:200]}.") from None
    start = stream.tell()
    if dtype.hasobject:
        if dtype.kind != "O":
            raise DataError(f"{origin} holds records of objects, which data never need.")
        value = loads_restricted(content[start:], origin, packed=True)
        if not isinstance(value, np.ndarray) or value.shape != shape:
            raise DataError(f"{origin} does not hold an array of the shape {shape} that it says.")
        return value
    if dtype.kind not in "biufcSU":
        raise DataError(f"{origin} holds values of the type {dtype}, which data never need.")
    count = 1
    for side in shape:
        count *= side
        if not 0 <= count * max(dtype.itemsize, 1) <= len(content):
            raise DataError(f"{origin} is not a valid array: its shape {shape} does not fit its {len(content)} bytes.")
    if count * dtype.itemsize != len(content) - start:
        raise DataError(f"{origin} is not a valid array: its shape {shape} does not fit its {len(content)} bytes.")
    return np.frombuffer(content, dtype=dtype, count=count, offset=start).reshape(shape, order="F" if fortran else "C")
