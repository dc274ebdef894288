"""Feature arrays of a user: npy, npz, safetensors and Parquet, joined to the utterances.

An array has a row an utterance, in their order, or names the utterance of each row. NaN is a blank value; a row
that is absent, or NaN throughout, is a missing modality, as is one that `<modality>.present` calls so.
"""

from __future__ import annotations

import json
import lzma
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.own.parquet import read_parquet
from mer_bench.errors import DataError, MissingDataError

FORMATS = (".npy", ".npz", ".safetensors", ".parquet")
"""Endings of the files that can hold feature arrays."""

ALL_MODALITIES = "features"
"""Name of a file that holds several modalities: keys `<modality>` and `<modality>.present`."""

PRESENT = ".present"

ABOUT_KEY = "mer_bench"
"""Key in a safetensors file's metadata: JSON of `columns`, names by modality, and `scaled`, a list of modalities."""

_SAFETENSORS_KINDS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"}

# Numpy reads an array's header as Python text, and lets through whatever that raises.
_HEADER_FAULTS = (SyntaxError, TokenError, RecursionError, TypeError, LookupError, ArithmeticError)
_BROKEN_ARRAY = (OSError, ValueError, EOFError, MemoryError, *_HEADER_FAULTS)
_BROKEN_ZIP = (*_BROKEN_ARRAY, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError)

# Above both, an archive is a bomb rather than features: zeros alone compress like that.
_MOST_UNPACKED_BYTES, _MOST_COMPRESSION = 1 << 30, 200


@dataclass(frozen=True)
class RawArray:
    """One modality as one file gives it.

    Attributes:
        ids: Utterance of each row; None: the rows are in the utterances' order.
        columns: Names of the columns; () where they have none.
        scaled: The values are features already, of an exported store, and are used as they are.

    Shapes:
        values: (rows, width), float. present: (rows,), bool, or None where the file does not say.
    """

    file: Path
    name: str
    values: NDArray[np.floating[Any]]
    ids: Sequence[str] | None = None
    present: NDArray[np.bool_] | None = None
    columns: tuple[str, ...] = ()
    scaled: bool = False


@dataclass(frozen=True)
class FeatureArray:
    """One modality of the whole corpus.

    Shapes:
        values: (utterances, width), float; NaN where blank, 0 in rows that are missing.
        present: (utterances,), bool.
    """

    values: NDArray[np.floating[Any]]
    present: NDArray[np.bool_]
    columns: tuple[str, ...]
    files: tuple[str, ...]
    scaled: bool = False

    @property
    def width(self) -> int:
        """Columns of the array."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class Rows:
    """The utterances that a file speaks of.

    Attributes:
        what: In words, for an error: `the 9989 utterances of train`.
        places: Index of each in the corpus. ids: Id of each.
        aliases: Index into `places` by every name that a key may use.
    """

    what: str
    places: NDArray[np.int64]
    ids: Sequence[str]
    aliases: Mapping[str, int]


@dataclass(frozen=True)
class _About:
    """What a safetensors file says of its arrays, by modality."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scaled: frozenset[str] = frozenset()


def read_arrays(file: Path, modality: str) -> dict[str, RawArray]:
    """Every modality that a file holds.

    Args:
        modality: As its name says; `features`: the file's keys are modalities.

    Raises:
        DataError: If it is damaged, not of numbers, or of another form; names the key.
        MissingDataError: If pyarrow is needed and not installed.
    """
    if not file.is_file():
        raise MissingDataError(f"{file} is not there.")
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        if modality == ALL_MODALITIES:
            raise DataError(f"{file}: a Parquet file holds one modality, and its name says which: audio.parquet.")
        return {modality: _read_parquet(file, modality)}
    if suffix == ".npy":
        if modality == ALL_MODALITIES:
            raise DataError(f"{file}: an npy file holds one modality, and its name says which: audio.npy.")
        return {modality: RawArray(file, modality, _matrix(_read_npy(file), str(file)))}
    arrays, about = (_read_npz(file), _About()) if suffix == ".npz" else _read_safetensors(file)
    if not arrays:
        raise DataError(f"{file} holds no array.")
    if modality == ALL_MODALITIES:
        return _all_modalities(file, arrays, about)
    return {modality: _one_modality(file, modality, arrays, about.columns.get(modality, ()))}


