"""`mer-bench info`: everything a card says of a model, a dataset or a feature set, and a model's settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from mer_bench import registry
from mer_bench.cards import DatasetCard, ModelCard, Paper, option_shown
from mer_bench.cli.console import Column, Screen, size_text
from mer_bench.cli.description import description_as_json, show_description
from mer_bench.cli.listing import width_text
from mer_bench.cli.names import find_plugin, split_dataset
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, Plugins, ProtocolId
from mer_bench.cli.pictures import draw_store, picture_file
from mer_bench.config import FILLED_IN, INNER, Settings, TrainerSettings, Tune, WrapperSettings, legal_values
from mer_bench.errors import MissingDataError, RequestError
from mer_bench.locations import StoreKey, store_folder
from mer_bench.locations import data_root as data_root_of
from mer_bench.registry import Plugin

if TYPE_CHECKING:
    from mer_bench.data.description import StoreDescription


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, a dataset, or a feature set as meld/mmgcn.")],
    space: Annotated[bool, typer.Option("--space", help="Only a model's search space.")] = False,
    labels: LabelsId = None,
    protocol: ProtocolId = None,
    fold: Annotated[
        int | None,
        typer.Option(metavar="N", help="Fold, where the protocol has some; default: the first.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also draw what is prepared of a dataset: a .png, .svg or .pdf file, or a folder.",
            show_default=False,
        ),
    ] = None,
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model, a dataset or a feature set is.

    For a model also its settings, with defaults and ranges; for a dataset also what of it is prepared here.

    \b
    Examples:
      mer-bench info cmath
      mer-bench info cmath --space
      mer-bench info meld/transcripts --plot meld.png
    """
    screen = Screen(quiet_output=as_json)
    root = data_root_of(data_root)
    if "/" not in name:
        found = find_plugin(name, root)
        if isinstance(found.card, ModelCard):
            given = {"--labels": labels, "--protocol": protocol, "--fold": fold, "--plot": plot}
            _refuse_options(given, name)
            _answer_model(screen, name, found.card, found.distribution, space, as_json)
            return
    plugin, features = split_dataset(name, root)
    if space:
        raise RequestError(f"--space shows a model's search space, but {name} is no model. See: mer-bench list models")
    file = None if plot is None else picture_file(plot, name.replace("/", "-"))
    if not as_json:
        _show_card(screen, plugin, features)
    description = _describe(plugin, root, (features, labels, protocol, fold), needed=file is not None)
    if as_json:
        card = plugin.card if features is None else plugin.card.feature_sets[features]
        prepared = None if description is None else description_as_json(description)
        screen.answer(
            {"name" if features is None else "id": name, **card.model_dump(mode="json"), "prepared": prepared}
        )
    elif description is not None:
        screen.line()
        show_description(screen, description)
    if file is not None and description is not None:
        draw_store(description, plugin.card.title, file)
        screen.exactly(f"drawn: {file}")


def _describe(
    plugin: Plugin[DatasetCard],
    root: Path,
    wanted: tuple[str | None, str | None, str | None, int | None],
    needed: bool,
) -> StoreDescription | None:
    """The first prepared store that fits, in the card's order, in numbers; None where there is none.

    Where nothing is prepared and nothing is asked for, no array library is imported.

    Args:
        wanted: Feature set, label set, protocol and fold; None is any.
        needed: Something is to be made of it, so that none is an error.

    Raises:
        UnknownNameError: For a name that does not exist. MissingDataError: If there is none and one is needed.
        DataError: If it is damaged.
    """
    features, labels, protocol, fold = wanted
    if (labels, protocol, fold) != (None, None, None):
        from mer_bench.data.preparation import resolve

        resolve(plugin.name, features, labels, protocol, fold, root)
        labels = None if labels is None else labels.removeprefix(f"{plugin.name}/")
        protocol = None if protocol is None else protocol.removeprefix(f"{plugin.name}/")
    for key in _keys(plugin, (features, labels, protocol, fold)):
        folder = store_folder(root, key)
        if folder.is_dir():
            from mer_bench.data.description import describe_store
            from mer_bench.data.store import open_store

            return describe_store(open_store(folder))
    if needed:
        what = plugin.name if features is None else f"{plugin.name}/{features}"
        options = f"{f' --labels {labels}' if labels else ''}{f' --protocol {protocol}' if protocol else ''}"
        raise MissingDataError(
            f"nothing of {what} that fits is prepared below {root}, so there is nothing to draw. "
            f"Prepare it with: mer-bench data prepare {what}{options}"
        )
    return None


