"""`mer-bench data prepare`: turn raw files into feature stores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mer_bench.cli.data.names import DatasetOrFeatures, FeaturesId, named_features
from mer_bench.cli.data.verifying import overlap_rows, show_overlap
from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, ProtocolId


def prepare_data(
    *,
    name: DatasetOrFeatures,
    features: FeaturesId = None,
    labels: LabelsId = None,
    protocol: ProtocolId = None,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Word vectors: text, word2vec or npz; gzip too.", show_default=False),
    ] = None,
    transformer: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A transformer: its folder, or NAME[@REVISION] on the hub.", show_default=False
        ),
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
      mer-bench data prepare meld/transcripts-transformer --transformer roberta-base
    """
    from mer_bench.cli.console import Screen, duration_text
    from mer_bench.data.preparation import prepare, resolve
    from mer_bench.locations import data_root as data_root_of

    screen = Screen(quiet_output=as_json)
    plugin, chosen = named_features(name, features, data_root)
    key = resolve(plugin.name, chosen, labels, protocol, root=data_root)
    folds = plugin.card.protocols[key.protocol].folds
    keys = [resolve(plugin.name, chosen, labels, protocol, fold, data_root) for fold in range(1, folds + 1)] or [key]
    given = {"vectors": vectors, "transformer": transformer}
    options = {option: value for option, value in given.items() if value is not None}
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
    notes = [(str(key), _note_text(value)) for key, value in manifest.notes.items()]
    screen.pairs([("widths", ", ".join(f"{name} {width}" for name, width in manifest.widths.items())), *notes])
    if overlap := overlap_rows(manifest.overlap or ()):
        screen.line()
        show_overlap(screen, overlap)


def _note_text(value: Any) -> str:
    """What was noticed, as a line: counts by name as `pitch 15, laughter 1`."""
    return ", ".join(f"{name} {count}" for name, count in value.items()) if isinstance(value, dict) else str(value)
