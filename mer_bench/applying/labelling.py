"""From a record and a file of dialogues to labels and scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_bench.applying.answers import Labelled
from mer_bench.data.own.arrays import ALL_MODALITIES, RawArray, read_arrays
from mer_bench.data.unseen.dialogues import UnseenDialogues, read_unseen
from mer_bench.errors import RequestError, RunError

if TYPE_CHECKING:
    from mer_bench.applying.trained import TrainedModel
    from mer_bench.data.unseen.pipeline import Encoded


@dataclass(frozen=True)
class Application:
    """What the user asked for.

    Attributes:
        run: The record of a trained model; its weights lie beside it.
        dialogues: A file (CSV, JSONL, Parquet), or rows as mappings; see `mer_bench.data.unseen.dialogues`.
        arrays: Files of measurements by modality: npy, npz, safetensors or Parquet; `features`: of several.
        fold: Which model, where the run has one for each fold.
        transformer: Folder or name of the transformer, where the features were made with one from a folder.
        device: `auto`, `cpu`, `cuda` or `cuda:N`. threads: CPU threads; None leaves PyTorch's choice.
        data_root: Folder of data; None: $MER_BENCH_DATA, else the user's data folder.
    """

    run: Path
    dialogues: Path | Iterable[Mapping[str, Any]]
    arrays: Mapping[str, Path] = field(default_factory=dict)
    fold: int | None = None
    transformer: str | None = None
    device: str = "auto"
    threads: int | None = None
    data_root: Path | None = None


def predict(application: Application) -> Labelled:
    """Label new dialogues with a trained model.

    A modality that nobody gave is missing, by its mask, and the answer's notes say so.

    Raises:
        RequestError: If the record, its weights, its features or the dialogues are not what is needed; nothing is
            guessed. DataError: For a wrong value, with its line.
    """
    from mer_bench.applying.trained import open_trained
    from mer_bench.data.unseen.pipeline import encode
    from mer_bench.request import RunRequest
    from mer_bench.runner import open_device

    wanted = RunRequest("", "", device=application.device, threads=application.threads)
    trained = open_trained(application.run, application.fold, application.data_root, open_device(wanted))
    dialogues = read_unseen(application.dialogues, trained.modalities)
    arrays = _arrays(application.arrays, trained)
    options = {"transformer": application.transformer} if application.transformer else {}
    encoded = encode(trained.store, trained.modalities, dialogues, arrays, options)
    _check_modalities(trained, encoded, dialogues)
    _check_speakers(trained, encoded, dialogues)
    return _labelled(trained, dialogues, encoded)


def _arrays(files: Mapping[str, Path], trained: TrainedModel) -> dict[str, RawArray]:
    found: dict[str, RawArray] = {}
    for modality, file in files.items():
        if modality not in (*trained.modalities, ALL_MODALITIES):
            raise RequestError(
                f"{trained.record.run} takes {', '.join(trained.modalities)}, but {file} was given as {modality}."
            )
        for name, raw in read_arrays(file, modality).items():
            if name in found:
                raise RequestError(f"both {found[name].file} and {file} hold {name}; give one of them.")
            if name in trained.modalities:
                found[name] = raw
    return found


def _check_modalities(trained: TrainedModel, encoded: Encoded, dialogues: UnseenDialogues) -> None:
    """Raises: RequestError: If a modality that the model cannot do without was not given."""
    from mer_bench.data.unseen.pipeline import reads_words

    given = [name for name in trained.modalities if name not in encoded.missing]
    lacking = [name for name in encoded.missing if name in trained.card.needs or not given]
    if not lacking:
        return
    name = lacking[0]
    how = f"--array {name}=FILE or columns {name}.NAME"
    if reads_words(trained.store, name):
        how = "a column text"
    what = f"{trained.record.model} cannot do without {name}" if given else f"there is nothing to label by: no {name}"
    raise RequestError(f"{what}, of which {dialogues.places[0].where} and the rest hold none. Give it by {how}.")


def _check_speakers(trained: TrainedModel, encoded: Encoded, dialogues: UnseenDialogues) -> None:
    """Raises: RequestError: If a dialogue has more speakers than a model that tells them apart has room for."""
    if not trained.card.uses_speakers:
        return
    for name, (start, stop) in zip(dialogues.dialogue_ids, pairwise(encoded.offsets.tolist()), strict=True):
        beyond = np.flatnonzero(encoded.speakers[start:stop] >= trained.store.speakers)
        if len(beyond):
            place = dialogues.places[start + int(beyond[0])]
            raise place.fault(
                "speaker",
                f"the dialogue '{name}' has more speakers than the {trained.store.speakers} that "
                f"{trained.record.model} learnt to tell apart",
            )


def _labelled(trained: TrainedModel, dialogues: UnseenDialogues, encoded: Encoded) -> Labelled:
    import torch

    from mer_bench.api import Split
    from mer_bench.trainer import log_probabilities

    device = next((each.device for each in trained.network.state_dict().values()), torch.device("cpu"))
    split = Split(
        name="new",
        features={name: torch.from_numpy(encoded.features[name]).to(device) for name in trained.modalities},
        present={name: torch.from_numpy(encoded.present[name]).to(device) for name in trained.modalities},
        speakers=torch.from_numpy(encoded.speakers).to(device=device, dtype=torch.long),
        offsets=torch.from_numpy(encoded.offsets),
    )
    answer = log_probabilities(trained.network, split)
    if not bool(torch.isfinite(answer).all()):
        raise RunError(f"{trained.record.model} gave scores that are not finite; its weights may be damaged.")
    # As the user gave them, which may not be the order of dialogues and turns.
    order = np.argsort(np.asarray(dialogues.rows))
    scores = answer.double().exp().numpy()[order]
    classes = trained.store.classes
    notes = list(trained.notes)
    for name in encoded.missing:
        notes.append(f"no {name} was given: every utterance is labelled without it, though the model learnt with it.")
    places = order.tolist()
    of = dialogues.dialogue_of_utterance
    return Labelled(
        classes=classes,
        dialogues=[of[place] for place in places],
        turns=[dialogues.turns[place] for place in places],
        utterances=None if dialogues.utterances is None else [dialogues.utterances[place] for place in places],
        speakers=[dialogues.speakers[place] for place in places],
        labels=[classes[index] for index in answer.argmax(dim=-1).numpy()[order].tolist()],
        scores=scores,
        missing=encoded.missing,
        notes=[*notes, *encoded.notes],
    )