def _keys(
    plugin: Plugin[DatasetCard], wanted: tuple[str | None, str | None, str | None, int | None]
) -> Iterator[StoreKey]:
    """Every store that a dataset may have and that fits, in the order of its card."""
    features, labels, protocol, fold = wanted
    card = plugin.card
    for each_features in card.feature_sets if features is None else [features]:
        for each_labels in card.label_sets if labels is None else [labels]:
            for each_protocol in card.protocols if protocol is None else [protocol]:
                count = card.protocols[each_protocol].folds
                folds: Iterable[int | None] = range(1, count + 1) if count else [None]
                for each_fold in folds if fold is None else [fold]:
                    yield StoreKey(plugin.name, each_features, each_labels, each_protocol, each_fold)


def describe(settings: type[Settings]) -> dict[str, dict[str, Any]]:
    """Each field's default, legal values and search space, as JSON values."""
    told: dict[str, dict[str, Any]] = {}
    tunables, meant = settings.tunables(), meanings(settings)
    filled_in = FILLED_IN if issubclass(settings, WrapperSettings) else ()
    for name, field in settings.model_fields.items():
        if name in filled_in:
            continue
        default = field.get_default(call_default_factory=True)
        told[name] = {"default": list(default) if isinstance(default, tuple) else default, "legal": legal_text(field)}
        told[name]["meaning"] = field.description or meant.get(name, "")
        if name in tunables:
            _, tune = tunables[name]
            told[name]["space"] = {
                "low": tune.low,
                "high": tune.high,
                "step": tune.step,
                "log": tune.log,
                "choices": None if tune.choices is None else list(tune.choices),
                "when": None if tune.when is None else dict(tune.when),
            }
    return told


def meanings(settings: type[Settings]) -> dict[str, str]:
    """What each field means, from the section `Attributes:` of the docstring of its class."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in (inspect.getdoc(settings) or "").splitlines():
        if not line.startswith(" "):
            # A heading at the margin opens or closes the section; a blank line does neither.
            inside = line.rstrip() == "Attributes:" if line.strip() else inside
            continue
        if not inside:
            continue
        head = re.match(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if head:
            names = head[1].split(", ")
        for name in names:
            found[name] = f"{found.get(name, '')} {head[2] if head else line.strip()}".strip()
    return found


def legal_text(field: Any) -> str:
    """A field's legal values as they stand in a table: `[64, 512]`, `none, inverse`."""
    phrase = legal_values(field)
    for start in ("lie in ", "be one of ", "be "):
        if phrase.startswith(start):
            return phrase.removeprefix(start)
    return phrase


def space_text(field: Any, tune: Tune) -> str:
    """What a study tries: `[0.0001, 0.01] logarithmic`, `8, 16, 32`."""
    if tune.choices is not None:
        return ", ".join(str(choice) for choice in tune.choices)
    if field.annotation is bool:
        return "true, false"
    if get_origin(field.annotation) is Literal:
        return ", ".join(str(value) for value in get_args(field.annotation))
    low, high = tune.low, tune.high
    for item in field.metadata:
        low = next(
            (bound for bound in (low, getattr(item, "ge", None), getattr(item, "gt", None)) if bound is not None), None
        )
        high = next(
            (bound for bound in (high, getattr(item, "le", None), getattr(item, "lt", None)) if bound is not None), None
        )
    text = f"[{'-inf' if low is None else f'{low:g}'}, {'inf' if high is None else f'{high:g}'}]"
    if tune.step is not None:
        text += f" in steps of {tune.step:g}"
    return text + " logarithmic" if tune.log else text


