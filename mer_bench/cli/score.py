"""`mer-bench score`: predictions that some other system made, checked, scored and written as a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, ProtocolId
from mer_bench.cli.run_options import DatasetName, Out, parse_modalities

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.records import External


def score(
    predictions: Annotated[
        Path | None,
        typer.Argument(
            metavar="PREDICTIONS", help="CSV, JSONL or Parquet: ids with labels or class scores.", show_default=False
        ),
    ] = None,
    *,
    dataset: DatasetName,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the system.", show_default=False)
    ] = None,
    selection: Annotated[
        str | None,
        typer.Option(
            "--selection",
            metavar="TEXT",
            help="How model, prompt or epoch were chosen, shown as you state it: 'best dev weighted F1', 'zero-shot', "
            "'unknown'.",
            show_default=False,
        ),
    ] = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            "--modalities", metavar="LIST", help="What the system was given, such as text,audio.", show_default=False
        ),
    ] = None,
    labels: LabelsId = None,
    protocol: ProtocolId = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            metavar="ID",
            help="Only if the system read this feature set of the dataset: it is then ranked with the runs that did.",
            show_default=False,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", metavar="FORMAT", help="csv, jsonl or parquet; default: by the name.", show_default=False
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--source",
            metavar="TEXT",
            help="Where the system is described: title, arXiv id, DOI or repository.",
            show_default=False,
        ),
    ] = "",
    note: Annotated[
        str, typer.Option("--note", metavar="TEXT", help="What else there is to say.", show_default=False)
    ] = "",
    seed: Annotated[
        int, typer.Option("--seed", metavar="N", min=0, help="Tells several runs of the same system apart.")
    ] = 0,
    out: Out = Path("runs"),
    template: Annotated[
        Path | None,
        typer.Option(
            "--template", metavar="FILE", help="Write a file with all the ids to fill in, instead.", show_default=False
        ),
    ] = None,
    keep_predictions: Annotated[
        bool,
        typer.Option(
            "--keep-predictions",
            help="Where the corpus forbids to pass on labels of utterances: write them too, to a .private.npz.",
        ),
    ] = False,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Score what any other system predicted, and write a record.

    \b
    Examples:
      mer-bench score --dataset meld --template answers.csv
      mer-bench score answers.csv --dataset meld --name my-llm --modalities text --selection zero-shot
      mer-bench score s1.jsonl --dataset iemocap --name my-net --modalities text,audio --seed 1 \\
        --selection "best dev weighted F1" --source "arXiv 2401.00001"

    \b
    A file has the column id, and label (a class by name or number) or one column for each class (probabilities
    or log-probabilities). Every utterance of the test split is there once.

    \b
    Exit codes:
      0 done, 1 the record could not be written, 2 the request or the file was wrong
    """
    from mer_bench import external
    from mer_bench.cli.console import Screen
    from mer_bench.cli.run import record_path, show_results, warn_of_lost_classes
    from mer_bench.errors import RequestError

    screen = Screen(quiet_output=as_json)
    if template is not None:
        if predictions is not None:
            raise RequestError(f"--template writes a file to fill in, and {predictions} is one to score; give one.")
        split = external.write_template(template, dataset, labels, protocol, file_format, data_root)
        if as_json:
            screen.answer({"file": template, "utterances": len(split.ids), "classes": list(split.classes)})
        screen.line(f"{len(split.ids)} ids of {split.name}; fill in label, or a score for each class")
        screen.exactly(f"template: {template}")
        return
    if predictions is None:
        raise RequestError(
            "no file of predictions was named. Give one, or write one to fill in: mer-bench score --dataset "
            f"{dataset} --template answers.csv"
        )
    if name is None:
        raise RequestError("--name is missing: what is the system called in a table?")
    if selection is None:
        raise RequestError(
            "--selection is missing: how were model, prompt or epoch chosen? It is shown as you state it; 'zero-shot' "
            "and 'unknown' are answers."
        )
    scored = external.score(
        external.ScoreRequest(
            predictions=predictions,
            dataset=dataset,
            name=name,
            selection=selection,
            labels=labels,
            features=features,
            protocol=protocol,
            modalities=parse_modalities(modalities),
            file_format=file_format,
            source=source,
            note=note,
            seed=seed,
            out=out,
            data_root=data_root,
            keep_predictions=keep_predictions,
        )
    )
    record = scored.record
    if as_json:
        screen.answer(record.model_dump(mode="json"))
    else:
        show_results(screen, [record], several=False)
    screen.line()
    if record.external:
        _show_statements(screen, record.external)
    if scored.ignored:
        screen.line(f"columns that were not read: {', '.join(scored.ignored)}", tone="quiet")
    warn_of_lost_classes(screen, [record])
    screen.exactly(f"record: {record_path(out, record)}")


def _show_statements(screen: Screen, external: External) -> None:
    """What nobody but the submitter can know."""
    stated = {"selection": external.selection_rule, "source": external.source, "note": external.note}
    screen.pairs([(f"{name}, as stated", text) for name, text in stated.items() if text])
