"""`mer-bench data`: bring a dataset's files here, prepare feature stores, and see what is there."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mer_bench.cli.commands import Commands, help_when_alone
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, ProtocolId

commands = typer.Typer(cls=Commands, rich_markup_mode=None, invoke_without_command=True, callback=help_when_alone)

Dataset = Annotated[str, typer.Argument(metavar="NAME", help="A dataset: mer-bench list datasets")]
DatasetOrFeatures = Annotated[
    str, typer.Argument(metavar="NAME[/FEATURES]", help="A dataset, or one of its feature sets; default: its first.")
]
FeaturesId = Annotated[
    str | None,
    typer.Option("--features", metavar="ID", help="Feature set, when NAME is the dataset alone.", show_default=False),
]


@commands.command("import")
def import_data(
    *,
    name: Dataset,
    folder: Annotated[
        Path, typer.Option("--from", metavar="FOLDER", help="The files may lie anywhere below it.", show_default=False)
    ],
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Copy a dataset's files to the data folder.

    Each is compared with the published one.

    \b
    Example:
      mer-bench data import meld --from ~/Downloads/MELD
    """
    from mer_bench import registry
    from mer_bench.cli.console import Column, Screen
    from mer_bench.data.locations import data_root as data_root_of
    from mer_bench.data.preparation import import_files

    registry.datasets().find(name)
    screen = Screen(quiet_output=as_json)
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


@commands.command("fetch")
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
    from mer_bench.data.locations import data_root as data_root_of
    from mer_bench.data.locations import raw_folder

    screen = Screen(quiet_output=as_json)
    plugin, chosen = _chosen(name, features)
    root = data_root_of(data_root)
    with transfer_progress(screen) as progress:
        files = fetch(plugin, chosen, root, mirror=mirror, progress=progress)
    if as_json:
        screen.answer({"dataset": plugin.name, "features": chosen, "files": files})
        return
    screen.line(f"{plugin.name}/{chosen}: {len(files)} files in {raw_folder(root, plugin.name)}, each as published")


