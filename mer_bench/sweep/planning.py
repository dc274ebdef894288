"""What is to be run: models × datasets × modalities × seeds, from options or from a plan file, as single requests."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from mer_bench import registry
from mer_bench.errors import RequestError, SettingError, UnknownNameError
from mer_bench.request import Plan, RunRequest, plan

MOST_RUNS = 1_000_000


def _combinations(value: Any) -> Any:
    """`["text", "text,audio"]`, or lists within the list, as tuples of names."""
    if not isinstance(value, list | tuple):
        return value
    return [[part.strip() for part in each.split(",")] if isinstance(each, str) else each for each in value]


def _seeds(value: Any) -> Any:
    """`10` as the seeds 0 to 9; a list as it is."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MOST_RUNS:
            raise ValueError(f"should be 1 or more, but is {value}")
        return list(range(value))
    return value


def _without_repeats(values: Any) -> Any:
    if isinstance(values, list | tuple):
        for place, value in enumerate(values):
            if value in values[:place]:
                told = ",".join(value) if isinstance(value, list | tuple) else value
                raise ValueError(f"holds {told} twice")
    return values


Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_without_repeats)]
Combination = Annotated[Names, Field(min_length=1)]
Combinations = Annotated[tuple[Combination, ...], BeforeValidator(lambda value: _without_repeats(_combinations(value)))]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, strict=True)], ...],
    Field(min_length=1),
    BeforeValidator(lambda value: _without_repeats(_seeds(value))),
]


class Part(BaseModel):
    """Every combination of what stands here is a run.

    Attributes:
        models, datasets: Names.
        features, labels, protocols: Ids; short ones (`transcripts`) for every dataset, full ones (`meld/transcripts`)
            for that dataset alone. A dataset for which none is given takes its first.
        modalities: Combinations: `["text", "text,audio"]`; none: each model and feature set its usual one.
        seeds: How many, from 0, or a list of them.
        settings: Fields of the model or the trainer by name; a table named as one of the models is for it alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[Names, Field(min_length=1)]
    datasets: Annotated[Names, Field(min_length=1)]
    features: Names = ()
    labels: Names = ()
    protocols: Names = ()
    modalities: Combinations = ()
    seeds: Seeds = (0,)
    settings: dict[str, Any] = {}

    def settings_of(self, model: str) -> dict[str, Any]:
        """The settings of one of the models, its own over those of all."""
        own = self.settings.get(model, {})
        shared = {name: value for name, value in self.settings.items() if name not in self.models}
        return {**shared, **own}


@dataclass(frozen=True)
class SweepRequest:
    """What the user asked for.

    Attributes:
        parts: What is run; a run that is in several of them is run once.
        run: Everything else that the runs share: `out`, `device`, `threads`, `data_root`, `keep_predictions`.
        skip_impossible: Leave out combinations that a model cannot do, rather than refuse them all.
        skip_failed: Leave runs alone whose record says that they failed.
        earlier: Folders of records from which time is reckoned, besides `out`.
    """

    parts: tuple[Part, ...]
    run: RunRequest = field(default_factory=lambda: RunRequest("", ""))
    skip_impossible: bool = False
    skip_failed: bool = False
    earlier: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Planned:
    """The runs of a request, every name and setting of them found to be right.

    Attributes:
        impossible: Why combinations were left out, one sentence each.
    """

    plans: tuple[Plan, ...]
    impossible: tuple[str, ...]


def plan_sweep(request: SweepRequest) -> Planned:
    """Every run of a request, in the order in which they are begun: each row's first seed before any second one.

    Raises:
        UnknownNameError, SettingError, RequestError: For the first thing that is wrong.
    """
    found: list[Plan] = []
    impossible: dict[str, None] = {}
    for part in request.parts:
        _check_names(part, request.run.data_root)
        rows: list[Plan] = []
        for each in _rows(part, request.run):
            try:
                rows.append(plan(each))
            except RequestError as error:
                if not _is_of_the_combination(error, each):
                    raise
                if not request.skip_impossible:
                    raise RequestError(
                        f"{str(error).rstrip('.')}; --skip-impossible leaves such combinations out."
                    ) from error
                impossible[str(error)] = None
        if len(found) + len(rows) * len(part.seeds) > MOST_RUNS:
            raise RequestError(f"a sweep of more than {MOST_RUNS} runs was asked for.")
        found += [replace(row, request=replace(row.request, seed=seed)) for seed in part.seeds for row in rows]
    if not found:
        raise RequestError(f"no run is left: {' '.join(impossible)}")
    return Planned(tuple(found), tuple(impossible))


def _is_of_the_combination(error: RequestError, request: RunRequest) -> bool:
    """False where a name or a setting is wrong whatever it is combined with."""
    if isinstance(error, UnknownNameError) and error.given in (request.modalities or ()):
        plugins = registry.datasets(request.data_root).plugins.values()
        return any(error.given in plugin.card.modalities for plugin in plugins)
    return type(error) is RequestError


def _check_names(part: Part, root: Path | None) -> None:
    """Raises: RequestError: If a full id or a table of settings is for something that the part does not name."""
    for name in part.models:
        registry.models().find(name)
    for name in part.datasets:
        registry.datasets(root).find(name)
    for kind, ids in (("feature set", part.features), ("label set", part.labels), ("protocol", part.protocols)):
        for each in ids:
            dataset, slash, _ = each.partition("/")
            if slash and dataset not in part.datasets:
                raise RequestError(
                    f"the {kind} {each} is that of {dataset}, which is not among the datasets "
                    f"({', '.join(part.datasets)})."
                )
    for name, value in part.settings.items():
        if name in part.models and not isinstance(value, Mapping):
            raise SettingError(f"the settings of {name} should be a table of names and values, but are {value!r}.")
        if name in registry.models().plugins and name not in part.models and isinstance(value, Mapping):
            raise RequestError(
                f"settings are given for {name}, which is not among the models ({', '.join(part.models)})."
            )


def _rows(part: Part, run: RunRequest) -> Iterator[RunRequest]:
    """A part's requests but for the seed."""
    for dataset in part.datasets:
        for features in _ids(part.features, dataset):
            for labels in _ids(part.labels, dataset):
                for protocol in _ids(part.protocols, dataset):
                    for modalities in part.modalities or (None,):
                        for model in part.models:
                            yield replace(
                                run,
                                model=model,
                                dataset=dataset,
                                features=features,
                                labels=labels,
                                protocol=protocol,
                                modalities=modalities,
                                settings=part.settings_of(model),
                            )


