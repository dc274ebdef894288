"""One value of a row of dialogues: an id, a text, a label, whichever format it stood in."""

from __future__ import annotations

import json
import math
from typing import Any

from mer_bench.data.own.dialogues import Label, Place, shown
from mer_bench.errors import DataError


def json_object(line: str, place: Place) -> dict[str, Any]:
    """A line as an object; a key that stands twice, or a number that JSON lacks, is refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise place.fault(shown(key), "stands twice")
            found[key] = value
        return found

    def refuse(constant: str) -> Any:
        raise DataError(f"{place.where}: {constant} is no JSON value; write null for what is not known.")

    try:
        value = json.loads(line, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise DataError(
            f"{place.where}: this is not one JSON object ({reason}). JSONL has one object in braces on each line; "
            "the file may be cut off, or be JSON that runs over several lines."
        ) from None
    if not isinstance(value, dict):
        raise DataError(f"{place.where} should be one JSON object in braces, but is {shown(value)}.")
    return value


def name_in(place: Place, column: str, value: Any) -> str:
    """An id or a speaker: a text or a whole number that is not blank."""
    found = optional_name_in(place, column, value)
    if found is None:
        raise place.fault(column, "is blank")
    return found


def optional_name_in(place: Place, column: str, value: Any) -> str | None:
    """The same, None where it is blank."""
    number = whole_number(value)
    if number is not None:
        return str(number)
    if is_blank(value):
        return None
    if not isinstance(value, str):
        raise place.fault(column, f"should be a text or a whole number, but is {shown(value)}")
    return _sound(place, column, value)


def label_in(place: Place, column: str, value: Any) -> Label:
    """Name or number of a class; None where it is blank."""
    number = whole_number(value)
    if number is not None:
        return number
    if is_blank(value):
        return None
    if not isinstance(value, str):
        raise place.fault(column, f"should be the name or the number of a class, but is {shown(value)}")
    return _sound(place, column, value).strip()


def text_in(place: Place, column: str, value: Any) -> str:
    """What is said; "" where nothing stands."""
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise place.fault(column, f"should be a text, but is {shown(value)}")
    return _sound(place, column, value)


def subsets_in(place: Place, value: Any) -> frozenset[str]:
    """Names of subsets: a list in JSON, or a text with spaces between them."""
    if is_missing(value):
        return frozenset()
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise place.fault("subsets", f"should be names of subsets, but is {shown(value)}")
    return frozenset(names)


def _sound(place: Place, column: str, value: str) -> str:
    """A text that can be written to any file again."""
    if "\0" in value:
        raise place.fault(column, f"there is a NUL character in {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise place.fault(column, f"there is half a character (a lone surrogate) in {shown(value)}") from None
    return value


def whole_number(value: Any) -> int | None:
    """A whole number, which a column with blanks may hold as a float."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing: null, or a blank in a column of numbers."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: Any) -> bool:
    """The same, or a text of white space."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())
