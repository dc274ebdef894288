"""`mer-bench data import`: bring files that the user has to the data folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.data.names import Dataset
from mer_bench.cli.options import DataRoot, Debug, Json

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.data.community import Release


def import_data(
    *,
    name: Dataset,
    given: Annotated[
        list[Path],
        typer.Option(
            "--from",
            metavar="PATH",
            help="A folder with the published files anywhere below it, or a feature release; several times where that "
            "is several files.",
            show_default=False,
        ),
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
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout", metavar="ID", help="What the release is, where it cannot be told.", show_default=False
        ),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a dataset's files to the data folder.

    Each is compared with the published one. What a feature release is, is told by its content and said before it is
    checked and copied.

    Under a name that no installed dataset has, import dialogues of your own: mer-bench new dataset NAME writes an
    example.

    \b
    Examples:
      mer-bench data import meld --from ~/Downloads/MELD
      mer-bench data import meld --from MELD_features_raw1.pkl
      mer-bench data import my-talks --from my-talks
    """
    from mer_bench import registry
    from mer_bench.cli.console import Screen
    from mer_bench.cli.data.importing_own import import_own_dialogues, is_users_own
    from mer_bench.errors import RequestError
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    root = data_root_of(data_root)
    if is_users_own(name):
        import_own_dialogues(name, given, root, screen, as_json, split, seed, layout)
        return
    registry.installed_datasets().find(name)
    if split is not None or seed is not None:
        raise RequestError(f"{name} has splits of its own; --split and --seed are for dialogues of your own.")
    if layout is None and len(given) == 1 and not given[0].expanduser().is_file():
        _import_folder(name, given[0], root, screen, as_json)
    else:
        _import_release(name, given, layout, root, screen, as_json)


def show_release(screen: Screen, release: Release) -> dict[str, Any]:
    """Tell what was recognised; returns it for a program."""
    from mer_bench.cli.console import Column

    found = release.summary()
    for file in found.files:
        screen.exactly(str(file))
    screen.line(f"recognised: {found.layout}, {found.title}")
    pairs = [
        ("corpus", found.corpus or "cannot be told"),
        ("dialogues", f"{found.dialogues}, {found.utterances} utterances"),
        ("widths", ", ".join(f"{name} {width}" for name, width in found.widths.items()) or "no features"),
        *((f"labels: {role}", ", ".join(names) or "numbered") for role, names in found.labels.items()),
        *(("missing", each) for each in found.missing),
        *(("note", each) for each in found.caveats),
    ]
    if found.dialogues:
        screen.pairs(pairs)
        rows = [[split, str(dialogues), str(utterances)] for split, (dialogues, utterances) in found.splits.items()]
        columns = [Column("list"), Column("dialogues", number=True), Column("utterances", number=True)]
        screen.table(columns, rows)
    return asdict(found)


def _import_release(
    name: str, given: list[Path], layout: str | None, root: Path, screen: Screen, as_json: bool
) -> None:
    from mer_bench.data.community import import_release, read_release

    release = read_release(given, layout)
    recognised = show_release(screen, release)
    report = import_release(name, release, root)
    if as_json:
        screen.answer({"recognised": recognised, "imported": asdict(report)})
        return
    for split, (dialogues, utterances) in report.counts.items():
        screen.line(f"{split}: {dialogues} dialogues, {utterances} utterances")
    agreement = report.agreement
    if agreement is not None and agreement.dialogues:
        screen.line(f"all {agreement.utterances} labels are those of the published annotation", tone="good")
        if agreement.speakers:
            screen.warn(f"speakers differ from the published annotation in {agreement.speakers} dialogues.")
        if agreement.texts:
            screen.line(f"{agreement.texts} of {agreement.utterances} texts differ from the published ones")
    elif report.counts:
        screen.line(f"not compared with the published annotation of {name}, which is not in {report.raw}")
    for source, file in report.imported.items():
        screen.exactly(f"imported: {file} as {source}")
    for source in report.missing:
        screen.warn(f"{name}/{report.features} also needs {source}: mer-bench data import {name} --from FOLDER")
    screen.exactly(f"kept in {report.raw}")
    for features in report.ready:
        screen.line(f"ready: {name}/{features}", tone="good")


def _import_folder(name: str, folder: Path, root: Path, screen: Screen, as_json: bool) -> None:
    from mer_bench.cli.console import Column
    from mer_bench.data.preparation import import_files

    report = import_files(name, folder, root)
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
