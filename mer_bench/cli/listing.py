"""`mer-bench list`: what is there, from the cards alone; imports no plugin and no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mer_bench import registry
from mer_bench.cli.console import Column, Screen
from mer_bench.cli.options import DataRoot, Debug, Json, Plugins
from mer_bench.errors import UnknownNameError
from mer_bench.registry import BrokenPlugin


@dataclass(frozen=True)
class Listing:
    """A table and the same as values for `--json`: one mapping a row, the broken plugins apart."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    values: Sequence[dict[str, Any]]
    broken: Sequence[BrokenPlugin] = ()


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="models, datasets, features, labels, protocols, metrics")],
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List models, datasets, features, labels, protocols or metrics.

    \b
    Examples:
      mer-bench list models
      mer-bench list features --json
    """
    if kind not in LISTINGS:
        raise UnknownNameError("list", kind, LISTINGS, "mer-bench list --help")
    screen = Screen(quiet_output=as_json)
    listing = LISTINGS[kind](data_root)
    if as_json:
        broken = [{"name": each.name, "package": each.package, "reason": each.reason} for each in listing.broken]
        screen.answer({kind: list(listing.values), "broken": broken})
        return
    if listing.rows:
        screen.table(listing.columns, listing.rows)
    else:
        screen.line(f"no {kind} are installed")
    for each in listing.broken:
        screen.warn(f"{each.name} ({each.package}) cannot be used: {each.reason}")


def list_models(root: Path | None = None) -> Listing:
    """Every model, by name."""
    shelf = registry.models()
    rows, values = [], []
    for name, plugin in sorted(shelf.plugins.items()):
        card = plugin.card
        paper = f"{card.paper.venue} {card.paper.year}" if card.paper else "-"
        rows.append([name, " ".join(card.modalities), paper, plugin.distribution, card.summary])
        values.append(
            {
                "name": name,
                "title": card.title,
                "summary": card.summary,
                "modalities": card.modalities,
                "needs": card.needs,
                "paper": card.paper.model_dump() if card.paper else None,
                "package": plugin.package,
                "distribution": plugin.distribution,
            }
        )
    full = [Column("model"), Column("modalities"), Column("paper"), Column("from"), Column("what", narrow="end")]
    columns, shown = _without_own_name(full, rows)
    return Listing(columns, shown, values, shelf.broken)


def list_datasets(root: Path | None = None) -> Listing:
    """Every dataset, by name."""
    shelf = registry.datasets(root)
    rows, values = [], []
    for name, plugin in sorted(shelf.plugins.items()):
        card = plugin.card
        made_up = "synthetic" if card.synthetic else "real"
        rows.append([name, made_up, " ".join(card.modalities), plugin.distribution, card.summary])
        values.append(
            {
                "name": name,
                "title": card.title,
                "summary": card.summary,
                "synthetic": card.synthetic,
                "modalities": card.modalities,
                "licence": card.licence,
                "package": plugin.package,
                "distribution": plugin.distribution,
            }
        )
    full = [Column("dataset"), Column("data"), Column("modalities"), Column("from"), Column("what", narrow="end")]
    columns, shown = _without_own_name(full, rows)
    return Listing(columns, shown, values, shelf.broken)


def list_features(root: Path | None = None) -> Listing:
    """Every feature set of every dataset."""
    rows, values = [], []
    for name, plugin in sorted(registry.datasets(root).plugins.items()):
        for key, features in plugin.card.feature_sets.items():
            widths = ", ".join(f"{modality} {width_text(width)}" for modality, width in features.widths.items())
            needs = ", ".join(f"--{need}" for need in features.needs) or "-"
            rows.append([f"{name}/{key}", widths, needs, features.summary])
            values.append({"id": f"{name}/{key}", **features.model_dump(mode="json")})
    columns = [Column("feature set"), Column("widths", narrow="wrap"), Column("needs"), Column("what", narrow="end")]
    return Listing(columns, rows, values, registry.datasets(root).broken)


def list_labels(root: Path | None = None) -> Listing:
    """Every label set of every dataset."""
    rows, values = [], []
    for name, plugin in sorted(registry.datasets(root).plugins.items()):
        for key, labels in plugin.card.label_sets.items():
            rows.append([f"{name}/{key}", str(len(labels.classes)), ", ".join(labels.classes)])
            values.append({"id": f"{name}/{key}", **labels.model_dump(mode="json")})
    columns = [Column("label set"), Column("count", number=True), Column("classes", narrow="wrap")]
    return Listing(columns, rows, values, registry.datasets(root).broken)


def list_protocols(root: Path | None = None) -> Listing:
    """Every protocol of every dataset."""
    rows, values = [], []
    for name, plugin in sorted(registry.datasets(root).plugins.items()):
        for key, protocol in plugin.card.protocols.items():
            folds = str(protocol.folds) if protocol.folds else "-"
            rows.append([f"{name}/{key}", folds, protocol.selection, protocol.headline, protocol.title])
            values.append({"id": f"{name}/{key}", **protocol.model_dump(mode="json")})
    columns = [
        Column("protocol"),
        Column("folds", number=True),
        Column("chosen on dev"),
        Column("ranked by"),
        Column("what", narrow="end"),
    ]
    return Listing(columns, rows, values, registry.datasets(root).broken)


def list_metrics(root: Path | None = None) -> Listing:
    """Every score that is computed from predictions."""
    from mer_bench.metrics import METRICS

    rows, values = [], []
    for name, metric in METRICS.items():
        better = "higher" if metric.higher_is_better else "lower"
        rows.append([name, better, metric.summary])
        values.append({"name": name, "title": metric.title, "summary": metric.summary, "better": better})
    return Listing([Column("metric"), Column("better"), Column("what", narrow="wrap")], rows, values)


def _without_own_name(columns: list[Column], rows: list[list[str]]) -> tuple[list[Column], list[list[str]]]:
    """The table without its column `from` where every plugin comes with mer-bench itself."""
    place = next(index for index, column in enumerate(columns) if column.header == "from")
    if any(row[place] != "mer-bench" for row in rows):
        return columns, rows
    return [*columns[:place], *columns[place + 1 :]], [[*row[:place], *row[place + 1 :]] for row in rows]


def width_text(width: int) -> str:
    """A feature width as a card states it; 0 there is "the data decide"."""
    return str(width) if width else "by data"


LISTINGS: dict[str, Callable[[Path | None], Listing]] = {
    "models": list_models,
    "datasets": list_datasets,
    "features": list_features,
    "labels": list_labels,
    "protocols": list_protocols,
    "metrics": list_metrics,
}
