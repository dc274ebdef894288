"""Text features without a neural network: TF-IDF, surface style and class scores.

One utterance becomes three blocks of numbers, in this order:

- topics: TF-IDF of word and character n-grams, reduced by truncated SVD
- style: fourteen surface values, such as exclamation marks and words in capitals
- class scores: centred log-probabilities of a logistic regression on the n-grams; train utterances get
  those of a model that did not see their dialogue
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from mer_bench.config import Settings
from mer_bench.data.text.encoding import (
    Arrays,
    Features,
    Floats,
    TextEncoder,
    TrainTexts,
    mean_and_deviation,
    standardised,
)
from mer_bench.data.text.folds import dialogue_folds
from mer_bench.data.text.style import STYLE_VALUES, style
from mer_bench.data.text.tokens import normalise, tokens
from mer_bench.errors import DataError


class TfidfSettings(Settings):
    """How utterances are encoded.

    Attributes:
        word_ngrams, character_ngrams: Shortest and longest n-gram; characters inside word boundaries.
        word_utterances, character_utterances: Train utterances that an n-gram must occur in at least.
        topics: Width of the truncated SVD.
        svd_iterations: Power iterations of the randomised SVD (Halko, Martinsson & Tropp 2011).
        whitening: Each topic is divided by its train deviation to this power: 0 keeps the spread of
            latent semantic analysis, 1 makes all topics equal.
        class_scores: Whether train labels are used, through scores of a logistic regression.
        score_folds: Parts of the train dialogues, each scored by a model fitted on the others.
        score_inverse_penalty: scikit-learn's C.
        score_style_scale: Factor on the style values in that regression, beside n-grams of norm 1.
        seed: Of the SVD and of the folds.
    """

    word_ngrams: tuple[int, int] = (1, 2)
    word_utterances: int = 2
    character_ngrams: tuple[int, int] = (2, 5)
    character_utterances: int = 3
    topics: int = 300
    svd_iterations: int = 4
    whitening: float = 0.5
    class_scores: bool = True
    score_folds: int = 5
    score_inverse_penalty: float = 1.0
    score_iterations: int = 60
    score_tolerance: float = 1e-3
    score_style_scale: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class NgramWeights:
    """TF-IDF of n-grams with sublinear counts and unit rows.

    Weight of a term that a text has c times: (1 + ln c) * (ln((1 + n) / (1 + texts with it)) + 1) for n train
    texts, then every row is divided by its Euclidean norm.

    Attributes:
        kind: `words` or `characters` (inside word boundaries).
    """

    kind: str
    ngrams: tuple[int, int]
    terms: tuple[str, ...]
    rarity: Floats

    @classmethod
    def fit(cls, kind: str, ngrams: tuple[int, int], least_texts: int, texts: Sequence[str]) -> NgramWeights:
        """Choose the terms and count the train texts that have each."""
        counter = _counter(kind, ngrams, min_df=least_texts)
        try:
            counts = counter.fit_transform(texts)
        except ValueError:  # scikit-learn's word for "no term is left"
            raise DataError(
                f"no n-gram of {kind} occurs in {least_texts} train utterances; there is no text."
            ) from None
        texts_with = np.bincount(counts.indices, minlength=counts.shape[1])
        rarity = np.log((1 + counts.shape[0]) / (1 + texts_with)) + 1
        return cls(kind, ngrams, tuple(counter.get_feature_names_out().tolist()), rarity)

    def transform(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Weights of normalised texts: (texts, terms), sparse."""
        counts = _counter(self.kind, self.ngrams, vocabulary=self.terms).transform(texts)
        weights = counts.astype(np.float64).tocsr()
        weights.data = (1 + np.log(weights.data)) * self.rarity[weights.indices]
        norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
        weights.data /= np.repeat(np.where(norms > 0, norms, 1), np.diff(weights.indptr))
        return weights


def _counter(kind: str, ngrams: tuple[int, int], **more: Any) -> CountVectorizer:
    if kind == "words":
        return CountVectorizer(tokenizer=tokens, token_pattern=None, lowercase=False, ngram_range=ngrams, **more)
    return CountVectorizer(analyzer="char_wb", ngram_range=ngrams, **more)


