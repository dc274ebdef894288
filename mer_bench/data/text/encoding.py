"""The interface of the text encoders, which ones there are, and several side by side.

An encoder learns from the train split alone and says what it learnt as arrays and JSON values, so that new
dialogues can be encoded later just as those of dev and test were. A feature set names its encoders; their
features stand side by side in that order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mer_bench.cards import option_shown
from mer_bench.errors import MissingDataError, UnknownNameError

Features = NDArray[np.float32]
Floats = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]

ENCODERS = {
    "tfidf": "mer_bench.data.text.tfidf:TfidfEncoder",
    "vectors": "mer_bench.data.text.vectors:VectorsEncoder",
    "textcnn": "mer_bench.data.text.textcnn:TextCnnEncoder",
    "transformer": "mer_bench.data.text.transformer:TransformerEncoder",
}
"""Where the class of each encoder is; imported when it is asked for, since some need much."""


@dataclass(frozen=True)
class TrainTexts:
    """What an encoder may learn from: the train split and nothing else.

    Attributes:
        texts: What is said, a text an utterance.
        class_count: Number of classes, those without an utterance included.

    Shapes:
        labels: (utterances,), class index, -1 without one. dialogues: (utterances,), index of each one's dialogue.
    """

    texts: Sequence[str]
    labels: NDArray[np.integer[Any]]
    dialogues: NDArray[np.integer[Any]]
    class_count: int


class TextEncoder(ABC):
    """A fitted encoder: each text becomes a vector by itself, whatever stands beside it."""

    @classmethod
    @abstractmethod
    def fit(cls, train: TrainTexts, options: Mapping[str, Any]) -> tuple[Self, Features]:
        """Learn from the train split, and encode it.

        The train features may differ from what `transform` gives for the same texts, where labels shaped them.

        Args:
            options: What the user gave to `data prepare`: `{"vectors": Path(...)}`.

        Shapes:
            returns: the encoder, and the train features (utterances, width).

        Raises:
            MissingDataError: If an option is needed and was not given, or names what is not there.
            DataError: If the train split has too little to learn from, or what an option names is damaged.
        """

    @abstractmethod
    def transform(self, texts: Sequence[str]) -> Features:
        """Encode utterances of another split, or new ones: (utterances, width)."""

    @abstractmethod
    def blocks(self) -> dict[str, int]:
        """Width of each part of the features, in the order in which they hold them."""

    @abstractmethod
    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """What was learnt, as arrays and JSON values without any path; `from_state` is its inverse."""

    @classmethod
    @abstractmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Self:
        """The encoder that `state` describes.

        Args:
            options: What cannot be kept with a store, such as the folder of a transformer.
        """

    def noticed(self, texts: Sequence[str]) -> dict[str, int | float]:
        """What a user should know of the texts of a split: texts cut short, words without a vector."""
        return {}


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as features, and all that is kept of how they became so.

    Attributes:
        features: (utterances, width), those of train first, then of the others in their order.
        settings: By encoder: its settings, and the width of each of its blocks. arrays: `<encoder>.<array>`.
        notes: What was noticed, by `<split>: ...`.
    """

    features: Features
    settings: dict[str, Any]
    arrays: Arrays
    notes: dict[str, int | float]


@dataclass(frozen=True)
class EncoderChain:
    """Fitted encoders, by name, whose features stand side by side."""

    encoders: Mapping[str, TextEncoder]

    @classmethod
    def from_state(
        cls,
        arrays: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
    ) -> EncoderChain:
        """The encoders that `fit_text` left in a store.

        Args:
            arrays, settings: As `EncodedTexts` has them.
        """
        found = {}
        for name, values in settings.items():
            own = {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}
            found[name] = encoder_class(name).from_state(own, values, options or {})
        return cls(found)

    def transform(self, texts: Sequence[str]) -> Features:
        """Encode new utterances: (utterances, width)."""
        return np.concatenate([encoder.transform(texts) for encoder in self.encoders.values()], axis=1)


def encoder_class(name: str) -> type[TextEncoder]:
    """The class of an encoder.

    Raises:
        UnknownNameError: If there is no such encoder.
    """
    if name not in ENCODERS:
        raise UnknownNameError("text encoder", name, ENCODERS)
    module, _, attribute = ENCODERS[name].partition(":")
    found: type[TextEncoder] = getattr(import_module(module), attribute)
    return found


def fit_text(
    names: Sequence[str], train: TrainTexts, others: Mapping[str, Sequence[str]], options: Mapping[str, Any]
) -> EncodedTexts:
    """Fit encoders on the train split and encode all splits.

    Args:
        names: Encoders, in the order in which their features stand.
        others: Texts of the other splits, by split.
        options: What the user gave to `data prepare`.

    Raises:
        UnknownNameError: If an encoder does not exist.
        MissingDataError, DataError: As `TextEncoder.fit`.
    """
    columns = []
    settings: dict[str, Any] = {}
    arrays: Arrays = {}
    notes: dict[str, int | float] = {}
    for name in names:
        encoder, train_features = encoder_class(name).fit(train, options)
        columns.append(np.concatenate([train_features, *(encoder.transform(texts) for texts in others.values())]))
        learnt, values = encoder.state()
        settings[name] = {**values, "blocks": encoder.blocks()}
        arrays.update({f"{name}.{key}": array for key, array in learnt.items()})
        for split, texts in {"train": train.texts, **others}.items():
            notes.update({f"{split}: {key}": value for key, value in encoder.noticed(texts).items()})
    return EncodedTexts(np.concatenate(columns, axis=1), settings, arrays, notes)


def option(options: Mapping[str, Any], name: str, what: str) -> Any:
    """An option that an encoder cannot do without.

    Raises:
        MissingDataError: If it was not given; says how to give it.
    """
    if options.get(name) is None:
        raise MissingDataError(f"the features need {what}. Give it with: {option_shown(name)}")
    return options[name]


def mean_and_deviation(values: NDArray[np.floating[Any]]) -> tuple[Floats, Floats]:
    """Mean and deviation of each column, 1 where a column does not change: twice (columns,)."""
    exact = np.asarray(values, dtype=np.float64)
    deviation = exact.std(axis=0)
    return exact.mean(axis=0), np.where(deviation < 1e-9, 1.0, deviation)


def standardised(values: NDArray[np.floating[Any]], arrays: Mapping[str, NDArray[Any]], name: str) -> Floats:
    """Values by the mean and deviation that were learnt under a name: (rows, columns)."""
    scaled: Floats = (values - arrays[f"{name}_mean"]) / arrays[f"{name}_deviation"]
    return scaled
