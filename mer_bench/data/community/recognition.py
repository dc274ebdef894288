"""Tell a release by its structure: which of the known layouts the fields of its files have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_bench.data.community.layouts import BY_ID, LAYOUTS, Layout
from mer_bench.data.community.structure import describe_fields, difference, is_number, plain, sized
from mer_bench.errors import DataError, SettingError, UnknownNameError


@dataclass(frozen=True)
class Part:
    """A file whose layout is known: its fields by role."""

    layout: Layout
    file: Path
    fields: Mapping[str, Any]


def find_layout(name: str | None) -> Layout | None:
    """The layout that `--layout` names; None for None.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name is None:
        return None
    if name not in BY_ID:
        raise UnknownNameError("layout of a feature release", name, BY_ID)
    return BY_ID[name]


def recognise_part(value: Any, file: Path, wanted: Layout | None = None) -> Part:
    """The layout of one file's value.

    Args:
        wanted: What the user says that the file, or the release that it is a part of, is.

    Raises:
        DataError: If no layout fits; describes what the file holds and what the nearest layouts would hold.
        SettingError: If several fit; names them and the option that chooses.
    """
    admitted = _admitted(wanted)
    faults = {layout.id: _faults(value, layout) for layout in LAYOUTS if not layout.parts}
    fitting = [BY_ID[name] for name, found in faults.items() if not found]
    if wanted is not None:
        chosen = [layout for layout in fitting if layout.id in admitted]
        if not chosen and not wanted.parts:
            raise DataError(
                f"{file} does not have the layout {wanted.id} ({wanted.title}): {faults[wanted.id][0]}. "
                f"It holds: {describe_fields(value)}."
            )
        fitting = chosen or fitting
    else:
        fitting = [layout for layout in fitting if not layout.on_request]
        fitting = [layout for layout in fitting if not layout.generic] or fitting
    if not fitting:
        raise DataError(
            f"{file} has none of the layouts that are known{_nearest(faults)}. It holds: {describe_fields(value)}."
        )
    if len(fitting) > 1:
        fitting = _by_hint(fitting, file)
    if len(fitting) > 1:
        names = " or ".join(f"{layout.id} ({layout.title})" for layout in fitting)
        raise SettingError(
            f"{file} may be {names}: their fields are of the same kinds and widths. Say which with --layout ID."
        )
    return Part(fitting[0], file, _named(value, fitting[0]))


def combine(parts: Sequence[Part], wanted: Layout | None = None) -> tuple[Layout, tuple[Part, ...]]:
    """The layout of a release of several files, and its parts in that layout's order.

    Raises:
        DataError: If the files do not belong together; names what each is.
    """
    if len(parts) == 1:
        return parts[0].layout, tuple(parts)
    for layout in (each for each in LAYOUTS if each.parts and wanted in (None, each)):
        left = list(parts)
        ordered: list[Part] = []
        for names in layout.parts:
            found = next((part for part in left if part.layout.id in names), None)
            if found is None:
                break
            left.remove(found)
            ordered.append(found)
        if len(ordered) == len(layout.parts) and not left:
            return layout, tuple(ordered)
    told = "; ".join(f"{part.file} is {part.layout.id} ({part.layout.title})" for part in parts)
    raise DataError(f"these files are no release together{f' of {wanted.id}' if wanted else ''}: {told}.")


def _admitted(wanted: Layout | None) -> set[str]:
    """Layouts of single files that a wanted layout is, or is made from."""
    if wanted is None:
        return set()
    return {name for names in wanted.parts for name in names} if wanted.parts else {wanted.id}


def _by_hint(fitting: list[Layout], file: Path) -> list[Layout]:
    """Of layouts that are the same in structure those that the file's name names, if that is one alone."""
    named = [layout for layout in fitting if layout.hint and layout.hint in file.name.lower()]
    return named if len(named) == 1 and all(layout.hint for layout in fitting) else fitting


def _named(value: Any, layout: Layout) -> dict[str, Any]:
    roles = [field.role for field in layout.fields]
    if layout.form == "named":
        return {role: value[role] for role in roles}
    return dict(zip(roles, [value] if layout.form == "dict" else value, strict=True))


def _faults(value: Any, layout: Layout) -> list[str]:
    """In what a value departs from a layout, one sentence a field; empty where it does not."""
    if layout.form == "fields":
        if not isinstance(value, list | tuple) or len(value) != len(layout.fields):
            return [f"that is one list of {len(layout.fields)} fields"]
    elif layout.form == "named":
        roles = {field.role for field in layout.fields}
        if not isinstance(value, dict) or set(value) != roles:
            return [f"that is an archive of {', '.join(sorted(roles))}"]
    elif not isinstance(value, dict):
        return ["that is one dict by dialogue"]
    fields = _named(value, layout)
    faults = []
    for place, field in enumerate(layout.fields):
        if found := difference(fields[field.role], field.kind, field.width):
            faults.append(f"field {place} ({field.role}) {found}")
    return faults or _label_faults(fields, layout)


def _label_faults(fields: Mapping[str, Any], layout: Layout) -> list[str]:
    """What is wrong with the dialogues' names or with the range of the labels."""
    for role, classes in layout.labels.items():
        field = fields.get(role)
        if not isinstance(field, dict):
            continue
        if layout.numbered and not all(map(is_number, field)):
            return ["dialogues should be numbered"]
        if not layout.numbered and not all(isinstance(name, str) for name in field):
            return ["dialogues should be named by strings"]
        if not isinstance(classes, tuple) or not (classes or layout.highest_label):
            continue
        highest = _highest(field.values())
        if layout.highest_label and highest < layout.highest_label:
            return [f"the labels ({role}) should go beyond {layout.highest_label - 1}"]
        if layout.id.endswith("-4") and highest >= len(classes):
            return [f"the labels ({role}) should be of {len(classes)} classes"]
    return []


def _highest(labels: Iterable[Any]) -> int:
    return max((int(label) for of in labels for label in map(plain, sized(of)) if is_number(label)), default=-1)


def _nearest(faults: Mapping[str, list[str]]) -> str:
    """The layouts that a value departs from in fewest fields, and in what; "" where it is like none."""
    near = sorted((len(found), name) for name, found in faults.items() if not found[0].startswith("that is"))
    if not near:
        return ""
    told = "; ".join(f"{name} ({BY_ID[name].title}), but {faults[name][0]}" for _, name in near[:2])
    return f"; the nearest: {told}"