def _ids(given: Sequence[str], dataset: str) -> tuple[str | None, ...]:
    ours = tuple(each for each in given if each.partition("/")[0] == dataset or "/" not in each)
    return ours or (None,)


def read_plan_file(file: Path) -> tuple[Part, ...]:
    """The parts of a plan in TOML: keys at the top hold for every `[[parts]]`, which may say otherwise.

    Raises:
        RequestError: If it cannot be read, or something in it is wrong; a wrong key is answered with the nearest.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"the plan {file} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"the plan {file} is not valid TOML: {error}.") from None
    known = [*Part.model_fields, "parts"]
    for key in values:
        if key not in known:
            raise UnknownNameError(f"key of the plan {file}", key, known)
    parts = values.pop("parts", [{}])
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        raise RequestError(f"parts of the plan {file} should be tables, each under [[parts]].")
    return tuple(parse_part({**values, **part, "settings": _merged(values, part)}, f"plan {file}") for part in parts)


def _merged(values: Mapping[str, Any], part: Mapping[str, Any]) -> Any:
    """Settings of a part over those of the whole plan, table by table."""
    above, own = values.get("settings", {}), part.get("settings", {})
    if not isinstance(above, dict) or not isinstance(own, dict):
        return own if "settings" in part else above
    merged = dict(above)
    for name, value in own.items():
        before = merged.get(name)
        merged[name] = {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def parse_part(values: Mapping[str, Any], origin: str) -> Part:
    """A part from raw values.

    Args:
        origin: Where they were written, for messages.

    Raises:
        UnknownNameError: For a key that there is not. RequestError: For a value of the wrong kind.
    """
    for key in values:
        if key not in Part.model_fields:
            raise UnknownNameError(f"key of the {origin}", key, Part.model_fields)
    try:
        return Part.model_validate(dict(values))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        key = str(fault["loc"][0]) if fault["loc"] else ""
        if fault["type"] == "missing":
            raise RequestError(f"a sweep needs {key}: none is named in the {origin}.") from None
        reason = fault["msg"].removeprefix("Value error, ")
        wrong = reason if fault["type"] == "value_error" else f"should {KINDS[key]}, but is {_shown(values[key])}"
        raise RequestError(f"{key} in the {origin} {wrong}.") from None


KINDS = {
    **dict.fromkeys(("models", "datasets", "features", "labels", "protocols"), "be a list of names"),
    "modalities": 'be a list of combinations, such as ["text", "text,audio"]',
    "seeds": "be how many, or a list of numbers from 0 upwards",
    "settings": "be a table of names and values",
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