def _refuse_options(given: Mapping[str, object], name: str) -> None:
    for option, value in given.items():
        if value is not None:
            raise RequestError(f"{option} is for datasets, but {name} is a model. See: mer-bench list datasets")


def _answer_model(screen: Screen, name: str, card: ModelCard, distribution: str, space: bool, as_json: bool) -> None:
    settings = registry.settings_class(name)
    if as_json:
        fields = {"settings": describe(settings), "training": describe(TrainerSettings)}
        screen.answer({"name": name, **({} if space else card.model_dump(mode="json")), "fields": fields})
    elif space:
        _show_space(screen, name, settings)
    else:
        _show_model(screen, name, card, settings, distribution)


def _show_card(screen: Screen, plugin: Plugin[DatasetCard], features: str | None) -> None:
    if features is None:
        _show_dataset(screen, plugin.name, plugin.card)
    else:
        _show_features(screen, plugin, features)


def _show_model(screen: Screen, name: str, card: ModelCard, settings: type[Settings], distribution: str) -> None:
    screen.line(f"{card.title}: {card.summary}")
    yes_no = {True: "yes", False: "no"}
    needs = f" (needs {', '.join(card.needs)})" if card.needs else ""
    screen.pairs(
        [
            ("name", f"{name}, version {card.version}, from {distribution}"),
            *_paper(card.paper),
            ("modalities", f"any of {', '.join(card.modalities)}{needs}"),
            ("looks ahead", yes_no[not card.causal]),
            ("uses speakers", _speakers(card)),
            ("memory", f"grows {'with' if card.memory == 'linear' else 'with the square of'} a dialogue's length"),
            ("published code", card.code_licence),
            *[("as in the paper", each) for each in card.stated],
            *[("our choice", each) for each in card.ours],
            *[
                (
                    f"printed on {dataset}",
                    f"{_figures(each)}, {each.table}, {each.features}, chosen on {each.selection}",
                )
                for dataset, each in card.reported.items()
            ],
            *[
                (f"ablation {key}", f"{each.question} {_assignments(each.settings)}")
                for key, each in card.ablations.items()
            ],
            *[(f"settings on {dataset}", _assignments(values)) for dataset, values in card.settings.items()],
            *[(f"in print on {dataset}", _assignments(values)) for dataset, values in card.published.items()],
        ]
    )
    for title, fields in (("Settings of the model", settings), ("Settings of the trainer", TrainerSettings)):
        rows = [
            [each, default_text(told["default"]), str(told["legal"]), str(told["meaning"])]
            for each, told in describe(fields).items()
        ]
        screen.line()
        if rows:
            columns = [
                Column("setting"),
                Column("default"),
                Column("legal", narrow="wrap"),
                Column("meaning", narrow="wrap"),
            ]
            screen.table(columns, rows, title=title)
        else:
            screen.line(f"{title}: none")
    screen.line()
    screen.line(f"Change one with: mer-bench run --model {name} --dataset NAME --set KEY=VALUE", tone="quiet")
    if issubclass(settings, WrapperSettings):
        screen.line(
            f"The settings of the model inside are {INNER}KEY, and it is trained as its own card says: "
            f"mer-bench info {settings.model_fields['inner'].default}",
            tone="quiet",
        )


def _speakers(card: ModelCard) -> str:
    if not card.uses_speakers:
        return "no"
    return "yes, by any names" if card.speaker_symmetric else "yes, by their numbers"


def _show_space(screen: Screen, name: str, settings: type[Settings]) -> None:
    rows = []
    for owner, fields in ((name, settings), ("trainer", TrainerSettings)):
        for key, (field, tune) in fields.tunables().items():
            when = _assignments(tune.when) if tune.when else ""
            rows.append([key, owner, default_text(field.default), space_text(field, tune), when])
    columns = [
        Column("setting"),
        Column("of"),
        Column("default"),
        Column("search space", narrow="wrap"),
        Column("only when", narrow="wrap"),
    ]
    screen.table(columns, rows, title=f"Search space of {name}")


