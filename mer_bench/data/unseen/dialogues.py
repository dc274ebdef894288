"""New dialogues as a user brings them: who says what, in which order, with what was measured beside it.

CSV and Parquet hold an utterance a row; JSONL an utterance a line, or a dialogue a line as `data export` writes it.
A row has

dialogue            id of the dialogue; its rows stand together, or each has a turn
speaker             who speaks
text                what is said; may be absent where the model reads no text
turn                a number that orders the dialogue; where no row has one, the rows' own order counts
utterance           an id of the user's own, which comes back in the answer
<modality>          list of numbers: what was measured of a modality (JSONL, Parquet)
<modality>.<name>   one of those numbers, by the name of its column or its place from 0

Every other column is left alone, and told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.own.cells import is_blank, is_missing, json_object, name_in, optional_name_in, text_in
from mer_bench.data.own.dialogues import Place, shown
from mer_bench.data.own.parquet import read_parquet
from mer_bench.data.tables import read_table, read_text
from mer_bench.errors import DataError, nearest_names

FORMATS = (".jsonl", ".csv", ".parquet")
"""Endings of the files that can hold dialogues."""

LONGEST_TEXT = 20_000
"""Characters of an utterance: more is no utterance, but a document in the wrong column."""
LONGEST_DIALOGUE = 5_000
"""Utterances of a dialogue: the memory of some models grows with the square of them."""

COLUMNS = ("dialogue", "turn", "utterance", "speaker", "text")


class Row(NamedTuple):
    """One utterance as its source tells it."""

    place: Place
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """What was measured of one modality.

    Attributes:
        columns: Names of the columns; () where they have none.

    Shapes:
        values: (utterances, columns), float; NaN where blank.
    """

    values: NDArray[np.float64]
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnseenDialogues:
    """Dialogues one after the other, their turns in order.

    Attributes:
        lengths: Utterances of each dialogue, at least 1.
        places: Where each utterance stands in its source, for messages.
        rows: Place of each utterance among the source's own, from 0.
        turns: As given, else from 1 in each dialogue. utterances: Ids; None where the source has none.
        texts: None where the source has no column for them.
        measured: By modality, as far as the source has any.
        notes: What the user should be told, one sentence each.
    """

    dialogue_ids: list[str]
    lengths: list[int]
    places: list[Place]
    rows: list[int]
    turns: list[int | float]
    utterances: list[str] | None
    speakers: list[str]
    texts: list[str] | None
    measured: dict[str, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def dialogue_of_utterance(self) -> list[str]:
        """Id of the dialogue of each utterance."""
        return [name for name, length in zip(self.dialogue_ids, self.lengths, strict=True) for _ in range(length)]

    def __len__(self) -> int:
        return len(self.rows)


def read_unseen(source: Path | Iterable[Mapping[str, Any]], modalities: Sequence[str]) -> UnseenDialogues:
    """Read new dialogues and put their turns in order.

    Args:
        source: A file, whose ending says which format, or rows as mappings.
        modalities: Those that the model takes; columns of another are left alone.

    Raises:
        MissingDataError: If the file is not there, or pyarrow is needed and not installed.
        DataError: For the first thing that is wrong; names line or row, column and value.
    """
    rows, origin = _rows_of(source)
    if not rows:
        raise DataError(f"{origin} holds no utterance.")
    there = dict.fromkeys(name for row in rows for name in row.values)
    columns = _measured_columns(there, modalities)
    used = {*COLUMNS, *(name for names in columns.values() for name in names)}
    for name in ("dialogue", "speaker"):
        if name not in there:
            raise DataError(f"{_begin(rows)}: the column {name} is missing. {_is_called(name, there, used)}")
    utterances = [_utterance(row) for row in rows]
    order = _in_order(rows, utterances)
    spoken = [utterances[row] for row in order]
    names = [each.dialogue for each in spoken]
    lengths = [len(list(group)) for _, group in groupby(names)]
    _check_lengths(spoken, lengths)
    _check_ids(spoken)
    unused = [name for name in there if name not in used]
    return UnseenDialogues(
        dialogue_ids=list(dict.fromkeys(names)),
        lengths=lengths,
        places=[each.place for each in spoken],
        rows=order,
        turns=_turns(spoken, lengths),
        utterances=[each.name or "" for each in spoken] if any(each.name for each in spoken) else None,
        speakers=[each.speaker for each in spoken],
        texts=[each.text for each in spoken] if _has_texts(rows, there) else None,
        measured={
            modality: _measured(modality, names_there, [rows[row] for row in order])
            for modality, names_there in columns.items()
            if names_there
        },
        notes=[f"columns that are not used: {', '.join(unused)}."] if unused else [],
    )


class _Utterance(NamedTuple):
    place: Place
    dialogue: str
    turn: int | float | None
    name: str | None
    speaker: str
    text: str


def _rows_of(source: Path | Iterable[Mapping[str, Any]]) -> tuple[list[Row], str]:
    """Every utterance of a source, and what the source is called."""
    if not isinstance(source, Path):
        found = []
        for number, row in enumerate(source, 1):
            if not isinstance(row, Mapping):
                raise DataError(f"row {number} should be a mapping of columns to values, but is {shown(row)}.")
            found.append(Row(Place(f"row {number}"), row))
        return found, "the input"
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    if source.is_dir() or source.suffix.lower() not in readers:
        raise DataError(f"{source} should be JSONL, CSV or Parquet, and its name should end so: {', '.join(FORMATS)}.")
    return list(readers[source.suffix.lower()](source)), str(source)


def _csv_rows(file: Path) -> Iterator[Row]:
    table = read_table(file, [])
    for values, line in zip(table.rows, table.lines, strict=True):
        yield Row(Place(f"{file}, line {line}"), dict(zip(table.columns, values, strict=True)))


def _parquet_rows(file: Path) -> Iterator[Row]:
    table = read_parquet(file)
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for row in range(table.num_rows):
        yield Row(Place(f"{file}, row {row + 1}"), {name: values[row] for name, values in columns.items()})


def _jsonl_rows(file: Path) -> Iterator[Row]:
    begun: dict[str, str] = {}
    # Only a line feed ends a line: str.splitlines would also break at characters that a text may hold.
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = Place(f"{file}, line {number}", "key")
        row = json_object(line, place)
        if "utterances" not in row:
            yield Row(place, row)
            continue
        dialogue = name_in(place, "id", row.get("id", row.get("dialogue")))
        if dialogue in begun:
            raise place.fault("id", f"'{dialogue}' occurs twice; it stands at {begun[dialogue]} already")
        begun[dialogue] = place.where
        if not isinstance(row["utterances"], list):
            raise place.fault("utterances", f"should be a list, but is {shown(row['utterances'])}")
        if not row["utterances"]:
            raise place.fault("utterances", f"the dialogue '{dialogue}' has no utterance")
        for turn, each in enumerate(row["utterances"], 1):
            inner = Place(f"{place.where}, utterance {turn}", "key")
            if not isinstance(each, dict):
                raise DataError(f"{inner.where} should be an object in braces, but is {shown(each)}.")
            own = {"utterance" if name == "id" else name: value for name, value in each.items()}
            yield Row(inner, {**own, "dialogue": dialogue})


def _begin(rows: Sequence[Row]) -> str:
    """Where the columns are named, or would be."""
    where = rows[0].place.where
    return where.rpartition(", line ")[0] + ", line 1" if ".csv, line " in where.lower() else where


def _is_called(name: str, there: Iterable[str], used: Iterable[str]) -> str:
    """A hint at another column that may be meant."""
    free = [each for each in there if each not in used]
    nearest = nearest_names(name, free, 1)
    if nearest:
        return f"Is it called '{nearest[0]}' there?"
    return f"It has: {', '.join(there)[:200]}."


def _measured_columns(there: Iterable[str], modalities: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each modality, in the order in which they stand."""
    found: dict[str, list[str]] = {modality: [] for modality in modalities}
    for name in there:
        modality, dot, _ = name.partition(".")
        if modality in found and (dot or modality != "text"):
            found[modality].append(name)
    return found