def read_present(file: Path) -> NDArray[np.bool_]:
    """The rows of `<modality>.present.npy`.

    Raises:
        DataError: If it is damaged, or not a row of truth values.
    """
    if file.suffix.lower() != ".npy":
        raise DataError(f"{file} should be an npy file of truth values.")
    return _truth(_read_npy(file), str(file))


def joined(raw: RawArray, rows: Rows) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Values and presence of each of the utterances that the file speaks of.

    Raises:
        DataError: If rows and utterances don't match, or a value is infinite; names the utterance and the value.
    """
    values, present = raw.values, raw.present
    if present is not None and present.shape != (len(values),):
        raise DataError(f"{raw.file}: {raw.name}{PRESENT} has {len(present)} rows, but {raw.name} has {len(values)}.")
    if raw.ids is None:
        if len(values) != len(rows.ids):
            raise DataError(
                f"{raw.file}: {raw.name} has {len(values)} rows, but there are {rows.what}. It needs a row for "
                "each, in their order, NaN throughout where there is nothing; or ids."
            )
        there = np.ones(len(values), dtype=np.bool_) if present is None else present
        found = np.array(values)
    else:
        places = _places_of(raw, rows)
        found = np.full((len(rows.ids), values.shape[1]), np.nan, dtype=values.dtype)
        found[places] = values
        there = np.zeros(len(rows.ids), dtype=np.bool_)
        there[places] = True if present is None else present
    there = there & ~np.isnan(found).all(axis=1)
    infinite = np.isinf(found) & there[:, None]
    if infinite.any():
        row, column = (int(place) for place in np.argwhere(infinite)[0])
        more = f"; {int(infinite.sum()) - 1} more are infinite" if infinite.sum() > 1 else ""
        named = f" ({raw.columns[column]})" if raw.columns else ""
        raise DataError(
            f"{raw.file}: {raw.name} is {found[row, column]} in row {row}, column {column}{named}, counted from 0, "
            f"of the utterance '{rows.ids[row]}'{more}. NaN stands for a blank."
        )
    if not there.any():
        raise DataError(f"{raw.file}: {raw.name} has not one value for {rows.what}.")
    found[~there] = 0
    return found, there


def _places_of(raw: RawArray, rows: Rows) -> list[int]:
    """Place of each of the file's ids among the utterances."""
    assert raw.ids is not None
    if len(raw.ids) != len(raw.values):
        raise DataError(f"{raw.file}: there are {len(raw.ids)} ids, but {len(raw.values)} rows.")
    unknown = [name for name in raw.ids if name not in rows.aliases]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise DataError(
            f"{raw.file}: '{unknown[0]}'{more} is the id of none of {rows.what}; the first is '{rows.ids[0]}'."
        )
    places = [rows.aliases[name] for name in raw.ids]
    seen: dict[int, str] = {}
    for place, name in zip(places, raw.ids, strict=True):
        if place in seen:
            raise DataError(f"{raw.file}: '{name}' occurs twice, as the id of two rows.")
        seen[place] = name
    return places


def _all_modalities(file: Path, arrays: Mapping[str, NDArray[Any]], about: _About) -> dict[str, RawArray]:
    found = {}
    for name, array in arrays.items():
        if name.endswith(PRESENT) and name.removesuffix(PRESENT) in arrays:
            continue
        told = arrays.get(name + PRESENT)
        present = None if told is None else _truth(told, f"{file}: {name}{PRESENT}")
        values = _matrix(array, f"{file}: {name}")
        columns = _fitting(about.columns.get(name, ()), values)
        found[name] = RawArray(file, name, values, None, present, columns, name in about.scaled)
    return found


