"""Who says what, with which label: JSONL, CSV and Parquet as rows of one kind.

JSONL may hold a dialogue a line, {"id", "split", "utterances": [{"id", "speaker", "label", "text"}, ...]}, or an
utterance a line; CSV and Parquet hold an utterance a row. Flat rows have the columns dialogue, utterance, speaker,
label, text and split, of which dialogue, speaker and label must be there; their order is that of time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mer_bench.cards import SplitName
from mer_bench.data.own.cells import json_object, label_in, name_in, optional_name_in, subsets_in, text_in
from mer_bench.data.own.dialogues import DEFAULT_LABEL, Part, Place, Spoken, shown
from mer_bench.data.own.parquet import read_parquet
from mer_bench.data.tables import read_table, read_text
from mer_bench.errors import DataError, nearest_names

FORMATS = (".jsonl", ".csv", ".parquet")
"""Endings of the files that can hold dialogues."""

_ROW = ("dialogue", "utterance", "speaker", "text", "split", "subsets")
_DIALOGUE = ("id", "split", "subsets", "utterances")
_UTTERANCE = ("id", "speaker", "text")


def read_part(file: Path, label_sets: Sequence[str], split: SplitName | None = None) -> Part:
    """Read one file of dialogues; its ending says which format.

    Args:
        label_sets: Ids of the label sets to read.
        split: What the file's name says of it.

    Raises:
        MissingDataError: If it is not there, or pyarrow is needed and not installed.
        DataError: If it is damaged or not of that form; names line or row, column and value.
    """
    suffix = file.suffix.lower()
    if suffix == ".csv":
        spoken = _read_csv(file, label_sets)
    elif suffix == ".parquet":
        spoken = _read_parquet(file, label_sets)
    elif suffix == ".jsonl":
        spoken = _read_jsonl(file, label_sets)
    else:
        raise DataError(f"{file} should be JSONL, CSV or Parquet, and its name should end so: {', '.join(FORMATS)}.")
    return Part(file, spoken, split)


def _read_csv(file: Path, label_sets: Sequence[str]) -> list[Spoken]:
    table = read_table(file, ["dialogue", "speaker"])
    columns = _checked_columns(table.columns, label_sets, f"{file}, line 1")
    return [
        _spoken(Place(f"{file}, line {line}"), dict(zip(table.columns, row, strict=True)), columns)
        for row, line in zip(table.rows, table.lines, strict=True)
    ]


def _read_parquet(file: Path, label_sets: Sequence[str]) -> list[Spoken]:
    table = read_parquet(file)
    columns = _checked_columns(table.column_names, label_sets, str(file))
    values = {name: table.column(name).to_pylist() for name in table.column_names}
    return [
        _spoken(Place(f"{file}, row {row + 1}"), {name: each[row] for name, each in values.items()}, columns)
        for row in range(table.num_rows)
    ]


def _read_jsonl(file: Path, label_sets: Sequence[str]) -> list[Spoken]:
    found: list[Spoken] = []
    nested: bool | None = None
    # Only a line feed ends a line: str.splitlines would also break at characters that a text may hold.
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = Place(f"{file}, line {number}", "key")
        row = json_object(line, place)
        if nested is None:
            nested = "utterances" in row
        if ("utterances" in row) != nested:
            kinds = ("an utterance", "a dialogue") if nested else ("a dialogue", "an utterance")
            raise DataError(f"{place.where} holds {kinds[0]}, but the lines before it hold {kinds[1]} each.")
        if nested:
            found += _nested(place, row, label_sets)
            continue
        # A line may leave out what it does not know, so the first line cannot tell which columns there are.
        _check_names(row, (*_ROW, *_label_names(label_sets)), place.where, "key")
        columns = _label_columns(row, label_sets, place.where, required=False)
        found.append(_spoken(place, row, columns))
    if nested is None:
        raise DataError(f"{file} is empty.")
    return found


def _nested(place: Place, row: Mapping[str, Any], label_sets: Sequence[str]) -> list[Spoken]:
    """The utterances of a line that holds a dialogue."""
    _check_names(row, _DIALOGUE, place.where, "key")
    utterances = row["utterances"]
    if not isinstance(utterances, list):
        raise place.fault("utterances", f"should be a list, but is {shown(utterances)}")
    dialogue = name_in(place, "id", row.get("id"))
    if not utterances:
        raise place.fault("utterances", f"the dialogue '{dialogue}' has no utterance")
    split = optional_name_in(place, "split", row.get("split"))
    subsets = subsets_in(place, row.get("subsets"))
    found = []
    for turn, each in enumerate(utterances, 1):
        inner = Place(f"{place.where}, utterance {turn}", "key")
        if not isinstance(each, dict):
            raise DataError(f"{inner.where} should be an object in braces, but is {shown(each)}.")
        _check_names(each, (*_UTTERANCE, *_label_names(label_sets)), inner.where, "key")
        columns = _label_columns(each, label_sets, inner.where, required=False)
        found.append(
            Spoken(
                place=inner,
                dialogue=dialogue,
                utterance=optional_name_in(inner, "id", each.get("id")),
                speaker=name_in(inner, "speaker", each.get("speaker")),
                labels={name: label_in(inner, key, each.get(key)) for name, key in columns.items()},
                text=text_in(inner, "text", each.get("text")),
                split=split,
                opens=place if turn == 1 else None,
                subsets=subsets,
            )
        )
    return found


def _spoken(place: Place, row: Mapping[str, Any], columns: Mapping[str, str]) -> Spoken:
    """An utterance from a flat row."""
    return Spoken(
        place=place,
        dialogue=name_in(place, "dialogue", row.get("dialogue")),
        utterance=optional_name_in(place, "utterance", row.get("utterance")),
        speaker=name_in(place, "speaker", row.get("speaker")),
        labels={name: label_in(place, column, row.get(column)) for name, column in columns.items()},
        text=text_in(place, "text", row.get("text")),
        split=optional_name_in(place, "split", row.get("split")),
        subsets=subsets_in(place, row.get("subsets")),
    )


def _label_names(label_sets: Sequence[str]) -> list[str]:
    """What columns of labels may be called: as their label set, or `label` where there is but one."""
    return list(dict.fromkeys([*label_sets, *([DEFAULT_LABEL] if len(label_sets) == 1 else [])]))


def _label_columns(there: Collection[str], label_sets: Sequence[str], where: str, required: bool) -> dict[str, str]:
    """The column that holds each label set.

    Raises:
        DataError: If two do, or, where that is required, none.
    """
    if len(label_sets) > 1:
        absent = [name for name in label_sets if required and name not in there]
        if absent:
            raise DataError(f"{where}: the column {absent[0]} is missing, which holds the labels of that label set.")
        return {name: name for name in label_sets}
    names = _label_names(label_sets)
    found = [name for name in names if name in there]
    if len(found) > 1:
        raise DataError(f"{where}: both {' and '.join(found)} are there; one of them should hold the labels.")
    if not found and required:
        raise DataError(f"{where}: the column {' or '.join(names)} is missing, which holds the labels.")
    return {label_sets[0]: (found or names)[0]}


def _checked_columns(there: Sequence[str], label_sets: Sequence[str], origin: str) -> dict[str, str]:
    """The label columns of a table, all of whose columns are known."""
    known = (*_ROW, *_label_names(label_sets))
    _check_names(there, known, origin, "column")
    for name in ("dialogue", "speaker"):
        if name not in there:
            raise DataError(f"{origin}: the column {name} is missing. The columns are: {', '.join(known)}.")
    return _label_columns(there, label_sets, origin, required=True)


def _check_names(there: Collection[str], known: Sequence[str], where: str, kind: str) -> None:
    for name in there:
        if name not in known:
            nearest = nearest_names(name, known, 1)
            hint = f"Should it be '{nearest[0]}'?" if nearest else f"Known: {', '.join(known)}. Take it out."
            raise DataError(f"{where}: no {kind} is called {shown(name)}. {hint}")