def _show_dataset(screen: Screen, name: str, card: DatasetCard) -> None:
    screen.line(f"{card.title}: {card.summary}")
    made_up = "synthetic: made-up dialogues, never in a table with real ones" if card.synthetic else "real"
    screen.pairs(
        [
            ("name", f"{name}, version {card.version}"),
            ("data", made_up),
            ("licence", card.licence),
            *([("homepage", card.homepage)] if card.homepage else []),
            *_paper(card.paper),
            ("modalities", ", ".join(card.modalities)),
            *[
                (f"labels {name}/{key}", f"{labels.title}: {', '.join(labels.classes)}")
                for key, labels in card.label_sets.items()
            ],
            *[
                (
                    f"protocol {name}/{key}",
                    f"{each.title} (chosen on dev by {each.selection}, ranked by {each.headline})",
                )
                for key, each in card.protocols.items()
            ],
            *[("beware", trap) for trap in card.traps],
        ]
    )
    screen.line()
    screen.table(
        [Column("feature set"), Column("widths", narrow="wrap"), Column("what", narrow="wrap")],
        [
            [
                f"{name}/{key}",
                ", ".join(f"{modality} {width_text(width)}" for modality, width in features.widths.items()),
                features.summary,
            ]
            for key, features in card.feature_sets.items()
        ],
    )
    counts = [
        [f"{name}/{protocol}", split, str(count.dialogues), str(count.utterances)]
        for protocol, splits in card.counts.items()
        for split, count in splits.items()
    ]
    if counts:
        screen.line()
        columns = [
            Column("protocol"),
            Column("split"),
            Column("dialogues", number=True),
            Column("utterances", number=True),
        ]
        screen.table(columns, counts)
    screen.line()
    screen.line(
        f"What is on this machine: mer-bench data status; the files: mer-bench info {name}/FEATURES", tone="quiet"
    )


def _show_features(screen: Screen, plugin: Plugin[DatasetCard], key: str) -> None:
    card, name = plugin.card, plugin.name
    features = card.feature_sets[key]
    screen.line(f"{name}/{key}: {features.summary}")
    usual = features.modalities or tuple(features.widths)
    screen.pairs(
        [
            ("title", features.title),
            ("widths", ", ".join(f"{each} {width_text(width)}" for each, width in features.widths.items())),
            ("used by default", ", ".join(usual)),
            ("train labels shaped it", "yes" if features.label_supervised else "no"),
            *([("needs", ", ".join(map(option_shown, features.needs)))] if features.needs else []),
            *([("takes", ", ".join(map(option_shown, features.takes)))] if features.takes else []),
            *[("beware", caveat) for caveat in features.caveats],
        ]
    )
    if features.sources:
        sources = [card.source(each) for each in features.sources]
        screen.line()
        screen.table(
            [
                Column("file"),
                Column("size", number=True),
                Column("licence", narrow="end"),
                Column("published in", narrow="end"),
            ],
            [
                [
                    each.name,
                    size_text(each.bytes) if each.bytes else "-",
                    each.licence,
                    each.repository or "you bring it",
                ]
                for each in sources
            ],
        )
    screen.line()
    screen.line(f"Prepare it with: mer-bench data prepare {name}/{key}", tone="quiet")


def default_text(value: Any) -> str:
    """A default as `--set` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ",".join(default_text(each) for each in value) + "]"
    return f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)


def _paper(paper: Paper | None) -> list[tuple[str, str]]:
    if paper is None:
        return []
    authors = f"{paper.authors}. " if paper.authors else ""
    url = f" {paper.url}" if paper.url else ""
    return [("paper", f"{authors}{paper.title}. {paper.venue} {paper.year}.{url}")]


def _figures(reported: Any) -> str:
    parts = [("weighted F1", reported.weighted_f1), ("accuracy", reported.accuracy)]
    return ", ".join(f"{title} {100 * share:.2f}" for title, share in parts if share is not None) or "no figure"


def _assignments(values: Any) -> str:
    return ", ".join(f"{name}={default_text(value)}" for name, value in values.items())
