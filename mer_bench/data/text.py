"""Text features without a neural network: TF-IDF, surface style, class scores, averaged word vectors.

One utterance becomes up to four blocks of numbers, in this order:

- topics: TF-IDF of word and character n-grams, reduced by truncated SVD
- style: fourteen surface values, such as exclamation marks and words in capitals
- class scores: centred log-probabilities of a logistic regression on the n-grams; train utterances get
  those of a model that did not see their dialogue
- vectors: the mean of the word vectors of a file that the user gives

All is fitted on the train split alone. What was fitted is kept as arrays and JSON values, so that new
utterances can be encoded later; the word vectors themselves are not kept, only the file's checksum.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from mer_bench.config import Settings
from mer_bench.data.files import sha256_of_file
from mer_bench.errors import DataError, MissingDataError

Floats = NDArray[np.float64]

_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2019\u0091\u0092\u00b4`", "'"),
        **dict.fromkeys("\u201c\u201d\u0093\u0094", '"'),
        **dict.fromkeys("\u2013\u2014\u0096\u0097", "-"),
        **dict.fromkeys("\u2026\u0085", "..."),
        "\u00a0": " ",
    }
)
_TOKEN = re.compile(r"n't|'(?:s|re|ve|ll|d|m)\b|[a-z]+(?=n't)|[a-z0-9]+|\.\.\.+|[!?]+|[^\sa-z0-9]")
_ONE_MARK_REPEATED = re.compile(r"([!?])\1+")
_STUTTER = re.compile(r"\b(\w+)-(?=\1\b)", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Za-z']+")
_TRIPLED = re.compile(r"([a-z])\1\1", re.IGNORECASE)

STYLE_VALUES = (
    "log_tokens",
    "log_exclamation_marks",
    "log_question_marks",
    "exclaims_and_asks",
    "has_ellipsis",
    "log_stutters",
    "log_words_in_capitals",
    "ends_exclaiming",
    "ends_asking",
    "ends_with_full_stop",
    "log_commas",
    "has_tripled_letter",
    "ends_without_mark",
    "begins_in_lower_case",
)


class TextSettings(Settings):
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


def normalise(text: str) -> str:
    """Typographic punctuation as ASCII, white space collapsed; case is kept."""
    return " ".join(text.translate(_ASCII).split())


def tokens(text: str) -> list[str]:
    """Lower-case tokens of a normalised text: do|n't, it|'s; runs such as `...` and `?!` are one token."""
    return _TOKEN.findall(text.lower())


def vector_tokens(text: str) -> list[str]:
    """Tokens as a table of word vectors has them: `!!!` is looked up as `!`."""
    return [token[0] if _ONE_MARK_REPEATED.fullmatch(token) else token for token in tokens(text)]


def style(text: str) -> list[float]:
    """The values that `STYLE_VALUES` names, of one normalised text."""
    capitals = sum(len(word) > 1 and word.isupper() for word in _LETTERS.findall(text))
    counts = {
        "log_tokens": max(len(tokens(text)), 1),
        "log_exclamation_marks": text.count("!"),
        "log_question_marks": text.count("?"),
        "log_stutters": len(_STUTTER.findall(text)),
        "log_words_in_capitals": capitals,
        "log_commas": text.count(","),
    }
    marks = {
        "exclaims_and_asks": "?!" in text or "!?" in text,
        "has_ellipsis": "..." in text,
        "ends_exclaiming": text.endswith("!"),
        "ends_asking": text.endswith("?"),
        "ends_with_full_stop": text.endswith("."),
        "has_tripled_letter": _TRIPLED.search(text) is not None,
        "ends_without_mark": text[-1:].isalnum(),
        "begins_in_lower_case": text[:1].islower(),
    }
    values = {**{name: float(np.log1p(count)) for name, count in counts.items()}, **marks}
    return [float(values[name]) for name in STYLE_VALUES]


@dataclass(frozen=True)
class WordVectors:
    """Vectors of the words that are wanted, from a file of the user's.

    Attributes:
        sha256: Of the whole file. vectors: By word; all of one width.
    """

    sha256: str
    width: int
    vectors: Mapping[str, NDArray[np.float32]]

    def average(self, texts: Sequence[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """Mean vector of each normalised text, zero where no token has one, and where any has.

        Shapes:
            returns: (texts, width) and (texts,).
        """
        means = np.zeros((len(texts), self.width))
        known = np.zeros(len(texts), dtype=bool)
        for row, text in enumerate(texts):
            found = [self.vectors[token] for token in vector_tokens(text) if token in self.vectors]
            if found:
                means[row] = np.mean(found, axis=0, dtype=np.float64)
                known[row] = True
        return means, known


def read_vectors(file: Path, wanted: Collection[str]) -> WordVectors:
    """Read word vectors: text with `word number number ...` a line, or an npz of `words` and `vectors`.

    A first line of two whole numbers, as word2vec writes it, is skipped. Only wanted words are kept, so
    that a file of gigabytes needs little memory.

    Raises:
        MissingDataError: If the file is not there.
        DataError: If it is malformed (names the line) or has not one of the wanted words.
    """
    if not file.is_file():
        raise MissingDataError(f"the vectors file {file} is not there.")
    wanted = frozenset(wanted)
    try:
        with file.open("rb") as stream:
            is_archive = stream.read(4) == b"PK\x03\x04"
        vectors = _vectors_from_archive(file, wanted) if is_archive else _vectors_from_text(file, wanted)
        checksum = sha256_of_file(file)
    except OSError as error:
        raise DataError(f"the vectors file {file} cannot be read: {error.strerror or error}.") from error
    if not vectors:
        raise DataError(f"the vectors file {file} has not one of the {len(wanted)} words of the corpus.")
    width = len(next(iter(vectors.values())))
    return WordVectors(checksum, width, vectors)


def _vectors_from_archive(file: Path, wanted: frozenset[str]) -> dict[str, NDArray[np.float32]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = archive.files
            if not {"words", "vectors"} <= set(names):
                raise DataError(
                    f"the vectors file {file} should hold arrays called words and vectors, but holds: "
                    f"{', '.join(names)}."
                )
            words, vectors = archive["words"], archive["vectors"]
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the vectors file {file} is not a readable npz: {error}.") from None
    if words.ndim != 1 or words.dtype.kind != "U" or vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise DataError(
            f"the vectors file {file} should hold words (n,) as text and vectors (n, width) as floats, but has "
            f"{words.shape} {words.dtype} and {vectors.shape} {vectors.dtype}."
        )
    if len(words) != len(vectors) or vectors.shape[1] == 0:
        raise DataError(f"the vectors file {file} has {len(words)} words, but vectors of shape {vectors.shape}.")
    found = {str(word): vectors[row].astype(np.float32) for row, word in enumerate(words) if str(word) in wanted}
    for word, vector in found.items():
        if not np.isfinite(vector).all():
            raise DataError(f"the vectors file {file} has a value that is not finite in the vector of '{word}'.")
    return found


def _vectors_from_text(file: Path, wanted: frozenset[str]) -> dict[str, NDArray[np.float32]]:
    wanted_bytes = {word.encode(): word for word in wanted}
    found: dict[str, NDArray[np.float32]] = {}
    width = 0
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            values = line.rstrip().split(b" ")
            if number == 1 and len(values) == 2 and all(value.isdigit() for value in values):
                continue
            width = width or len(values) - 1
            if len(values) <= width or width == 0:
                raise DataError(
                    f"the vectors file {file}, line {number}: expected a word and {width or 'some'} numbers, "
                    f"but found {len(values)} parts."
                )
            # A few published words have blanks in them, so the numbers are counted from the end.
            word = wanted_bytes.get(b" ".join(values[:-width]))
            if word is None or word in found:
                continue
            try:
                vector = np.array(values[-width:], dtype=np.float32)
            except ValueError:
                vector = np.full(1, np.nan, dtype=np.float32)
            if not np.isfinite(vector).all():
                raise DataError(
                    f"the vectors file {file}, line {number}: the vector of '{word}' has a value that is not finite."
                )
            found[word] = vector
    return found


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
class TextEncoder:
    """A fitted encoder of utterances.

    Attributes:
        arrays: What was learned, by name; `state` and `from_state` keep it.
        vectors: The word vectors, when the encoder uses any.
    """

    settings: TextSettings
    words: NgramWeights
    characters: NgramWeights
    arrays: Mapping[str, NDArray[Any]]
    vectors: WordVectors | None = None

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        labels: NDArray[np.integer[Any]],
        dialogues: NDArray[np.integer[Any]],
        *,
        class_count: int,
        settings: TextSettings,
        vectors: WordVectors | None = None,
    ) -> tuple[TextEncoder, NDArray[np.float32]]:
        """Learn from the train split, and encode it.

        The train rows differ from what `transform` would give: their class scores come from models that
        did not see their dialogue, as those of dev and test do.

        Shapes:
            texts: (utterances,). labels: (utterances,), -1 without one. dialogues: (utterances,), index of
            each one's dialogue. returns: the encoder, and the train features (utterances, width).
        """
        clean = [normalise(text) for text in texts]
        words = NgramWeights.fit("words", settings.word_ngrams, settings.word_utterances, clean)
        characters = NgramWeights.fit("characters", settings.character_ngrams, settings.character_utterances, clean)
        ngrams = sparse.hstack([words.transform(clean), characters.transform(clean)]).tocsr()
        arrays: dict[str, NDArray[Any]] = {}
        topics = _fit_topics(ngrams, settings, arrays)
        styles = np.array([style(text) for text in clean])
        arrays["style_mean"], arrays["style_deviation"] = _mean_and_deviation(styles)
        blocks = [topics, _standardised(styles, arrays, "style")]
        if settings.class_scores:
            given = _score_input(ngrams, blocks[1], settings)
            fold = dialogue_folds(dialogues, settings.score_folds, settings.seed)
            learned, scores = _fit_scores(given, np.asarray(labels), fold, class_count, settings)
            arrays.update(learned)
            blocks.append(scores)
        if vectors is not None:
            means, known = vectors.average(clean)
            arrays["vectors_mean"], arrays["vectors_deviation"] = _mean_and_deviation(means[known])
            blocks.append(_standardised(means, arrays, "vectors") * known[:, None])
        encoder = cls(settings, words, characters, arrays, vectors)
        return encoder, np.concatenate(blocks, axis=1).astype(np.float32)

    def transform(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode utterances of another split, or new ones: (utterances, width)."""
        if "vectors_mean" in self.arrays and self.vectors is None:
            raise MissingDataError("this encoder averages word vectors; give it the vectors file it was fitted with.")
        clean = [normalise(text) for text in texts]
        ngrams = sparse.hstack([self.words.transform(clean), self.characters.transform(clean)]).tocsr()
        styles = np.array([style(text) for text in clean]).reshape(len(clean), len(STYLE_VALUES))
        blocks = [_topics(ngrams, self.arrays), _standardised(styles, self.arrays, "style")]
        if self.settings.class_scores:
            scores = _scores(
                _score_input(ngrams, blocks[1], self.settings), self.arrays["score_weight"], self.arrays["score_bias"]
            )
            blocks.append(_standardised(scores, self.arrays, "score"))
        if self.vectors is not None:
            means, known = self.vectors.average(clean)
            blocks.append(_standardised(means, self.arrays, "vectors") * known[:, None])
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def blocks(self) -> dict[str, int]:
        """Width of each block, in the order in which the features hold them."""
        widths = {"topics": len(self.arrays["topic_mean"]), "style": len(STYLE_VALUES)}
        if self.settings.class_scores:
            widths["class_scores"] = len(self.arrays["score_mean"])
        if "vectors_mean" in self.arrays:
            widths["vectors"] = len(self.arrays["vectors_mean"])
        return widths

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """What was fitted, as arrays and JSON values; `from_state` is its inverse."""
        arrays = dict(self.arrays)
        for name, weights in (("words", self.words), ("characters", self.characters)):
            arrays[f"{name}_terms"] = np.array([term.encode() for term in weights.terms])
            arrays[f"{name}_rarity"] = weights.rarity
        return arrays, {
            "settings": self.settings.model_dump(mode="json"),
            "vectors_sha256": None if self.vectors is None else self.vectors.sha256,
        }

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], vectors: WordVectors | None = None
    ) -> TextEncoder:
        """The encoder that `state` describes.

        Raises:
            DataError: If the word vectors are not those it was fitted with.
        """
        if vectors is not None and vectors.sha256 != values["vectors_sha256"]:
            raise DataError(
                f"the vectors file has the SHA-256 {vectors.sha256}, but the features were made with "
                f"{values['vectors_sha256']}."
            )
        settings = TextSettings.model_validate(values["settings"])
        rest = dict(arrays)
        ngrams = {"words": settings.word_ngrams, "characters": settings.character_ngrams}
        weights = {}
        for name, lengths in ngrams.items():
            terms = tuple(term.decode() for term in rest.pop(f"{name}_terms").tolist())
            weights[name] = NgramWeights(name, lengths, terms, rest.pop(f"{name}_rarity"))
        return cls(settings, weights["words"], weights["characters"], rest, vectors)


