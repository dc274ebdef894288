"""What a store learnt from its train split, applied to dialogues that it does not hold.

A store keeps the encoders of its texts and the scalers of its measurements (`pipeline.npz` and the settings in its
manifest), so that new dialogues become features in just the way in which those of dev and test did. A feature set
whose text part is too large to be kept, a transformer, names it, and the same one is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.data.corpus import speaker_indices
from mer_bench.data.own.arrays import RawArray, Rows, joined
from mer_bench.data.scaling import Standardiser
from mer_bench.data.store import Store
from mer_bench.data.text.encoding import ENCODERS, EncoderChain
from mer_bench.data.unseen.dialogues import Measured, UnseenDialogues
from mer_bench.errors import DataError

FAR = 30.0
"""Deviations from the train mean at which a measurement is likely to be in another unit."""
FEW_KNOWN = 0.5
"""Share of words that an encoder knows below which the user is told."""


@dataclass(frozen=True)
class Encoded:
    """New dialogues as a model takes them.

    Attributes:
        missing: Modalities of which nothing at all was given.
        notes: What the user should be told, one sentence each.

    Shapes:
        features[m]: (utterances, width), float32, zero where missing. present[m]: (utterances,), bool.
        speakers: (utterances,), int16. offsets: (dialogues + 1,), int64.
    """

    features: dict[str, NDArray[np.float32]]
    present: dict[str, NDArray[np.bool_]]
    speakers: NDArray[np.int16]
    offsets: NDArray[np.int64]
    missing: tuple[str, ...]
    notes: list[str]


def reads_words(store: Store, modality: str) -> bool:
    """Whether a modality of a store was encoded from what is said."""
    settings = store.manifest.settings.get(modality)
    return modality == "text" and isinstance(settings, dict) and bool(settings) and set(settings) <= set(ENCODERS)


def encode(
    store: Store,
    modalities: Sequence[str],
    dialogues: UnseenDialogues,
    arrays: Mapping[str, RawArray] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Encoded:
    """Make features of new dialogues, as the store's own were made.

    Args:
        modalities: Of the model, in its order.
        arrays: Measurements in files of their own, by modality.
        options: What cannot be kept with a store: `{"transformer": "FOLDER"}`.

    Raises:
        DataError: If measurements do not fit those of the store; names the modality.
        MissingDataError: If an encoder needs something that is not there.
    """
    pipeline = store.pipeline()
    notes = list(dialogues.notes)
    features, present, missing = {}, {}, []
    for modality in modalities:
        given = _given(modality, dialogues, (arrays or {}).get(modality))
        own = {
            name.removeprefix(f"{modality}."): array
            for name, array in pipeline.items()
            if name.startswith(f"{modality}.")
        }
        width = store.widths[modality]
        if reads_words(store, modality):
            if given is not None:
                raise DataError(
                    f"{store.manifest.dataset}/{store.manifest.features} makes its text features of what is said, so "
                    "numbers of the modality text cannot be taken; give a column text."
                )
            if dialogues.texts is not None:
                chain = EncoderChain.from_state(own, store.manifest.settings[modality], options)
                features[modality] = chain.transform(dialogues.texts)
                present[modality] = np.ones(len(dialogues), dtype=np.bool_)
                notes += _of_texts(chain, dialogues.texts)
        elif given is not None:
            values, there = given
            columns = _columns(store, modality, own)
            ordered = _ordered(modality, values, columns, store)
            features[modality] = _scaled(modality, ordered, there, own, columns, store, notes)
            present[modality] = there
        if modality not in features:
            missing.append(modality)
            features[modality] = np.zeros((len(dialogues), width), dtype=np.float32)
            present[modality] = np.zeros(len(dialogues), dtype=np.bool_)
        if features[modality].shape[1] != width:
            raise DataError(
                f"the text part kept in {store.folder} gives {features[modality].shape[1]} features, but the store has "
                f"{width}. Prepare it again with: mer-bench data prepare {store.manifest.dataset}"
            )
        gone = int((~present[modality]).sum())
        if 0 < gone < len(dialogues):
            notes.append(f"{modality} is missing in {gone} of {len(dialogues)} utterances; the model is told so.")
    return Encoded(
        features=features,
        present=present,
        speakers=speaker_indices(dialogues.speakers, dialogues.lengths),
        offsets=np.cumsum([0, *dialogues.lengths], dtype=np.int64),
        missing=tuple(missing),
        notes=notes,
    )


def _of_texts(chain: EncoderChain, texts: Sequence[str]) -> list[str]:
    blank = sum(not text.strip() for text in texts)
    notes = [f"{blank} of {len(texts)} utterances have no words."] if blank else []
    for name, encoder in chain.encoders.items():
        for what, value in encoder.noticed(texts).items():
            # That some words are unknown is usual; that most are speaks of another language or domain.
            if isinstance(value, int) or value < FEW_KNOWN:
                notes.append(f"{name}: {what}: {value}.")
    return notes


def _given(
    modality: str, dialogues: UnseenDialogues, raw: RawArray | None
) -> tuple[Measured, NDArray[np.bool_]] | None:
    """Measurements of a modality and where there are any; None where none were given."""
    inside = dialogues.measured.get(modality)
    if raw is None:
        if inside is None:
            return None
        there = np.asarray(~np.isnan(inside.values).all(axis=1), dtype=np.bool_)
        return (inside, there) if there.any() else None
    if inside is not None:
        raise DataError(f"{modality} stands both in {raw.file} and among the dialogues; give it once.")
    by_row = np.argsort(np.asarray(dialogues.rows))
    ids = dialogues.utterances or [str(row + 1) for row in dialogues.rows]
    in_file = [ids[place] for place in by_row.tolist()]
    aliases = {name: place for place, name in enumerate(in_file) if in_file.count(name) == 1}
    turns = zip(dialogues.dialogue_of_utterance, dialogues.turns, strict=True)
    full = [f"{dialogue}/{turn}" for dialogue, turn in turns]
    aliases |= {full[place]: number for number, place in enumerate(by_row.tolist())}
    rows = Rows(f"the {len(dialogues)} utterances", by_row, in_file, aliases)
    values, there = joined(raw, rows)
    placed, found = np.zeros_like(values, dtype=np.float64), np.zeros(len(dialogues), dtype=np.bool_)
    placed[by_row], found[by_row] = values, there
    return Measured(placed, raw.columns), found


def _columns(store: Store, modality: str, own: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Names of the measurements that a store was made from; their places where they have none."""
    settings = store.manifest.settings.get(modality)
    named = settings.get("columns") if isinstance(settings, dict) else None
    if named:
        return tuple(named)
    width = len(own["mean"]) if "mean" in own else store.widths[modality]
    return tuple(str(place) for place in range(width))


