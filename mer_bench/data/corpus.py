"""A corpus as its files tell it, and the one way from there to a feature store.

Whatever brings dialogues here (a published csv, a community pickle, a user's own tables) ends in a
`Corpus`: ids, speakers, labels, texts and measured values, with nothing fitted and nothing scaled.
`make_store` does the rest alike for all of them: it leaves out what the label set leaves out, puts the
splits in order, encodes the texts and standardises the measurements, all fitted on train alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mer_bench.cards import DatasetCard
from mer_bench.data.preparation import PreparationRequest
from mer_bench.data.scaling import Standardiser
from mer_bench.data.store import SPLITS, StoreContent
from mer_bench.data.text.encoding import EncodedTexts, TrainTexts, fit_text
from mer_bench.errors import DataError


@dataclass(frozen=True)
class Measurements:
    """Values of one modality, a row an utterance, in the unit in which they were measured.

    Attributes:
        source: What measured them, in words.
        columns: Name of each column; () where they have none.
        scaled: They are features already, of an exported store, and are used as they are.

    Shapes:
        values: (utterances, columns), float; NaN where blank. Nothing is read from rows that are missing.
        present: (utterances,), bool; False: the whole row is missing.
    """

    values: NDArray[np.floating[Any]]
    present: NDArray[np.bool_]
    source: str
    columns: tuple[str, ...] = ()
    scaled: bool = False


@dataclass(frozen=True)
class Corpus:
    """Dialogues of a corpus, one after the other, in any order of their splits.

    Attributes:
        dialogue_ids: Unique. lengths: Utterances of each dialogue, at least 1.
        splits: Index into SPLITS of each dialogue.
        utterance_ids: Unique, by dialogue and turn.
        speakers: Who speaks each utterance: a name or a number, the same for the same speaker of a dialogue.
        labels: Class index of each utterance; -1 without one.
        texts: What is said in each utterance; None where the corpus has no text.
        measurements: By modality.
        subsets: Named parts of the corpus as the card lists them: (dialogues,), bool.
        notes: What was noticed while reading: name -> count or text.
    """

    dialogue_ids: Sequence[str]
    lengths: Sequence[int]
    splits: Sequence[int]
    utterance_ids: Sequence[str]
    speakers: Sequence[str] | Sequence[int]
    labels: Sequence[int]
    texts: Sequence[str] | None = None
    measurements: Mapping[str, Measurements] = field(default_factory=dict)
    subsets: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dialogue_index(self) -> NDArray[np.int64]:
        """Index of the dialogue of each utterance: (utterances,)."""
        return np.repeat(np.arange(len(self.lengths)), np.asarray(self.lengths, dtype=np.int64))

    def labelled(self) -> Corpus:
        """The corpus without the utterances that have no label, and without dialogues that end up empty."""
        kept = np.asarray(self.labels) >= 0
        return self if kept.all() else self._taken(np.flatnonzero(kept))

    def by_split(self) -> Corpus:
        """The corpus with the dialogues of train first, then dev, then test, each in the order they had."""
        splits = np.asarray(self.splits)
        if (np.diff(splits) >= 0).all():
            return self
        order = np.argsort(splits, kind="stable")
        starts = np.cumsum([0, *self.lengths])
        rows = [np.arange(starts[dialogue], starts[dialogue + 1]) for dialogue in order.tolist()]
        return self._taken(np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64))

    def _taken(self, rows: NDArray[np.int64]) -> Corpus:
        """Some utterances in a new order, in which those of a dialogue stand together."""
        dialogue = self.dialogue_index[rows]
        kept = dialogue[np.sort(np.unique(dialogue, return_index=True)[1])]
        lengths = np.bincount(dialogue, minlength=len(self.lengths))[kept].tolist()

        def picked(values: Sequence[Any], places: NDArray[np.int64]) -> list[Any]:
            return [values[place] for place in places.tolist()]

        return replace(
            self,
            dialogue_ids=picked(self.dialogue_ids, kept),
            lengths=lengths,
            splits=picked(self.splits, kept),
            utterance_ids=picked(self.utterance_ids, rows),
            speakers=picked(self.speakers, rows),
            labels=picked(self.labels, rows),
            texts=None if self.texts is None else picked(self.texts, rows),
            measurements={
                name: replace(each, values=each.values[rows], present=each.present[rows])
                for name, each in self.measurements.items()
            },
            subsets={name: chosen[kept] for name, chosen in self.subsets.items()},
        )


def make_store(corpus: Corpus, card: DatasetCard, request: PreparationRequest) -> StoreContent:
    """Turn a corpus into the arrays of a store.

    The feature set of the card says what becomes of the texts: its `text` names the encoders whose features
    stand side by side as the modality `text`. Every other modality of its `widths` is a measurement.

    Raises:
        DataError: If a modality is not there, or the train split is too small to fit what is fitted.
        MissingDataError: If an encoder needs an option that was not given.
    """
    features = card.feature_sets[request.features]
    labels = card.label_sets[request.labels]
    corpus = (corpus if labels.unlabelled == "context" else corpus.labelled()).by_split()
    in_train = np.asarray(corpus.splits)[corpus.dialogue_index] == 0
    if not in_train.any():
        raise DataError(f"the train split of {request.features} has no utterances.")
    values: dict[str, NDArray[np.float32]] = {}
    present: dict[str, NDArray[np.bool_]] = {}
    settings: dict[str, Any] = {"fitted_on": "train"}
    notes: dict[str, Any] = dict(corpus.notes)
    pipeline: dict[str, NDArray[Any]] = {}
    for modality in (name for name in card.modalities if name in features.widths):
        if modality == "text" and features.text:
            encoded = _encode(corpus, in_train, len(labels.classes), features.text, request)
            values[modality], settings[modality], arrays = encoded.features, encoded.settings, encoded.arrays
            present[modality] = np.ones(len(corpus.utterance_ids), dtype=np.bool_)
            notes.update(encoded.notes)
        else:
            if modality not in corpus.measurements:
                raise DataError(f"{request.features} has no values of the modality {modality}.")
            measured = corpus.measurements[modality]
            values[modality], settings[modality], arrays = _standardise(measured, in_train)
            present[modality] = measured.present
            notes.update(_blanks(corpus, modality))
        pipeline.update({f"{modality}.{name}": array for name, array in arrays.items()})
    return StoreContent(
        features=values,
        present=present,
        speakers=speaker_indices(corpus.speakers, corpus.lengths),
        labels=np.array(corpus.labels, dtype=np.int16),
        utterance_ids=corpus.utterance_ids,
        dialogue_ids=corpus.dialogue_ids,
        offsets=np.cumsum([0, *corpus.lengths], dtype=np.int64),
        splits=np.array(corpus.splits, dtype=np.uint8),
        classes=labels.classes,
        texts=corpus.texts,
        subsets=corpus.subsets,
        settings=settings,
        notes=notes,
        pipeline=pipeline,
    )


def speaker_indices(speakers: Sequence[str] | Sequence[int], lengths: Sequence[int]) -> NDArray[np.int16]:
    """Index of each utterance's speaker, by first appearance in the dialogue."""
    found: list[int] = []
    for length in lengths:
        numbers: dict[str | int, int] = {}
        start = len(found)
        found += [numbers.setdefault(name, len(numbers)) for name in speakers[start : start + length]]
    return np.array(found, dtype=np.int16)


