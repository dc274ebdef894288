"""How the commands of `mer-bench data` take a dataset and a feature set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Dataset = Annotated[str, typer.Argument(metavar="NAME", help="A dataset: mer-bench list datasets")]
DatasetOrFeatures = Annotated[
    str, typer.Argument(metavar="NAME[/FEATURES]", help="A dataset, or one of its feature sets; default: its first.")
]
FeaturesId = Annotated[
    str | None,
    typer.Option("--features", metavar="ID", help="Feature set, when NAME is the dataset alone.", show_default=False),
]


def named_features(name: str, features: str | None, root: Path | None = None) -> tuple[Any, str]:
    """The dataset and the feature set that NAME, NAME/FEATURES and --features name together.

    Args:
        root: The data folder, where the user's own datasets are; None is the default one.
    """
    from mer_bench.cli.names import split_dataset
    from mer_bench.data.preparation import resolve
    from mer_bench.errors import RequestError

    plugin, within = split_dataset(name, root)
    if within is not None and features is not None and features not in (within, name):
        raise RequestError(f"two feature sets were given: {name} and --features {features}.")
    return plugin, resolve(plugin.name, within or features, root=root).features