def _ordered(modality: str, given: Measured, columns: tuple[str, ...], store: Store) -> NDArray[np.float64]:
    """The values in the store's order of columns: by name where they have names, else by place."""
    what = f"{store.manifest.dataset}/{store.manifest.features}"
    if given.columns:
        lacking = [name for name in columns if name not in given.columns]
        foreign = [name for name in given.columns if name not in columns]
        if lacking or foreign:
            faults = [f"no {modality}.{lacking[0]}"] if lacking else []
            faults += [f"{modality}.{foreign[0]}, which it does not know"] if foreign else []
            raise DataError(
                f"{what} measured {modality} by {len(columns)} columns ({', '.join(columns)[:200]}), but there is "
                f"{' and '.join(faults)}."
            )
        return given.values[:, [given.columns.index(name) for name in columns]]
    if given.values.shape[1] != len(columns):
        raise DataError(
            f"{what} measured {modality} by {len(columns)} numbers an utterance, but {given.values.shape[1]} were "
            "given."
        )
    return given.values


def _scaled(
    modality: str,
    values: NDArray[np.float64],
    there: NDArray[np.bool_],
    own: Mapping[str, NDArray[Any]],
    columns: tuple[str, ...],
    store: Store,
    notes: list[str],
) -> NDArray[np.float32]:
    """Measurements standardised as those of the store were; as they are where it scaled nothing."""
    if "mean" not in own:
        if np.isnan(values[there]).any():
            raise DataError(f"{modality} has blanks, which {store.manifest.key} has no way to fill.")
        notes.append(f"{store.manifest.key} has no scaler of {modality}: the numbers were taken as they are.")
        return np.where(there[:, None], values, 0).astype(np.float32)
    indicated = store.manifest.settings[modality]["indicated"]
    scaler = Standardiser.from_state(own, {"columns": columns, "indicated": indicated})
    with np.errstate(over="ignore", invalid="ignore"):
        features = scaler.transform(values, there)
    if not np.isfinite(features).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(features))[0])
        raise DataError(
            f"{modality} column {columns[column]} is {values[row, column]}, which is beyond any measurement."
        )
    far = np.abs(features[:, : len(columns)]).max(axis=0, initial=0)
    if far.max(initial=0) > FAR:
        column = int(far.argmax())
        notes.append(
            f"{modality} column {columns[column]} lies {far[column]:.0f} deviations from the train mean; "
            "is it in the same unit?"
        )
    return features
