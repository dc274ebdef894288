"""A model as its record describes it, with its weights and the store that it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_bench import registry
from mer_bench.api import InputSpec
from mer_bench.cards import ModelCard
from mer_bench.config import FILLED_IN
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.data.store import Store
from mer_bench.errors import CardError, RecordError, RequestError
from mer_bench.locations import StoreKey, data_root
from mer_bench.model_settings import Settled, settle
from mer_bench.records import Features, Record, read_record, weights_file
from mer_bench.request import model_code_of
from mer_bench.runner import weights_prefix

if TYPE_CHECKING:
    import torch

    from mer_bench.api import Model


@dataclass(frozen=True)
class TrainedModel:
    """A model that can label, and the store whose dialogues it learnt from.

    Attributes:
        card: What holds for the model with the record's settings.
        fold: Which of the record's models it is; None where it has but one.
        notes: What the user should know of the store, one sentence each.
    """

    record: Record
    fold: int | None
    card: ModelCard
    store: Store
    network: Model
    notes: list[str]

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order in which the model takes them."""
        return self.record.modalities


def open_trained(file: Path, fold: int | None, root: Path | None, device: torch.device) -> TrainedModel:
    """Build the model of a record again, with its weights.

    Args:
        file: The record.
        fold: From 1; needed where the record is of several folds.
        root: The data folder; None is the default one.

    Raises:
        RecordError: If the record is damaged, or its weights are.
        RequestError: If it is of no trained model, or model, weights or features are not those of the run.
        MissingDataError: If the store is not there and cannot be prepared without the user.
    """
    if file.is_dir() or file.name.endswith((".safetensors", ".npz")):
        raise RequestError(f"{file} is no record; a record is a file that ends in .json: --run RUN.json")
    record = read_record(file)
    _check_trained(record, file)
    detail = _features_of(record, fold)
    settled = _settled(record)
    weights = weights_file(file.parent, record.run)
    if not weights.is_file():
        raise RequestError(
            f"{weights.name} is not beside the record, and without its weights a model can label nothing; they are "
            f"written by the run and never committed. Train it again with: {_run_command(record)}"
        )
    key = _key(record, fold, root)
    store = open_or_prepare(key, data_root(root))
    notes = _check_store(record, detail, store)
    network = _network(record, store, settled)
    _load(network, weights, weights_prefix(fold))
    return TrainedModel(record, fold, settled.card, store, network.to(device).eval(), notes)


def _check_trained(record: Record, file: Path) -> None:
    if record.kind != "run":
        raise RequestError(f"{file.name} holds the scores of another system, whose model is not here.")
    if record.status != "done":
        raise RequestError(f"{file.name} is the record of a run that failed; it has no model.")
    if record.test_condition is not None:
        raise RequestError(
            f"{file.name} is a record under the test condition {record.test_condition.name}; give the record of the "
            "run whose model that was, which lies beside it."
        )


def _features_of(record: Record, fold: int | None) -> Features:
    """Which features the model that is asked for was trained on.

    Raises:
        RequestError: If a fold must be chosen, or there is no such fold.
    """
    if not record.folds:
        if fold is not None:
            raise RequestError(f"{record.run} has one model and no folds, but fold {fold} was asked for.")
        assert record.features_detail is not None  # every run has it
        return record.features_detail
    if fold is None:
        raise RequestError(
            f"{record.run} has {len(record.folds)} folds ({record.protocol}), each with a model of its own; choose one "
            "with --fold N."
        )
    if not 1 <= fold <= len(record.folds):
        raise RequestError(f"{record.run} has the folds 1 to {len(record.folds)}, but fold {fold} was asked for.")
    return record.folds[fold - 1].features_detail


def _settled(record: Record) -> Settled:
    """The model's card and settings; the code must be the one that was trained.

    Raises:
        UnknownNameError, RequestError: If there is no such model here, or it is another version or code.
    """
    plugin = registry.models().find(record.model)
    kind = registry.settings_class(record.model)
    settled = settle(plugin.card, kind, record.dataset, _as_requested(record.settings), "in the record")
    if settled.card.version != record.model_version:
        raise RequestError(
            f"{record.run} was trained by version {record.model_version} of {record.model}, and version "
            f"{settled.card.version} is installed. Train it again with: {_run_command(record)}"
        )
    code = model_code_of([plugin, *(registry.models().find(name) for name in settled.inside)])
    if (code and code.sha256) != (record.model_code and record.model_code.sha256):
        raise RequestError(
            f"the code of {record.model} is not the one that was trained: its checksum differs from the record's. "
            "Give the very file or folder with --plugin, or train the model again."
        )
    return settled


def _as_requested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a request writes them: those of a model inside as `inner.NAME`."""
    inner = settings.get("inner_settings") or {}
    own = {name: value for name, value in settings.items() if name not in FILLED_IN}
    return own | ({f"inner.{name}": value for name, value in _as_requested(inner).items()} if inner else {})


def _key(record: Record, fold: int | None, root: Path | None) -> StoreKey:
    names = (record.features, record.labels, record.protocol)
    return resolve(record.dataset, *names, fold=fold, root=root)


def _check_store(record: Record, detail: Features, store: Store) -> list[str]:
    """Whether the store holds the features that the model was trained on; notes where it may differ in last digits.

    Raises:
        RequestError: If it was made from other files or in another way.
    """
    manifest = store.manifest
    if manifest.sources_checksum != detail.sources:
        raise RequestError(
            f"{record.run} was trained on {record.features} made from other files, or in another way, than the store "
            f"in {store.folder}. Prepare it from the same files, or train the model again: {_run_command(record)}"
        )
    assert record.test is not None
    if tuple(record.test.classes) != store.classes:
        raise CardError(f"the classes of {manifest.key} are not those of the record.")
    if manifest.store_checksum != detail.store:
        return [
            "the features were made on another machine than those that the model learnt from; the last digits of "
            "scores may differ."
        ]
    return []


def _network(record: Record, store: Store, settled: Settled) -> Model:
    spec = InputSpec({name: store.widths[name] for name in record.modalities}, store.classes, store.speakers)
    network: Model = registry.load_model(record.model).model_class(spec, settled.settings)
    return network


def _load(network: Model, file: Path, prefix: str) -> None:
    """Put the weights of a run, or of one of its folds, into a model.

    Raises:
        RecordError: If the file is damaged or holds the weights of another model.
    """
    from safetensors import SafetensorError, safe_open

    found: dict[str, torch.Tensor] = {}
    try:
        with safe_open(file, "pt") as archive:
            for name in archive.keys():  # noqa: SIM118 - no mapping
                if name.startswith(prefix):
                    found[name.removeprefix(prefix)] = archive.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise RecordError(f"{file} cannot be read: {error}. Train the model again.") from None
    wanted = network.state_dict()
    other = [name for name in {**wanted, **found} if name not in wanted or name not in found]
    other += [name for name in wanted if name in found and wanted[name].shape != found[name].shape]
    if other:
        raise RecordError(f"{file} holds the weights of another model: {other[0]} does not fit the record's settings.")
    network.load_state_dict(found)


def _run_command(record: Record) -> str:
    features, labels, protocol = (each.partition("/")[2] for each in (record.features, record.labels, record.protocol))
    return (
        f"mer-bench run --model {record.model} --dataset {record.dataset} --features {features} --labels {labels} "
        f"--protocol {protocol} --modalities {','.join(record.modalities)} --seed {record.seed} --settings FILE"
    ).removesuffix(" --settings FILE" if not record.options.get("settings") else "")
