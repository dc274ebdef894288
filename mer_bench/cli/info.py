"""`mer-bench info`: everything a card says of a model, a dataset or a feature set, and a model's settings."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from mer_bench import registry
from mer_bench.cards import DatasetCard, ModelCard, Paper, option_shown
from mer_bench.cli.console import Column, Screen, size_text
from mer_bench.cli.listing import width_text
from mer_bench.cli.names import find_plugin, split_dataset
from mer_bench.cli.options import DataRoot, Debug, Json
from mer_bench.config import Settings, TrainerSettings, Tune, legal_values
from mer_bench.errors import RequestError
from mer_bench.registry import Plugin


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, a dataset, or a feature set as meld/mmgcn.")],
    space: Annotated[bool, typer.Option("--space", help="Only a model's search space.")] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what a model, a dataset or a feature set is.

    For a model also its settings, with defaults and ranges.

    \b
    Examples:
      mer-bench info cmath
      mer-bench info cmath --space
      mer-bench info meld/transcripts
    """
    screen = Screen(quiet_output=as_json)
    if "/" in name:
        plugin, features = split_dataset(name, data_root)
        assert features is not None
        _refuse_space(space, name)
        if as_json:
            screen.answer({"id": name, **plugin.card.feature_sets[features].model_dump(mode="json")})
        else:
            _show_features(screen, plugin, features)
        return
    found = find_plugin(name, data_root)
    if isinstance(found.card, ModelCard):
        settings = registry.settings_class(name)
        if as_json:
            answer = {"settings": describe(settings), "training": describe(TrainerSettings)}
            screen.answer({"name": name, **({} if space else found.card.model_dump(mode="json")), "fields": answer})
        elif space:
            _show_space(screen, name, settings)
        else:
            _show_model(screen, name, found.card, settings, found.distribution)
        return
    _refuse_space(space, name)
    if as_json:
        screen.answer({"name": name, **found.card.model_dump(mode="json")})
    else:
        _show_dataset(screen, name, found.card)


def describe(settings: type[Settings]) -> dict[str, dict[str, Any]]:
    """Each field's default, legal values and search space, as JSON values."""
    told: dict[str, dict[str, Any]] = {}
    tunables, meant = settings.tunables(), meanings(settings)
    for name, field in settings.model_fields.items():
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


def _refuse_space(space: bool, name: str) -> None:
    if space:
        raise RequestError(f"--space shows a model's search space, but {name} is no model. See: mer-bench list models")


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
            ("uses speakers", yes_no[card.uses_speakers]),
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
