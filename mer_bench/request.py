"""What a user asks for, and the plan that it becomes once every name and setting in it was found to be right."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mer_bench import registry
from mer_bench.cards import DatasetCard, ModelCard
from mer_bench.config import Settings, TrainerSettings
from mer_bench.data.preparation import resolve
from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.locations import StoreKey
from mer_bench.model_settings import settle
from mer_bench.records import ModelCode, Tuned
from mer_bench.registry import Plugin


@dataclass(frozen=True)
class RunRequest:
    """What the user asked for; everything left out takes the card's default.

    Attributes:
        labels, features, protocol: Ids, short (`transcripts`) or full (`meld/transcripts`).
        modalities: In any order; None is every modality that model and feature set share.
        settings: Model and trainer fields by name, on top of the card's.
        out: Folder of records.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads; None leaves PyTorch's choice. Recorded, not part of the identity.
        deterministic: False lets a cuda device take quicker ways whose sums differ from one run to the next.
            Recorded, not part of the identity.
        data_root: Folder of data; None: $MER_BENCH_DATA, else the user's data folder.
        keep_predictions: Where the corpus forbids to pass on labels of utterances, write the predictions by
            utterance too, as a `.private.npz` beside the file that may be passed on.
        audit_selection: Keep each epoch's weights on disk while the run goes on and, after the record is written,
            score them on test into its `audit`. Not part of the identity.
        tuned: The study that chose the settings, for the record; `mer_bench.tuning.best` fills it in.
        stack: Seeds that are trained together in one pass, this one among them; empty: the seed is trained alone.
            Part of the identity, since the last bits of a seed depend on its company. See `mer_bench.stacking`.
    """

    model: str
    dataset: str
    labels: str | None = None
    features: str | None = None
    protocol: str | None = None
    modalities: tuple[str, ...] | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    out: Path = Path("runs")
    device: str = "auto"
    threads: int | None = None
    deterministic: bool = True
    data_root: Path | None = None
    keep_predictions: bool = False
    audit_selection: bool = False
    tuned: Tuned | None = None
    stack: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A request whose every name and setting was found to be right.

    Attributes:
        labels, features, protocol: Full ids: `meld/emotion`.
        modalities: In the dataset's order.
        model_card: What holds for the model with these settings; of a wrapper, together with what is inside.
        settings, training: Of the model and of the trainer, complete.
        model_code: Which code runs, where it did not come with mer-bench itself.
    """

    request: RunRequest
    key: StoreKey
    dataset: str
    labels: str
    features: str
    protocol: str
    modalities: tuple[str, ...]
    model: str
    model_card: ModelCard
    dataset_card: DatasetCard
    settings: Settings
    training: TrainerSettings
    model_code: ModelCode | None = None

    @property
    def model_title(self) -> str:
        """The model's name as written in a table."""
        return self.model_card.title

    @property
    def synthetic(self) -> bool:
        """True for made-up dialogues."""
        return self.dataset_card.synthetic

    @property
    def metric(self) -> str:
        """The dev metric that chooses the epoch."""
        return self.dataset_card.protocols[self.key.protocol].selection

    @property
    def folds(self) -> int:
        """How many folds the protocol has; 0 for one fixed split."""
        return self.dataset_card.protocols[self.key.protocol].folds

    @property
    def stores(self) -> tuple[StoreKey, ...]:
        """The feature stores of the run: one, or one a fold."""
        return tuple(replace(self.key, fold=fold) for fold in range(1, self.folds + 1)) or (self.key,)


def plan(request: RunRequest) -> Plan:
    """Check every name and setting of a request, without data and without torch.

    Raises:
        UnknownNameError, SettingError, RequestError: For the first thing that is wrong.
    """
    model = registry.models().find(request.model)
    dataset = registry.datasets(request.data_root).find(request.dataset)
    names = (request.features, request.labels, request.protocol)
    key = resolve(request.dataset, *names, root=request.data_root)
    settled = settle(model.card, registry.settings_class(model.name), dataset.name, request.settings)
    modalities = _modalities(request, settled.card, dataset.card, key)
    if request.seed < 0:
        raise RequestError(f"a seed must be 0 or more, but is {request.seed}.")
    if request.threads is not None and request.threads < 1:
        raise RequestError(f"threads must be 1 or more, but is {request.threads}.")
    _check_device_name(request.device)
    training = settled.training
    if request.stack and training.order_seed is None:
        training = training.model_copy(update={"order_seed": request.stack[0]})
    return Plan(
        request=request,
        key=key,
        dataset=dataset.name,
        labels=f"{dataset.name}/{key.labels}",
        features=f"{dataset.name}/{key.features}",
        protocol=f"{dataset.name}/{key.protocol}",
        modalities=modalities,
        model=model.name,
        model_card=settled.card,
        dataset_card=dataset.card,
        settings=settled.settings,
        training=training,
        model_code=model_code_of([model, *(registry.models().find(name) for name in settled.inside)]),
    )


def model_code_of(models: Sequence[Plugin[ModelCard]]) -> ModelCode | None:
    """The code of a model and of those inside it, as far as it did not come with mer-bench itself."""
    found = {}
    for model in models:
        if (checksum := registry.code_checksum(model)) is not None:
            place = model.files.path if model.files else None
            found[checksum] = model.distribution if place is None else "file" if place.is_file() else "folder"
    if not found:
        return None
    # Of several the checksum is one over theirs, in the order in which they hold each other.
    sha256 = next(iter(found)) if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()
    return ModelCode(origin=" and ".join(found.values()), sha256=sha256)


def read_settings_file(file: Path) -> dict[str, Any]:
    """The flat table of settings in a TOML file, for `--settings`.

    Raises:
        RequestError: If the file is not there or is not a flat TOML table.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise RequestError(f"the settings file {file} cannot be read: {reason}.") from None
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"the settings file {file} is not valid TOML: {error}.") from None
    nested = [name for name, setting in values.items() if isinstance(setting, dict)]
    if nested:
        raise RequestError(f"the settings file {file} should be flat, but has the table [{nested[0]}].")
    return values


def _modalities(request: RunRequest, model: ModelCard, dataset: DatasetCard, key: StoreKey) -> tuple[str, ...]:
    features = dataset.feature_sets[key.features]
    there = tuple(name for name in dataset.modalities if name in features.widths)
    usual = tuple(name for name in there if not features.modalities or name in features.modalities)
    if request.modalities is None:
        chosen = tuple(name for name in usual if name in model.modalities)
    else:
        for name in request.modalities:
            if name not in there:
                raise UnknownNameError(f"modality of {request.dataset}/{key.features}", name, there)
            if name not in model.modalities:
                raise RequestError(f"{request.model} takes {', '.join(model.modalities)}, but {name} was asked for.")
        chosen = tuple(name for name in there if name in request.modalities)
    missing = [name for name in model.needs if name not in chosen]
    if missing or not chosen:
        wanted = ", ".join(missing or model.modalities)
        raise RequestError(
            f"{request.model} needs {wanted}, but the run has {', '.join(chosen) or 'none of them'} "
            f"({request.dataset}/{key.features} has {', '.join(there)})."
        )
    return chosen


def _check_device_name(name: str) -> None:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise RequestError(f"a device is auto, cpu, cuda or cuda:N, but '{name}' was given.")


def seeds_of(request: RunRequest, count: int) -> list[RunRequest]:
    """The same request with the seeds from the request's own upwards."""
    return [replace(request, seed=request.seed + offset) for offset in range(count)]