def _standardise(
    measured: Measurements, in_train: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], dict[str, Any], dict[str, NDArray[Any]]]:
    """Features, settings and pipeline of a measured modality."""
    if measured.scaled:
        values = np.where(measured.present[:, None], measured.values, 0).astype(np.float32)
        return values, {"width": values.shape[1], "scaled": "before", "source": measured.source}, {}
    names = measured.columns or tuple(f"column {place}" for place in range(measured.values.shape[1]))
    scaler = Standardiser.fit(measured.values[in_train], measured.present[in_train], names)
    arrays, told = scaler.state()
    if not measured.columns:
        told = {"width": len(names), "indicated": told["indicated"]}
    return scaler.transform(measured.values, measured.present), {**told, "source": measured.source}, arrays


def _blanks(corpus: Corpus, modality: str) -> dict[str, Any]:
    """What to note of a measured modality: missing rows, and blanks that were filled."""
    measured = corpus.measurements[modality]
    split_of = np.asarray(corpus.splits)[corpus.dialogue_index]
    found: dict[str, Any] = {}
    for number, split in enumerate(SPLITS):
        here = split_of == number
        there = here & measured.present
        blanks = np.isnan(measured.values[there]).sum(axis=0)
        names = measured.columns or tuple(f"column {place}" for place in range(measured.values.shape[1]))
        found[f"{split}: utterances without {modality}"] = int((here & ~measured.present).sum())
        found[f"{split}: blanks of {modality} set to the train mean"] = {
            name: int(count) for name, count in zip(names, blanks, strict=True) if count
        }
    return {name: value for name, value in found.items() if value}


def _encode(
    corpus: Corpus,
    in_train: NDArray[np.bool_],
    class_count: int,
    encoders: Sequence[str],
    request: PreparationRequest,
) -> EncodedTexts:
    """The texts of a corpus in the order of its splits, encoded."""
    if corpus.texts is None:
        raise DataError(f"{request.features} needs texts, which the dialogues do not have.")
    split_of = np.asarray(corpus.splits)[corpus.dialogue_index].tolist()
    texts: dict[str, list[str]] = {split: [] for split in SPLITS}
    for text, split in zip(corpus.texts, split_of, strict=True):
        texts[SPLITS[split]].append(text)
    train = TrainTexts(
        texts=texts.pop("train"),
        labels=np.asarray(corpus.labels)[in_train],
        dialogues=corpus.dialogue_index[in_train],
        class_count=class_count,
    )
    return fit_text(encoders, train, texts, request.options)
