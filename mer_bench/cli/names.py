"""What a name on the command line stands for."""

from __future__ import annotations

from pathlib import Path

from mer_bench import registry
from mer_bench.cards import DatasetCard, ModelCard
from mer_bench.errors import UnknownNameError
from mer_bench.registry import Plugin


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