def _has_texts(rows: Sequence[Row], there: Mapping[str, Any]) -> bool:
    return "text" in there and any(not is_missing(row.values.get("text")) for row in rows)


def _utterance(row: Row) -> _Utterance:
    place, values = row
    text = text_in(place, "text", values.get("text"))
    if len(text) > LONGEST_TEXT:
        raise place.fault(
            "text", f"has {len(text)} characters, but an utterance has at most {LONGEST_TEXT}; cut it into turns"
        )
    return _Utterance(
        place,
        name_in(place, "dialogue", values.get("dialogue")),
        _turn(place, values.get("turn")),
        optional_name_in(place, "utterance", values.get("utterance")),
        name_in(place, "speaker", values.get("speaker")),
        text,
    )


def _turn(place: Place, value: Any) -> int | float | None:
    if is_blank(value):
        return None
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise place.fault("turn", f"should be a number, but is {shown(value)}")
    return int(number) if number.is_integer() else number


def _number(value: Any) -> float | None:
    """A number, which CSV holds as text; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and (not value.strip().isascii() or "_" in value):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _in_order(rows: Sequence[Row], spoken: Sequence[_Utterance]) -> list[int]:
    """The rows, dialogue by dialogue as each first appears, and by their turns where they have any.

    Raises:
        DataError: If a turn stands twice, only some rows of a dialogue have one, or none has and a dialogue goes on
            after another began.
    """
    found: dict[str, list[int]] = {}
    previous = None
    for row, each in enumerate(spoken):
        if each.dialogue in found and each.dialogue != previous and each.turn is None:
            began = spoken[found[each.dialogue][0]].place.where
            raise each.place.fault(
                "dialogue",
                f"'{each.dialogue}' goes on here after another began; it began at {began}. Put its rows together, "
                "or give each a turn.",
            )
        found.setdefault(each.dialogue, []).append(row)
        previous = each.dialogue
    order = []
    for dialogue, numbers in found.items():
        turns: dict[int | float, int] = {}
        for row in numbers:
            turn, place = spoken[row].turn, spoken[row].place
            if (turn is None) != (spoken[numbers[0]].turn is None):
                raise place.fault("turn", f"is given in only some rows of the dialogue '{dialogue}'; give all, or none")
            if turn is None:
                continue
            if turn in turns:
                first = spoken[turns[turn]].place.where
                raise place.fault("turn", f"{turn} occurs twice in the dialogue '{dialogue}', first at {first}")
            turns[turn] = row
        order += [turns[turn] for turn in sorted(turns)] if turns else numbers
    return order


def _turns(spoken: Sequence[_Utterance], lengths: Sequence[int]) -> list[int | float]:
    counted = [number for length in lengths for number in range(1, length + 1)]
    return [number if each.turn is None else each.turn for number, each in zip(counted, spoken, strict=True)]


def _check_lengths(spoken: Sequence[_Utterance], lengths: Sequence[int]) -> None:
    start = 0
    for length in lengths:
        if length > LONGEST_DIALOGUE:
            over = spoken[start + LONGEST_DIALOGUE]
            raise over.place.fault(
                "dialogue",
                f"'{over.dialogue}' has {length} utterances, but at most {LONGEST_DIALOGUE} are taken; cut it in parts",
            )
        start += length


def _check_ids(spoken: Sequence[_Utterance]) -> None:
    """Raises: DataError: If an id stands twice in a dialogue."""
    seen: dict[tuple[str, str], Place] = {}
    for each in spoken:
        if each.name is None:
            continue
        if (first := seen.setdefault((each.dialogue, each.name), each.place)) is not each.place:
            raise each.place.fault("utterance", f"'{each.name}' occurs twice in its dialogue, first at {first.where}")


def _measured(modality: str, names: Sequence[str], rows: Sequence[Row]) -> Measured:
    """The numbers of a modality: a list a row, or a column each."""
    if modality in names:
        if len(names) > 1:
            raise DataError(f"{rows[0].place.where}: both {modality} and {names[-1]} are there; one of them should be.")
        return _measured_lists(modality, rows)
    values = np.full((len(rows), len(names)), np.nan)
    for number, row in enumerate(rows):
        for column, name in enumerate(names):
            values[number, column] = _value(row.place, name, row.values.get(name))
    return Measured(values, tuple(name.partition(".")[2] for name in names))


def _measured_lists(modality: str, rows: Sequence[Row]) -> Measured:
    given: list[list[float] | None] = []
    width, first = 0, rows[0].place
    for row in rows:
        value = row.values.get(modality)
        if is_blank(value):
            given.append(None)
            continue
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            raise row.place.fault(modality, f"should be a list of numbers, but is {shown(value)}")
        numbers = [_value(row.place, modality, each) for each in value]
        if not width:
            width, first = len(numbers), row.place
        if not numbers or len(numbers) != width:
            raise row.place.fault(
                modality, f"has {len(numbers)} numbers, but that of {first.where} has {width}; all need the same width"
            )
        given.append(numbers)
    values = np.full((len(rows), max(width, 1)), np.nan)
    for number, row_of in enumerate(given):
        if row_of is not None:
            values[number] = row_of
    return Measured(values)


def _value(place: Place, column: str, value: Any) -> float:
    """A number, NaN where it is blank; nothing else is either."""
    if isinstance(value, np.generic):
        value = value.item()
    if is_blank(value):
        return math.nan
    number = _number(value)
    if number is None or not math.isfinite(number):
        raise place.fault(column, f"should be a finite number or blank, but is {shown(value)}")
    return number
