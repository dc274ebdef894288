"""From the data files to `Published`; an edit that is wrong is answered with one sentence."""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mer_bench.errors import DataError, nearest_names
from mer_bench.leaderboard.table import Published

COLUMNS: Final = ("model", "labels", "metric", "value", "features", "kind", "selection", "source", "place", "note")
METRICS: Final = ("weighted_f1", "accuracy", "macro_f1", "f1:<class>")

_METRIC = re.compile(r"weighted_f1|accuracy|macro_f1|f1:[a-z]+")
_VALUE = re.compile(r"[0-9]{1,3}\.[0-9]{1,2}")
_Checked = TypeVar("_Checked", bound=BaseModel)

Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Source(_Part):
    """Where figures were printed; a reader finds it by any of these."""

    title: Text | None = None
    arxiv: Annotated[str, Field(pattern=r"^[0-9]{4}\.[0-9]{4,5}$")] | None = None
    doi: Annotated[str, Field(pattern=r"^10\.[0-9]{4,}/\S+$")] | None = None
    repository: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$")] | None = None

    @model_validator(mode="after")
    def _can_be_found(self) -> _Source:
        if not any((self.title, self.arxiv, self.doi, self.repository)):
            raise ValueError("a source has a title, arxiv, doi or repository")
        return self

    def told(self, place: str) -> str:
        """In words: title, where to find it, and where in it."""
        found = [
            f"{name}{value}"
            for name, value in (
                ("arXiv ", self.arxiv),
                ("doi:", self.doi),
                ("github.com/", self.repository),
            )
            if value
        ]
        if self.title:
            found = [f"{self.title} ({'; '.join(found)})" if found else self.title]
        name = "; ".join(found)
        return f"{name}, {place}" if place else name


class _Code(_Part):
    """Public training code, and the split on which it selects the epoch that it reports."""

    repository: Text
    files: Text
    models: Annotated[tuple[Text, ...], Field(min_length=1)]
    selection: Literal["test", "dev"]


class _Line(_Part):
    """One line of a table, as it stands there."""

    model: Text
    labels: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    metric: str
    value: str
    features: Text
    kind: Literal["own", "re-run", "reprint", "derived", "unknown"]
    selection: Literal["test", "dev", "unknown"]
    source: Text
    place: str
    note: str


def published_for(dataset: str, labels: str) -> tuple[Published, ...]:
    """The published figures of a label set, in the order of the file; empty where there are none.

    Args:
        labels: Id, short or full: `emotion`, `meld/emotion`.

    Raises:
        DataError: If a data file is wrong.
    """
    return _shipped().get((dataset, labels.removeprefix(f"{dataset}/")), ())


@cache
def _shipped() -> Mapping[tuple[str, str], tuple[Published, ...]]:
    return read_published(files("mer_bench.leaderboard.published"))


def read_published(folder: Traversable) -> dict[tuple[str, str], tuple[Published, ...]]:
    """Every figure of a folder of such files, by dataset and label set.

    Raises:
        DataError: For the first thing that is wrong; names the file, the line or key, and what to do.
    """
    sources = {
        name: _valid(_Source, values, f"sources.toml, [{name}]")
        for name, values in _toml(folder / "sources.toml").items()
    }
    selections = _selections(folder / "code.toml")
    found: dict[tuple[str, str], list[Published]] = {}
    used: set[str] = set()
    for file in sorted((file for file in folder.iterdir() if file.name.endswith(".csv")), key=lambda file: file.name):
        seen: dict[tuple[str, ...], int] = {}
        for number, line in _lines(file):
            where = f"{file.name}, line {number}"
            figure = _figure(line, sources, selections, where)
            what = (line.model, line.labels, line.metric, line.features, line.source, line.place)
            if what in seen:
                raise DataError(f"{where} says again what line {seen[what]} says; one figure has one line.")
            seen[what] = number
            used.add(line.source)
            found.setdefault((file.name.removesuffix(".csv"), line.labels), []).append(figure)
    for name in sources:
        if name not in used:
            raise DataError(f"sources.toml, [{name}]: no figure has this source; take it out.")
    return {key: tuple(figures) for key, figures in found.items()}


def _figure(line: _Line, sources: Mapping[str, _Source], selections: Mapping[str, str], where: str) -> Published:
    if not _METRIC.fullmatch(line.metric):
        raise DataError(f"{where}: metric should be one of {', '.join(METRICS)}, but is '{line.metric}'.")
    if line.value and not (_VALUE.fullmatch(line.value) and float(line.value) <= 100):
        raise DataError(
            f"{where}: value should be a percentage as printed, such as 66.60, or empty where it is unknown, but is "
            f"'{line.value}'."
        )
    if line.source not in sources:
        near = nearest_names(line.source, sources, 1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise DataError(
            f"{where}: sources.toml has no [{line.source}]; a figure whose source has no title, arXiv id, DOI or "
            f"repository stays out.{hint}"
        )
    known = selections.get(line.model, "unknown")
    if line.selection not in ("unknown", known):
        raise DataError(
            f"{where}: selection is '{line.selection}', but code.toml says {known} of {line.model}; it stays unknown "
            "unless the public code was read."
        )
    return Published(
        model=line.model,
        metric=line.metric,
        value=float(line.value) if line.value else None,
        features=line.features,
        kind=line.kind,
        selection=line.selection,
        source=sources[line.source].told(line.place),
        note=line.note,
    )


def _selections(file: Traversable) -> dict[str, str]:
    """The split on which a model's public code selects, by the model."""
    found: dict[str, str] = {}
    entries = _toml(file).get("code", [])
    for number, values in enumerate(entries if isinstance(entries, list) else [entries], 1):
        code = _valid(_Code, values, f"{file.name}, entry {number}")
        for model in code.models:
            if model in found:
                raise DataError(f"{file.name}, entry {number}: {model} is in an entry before; a model is in one.")
            found[model] = code.selection
    return found


def _lines(file: Traversable) -> list[tuple[int, _Line]]:
    """The lines of a table with their numbers."""
    found = []
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    begins = 1
    try:
        for values in reader:
            where, number, begins = f"{file.name}, line {begins}", begins, reader.line_num + 1
            if number == 1:
                if tuple(values) != COLUMNS:
                    raise DataError(f"{where}: the columns should be {','.join(COLUMNS)}, but are {','.join(values)}.")
                continue
            if len(values) != len(COLUMNS):
                raise DataError(
                    f"{where}: there are {len(values)} values for {len(COLUMNS)} columns; a text with a comma stands "
                    "in double quotes."
                )
            blank = next((name for name, value in zip(COLUMNS, values, strict=True) if value != value.strip()), None)
            if blank:
                raise DataError(f"{where}: {blank} has a blank at its beginning or end; take it away.")
            found.append((number, _valid(_Line, dict(zip(COLUMNS, values, strict=True)), where)))
    except csv.Error as error:
        raise DataError(f"{file.name}, line {begins}: {error}.") from None
    if not found:
        raise DataError(f"{file.name} has no figure.")
    return found


def _toml(file: Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(file))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{file.name} is not valid TOML: {error}.") from None


def _text(file: Traversable) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file.name} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file.name} is not UTF-8: {error.reason}.") from None


def _valid(kind: type[_Checked], values: Any, where: str) -> _Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = _key(fault["loc"])
        reason = fault["msg"].removeprefix("Value error, ")
        raise DataError(f"{where}: {key}{reason[:1].lower()}{reason[1:]}.") from None


def _key(place: Sequence[int | str]) -> str:
    return f"{'.'.join(map(str, place))}: " if place else ""