@commands.command("prepare")
def prepare_data(
    *,
    name: DatasetOrFeatures,
    features: FeaturesId = None,
    labels: LabelsId = None,
    protocol: ProtocolId = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word vectors, text or npz, where the set needs them.", show_default=False),
    ] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn raw files into a feature store.

    Where the protocol has folds, each gets a store.

    \b
    Examples:
      mer-bench data prepare meld
      mer-bench data prepare meld/transcripts-vectors --vectors glove.txt
    """
    from mer_bench.cli.console import Screen, duration_text
    from mer_bench.data.locations import data_root as data_root_of
    from mer_bench.data.preparation import prepare, resolve

    screen = Screen(quiet_output=as_json)
    plugin, chosen = _chosen(name, features)
    key = resolve(plugin.name, chosen, labels, protocol)
    folds = plugin.card.protocols[key.protocol].folds
    keys = [resolve(plugin.name, chosen, labels, protocol, fold) for fold in range(1, folds + 1)] or [key]
    options = {} if vectors is None else {"vectors": vectors}
    answers = []
    for each in keys:
        begun = time.monotonic()
        screen.line(f"preparing {each}")
        store = prepare(each, data_root_of(data_root), options)
        answers.append({"folder": store.folder, "manifest": store.manifest.model_dump(mode="json")})
        if not as_json:
            _show_store(screen, store)
            screen.exactly(f"prepared in {duration_text(time.monotonic() - begun)}: {store.folder}")
    if as_json:
        screen.answer(answers)


@commands.command("status")
def show_status(data_root: DataRoot = None, as_json: Json = False, debug: Debug = False) -> None:
    """Show which files and stores are on this machine.

    \b
    Example:
      mer-bench data status
    """
    from mer_bench.cli.console import Column, Screen, Tone, size_text
    from mer_bench.data.locations import data_root as data_root_of
    from mer_bench.data.preparation import status

    screen = Screen(quiet_output=as_json)
    root = data_root_of(data_root)
    found = status(root)
    if as_json:
        screen.answer({"data_root": root, "datasets": [asdict(each) for each in found]})
        return
    rows: list[list[str]] = []
    tones: dict[int, Tone] = {}
    problems: list[str] = []
    for dataset in found:
        for features in dataset.features:
            count = len(features.found) + len(features.missing)
            files = f"{len(features.found)} of {count}" if count else "none needed"
            if not features.stores:
                rows.append([f"{dataset.dataset}/{features.features}", files, "not prepared", ""])
                tones[len(rows) - 1] = "quiet"
            for store in features.stores:
                fold = "" if store.key.fold is None else f", fold {store.key.fold}"
                state = "damaged" if store.problem else f"{store.key.labels}, {store.key.protocol}{fold}"
                rows.append([f"{dataset.dataset}/{features.features}", files, state, size_text(store.bytes)])
                if store.problem:
                    tones[len(rows) - 1] = "bad"
                    problems.append(store.problem)
    columns = [Column("feature set"), Column("files"), Column("prepared", narrow="end"), Column("size", number=True)]
    screen.table(columns, rows, tones=tones)
    screen.exactly(f"data folder: {root}")
    for problem in problems:
        screen.warn(problem)


@commands.command("verify")
def verify_data(name: Dataset, data_root: DataRoot = None, as_json: Json = False, debug: Debug = False) -> None:
    """Compare files and stores with their checksums.

    Reads everything of the dataset in full.

    \b
    Example:
      mer-bench data verify meld
    """
    from mer_bench import registry
    from mer_bench.cli.console import Column, Screen
    from mer_bench.data.files import difference_from_pin
    from mer_bench.data.locations import data_root as data_root_of
    from mer_bench.data.locations import raw_folder
    from mer_bench.data.preparation import status
    from mer_bench.errors import DataError, MissingDataError

    plugin = registry.datasets().find(name)
    root = data_root_of(data_root)
    screen = Screen(quiet_output=as_json)
    rows: list[dict[str, str]] = []
    for source in plugin.card.sources:
        file = raw_folder(root, name) / source.name
        if not file.is_file():
            continue
        difference = difference_from_pin(file, source)
        problem = f"{file} is not the published file: {difference}. Delete it and bring it again." if difference else ""
        pinned = bool(source.sha256 or source.git_blob)
        rows.append(
            {
                "what": source.name,
                "state": "damaged" if problem else "good" if pinned else "not pinned",
                "problem": problem,
            }
        )
    for dataset in status(root, verify=True):
        if dataset.dataset == name:
            for store in [store for features in dataset.features for store in features.stores]:
                problem = store.problem or ""
                rows.append({"what": str(store.key), "state": "damaged" if problem else "good", "problem": problem})
    if not rows:
        raise MissingDataError(f"nothing of {name} is in {root}. See: mer-bench data status")
    if as_json:
        screen.answer({"dataset": name, "checked": rows})
    else:
        tones = {row: "bad" for row, each in enumerate(rows) if each["problem"]}
        screen.table([Column("what"), Column("state")], [[each["what"], each["state"]] for each in rows], tones=tones)  # type: ignore[arg-type]
    problems = [each["problem"] for each in rows if each["problem"]]
    if problems:
        more = f" ({len(problems) - 1} more are damaged.)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)


def _chosen(name: str, features: str | None) -> tuple[Any, str]:
    """The dataset and the feature set that NAME, NAME/FEATURES and --features name together."""
    from mer_bench.cli.names import split_dataset
    from mer_bench.data.preparation import resolve
    from mer_bench.errors import RequestError

    plugin, within = split_dataset(name)
    if within is not None and features is not None and features not in (within, name):
        raise RequestError(f"two feature sets were given: {name} and --features {features}.")
    return plugin, resolve(plugin.name, within or features).features


def _show_store(screen: Any, store: Any) -> None:
    from mer_bench.cli.console import Column

    manifest = store.manifest
    rows = []
    for split, histogram in manifest.class_histogram.items():
        count = manifest.counts[split]
        told = ", ".join(f"{name} {number}" for name, number in histogram.items())
        rows.append([split, str(count.dialogues), str(count.utterances), told])
    columns = [
        Column("split"),
        Column("dialogues", number=True),
        Column("utterances", number=True),
        Column("classes", narrow="wrap"),
    ]
    screen.table(columns, rows)
    notes = [(str(key), str(value)) for key, value in manifest.notes.items()]
    screen.pairs([("widths", ", ".join(f"{name} {width}" for name, width in manifest.widths.items())), *notes])