def _one_modality(file: Path, modality: str, arrays: Mapping[str, NDArray[Any]], columns: tuple[str, ...]) -> RawArray:
    """One modality, whose rows stand under `values` or the modality's name, or under their utterances' ids."""
    for key in ("values", modality):
        if key not in arrays or not set(arrays) <= {key, "ids", "present", key + PRESENT, "columns"}:
            continue
        values = _matrix(arrays[key], f"{file}: {key}")
        ids = _strings(arrays["ids"], f"{file}: ids") if "ids" in arrays else None
        told = next((name for name in ("present", key + PRESENT) if name in arrays), None)
        present = None if told is None else _truth(arrays[told], f"{file}: {told}")
        if "columns" in arrays:
            columns = tuple(_strings(arrays["columns"], f"{file}: columns"))
        return RawArray(file, key, values, ids, present, _fitting(columns, values))
    vectors: dict[str, NDArray[np.floating[Any]]] = {}
    first = next(iter(arrays))
    for name, array in arrays.items():
        vector = _numbers(array, f"{file}: {name}")
        if vector.ndim == 2 and len(vector) == 1:
            vector = vector[0]
        if vector.ndim != 1 or not vector.size:
            raise DataError(f"{file}: '{name}' should be one vector of an utterance, but has the shape {array.shape}.")
        if vectors and vector.shape != vectors[first].shape:
            raise DataError(
                f"{file}: '{name}' has {len(vector)} values, but '{first}' has {len(vectors[first])}; all need the "
                "same width."
            )
        vectors[name] = vector
    values = np.stack(list(vectors.values()))
    return RawArray(file, modality, values, list(vectors), None, _fitting(columns, values))


def _read_npy(file: Path) -> NDArray[Any]:
    try:
        # Mapped first: numpy then compares the size of the file with what its header claims.
        return np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    except _BROKEN_ARRAY as error:
        raise _unreadable(file, "npy", error) from None


