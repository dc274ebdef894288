"""When `mer-bench run` fetches a dataset by itself, and when made-up dialogues stand in for it.

Only a dataset whose card names a `stand_in` is treated so, and only by `mer-bench run`: with nothing of
the dataset on disk its small, published feature set is fetched, unless its owner wants a licence
accepted first; only if every host was unreachable then, and the request asks for nothing that the
stand-in lacks, the run goes on with the stand-in. Anything else (an answer of the wrong kind, a
mismatch, damaged or half-present data) stays an error.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from mer_bench import locations, registry
from mer_bench.cards import DatasetCard, Source
from mer_bench.cli.console import Screen, size_text, transfer_progress
from mer_bench.cli.data.fetching import LARGE_BYTES
from mer_bench.errors import RequestError, UnreachableError
from mer_bench.registry import Plugin
from mer_bench.runner import Plan, RunRequest


@dataclass(frozen=True)
class StandIn:
    """Made-up dialogues take the place of the dataset that was asked for."""

    wanted: str
    dataset: str
    request: RunRequest

    def announce(self, screen: Screen) -> None:
        """The panel before the run."""
        screen.panel(
            f"{self.wanted} is out of reach: this run uses {self.dataset}",
            [
                f"Nothing of {self.wanted} is on this machine, and no host that has it could be reached.",
                f"{self.dataset} holds made-up dialogues. Its scores say nothing about {self.wanted}, and every line, "
                f"record and table calls them {self.dataset}.",
                f"For the real data: mer-bench data import {self.wanted} --from FOLDER, or run again with a network.",
            ],
        )

    def remind(self, screen: Screen) -> None:
        """The panel after the run."""
        screen.panel(
            f"These are scores on {self.dataset}, not on {self.wanted}",
            [
                "Made-up dialogues stood in, because no host could be reached.",
                f"For the real data: mer-bench data import {self.wanted} --from FOLDER, or run again with a network.",
            ],
        )


def bring_data(plan: Plan, screen: Screen, require_real: bool) -> StandIn | None:
    """Fetch what the run needs where that is the command's job; the stand-in where it must step in.

    Returns:
        None: the run goes on as it was planned.

    Raises:
        RequestError: If real data are required and the request names synthetic ones, or if the
            stand-in lacks what was asked for. UnreachableError: If real data are required.
        DataError: If a host's answer is not what the card says.
    """
    if require_real and plan.synthetic:
        raise RequestError(
            f"{plan.dataset} is synthetic, but real data are required (--require-real or MER_BENCH_REQUIRE_REAL)."
        )
    request = plan.request
    plugin = registry.datasets(request.data_root).find(plan.dataset)
    root = locations.data_root(request.data_root)
    features = plan.key.features
    if not plugin.card.stand_in or is_on_disk(root, plan.dataset) or not _is_small_published_set(plugin, features):
        return None
    from mer_bench.data import download

    count, size = _extent(plugin.card, features)
    screen.line(f"nothing of {plan.dataset} is on this machine; fetching {plan.features}: {count}, {size}")
    try:
        # Without a terminal the line above is enough.
        with transfer_progress(screen) if screen.is_terminal else nullcontext() as progress:
            download.fetch(plugin, features, root, progress=progress)
    except UnreachableError as error:
        if is_on_disk(root, plan.dataset):
            raise
        _refuse_stand_in(plan, plugin.card.stand_in, error, require_real)
        return StandIn(plan.dataset, plugin.card.stand_in, replace(request, dataset=plugin.card.stand_in))
    return None


def is_on_disk(root: Path, dataset: str) -> bool:
    """Whether any raw file or prepared store of the dataset is there; the rest of a broken transfer counts not."""
    for folder in (locations.raw_folder(root, dataset), root / "prepared" / dataset):
        for file in folder.rglob("*"):
            if file.is_file() and not file.name.startswith(".") and file.suffix != ".part":
                return True
    return False


def _is_small_published_set(plugin: Plugin[DatasetCard], features: str) -> bool:
    """Whether this is the card's first feature set, made of nothing but published files that come unasked."""
    card = plugin.card
    sources = _sources(card, features)
    return (
        features == next(iter(card.feature_sets))
        and card.terms is None
        and bool(sources)
        and all(source.repository and source.bytes for source in sources)
        and sum(source.bytes for source in sources) <= LARGE_BYTES
    )


def _extent(card: DatasetCard, features: str) -> tuple[str, str]:
    sources = _sources(card, features)
    count = f"{len(sources)} file{'s' if len(sources) > 1 else ''}"
    return count, size_text(sum(source.bytes for source in sources))


def _sources(card: DatasetCard, features: str) -> list[Source]:
    return [card.source(name) for name in card.feature_sets[features].sources]


def _refuse_stand_in(plan: Plan, stand_in: str, error: UnreachableError, require_real: bool) -> None:
    request = plan.request
    bring = f"Run again with a network, or bring the files: mer-bench data import {plan.dataset} --from FOLDER"
    if require_real:
        raise UnreachableError(
            f"{error} Real data are required (--require-real or MER_BENCH_REQUIRE_REAL), so {stand_in} does not "
            f"stand in. {bring}"
        ) from error
    card = registry.datasets().find(stand_in).card
    modalities = {name for features in card.feature_sets.values() for name in features.widths}
    asked: list[tuple[str, str | None, Collection[str]]] = [
        ("--features", request.features, card.feature_sets),
        ("--labels", request.labels, card.label_sets),
        ("--protocol", request.protocol, card.protocols),
        *(("--modalities", name, modalities) for name in request.modalities or ()),
    ]
    for option, value, known in asked:
        # A full id (`meld/emotion`) names the dataset itself, which the stand-in is not.
        if value is not None and value not in known:
            raise UnreachableError(
                f"{error} {stand_in} cannot stand in: it has no {option} {value}. {bring}"
            ) from error
