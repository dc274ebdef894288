"""`mer-bench data fetch`: download the published files of a feature set."""

from __future__ import annotations

from typing import Annotated

import typer

from mer_bench.cli.data.names import DatasetOrFeatures, FeaturesId, named_features
from mer_bench.cli.options import DataRoot, Debug, Json


def fetch_data(
    *,
    name: DatasetOrFeatures,
    features: FeaturesId = None,
    mirror: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Fetch <URL>/<repository>/<commit>/<path> instead.", show_default=False),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch the published files of a feature set.

    Each is checked by its content; a file that does not match is deleted and named.

    \b
    Examples:
      mer-bench data fetch meld
      mer-bench data fetch meld/mmgcn --mirror http://localhost:8000
    """
    from mer_bench.cli.console import Screen, transfer_progress
    from mer_bench.data.download import fetch
    from mer_bench.locations import data_root as data_root_of
    from mer_bench.locations import raw_folder

    screen = Screen(quiet_output=as_json)
    plugin, chosen = named_features(name, features, data_root)
    root = data_root_of(data_root)
    with transfer_progress(screen) as progress:
        files = fetch(plugin, chosen, root, mirror=mirror, progress=progress)
    if as_json:
        screen.answer({"dataset": plugin.name, "features": chosen, "files": files})
        return
    screen.line(f"{plugin.name}/{chosen}: {len(files)} files in {raw_folder(root, plugin.name)}, each as published")
