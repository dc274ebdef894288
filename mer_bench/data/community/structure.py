"""What the fields of a pickle hold, told by looking into them: kinds, counts and widths, in words and as rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

SPEAKER_WIDTH = 9
"""Width of the one-hot speakers of the releases of MELD and EmoryNLP."""

_NUMBER = (int, float, np.number, np.bool_)
_SHOWN_FIELDS = 20


def describe(value: Any) -> str:
    """What a field holds: kind, count, and the kind and width of what is inside."""
    if isinstance(value, dict):
        inside = f" of {describe(next(iter(value.values())))}" if value else ""
        return f"dict of {len(value)}{inside}"
    if isinstance(value, np.ndarray):
        return f"array {' x '.join(map(str, value.shape))}" if value.ndim else "number"
    if isinstance(value, list | tuple | set | frozenset):
        kind = type(value).__name__
        if not value:
            return f"empty {kind}"
        first = next(iter(value))
        if isinstance(first, str):
            inside = "strings"
        elif isinstance(first, _NUMBER):
            inside = "numbers"
        elif (width := width_of(first)) is not None:
            inside = f"vectors of width {width}"
        else:
            inside = describe(first)
        return f"{kind} of {len(value)} {inside}"
    return "number" if isinstance(value, np.number) else type(value).__name__


def describe_fields(value: Any) -> str:
    """The same for a whole file: each field with its place, or its name where it has one."""
    if isinstance(value, list | tuple):
        shown = [f"{place}: {describe(field)}" for place, field in enumerate(value[:_SHOWN_FIELDS])]
        more = f"; and {len(value) - _SHOWN_FIELDS} more" if len(value) > _SHOWN_FIELDS else ""
        return f"{type(value).__name__} of {len(value)} fields; " + "; ".join(shown) + more
    return describe(value)


def is_number(value: Any) -> bool:
    """Whether a value is a whole number, of Python or numpy."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def width_of(value: Any) -> int | None:
    """Length of a flat list or array of numbers, None for anything else."""
    if isinstance(value, np.ndarray):
        return len(value) if value.ndim == 1 and value.dtype.kind in "biuf" else None
    if isinstance(value, list | tuple) and all(isinstance(item, _NUMBER) for item in value):
        return len(value)
    return None


def plain(value: Any) -> Any:
    """A number or string of numpy as Python's; anything else as it is."""
    single = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if single else value


def sized(value: Any) -> Sequence[Any]:
    """A list, tuple or array as it is; () for anything else."""
    is_sized = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    found: Sequence[Any] = value if is_sized else ()
    return found


def turns(field: Any) -> Sequence[Any]:
    """The utterances of the first dialogue that has any; () where there is none."""
    for of in field.values() if isinstance(field, dict) else ():
        if of is not sized(of):
            break
        if len(of):
            return sized(of)
    return ()


def _all_strings(values: Iterable[Any], among: tuple[str, ...] = ()) -> bool:
    return all(isinstance(value, str) and (not among or value in among) for value in values)


def _spoken_by_user(values: Sequence[Any]) -> bool:
    return _all_strings(values) and all(value == "user" or value not in ("M", "F") for value in values)


def _is_digit(values: Sequence[Any]) -> bool:
    return _all_strings(values) and all(value.isdecimal() for value in values)


