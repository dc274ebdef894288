"""`mer-bench data export`: a prepared store for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mer_bench.cli.data.names import DatasetOrFeatures, FeaturesId, named_features
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, ProtocolId


def export_data(
    *,
    name: DatasetOrFeatures,
    folder: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="A folder that does not exist yet.", show_default=False)
    ],
    features: FeaturesId = None,
    labels: LabelsId = None,
    protocol: ProtocolId = None,
    fold: Annotated[
        int | None, typer.Option(metavar="N", help="Fold, where the protocol has folds.", show_default=False)
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write dialogues as JSON lines and features as safetensors.

    `mer-bench data import NAME --from FOLDER` reads such a folder again.

    \b
    Examples:
      mer-bench data export meld --to meld-export
      mer-bench data export iemocap --protocol loso --fold 1 --to fold1
    """
    from mer_bench.cli.console import Screen, size_text
    from mer_bench.data.export import check_target, export_store
    from mer_bench.data.preparation import open_or_prepare, resolve
    from mer_bench.errors import SettingError
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    plugin, chosen = named_features(name, features, data_root)
    key = resolve(plugin.name, chosen, labels, protocol, fold, data_root)
    folds = plugin.card.protocols[key.protocol].folds
    if folds and fold is None:
        raise SettingError(
            f"{plugin.name}/{key.protocol} has {folds} folds, each a store of its own; name one: --fold 1 to {folds}."
        )
    check_target(folder.expanduser())
    store = open_or_prepare(key, data_root_of(data_root), screen.line)
    exported = export_store(store, plugin.card, folder)
    if as_json:
        screen.answer(
            {
                "dataset": plugin.name,
                "features": key.features,
                "labels": key.labels,
                "protocol": key.protocol,
                "fold": key.fold,
                "redistribute": plugin.card.redistribute,
                "folder": exported.folder,
                "files": exported.files,
            }
        )
    else:
        told = ", ".join(f"{file} {size_text(size)}" for file, size in exported.files.items())
        screen.line(f"{key}: {store.manifest.dialogues} dialogues, {store.manifest.utterances} utterances; {told}")
        screen.exactly(f"exported to {exported.folder}")
    if not plugin.card.redistribute:
        screen.warn(f"the licence of {plugin.card.title} forbids passing this folder on: keep it to yourself.")
