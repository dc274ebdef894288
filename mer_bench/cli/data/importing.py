"""`mer-bench data import`: bring files that the user has to the data folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mer_bench.cli.data.names import Dataset
from mer_bench.cli.options import DataRoot, Debug, Json


def import_data(
    *,
    name: Dataset,
    folder: Annotated[
        Path, typer.Option("--from", metavar="FOLDER", help="The files may lie anywhere below it.", show_default=False)
    ],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN/DEV/TEST",
            help="Your own dialogues have no splits: draw them by dialogue, in percent, as in 80/10/10.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Seed of --split; default 0.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a dataset's files to the data folder.

    Each is compared with the published one. Under a name that no installed dataset has, import dialogues of your
    own: mer-bench new dataset NAME writes an example.

    \b
    Examples:
      mer-bench data import meld --from ~/Downloads/MELD
      mer-bench data import my-talks --from my-talks
    """
    from mer_bench import registry
    from mer_bench.cli.console import Column, Screen
    from mer_bench.cli.data.importing_own import import_own_dialogues, is_users_own
    from mer_bench.data.preparation import import_files
    from mer_bench.errors import RequestError
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    if is_users_own(name):
        import_own_dialogues(name, [folder], data_root_of(data_root), screen, as_json, split, seed)
        return
    registry.installed_datasets().find(name)
    if split is not None or seed is not None:
        raise RequestError(f"{name} has splits of its own; --split and --seed are for dialogues of your own.")
    report = import_files(name, folder, data_root_of(data_root))
    if as_json:
        screen.answer(asdict(report))
        return
    rows = [[source, "imported", str(file)] for source, file in report.imported.items()]
    rows += [[source, "was there", ""] for source in report.unchanged]
    rows += [
        [source, "not found", "needed by " + ", ".join(f"{name}/{each}" for each in needed)]
        for source, needed in report.missing.items()
    ]
    screen.table([Column("file"), Column("state"), Column("from", narrow="start")], rows)
    screen.exactly(f"kept in {report.raw}")
    for features in report.ready:
        screen.line(f"ready: {name}/{features}", tone="good")
    if not report.ready:
        screen.warn(f"no feature set of {name} is complete yet.")
