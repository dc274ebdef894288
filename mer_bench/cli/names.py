"""What a name on the command line stands for."""

from __future__ import annotations

import re
from pathlib import Path

from mer_bench import registry
from mer_bench.cards import DatasetCard, ModelCard
from mer_bench.errors import UnknownNameError
from mer_bench.registry import BrokenPlugin, Plugin


def find_plugin(name: str, root: Path | None = None) -> Plugin[ModelCard] | Plugin[DatasetCard]:
    """The model or the dataset of that name.

    Args:
        root: The data folder, where the user's own datasets are; None is the default one.

    Raises:
        PluginError: If it is there and broken. UnknownNameError: If nothing has that name.
    """
    models, datasets = registry.models(), registry.datasets(root)
    if name in models.plugins:
        return models.plugins[name]
    if name in datasets.plugins:
        return datasets.plugins[name]
    for shelf in (models, datasets):
        if any(name in (broken.name, broken.package) for broken in shelf.broken):
            shelf.find(name)
    raise UnknownNameError(
        "model or dataset", name, [*models.plugins, *datasets.plugins], "mer-bench list models, mer-bench list datasets"
    )


def of_package(target: str, root: Path | None = None) -> tuple[list[str], list[BrokenPlugin]]:
    """The plugins that an installed package brought, by name, and those of them that cannot be used.

    Args:
        target: Name of a distribution, or import name of a shelf.
        root: The data folder; None is the default one.

    Raises:
        UnknownNameError: If no package of that name brought any.
    """
    found: list[str] = []
    broken: list[BrokenPlugin] = []
    known: set[str] = set()
    for shelf in (registry.models(), registry.datasets(root)):
        installed = [plugin for plugin in shelf.plugins.values() if plugin.files is None and not plugin.is_own]
        found += [plugin.name for plugin in installed if _is_of(target, plugin.distribution, plugin.package)]
        broken += [each for each in shelf.broken if _is_of(target, each.distribution, each.package)]
        known |= {*shelf.plugins, *(plugin.distribution for plugin in installed)}
    if not found and not broken:
        raise UnknownNameError(
            "model, dataset, file, folder or package",
            target,
            known,
            "mer-bench list models, mer-bench list datasets",
        )
    return found, broken


def _is_of(target: str, distribution: str, package: str) -> bool:
    def folded(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    same = bool(distribution) and folded(distribution) == folded(target)
    return same or package == target or package.startswith(f"{target}.")


def split_dataset(name: str, root: Path | None = None) -> tuple[Plugin[DatasetCard], str | None]:
    """A dataset, and its feature set where `NAME/FEATURES` was written.

    Args:
        root: The data folder, where the user's own datasets are; None is the default one.

    Raises:
        UnknownNameError: If either does not exist or cannot be used.
    """
    dataset, slash, features = name.partition("/")
    plugin = registry.datasets(root).find(dataset)
    if not slash:
        return plugin, None
    if features not in plugin.card.feature_sets:
        known = [f"{dataset}/{each}" for each in plugin.card.feature_sets]
        raise UnknownNameError("feature set", name, known, "mer-bench list features")
    return plugin, features