def _read_npz(file: Path) -> dict[str, NDArray[Any]]:
    """The arrays by name."""
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > max(_MOST_UNPACKED_BYTES, _MOST_COMPRESSION * file.stat().st_size):
                raise ValueError(f"it would unpack to {unpacked} bytes, which no features do")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in found:
                    raise ValueError(f"two arrays are called '{name}'")
                found[name] = _read_entry(archive, entry)
    except _BROKEN_ZIP as error:
        raise _unreadable(file, "npz", error) from None
    return found


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array of an npz archive, after a look at the size that its header claims."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, _, kind = np.lib.format.read_array_header_1_0(stream)
        else:
            shape, _, kind = np.lib.format.read_array_header_2_0(stream)
    claimed = math.prod(shape) * kind.itemsize
    if claimed > entry.file_size and not kind.hasobject:
        raise ValueError(f"the array '{entry.filename}' claims {claimed} bytes, but has {entry.file_size}")
    with archive.open(entry) as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _read_safetensors(file: Path) -> tuple[dict[str, NDArray[Any]], _About]:
    """The arrays by name, and what the file says of them."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, NDArray[Any]] = {}
    try:
        with safe_open(file, "numpy") as archive:
            kinds = {name: archive.get_slice(name).get_dtype() for name in archive.keys()}  # noqa: SIM118 (no mapping)
            metadata = archive.metadata() or {}
            odd = next((name for name, kind in kinds.items() if kind not in _SAFETENSORS_KINDS), None)
            if odd is not None:
                raise ValueError(f"'{odd}' is of the type {kinds[odd]}; save it as float16 or float32")
            found.update({name: archive.get_tensor(name) for name, kind in kinds.items() if kind != "BF16"})
        if "BF16" in kinds.values():  # which numpy does not know
            with safe_open(file, "pt") as archive:
                for name in (name for name, kind in kinds.items() if kind == "BF16"):
                    found[name] = archive.get_tensor(name).float().numpy()
    except (SafetensorError, OSError, ValueError) as error:
        raise _unreadable(file, "safetensors", error) from None
    try:
        told = json.loads(metadata.get(ABOUT_KEY, "{}"))
        columns = {str(name): tuple(map(str, each)) for name, each in told.get("columns", {}).items()}
        about = _About(columns, frozenset(map(str, told.get("scaled", ()))))
    except (ValueError, AttributeError, TypeError, RecursionError):
        about = _About()  # another program's metadata of that name say nothing here
    return found, about


def _read_parquet(file: Path, modality: str) -> RawArray:
    """Columns of numbers, or one column of lists, beside an optional column `utterance` of ids and one `present`."""
    import pyarrow

    table = read_parquet(file)
    kinds = {name: table.schema.field(name).type for name in table.column_names}
    ids = None
    if "utterance" in kinds:
        given = table.column("utterance").to_pylist()
        blank = next((row for row, name in enumerate(given) if name is None or name == ""), None)
        if blank is not None:
            raise DataError(f"{file}, row {blank + 1}, column utterance: is blank.")
        ids = [str(name) for name in given]
    present = None
    if "present" in kinds:
        present = _truth(table.column("present").to_numpy(), f"{file}: present")
    names = [name for name in kinds if name not in ("utterance", "present")]
    types = pyarrow.types
    lists = [
        name
        for name in names
        if types.is_list(kinds[name]) or types.is_large_list(kinds[name]) or types.is_fixed_size_list(kinds[name])
    ]
    numbers = [name for name in names if types.is_floating(kinds[name]) or types.is_integer(kinds[name])]
    strange = [name for name in names if name not in (*lists, *numbers)]
    if strange:
        raise DataError(
            f"{file}, column {strange[0]}: should hold numbers or lists of numbers, not {kinds[strange[0]]}."
        )
    if len(lists) + bool(numbers) != 1:
        raise DataError(f"{file} should have columns of numbers, or one column of lists, besides utterance.")
    if lists:
        return RawArray(file, lists[0], _lists(file, lists[0], table), ids, present)
    values = np.stack([_numbers(table.column(name).to_numpy(), f"{file}: {name}") for name in numbers], axis=1)
    return RawArray(file, modality, values, ids, present, tuple(numbers))


def _lists(file: Path, name: str, table: Any) -> NDArray[np.floating[Any]]:
    """A column of lists as rows; NaN throughout where there is no list."""
    import pyarrow.compute

    column = table.column(name).combine_chunks()
    lengths = pyarrow.compute.list_value_length(column)
    there = np.asarray(pyarrow.compute.is_valid(column))
    widths = lengths.drop_null().to_numpy()
    if not widths.size or not widths[0]:
        raise DataError(f"{file}, column {name}: there is not one list of numbers.")
    if (widths != widths[0]).any():
        other = int((widths != widths[0]).argmax())
        first, row = (int(np.flatnonzero(there)[place]) + 1 for place in (0, other))
        raise DataError(
            f"{file}, row {row}, column {name}: the list has {widths[other]} values, but that of row {first} has "
            f"{widths[0]}; all need the same width."
        )
    flat = _numbers(pyarrow.compute.list_flatten(column).to_numpy(zero_copy_only=False), f"{file}: {name}")
    values = np.full((len(column), int(widths[0])), np.nan, dtype=flat.dtype)
    values[there] = flat.reshape(-1, int(widths[0]))
    return values


def _matrix(array: NDArray[Any], origin: str) -> NDArray[np.floating[Any]]:
    values = _numbers(array, origin)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(
            f"{origin} should have a row an utterance and at least one column, but has the shape {array.shape}."
        )
    return values


def _numbers(array: NDArray[Any], origin: str) -> NDArray[np.floating[Any]]:
    """An array as float32 or float64, whichever loses nothing."""
    if array.dtype.kind == "f":
        return array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise DataError(f"{origin} should hold numbers, but is of the type {array.dtype}.")


def _truth(array: NDArray[Any], origin: str) -> NDArray[np.bool_]:
    if array.ndim != 1 or array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise DataError(f"{origin} should be one row of truth values, or of 0 and 1.")
    return array.astype(np.bool_)


def _strings(array: NDArray[Any], origin: str) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise DataError(f"{origin} should be one row of texts, but is of the type {array.dtype}, shape {array.shape}.")
    return [each.decode() if isinstance(each, bytes) else str(each) for each in array.tolist()]


def _fitting(columns: tuple[str, ...], values: NDArray[Any]) -> tuple[str, ...]:
    """Names of columns where they are as many as the columns."""
    return columns if len(columns) == values.shape[1] else ()


def _unreadable(file: Path, kind: str, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error).strip() else type(error).__name__
    if "pickle" in reason.lower() or "object" in reason.lower():
        reason = "it holds Python objects (dtype object), which are never loaded; save arrays of numbers or texts"
    return DataError(f"{file} cannot be read as {kind}: {reason}.")
