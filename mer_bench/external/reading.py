"""The rows of a predictions file, whatever its format: an id, and a label or a score for each class.

column              what it holds
id                  id of a test utterance, as `mer-bench score --template FILE` writes it
label               name of a class, or its number from 0 in the dataset's order; a name goes before a number
<name of a class>   its probability or log-probability; one column for each class, or none

csv       a header, then a line an utterance; between values a comma, semicolon or tab; UTF-8
jsonl     an object a line with these keys; scores may also stand together: {"id": "a", "scores": {"joy": 0.7, ...}}
parquet   the same columns; `scores` may be a struct

A blank value (null in JSON) is none: a column that is blank everywhere counts as absent. Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mer_bench.data.own.parquet import read_parquet
from mer_bench.data.tables import DELIMITERS, read_table, read_text
from mer_bench.errors import DataError, RequestError, nearest_names

SUFFIXES: Final[Mapping[str, str]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
FORMATS: Final = ("csv", "jsonl", "parquet")

LARGEST_BYTES: Final = 64 * 2**20
"""A million rows with ten scores; the largest test split here has fewer than three thousand."""

ID, LABEL, SCORES = "id", "label", "scores"

_INTEGER = re.compile(r"([0-9]{1,9})(\.0+)?")  # tables write 3 as 3.0 where a value of the column is missing
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|-inf(inity)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Rows:
    """A file's rows as they stand there.

    Attributes:
        unit: What `places` count, from 1: `line`, or `row` of Parquet.
        values: By row and column; blank text is None, and so is a column that a row lacks.
        ignored: Columns that nothing reads.
    """

    file: Path
    unit: str
    columns: tuple[str, ...]
    values: Sequence[Mapping[str, Any]]
    places: Sequence[int]
    ignored: tuple[str, ...] = ()

    def fault(self, row: int, column: str, what: str) -> DataError:
        """The error for one value: `answers.csv, line 12, column label: is blank.`"""
        end = "" if what.endswith(("?", ".")) else "."
        return DataError(f"{self.file}, {self.unit} {self.places[row]}, column {column}: {what}{end}")

    def filled(self, columns: Sequence[str]) -> bool:
        """Whether any value of some columns is there."""
        return any(row.get(column) is not None for row in self.values for column in columns)

    def part(self, rows: Sequence[int]) -> Rows:
        """Some rows, in the order given."""
        chosen = [self.values[row] for row in rows]
        return Rows(self.file, self.unit, self.columns, chosen, [self.places[row] for row in rows], self.ignored)


def format_of(file: Path, given: str | None) -> str:
    """The format of a file, as given or by its name.

    Raises:
        RequestError: If it is none of `FORMATS`, or cannot be told.
    """
    if given is not None:
        if given not in FORMATS:
            raise RequestError(f"a format is {', '.join(FORMATS)}, but '{given}' was given.")
        return given
    if file.suffix.lower() not in SUFFIXES:
        raise RequestError(
            f"the name of {file} does not say what it is: it should end in {', '.join(SUFFIXES)}, or give the format "
            f"({', '.join(FORMATS)}) with --format."
        )
    return SUFFIXES[file.suffix.lower()]


def read_rows(file: Path, classes: Sequence[str], given: str | None = None) -> Rows:
    """Read a predictions file; ids, labels and scores are not looked at yet.

    Args:
        classes: Names of the classes in the order of their index.
        given: The format; None: by the file's name.

    Raises:
        RequestError: If the format cannot be told. MissingDataError: If there is no file, or no reader for it.
        DataError: If it is too large, damaged, empty, or its columns are not the right ones; names the line.
    """
    kind = format_of(file, given)
    try:
        size = file.stat().st_size
    except OSError:
        size = 0  # the reader says what is wrong
    if size > LARGEST_BYTES:
        raise DataError(
            f"{file} has {size / 2**20:.0f} MiB, and predictions have at most {LARGEST_BYTES // 2**20}: keep the "
            f"columns {ID}, {LABEL} and those of the classes alone."
        )
    reader = {"csv": _of_csv, "jsonl": _of_jsonl, "parquet": _of_parquet}[kind]
    return _checked(reader(file), classes)


def label_index(rows: Rows, row: int, classes: Sequence[str]) -> int:
    """The class index of a row's label.

    Raises:
        DataError: If it is blank or no class.
    """
    value = rows.values[row].get(LABEL)
    if value is None:
        raise rows.fault(row, LABEL, "is blank, but other rows have a label; fill all of them, or none")
    text = str(value).strip()
    if not isinstance(value, bool):
        if text in classes:
            return classes.index(text)
        match = _INTEGER.fullmatch(text)
        if match and int(match[1]) < len(classes):
            return int(match[1])
    nearest = nearest_names(text, classes, 1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    known = f"{', '.join(classes)}, or a number from 0 to {len(classes) - 1}"
    raise rows.fault(row, LABEL, f"should be one of {known}, but is {_shown(value)}.{hint}")


def score_of(rows: Rows, row: int, name: str) -> float:
    """The score that a row gives to a class.

    Raises:
        DataError: If it is blank or no number.
    """
    value = rows.values[row].get(name)
    if value is None:
        raise rows.fault(row, name, "is blank, but other scores are there; give every row a score for each class")
    number = math.nan
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if math.isnan(number) or number == math.inf:
        comma = " Write a point, not a comma." if isinstance(value, str) and "," in value else ""
        raise rows.fault(row, name, f"should be a number, but is {_shown(value)}.{comma}")
    return number


def _checked(rows: Rows, classes: Sequence[str]) -> Rows:
    """The rows, if their columns are those of predictions.

    Raises:
        DataError: If there is no id, nothing predicted, or scores of some classes alone.
    """
    if not rows.values:
        raise DataError(f"{rows.file} has no row.")
    if ID not in rows.columns:
        near = nearest_names(ID, rows.columns, 1)
        hint = f" Is it called '{near[0]}' there?" if near else f" It has: {', '.join(rows.columns)[:200]}."
        raise DataError(f"{rows.file}: the column {ID} is missing.{hint}")
    scored = [name for name in classes if name in rows.columns]
    if not scored and LABEL not in rows.columns:
        raise DataError(
            f"{rows.file} has neither the column {LABEL} nor one for each class ({', '.join(classes)}); it has: "
            f"{', '.join(rows.columns)[:200]}."
        )
    if scored and len(scored) < len(classes):
        absent = next(name for name in classes if name not in scored)
        near = nearest_names(absent, [name for name in rows.columns if name not in classes], 1)
        hint = f" Is it called '{near[0]}' there?" if near else ""
        raise DataError(
            f"{rows.file} has scores of {', '.join(scored)}, but the column {absent} is missing; each class needs one, "
            f"or none has one.{hint}"
        )
    known = {ID, LABEL, *classes}
    ignored = tuple(name for name in rows.columns if name not in known)
    return Rows(rows.file, rows.unit, rows.columns, rows.values, rows.places, ignored)


def _of_csv(file: Path) -> Rows:
    table = read_table(file, [ID], delimiter=_delimiter(file))
    values = [dict(zip(table.columns, map(_plain, row), strict=True)) for row in table.rows]
    return Rows(file, "line", table.columns, values, table.lines)


def _delimiter(file: Path) -> str:
    """What stands between the names of the first line that has something on it, the column `id` among them."""
    try:
        with file.open("rb") as stream:
            head = stream.read(1 << 16).decode("utf-8-sig", errors="replace")
    except OSError:
        return ","  # the reader says what is wrong
    first = next((line for line in head.splitlines() if line.strip()), "")
    for delimiter in DELIMITERS:
        names = next(csv.reader(io.StringIO(first), delimiter=delimiter), [])
        if ID in (name.strip() for name in names):
            return delimiter
    return max(DELIMITERS, key=first.count)


def _of_jsonl(file: Path) -> Rows:
    found: list[Mapping[str, Any]] = []
    places: list[int] = []
    columns: dict[str, None] = {}
    # Not splitlines: a text in JSON may hold letters that it takes for the end of a line.
    for place, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{file}, line {place}"
        try:
            value = json.loads(line, object_pairs_hook=_without_repeats)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is not JSON ({error}); each line should be one object.") from None
        if not isinstance(value, dict):
            raise DataError(
                f'{where}: should be one object, such as {{"id": "...", "label": "..."}}, but is {_shown(value)}.'
            )
        row = _flat(value, where)
        found.append(row)
        places.append(place)
        columns |= dict.fromkeys(row)
    if not found:
        raise DataError(f"{file} is empty.")
    return Rows(file, "line", tuple(columns), found, places)


def _of_parquet(file: Path) -> Rows:
    table = read_parquet(file)
    rows = [_flat(row, f"{file}, row {place}") for place, row in enumerate(table.to_pylist(), 1)]
    columns = dict.fromkeys(name for row in rows for name in row) if rows else dict.fromkeys(table.column_names)
    return Rows(file, "row", tuple(columns), rows, range(1, len(rows) + 1))


def _flat(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row whose scores stand beside its id, wherever they stood."""
    scores = row.get(SCORES)
    found = {name: _plain(value) for name, value in row.items() if name != SCORES}
    if scores is None:
        return found
    if not isinstance(scores, Mapping):
        raise DataError(
            f"{where}, column {SCORES}: should be an object with a number for each class, not {_shown(scores)}."
        )
    twice = next((name for name in scores if found.get(name) is not None), None)
    if twice is not None:
        raise DataError(f"{where}: '{twice}' stands in {SCORES} and beside it.")
    return found | {name: _plain(value) for name, value in scores.items()}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' occurs twice")
    return found


def _plain(value: Any) -> Any:
    """A value without the blanks around it; None where there is nothing."""
    if isinstance(value, str):
        return value.strip() or None
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
