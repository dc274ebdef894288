"""From a file of predictions to a record on disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mer_bench import __version__, locations, registry
from mer_bench.atomic import remove_abandoned, storage_errors
from mer_bench.data.files import sha256_of_file
from mer_bench.data.preparation import resolve
from mer_bench.errors import RecordError, RequestError
from mer_bench.external.matching import predictions_of
from mer_bench.external.reading import format_of, read_rows
from mer_bench.external.request import ScorePlan, ScoreRequest, plan
from mer_bench.external.scored_split import ScoredSplit, open_stores, scored_split
from mer_bench.external.template import write_blank
from mer_bench.identity import external_identity
from mer_bench.recording import check_writable, features_of, write_result
from mer_bench.records import External, Features, PredictionsFile, Record, read_record, record_folder

if TYPE_CHECKING:
    from mer_bench.predictions import DialogueCounts, Predictions


@dataclass(frozen=True)
class Scored:
    """A record that was written, and what its submitter should be told besides.

    Attributes:
        ignored: Columns of the file that nothing read.
    """

    record: Record
    ignored: tuple[str, ...]


def score(request: ScoreRequest) -> Scored:
    """Check predictions against the dataset, score them as every run is scored, and write a record of kind `external`.

    Raises:
        RequestError: If a name or a stated text is wrong, data are missing, other predictions have the same name and
            seed, or the file is not right: names the line and what to do.
        StorageError: If the record cannot be written.
    """
    planned = plan(request)
    format_of(request.predictions, request.file_format)
    check_writable(request.out)
    root = locations.data_root(request.data_root)
    stores = open_stores(planned.key, planned.card, root, planned.own_features)
    split = scored_split(stores, planned.card)
    rows = read_rows(request.predictions, split.classes, request.file_format)
    predictions = predictions_of(rows, split)
    features = None if planned.own_features else features_of(stores, planned.modalities)
    stated = External(
        name=request.name,
        selection_rule=planned.request.selection,
        source=planned.request.source,
        note=planned.request.note,
        file_sha256=sha256_of_file(request.predictions),
        test_split=split.checksum,
    )
    return Scored(_written(planned, predictions, stated, features), rows.ignored)


def write_template(
    file: Path,
    dataset: str,
    labels: str | None = None,
    protocol: str | None = None,
    file_format: str | None = None,
    data_root: Path | None = None,
) -> ScoredSplit:
    """Write a file with the ids of all utterances that are scored, in order, and blank columns to fill in.

    Raises:
        RequestError: If a name is wrong, data are missing or the file is there already.
        StorageError: If it cannot be written.
    """
    format_of(file, file_format)
    key = resolve(dataset, labels=labels, protocol=protocol, root=data_root)
    card = registry.datasets(data_root).find(dataset).card
    split = scored_split(open_stores(key, card, locations.data_root(data_root), any_features=True), card)
    write_blank(file, split.ids, split.classes, file_format)
    return split


def _written(planned: ScorePlan, predictions: Predictions, stated: External, features: Features | None) -> Record:
    from mer_bench.metrics import score as score_predictions

    request = planned.request
    folder = record_folder(request.out, (planned.key.dataset, request.name))
    identity = _identity(planned, predictions, features.sources if features else stated.test_split)
    start = f"{request.name}.{planned.features.partition('/')[2]}.seed{request.seed}."
    name = f"{start}{identity[:12]}"

    def describe(stored: Predictions | DialogueCounts, file: PredictionsFile) -> Record:
        return Record(
            kind="external",
            run=name,
            identity=identity,
            status="done",
            dataset=planned.key.dataset,
            labels=planned.labels,
            features=planned.features,
            features_detail=features,
            protocol=planned.protocol,
            protocol_version=planned.card.protocols[planned.key.protocol].version,
            modalities=planned.modalities,
            synthetic=planned.card.synthetic,
            model=request.name,
            model_version=None,
            seed=request.seed,
            settings={},
            training={},
            options={},
            curve=[],
            selection=None,
            dev=None,
            test=score_predictions(stored),
            predictions=file,
            cost=None,
            machine=None,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            version=__version__,
            external=stated,
        )

    _refuse_a_second(folder, start, identity, planned)
    with storage_errors(f"write records to {request.out}"):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder / name)
        remove_abandoned(folder / f".{name}")
        return write_result(
            folder,
            name,
            predictions,
            describe,
            redistribute=planned.card.redistribute,
            keep_predictions=request.keep_predictions,
        )


def _identity(planned: ScorePlan, predictions: Predictions, sources: str) -> str:
    """The identity of these predictions under their name."""
    return external_identity(
        dataset=planned.key.dataset,
        dataset_version=planned.card.version,
        labels=planned.labels,
        features=planned.features,
        sources=sources,
        protocol=planned.protocol,
        protocol_version=planned.card.protocols[planned.key.protocol].version,
        modalities=planned.modalities,
        name=planned.request.name,
        seed=planned.request.seed,
        predictions=predictions,
    )


def _refuse_a_second(folder: Path, start: str, identity: str, planned: ScorePlan) -> None:
    """Two files of predictions under one name and seed would count twice in a row of a table.

    Raises:
        RequestError: If there is a record of other predictions.
    """
    for file in sorted(folder.glob(f"{start}*.json")):
        try:
            other = read_record(file)
        except RecordError:
            continue
        same = (other.labels, other.protocol, other.modalities) == (
            planned.labels,
            planned.protocol,
            planned.modalities,
        )
        if same and other.identity != identity:
            raise RequestError(
                f"{file} already holds other predictions of {planned.request.name} with seed {planned.request.seed}. "
                "Give another --seed for another run of the same system, another --name for another system, or delete "
                "that record and its predictions."
            )