@dataclass(frozen=True)
class TfidfEncoder(TextEncoder):
    """A fitted encoder of n-grams, style and class scores.

    Attributes:
        arrays: What was learnt beside the n-grams, by name.
    """

    settings: TfidfSettings
    words: NgramWeights
    characters: NgramWeights
    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def fit(
        cls, train: TrainTexts, options: Mapping[str, Any], settings: TfidfSettings | None = None
    ) -> tuple[TfidfEncoder, Features]:
        """Learn from the train split, and encode it.

        The train rows differ from what `transform` would give: their class scores come from models that
        did not see their dialogue, as those of dev and test do.
        """
        settings = settings or TfidfSettings()
        clean = [normalise(text) for text in train.texts]
        words = NgramWeights.fit("words", settings.word_ngrams, settings.word_utterances, clean)
        characters = NgramWeights.fit("characters", settings.character_ngrams, settings.character_utterances, clean)
        ngrams = sparse.hstack([words.transform(clean), characters.transform(clean)]).tocsr()
        arrays: Arrays = {}
        topics = _fit_topics(ngrams, settings, arrays)
        styles = np.array([style(text) for text in clean])
        arrays["style_mean"], arrays["style_deviation"] = mean_and_deviation(styles)
        blocks = [topics, standardised(styles, arrays, "style")]
        if settings.class_scores:
            given = _score_input(ngrams, blocks[1], settings)
            fold = dialogue_folds(train.dialogues, settings.score_folds, settings.seed)
            learned, scores = _fit_scores(given, np.asarray(train.labels), fold, train.class_count, settings)
            arrays.update(learned)
            blocks.append(scores)
        encoder = cls(settings, words, characters, arrays)
        return encoder, np.concatenate(blocks, axis=1).astype(np.float32)

    def transform(self, texts: Sequence[str]) -> Features:
        clean = [normalise(text) for text in texts]
        ngrams = sparse.hstack([self.words.transform(clean), self.characters.transform(clean)]).tocsr()
        styles = np.array([style(text) for text in clean]).reshape(len(clean), len(STYLE_VALUES))
        blocks = [_topics(ngrams, self.arrays), standardised(styles, self.arrays, "style")]
        if self.settings.class_scores:
            scores = _scores(
                _score_input(ngrams, blocks[1], self.settings), self.arrays["score_weight"], self.arrays["score_bias"]
            )
            blocks.append(standardised(scores, self.arrays, "score"))
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def blocks(self) -> dict[str, int]:
        widths = {"topics": len(self.arrays["topic_mean"]), "style": len(STYLE_VALUES)}
        if self.settings.class_scores:
            widths["class_scores"] = len(self.arrays["score_mean"])
        return widths

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays = dict(self.arrays)
        for name, weights in (("words", self.words), ("characters", self.characters)):
            arrays[f"{name}_terms"] = np.array([term.encode() for term in weights.terms])
            arrays[f"{name}_rarity"] = weights.rarity
        return arrays, {"settings": self.settings.model_dump(mode="json")}

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], options: Mapping[str, Any]
    ) -> TfidfEncoder:
        settings = TfidfSettings.model_validate(values["settings"])
        rest = dict(arrays)
        ngrams = {"words": settings.word_ngrams, "characters": settings.character_ngrams}
        weights = {}
        for name, lengths in ngrams.items():
            terms = tuple(term.decode() for term in rest.pop(f"{name}_terms").tolist())
            weights[name] = NgramWeights(name, lengths, terms, rest.pop(f"{name}_rarity"))
        return cls(settings, weights["words"], weights["characters"], rest)


def _one_thread() -> AbstractContextManager[Any]:
    """Linear algebra in one thread.

    The matrices are small. On a busy machine more threads spend several times as long in waiting for each
    other, and another number of threads gives other last bits.
    """
    limits: AbstractContextManager[Any] = threadpool_limits(limits=1, user_api="blas")
    return limits