def _fit_topics(ngrams: sparse.csr_matrix, settings: TextSettings, arrays: dict[str, NDArray[Any]]) -> Floats:
    width = min(settings.topics, min(ngrams.shape) - 1)
    if width < 1:
        raise DataError("the train split has too little text for a truncated SVD.")
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


def _score_input(ngrams: sparse.csr_matrix, styles: Floats, settings: TextSettings) -> sparse.csr_matrix:
    return sparse.hstack([ngrams, sparse.csr_matrix(styles * settings.score_style_scale)]).tocsr()


def _fit_scores(
    given: sparse.csr_matrix,
    labels: NDArray[np.integer[Any]],
    fold: NDArray[np.int64],
    class_count: int,
    settings: TextSettings,
) -> tuple[dict[str, NDArray[Any]], Floats]:
    """Fit the regression on all of train, and score train by models that did not see the dialogue."""
    held_out = np.zeros((given.shape[0], class_count))
    for number in np.unique(fold):
        others = np.flatnonzero((fold != number) & (labels >= 0))
        here = np.flatnonzero(fold == number)
        held_out[here] = _scores(given[here], *_regression(given[others], labels[others], class_count, settings))
    labelled = np.flatnonzero(labels >= 0)
    weight, bias = _regression(given[labelled], labels[labelled], class_count, settings)
    mean, deviation = _mean_and_deviation(held_out)
    arrays: dict[str, NDArray[Any]] = {
        "score_weight": weight,
        "score_bias": bias,
        "score_mean": mean,
        "score_deviation": deviation,
    }
    return arrays, _standardised(held_out, arrays, "score")


def _regression(
    given: sparse.csr_matrix, labels: NDArray[np.integer[Any]], class_count: int, settings: TextSettings
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
    with warnings.catch_warnings():
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


def dialogue_folds(dialogues: NDArray[np.integer[Any]], folds: int, seed: int) -> NDArray[np.int64]:
    """Fold of each row; all rows of a dialogue share one."""
    names, index = np.unique(dialogues, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    fold: NDArray[np.int64] = (shuffled % folds)[index]
    return fold


def _mean_and_deviation(values: Floats) -> tuple[Floats, Floats]:
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation < 1e-9, 1.0, deviation)


def _standardised(values: Floats, arrays: Mapping[str, NDArray[Any]], name: str) -> Floats:
    scaled: Floats = (values - arrays[f"{name}_mean"]) / arrays[f"{name}_deviation"]
    return scaled
