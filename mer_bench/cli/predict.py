"""`mer-bench predict`: label new dialogues with a trained model."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mer_bench.cli.options import DataRoot, Debug, Plugins
from mer_bench.cli.run_options import Device, Threads

if TYPE_CHECKING:
    from mer_bench.applying import Labelled
    from mer_bench.cli.console import Screen


def predict(
    *,
    run: Annotated[Path, typer.Option("--run", metavar="RECORD", help="Record of a run; its weights lie beside it.")],
    dialogues: Annotated[
        Path,
        typer.Option(
            "--input",
            metavar="FILE",
            help="CSV, JSONL or Parquet with the columns dialogue, speaker and text; turn, if rows are in no order.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Where to write; default: standard output.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="csv, jsonl or parquet; default: as --out ends, else csv.",
            show_default=False,
        ),
    ] = None,
    arrays: Annotated[
        list[str] | None,
        typer.Option(
            "--array",
            metavar="MODALITY=FILE",
            help="Numbers of a modality: npy, npz, safetensors or Parquet; repeat for more.",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        int | None, typer.Option("--fold", metavar="N", help="Which model, of a run with folds.", show_default=False)
    ] = None,
    transformer: Annotated[
        str | None,
        typer.Option(
            "--transformer",
            metavar="FOLDER",
            help="The transformer that the features were made with.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    plugins: Plugins = None,
    data_root: DataRoot = None,
    debug: Debug = False,
) -> None:
    """Label new dialogues with a trained model.

    Each utterance comes back with its label and the probability of every class, in the order in which it was given.
    What is said becomes features as it did in training; a modality that is not given is missing, and you are told.

    \b
    Examples:
      mer-bench predict --run runs/meld/textonly/RUN.json --input talks.csv --out labels.csv
      mer-bench predict --run runs/meld/cmath/RUN.json --input talks.jsonl --array audio=audio.npz --format jsonl
    """
    from mer_bench import applying
    from mer_bench.applying.answers import check_parquet, encoded, format_of
    from mer_bench.cli.console import Screen
    from mer_bench.errors import RequestError

    kind = format_of(out, kind)
    if kind == "parquet":
        check_parquet()
        if out is None:
            raise RequestError("Parquet is no text to print; say where it is to be written with --out FILE.")
    if out is not None and out.is_dir():
        raise RequestError(f"{out} is a folder; name a file in it.")
    screen = Screen(quiet_output=out is None)
    labelled = applying.predict(
        applying.Application(
            run=run,
            dialogues=dialogues,
            arrays=_files(arrays or []),
            fold=fold,
            transformer=transformer,
            device=device,
            threads=threads,
            data_root=data_root,
        )
    )
    for note in labelled.notes:
        screen.warn(note)
    if out is None:
        sys.stdout.write(encoded(labelled, kind).decode())
        return
    applying.write_labelled(labelled, out, kind)
    _summarise(screen, labelled)
    screen.exactly(f"labels: {out}")


def _files(given: list[str]) -> dict[str, Path]:
    from mer_bench.errors import RequestError

    found: dict[str, Path] = {}
    for text in given:
        modality, equals, file = text.partition("=")
        if not (modality and equals and file):
            raise RequestError(f"--array takes MODALITY=FILE, as in audio=audio.npz, but '{text}' was given.")
        if modality in found:
            raise RequestError(f"--array gives {modality} twice: {found[modality]} and {file}.")
        found[modality] = Path(file)
    return found


def _summarise(screen: Screen, labelled: Labelled) -> None:
    """How many utterances got each label."""
    from mer_bench.cli.console import Column, percent

    counted = Counter(labelled.labels)
    columns = [Column("label"), Column("utterances", number=True), Column("share in %", number=True)]
    rows = [[name, str(counted[name]), percent(counted[name] / len(labelled))] for name in labelled.classes]
    dialogues = len(set(labelled.dialogues))
    screen.table(columns, rows, title=f"{len(labelled)} utterances of {dialogues} dialogues")