def _fit_topics(ngrams: sparse.csr_matrix, settings: TfidfSettings, arrays: dict[str, NDArray[Any]]) -> Floats:
    width = min(settings.topics, min(ngrams.shape) - 1)
    if width < 1:
        raise DataError("the train split has too little text for a truncated SVD.")
    with _one_thread():
        _, _, components = randomized_svd(ngrams, width, n_iter=settings.svd_iterations, random_state=settings.seed)
    # Single precision halves what is kept; used here too, so that the kept state gives the very same features.
    arrays["topic_components"] = components.astype(np.float32)
    raw = np.asarray(ngrams @ arrays["topic_components"].T)
    arrays["topic_mean"] = raw.mean(axis=0)
    scale = np.maximum(raw.std(axis=0), 1e-9) ** -settings.whitening
    # The block's overall root mean square is 1, so that it weighs as much as the standardised blocks.
    arrays["topic_scale"] = scale / np.sqrt((((raw - arrays["topic_mean"]) * scale) ** 2).mean())
    return _topics(ngrams, arrays)


def _topics(ngrams: sparse.csr_matrix, arrays: Mapping[str, NDArray[Any]]) -> Floats:
    raw = np.asarray(ngrams @ arrays["topic_components"].T)
    topics: Floats = (raw - arrays["topic_mean"]) * arrays["topic_scale"]
    return topics


def _score_input(ngrams: sparse.csr_matrix, styles: Floats, settings: TfidfSettings) -> sparse.csr_matrix:
    return sparse.hstack([ngrams, sparse.csr_matrix(styles * settings.score_style_scale)]).tocsr()


def _fit_scores(
    given: sparse.csr_matrix,
    labels: NDArray[np.integer[Any]],
    fold: NDArray[np.int64],
    class_count: int,
    settings: TfidfSettings,
) -> tuple[dict[str, NDArray[Any]], Floats]:
    """Fit the regression on all of train, and score train by models that did not see the dialogue."""
    held_out = np.zeros((given.shape[0], class_count))
    for number in np.unique(fold):
        others = np.flatnonzero((fold != number) & (labels >= 0))
        here = np.flatnonzero(fold == number)
        held_out[here] = _scores(given[here], *_regression(given[others], labels[others], class_count, settings))
    labelled = np.flatnonzero(labels >= 0)
    weight, bias = _regression(given[labelled], labels[labelled], class_count, settings)
    mean, deviation = mean_and_deviation(held_out)
    arrays: dict[str, NDArray[Any]] = {
        "score_weight": weight,
        "score_bias": bias,
        "score_mean": mean,
        "score_deviation": deviation,
    }
    return arrays, standardised(held_out, arrays, "score")


def _regression(
    given: sparse.csr_matrix, labels: NDArray[np.integer[Any]], class_count: int, settings: TfidfSettings
) -> tuple[NDArray[np.float32], Floats]:
    """Weight and bias of each class; a class that does not occur is as good as ruled out."""
    weight = np.zeros((class_count, given.shape[1]), dtype=np.float32)
    bias = np.full(class_count, -20.0)
    classes = np.unique(labels)
    if len(classes) < 2:
        bias[classes] = 0
        return weight, bias
    model = LogisticRegression(
        C=settings.score_inverse_penalty, max_iter=settings.score_iterations, tol=settings.score_tolerance
    )
    with _one_thread(), warnings.catch_warnings():
        # The number of iterations is a setting: stopping early is part of the recipe, not a failure.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(given, labels)
    # scikit-learn keeps the second of two classes alone.
    both = len(classes) == 2
    weight[classes] = np.concatenate([-model.coef_, model.coef_]) / 2 if both else model.coef_
    bias[classes] = np.concatenate([-model.intercept_, model.intercept_]) / 2 if both else model.intercept_
    return weight, bias


def _scores(given: sparse.csr_matrix, weight: NDArray[np.float32], bias: Floats) -> Floats:
    """Centred log-probabilities: (rows, classes). They are the centred logits, the normaliser being shared."""
    logits = np.asarray(given @ weight.T) + bias
    centred: Floats = logits - logits.mean(axis=1, keepdims=True)
    return centred
