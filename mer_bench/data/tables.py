"""Reading csv files of other people, with errors that name file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mer_bench.errors import DataError, MissingDataError, nearest_names

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
"""What may stand between two values, and what it is called."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)


@dataclass(frozen=True)
class Table:
    """A csv file in memory, every value still text.

    Attributes:
        columns: Names in the order of the file.
        rows: One list of values a row, in the order of `columns`.
        lines: Line of the file on which each row begins, from 1 (the header is line 1).
    """

    file: Path
    columns: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def texts(self, column: str) -> list[str]:
        """A column as it stands in the file."""
        index = self.columns.index(column)
        return [row[index] for row in self.rows]

    def filled(self, column: str) -> list[str]:
        """A column in which nothing is blank.

        Raises:
            DataError: Names the line of the first blank.
        """
        values = self.texts(column)
        for row, value in enumerate(values):
            if not value.strip():
                raise self.fault(row, column, "is blank")
        return values

    def integers(self, column: str) -> list[int]:
        """A column of whole numbers.

        Raises:
            DataError: Names line and value of the first that is not.
        """
        values = self.texts(column)
        for row, value in enumerate(values):
            if not _INTEGER.fullmatch(value.strip()):
                raise self.fault(row, column, f"should be a whole number, but is {_shown(value)}")
        return [int(value) for value in values]

    def numbers(self, column: str) -> list[float]:
        """A column of numbers; a blank becomes NaN, and only a blank does.

        Raises:
            DataError: Names line and value of the first that is no number, or no finite one.
        """
        found = []
        for row, value in enumerate(self.texts(column)):
            text = value.strip()
            if not text:
                found.append(math.nan)
                continue
            if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
                raise self.fault(row, column, f"should be a finite number or blank, but is {_shown(value)}")
            found.append(float(text))
        return found

    def choices(self, column: str, legal: Iterable[str]) -> list[int]:
        """A column of names as indices into `legal`.

        Raises:
            DataError: Names line and value of the first that `legal` does not have, and the nearest.
        """
        index_of = {name: index for index, name in enumerate(legal)}
        found = []
        for row, value in enumerate(self.texts(column)):
            if value not in index_of:
                nearest = nearest_names(value, index_of, 1)
                hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
                raise self.fault(row, column, f"should be one of {', '.join(index_of)}, but is {_shown(value)}.{hint}")
            found.append(index_of[value])
        return found

    def fault(self, row: int, column: str, what: str) -> DataError:
        """The error for one value: `train.csv, line 12, column Emotion: is blank.`"""
        end = "" if what.endswith(("?", ".")) else "."
        return DataError(f"{self.file}, line {self.lines[row]}, column {column}: {what}{end}")


def read_table(file: Path, columns: Sequence[str], encoding: str = "utf-8", delimiter: str = ",") -> Table:
    """Read a csv file whose first line names its columns.

    Args:
        columns: Names that must be there; others are kept too, and their order is free.

    Raises:
        MissingDataError: If the file is not there.
        DataError: If it is empty, cut off, wrongly encoded, or not a table of those columns; names the line, and
            the column where one is at fault.
    """
    rows, lines = _parsed(file, encoding, delimiter)
    header = tuple(name.strip() for name in rows[0])
    for name in columns:
        if name not in header:
            nearest = nearest_names(name, header, 1)
            hint = f" Is it called '{nearest[0]}' there?" if nearest else f" It has: {', '.join(header)[:200]}."
            raise DataError(f"{file}, line {lines[0]}: the column {name} is missing.{hint}")
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{file}, line {lines[0]}: the column {twice} occurs twice.")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) < len(header):
            last = " The file may be cut off." if line == lines[-1] else ""
            raise DataError(
                f"{file}, line {line}, column {header[len(row)]}: the value is missing; the line has {len(row)} values "
                f"and the header {len(header)} columns.{last}"
            )
        if len(row) > len(header):
            raise DataError(
                f"{file}, line {line}: there are {len(row)} values, but the header has {len(header)} columns. "
                f"A value with a {DELIMITERS.get(delimiter, delimiter)} in it must stand in double quotes."
            )
    return Table(file, header, rows[1:], lines[1:])


def read_rows(file: Path, columns: Sequence[str], encoding: str = "utf-8") -> Table:
    """Read a csv file without a header, each of whose lines has exactly these columns.

    Args:
        columns: What each column is called in messages and by `Table`.

    Raises:
        MissingDataError: If the file is not there.
        DataError: If it is empty, cut off, wrongly encoded, or a line has more or fewer values; names the line.
    """
    rows, lines = _parsed(file, encoding)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(columns):
            last = " The file may be cut off." if line == lines[-1] and len(row) < len(columns) else ""
            raise DataError(
                f"{file}, line {line}: there should be {len(columns)} values, but there are {len(row)}.{last}"
            )
    return Table(file, tuple(columns), rows, lines)


def _parsed(file: Path, encoding: str, delimiter: str = ",") -> tuple[list[list[str]], list[int]]:
    """Every line of a csv file that has something on it, and where it begins."""
    text = read_text(file, encoding, _column_at)
    if not text.strip():
        raise DataError(f"{file} is empty.")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    begins = 1
    try:
        for row in reader:
            if row:  # the csv module gives [] for a line with nothing on it
                rows.append(row)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        reason = {
            "unexpected end of data": "a quoted value begins here or later and never ends; the file may be cut off"
        }.get(str(error), str(error))
        column = f", column {rows[0][0]}" if rows and len(rows[0]) == 1 else ""
        raise DataError(f"{file}, line {begins}{column}: {reason}.") from None
    return rows, lines


def check_counts(file: Path, found: Mapping[str, int], published: Mapping[str, int]) -> None:
    """Compare what a file holds with what was published.

    Args:
        found, published: Counts by what is counted, as a plural: `dialogues`, `utterances`.

    Raises:
        DataError: Names the file and both numbers.
    """
    for what, count in published.items():
        if found[what] != count:
            raise DataError(
                f"{file} holds {found[what]} {what}, but the published file holds {count}. "
                "It may be cut off or another release; obtain it again."
            )


def read_text(file: Path, encoding: str = "utf-8", place_in: Callable[[str], str] = lambda before: "") -> str:
    """A text file in full, without the mark that some programs write at its beginning.

    Args:
        place_in: Says in words where in its line a text breaks off: `, column Utterance`.

    Raises:
        MissingDataError: If the file is not there.
        DataError: If it is wrongly encoded or holds a NUL character; names the line.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise MissingDataError(f"{file} is not there.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{file}, line 1: the file is in UTF-16, but should be in {encoding.upper()}. Save it as that.")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = place_in(content[: error.start].decode(encoding, errors="replace"))
        raise DataError(
            f"{file}, line {line}{column}: the byte 0x{content[error.start]:02x} is not {encoding.upper()}. "
            "The file may have been saved in another encoding; obtain it again."
        ) from None
    if "\0" in text:
        before = text[: text.index("\0")]
        raise DataError(f"{file}, line {before.count(chr(10)) + 1}{place_in(before)}: there is a NUL character.")
    return text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")


def _column_at(text: str) -> str:
    """Name of the column in which a csv text breaks off, as `, column Utterance`; "" if unknown."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    except csv.Error:
        return ""
    if len(rows) < 2 or len(rows[-1]) > len(rows[0]):
        return ""
    return f", column {rows[0][len(rows[-1]) - 1].strip()}"


def _shown(value: str) -> str:
    return repr(value if len(value) <= 60 else value[:57] + "...")