def _is_label(value: Any) -> bool:
    return is_number(value) or (isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu")


def _vector_width(value: Any) -> int | None:
    """Width of an utterance's vector, or of the frames that it is the mean of."""
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "biuf" and len(value):
        return int(value.shape[1])
    return width_of(value)


def _whole(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu"
    return isinstance(value, list | tuple) and all(map(is_number, value))


_BY_TURN: Mapping[str, tuple[Callable[[Sequence[Any]], bool], str]] = {
    "turns": (lambda of: True, "lists"),
    "strings": (_all_strings, "strings"),
    "sexes": (lambda of: _all_strings(of, ("M", "F")), "'M' and 'F'"),
    "users": (_spoken_by_user, "'user' or another name"),
    "digits": (_is_digit, "numbers written as strings"),
    "classes": (lambda of: all(map(_is_label, of)), "class indices"),
    "scores": (lambda of: all(isinstance(value, _NUMBER) for value in of), "numbers"),
    "indices": (lambda of: all(map(_whole, of)), "lists of word indices"),
}
"""What the utterances of a dialogue are, by kind: the rule and its words."""


def difference(value: Any, kind: str, width: int = 0) -> str:  # noqa: PLR0911 - one answer a kind
    """In what a field departs from its kind, "" where it does not; one dialogue is looked at, not all.

    Args:
        kind: One of `anything`, `one-hot`, `vectors`, `float vectors`, `dialogues`, `table`, `padded`, `array`,
            `matrix`, `number`, `numbers`, `records`, `dict`, `labels by name`, or of those by turn.
        width: Of vectors; 0 is any.
    """
    if kind == "anything":
        return ""
    if kind in ("one-hot", "vectors", "float vectors", *_BY_TURN):
        if not isinstance(value, dict) or not value:
            return "should be a dict by dialogue"
        first = turns(value)
        if not len(first):
            return "should have a list for each dialogue"
        if kind in _BY_TURN:
            rule, words = _BY_TURN[kind]
            return "" if rule(first) else f"should hold {words}"
        wanted = SPEAKER_WIDTH if kind == "one-hot" else width
        found = width_of(first[0]) if kind == "one-hot" else _vector_width(first[0])
        if kind == "float vectors" and _whole(first[0]):
            return "should hold vectors of floats"
        if not found or (wanted and found != wanted):
            return f"should hold vectors{f' of width {wanted}' if wanted else ''}"
        return ""
    fits, words = _WHOLE[kind]
    return "" if fits(value, width) else f"should be {words}{f' of width {width}' if width else ''}"


def _lists_dialogues(value: Any, _: int) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iuUSO"
    return isinstance(value, list | tuple | set | frozenset) and all(
        isinstance(each, str) or is_number(each) for each in value
    )


def _is_table(value: Any, width: int) -> bool:
    first = next(iter(value.values()), None) if isinstance(value, dict) else None
    found = width_of(first)
    return bool(found) and (not width or found == width) and all(isinstance(key, str) for key in value)


def _is_padded(value: Any, width: int) -> bool:
    first = next(iter(value.values()), None) if isinstance(value, dict) else None
    if isinstance(first, list | tuple) and first and (inner := width_of(first[0])):
        return not width or inner == width
    return isinstance(first, np.ndarray) and first.ndim == 2 and (not width or first.shape[1] == width)


def _is_cube(value: Any, width: int) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 3 and (not width or value.shape[2] == width)


def _names_labels(value: Any, _: int) -> bool:
    held = value.reshape(-1)[0] if isinstance(value, np.ndarray) and value.size == 1 else value
    first = next(iter(held.values()), None) if isinstance(held, dict) else None
    return isinstance(first, dict) and "emo" in first


_WHOLE: Mapping[str, tuple[Callable[[Any, int], bool], str]] = {
    "dialogues": (_lists_dialogues, "a list of dialogues"),
    "table": (_is_table, "a dict of vectors by utterance"),
    "padded": (_is_padded, "a dict of padded arrays by dialogue"),
    "array": (_is_cube, "an array (dialogues, turns, values)"),
    "matrix": (lambda value, _: isinstance(value, np.ndarray) and value.ndim in (2, 3), "an array (dialogues, turns)"),
    "number": (lambda value, _: is_number(value), "a whole number"),
    "numbers": (lambda value, _: width_of(value) is not None, "a list of numbers"),
    "records": (
        lambda value, _: isinstance(value, list) and bool(value) and isinstance(value[0], dict),
        "a list of records",
    ),
    "dict": (lambda value, _: isinstance(value, dict), "a dict"),
    "labels by name": (_names_labels, "labels by utterance"),
}  # fmt: skip
"""What a field is that does not go dialogue by dialogue, by kind: the rule and its words."""
