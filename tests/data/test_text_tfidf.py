"""Text features against independent references, and that nothing leaks from a held-out dialogue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.utils.extmath import randomized_svd

from mer_bench.data.text import tfidf
from mer_bench.data.text.encoding import Features, TrainTexts
from mer_bench.data.text.folds import dialogue_folds
from mer_bench.data.text.style import STYLE_VALUES, style
from mer_bench.data.text.tfidf import NgramWeights, TfidfEncoder, TfidfSettings
from mer_bench.data.text.tokens import normalise, tokens, vector_tokens
from mer_bench.errors import DataError

from .said import corpus

SMALL = TfidfSettings(topics=8, score_folds=3)


def fitted(train: TrainTexts | None = None, settings: TfidfSettings = SMALL) -> tuple[TfidfEncoder, Features]:
    return TfidfEncoder.fit(train or corpus(), {}, settings)


def test_normalise() -> None:
    assert normalise(" You\u2019re\u00a0\u201cfine\u201d \u2014  right\u2026\x92 ") == "You're \"fine\" - right...'"


def test_tokens() -> None:
    assert tokens("I don't know, it's MINE!! What?! Caf\u00e9... y'all") == (
        ["i", "do", "n't", "know", ",", "it", "'s", "mine", "!!", "what", "?!", "caf", "\u00e9", "...", "y", "'", "all"]
    )
    assert vector_tokens("no!!! why?? what?!") == ["no", "!", "why", "?", "what", "?!"]


def test_style() -> None:
    values = dict(zip(STYLE_VALUES, style("NO way, w-w-what?! Soooo..."), strict=True))
    log = np.log1p
    assert values == {
        "log_tokens": log(11),  # no|way|,|w|-|w|-|what|?!|soooo|...
        "log_exclamation_marks": log(1),
        "log_question_marks": log(1),
        "exclaims_and_asks": 1,
        "has_ellipsis": 1,
        "log_stutters": log(1),
        "log_words_in_capitals": log(1),
        "ends_exclaiming": 0,
        "ends_asking": 0,
        "ends_with_full_stop": 1,
        "log_commas": log(1),
        "has_tripled_letter": 1,
        "ends_without_mark": 0,
        "begins_in_lower_case": 0,
    }


@given(text=st.text(st.characters(exclude_categories=()), max_size=40))
@example(text="oh\x00")
@example(text="\ud83d")
@settings(max_examples=100, deadline=None)
def test_any_text_has_finite_values(text: str) -> None:
    clean = normalise(text)
    assert normalise(clean) == clean
    values = style(clean)
    assert len(values) == len(STYLE_VALUES)
    assert np.isfinite(values).all()
    # Terms are kept as bytes of fixed width, which end before a zero byte.
    assert np.array([clean.encode()]).tolist()[0].decode() == clean


@pytest.mark.parametrize(("kind", "least"), [("words", 1), ("words", 2), ("characters", 1), ("characters", 3)])
def test_ngram_weights_are_scikit_learns(kind: str, least: int) -> None:
    train, other = corpus(seed=1).texts, [*corpus(5, seed=2).texts, "zzz unknown", ""]
    ngrams = (1, 2) if kind == "words" else (2, 5)
    how: dict[str, Any] = {"analyzer": "char_wb"}
    if kind == "words":
        how = {"tokenizer": tokens, "token_pattern": None, "lowercase": False}
    reference = TfidfVectorizer(ngram_range=ngrams, min_df=least, sublinear_tf=True, **how).fit(train)
    weights = NgramWeights.fit(kind, ngrams, least, train)
    assert list(weights.terms) == reference.get_feature_names_out().tolist()
    for texts in (train, other):
        assert abs(weights.transform(texts) - reference.transform(texts)).max() < 1e-12


def test_no_text_at_all_is_said_plainly() -> None:
    with pytest.raises(DataError, match="no n-gram of words occurs in 2 train utterances"):
        NgramWeights.fit("words", (1, 2), 2, ["", "", ""])


def test_topics_are_the_truncated_svd() -> None:
    texts = corpus().texts
    encoder, features = fitted(settings=SMALL.model_copy(update={"svd_iterations": 50}))
    both = [encoder.words.transform(texts).toarray(), encoder.characters.transform(texts).toarray()]
    weights = np.concatenate(both, axis=1)
    left, sizes, _ = np.linalg.svd(weights, full_matrices=False)
    raw = left[:, :8] * sizes[:8]
    centred = raw - raw.mean(axis=0)
    scaled = centred / np.sqrt(raw.std(axis=0))
    scaled /= np.sqrt((scaled**2).mean())
    signs = np.sign((scaled * features[:, :8]).sum(axis=0))
    assert features[:, :8] == pytest.approx(scaled * signs, abs=2e-3)
    assert (features[:, :8] ** 2).mean() == pytest.approx(1, abs=1e-5)


def test_class_scores_are_out_of_fold_in_train_and_of_one_model_elsewhere() -> None:
    train = corpus()
    texts, labels, dialogues = train.texts, train.labels, train.dialogues
    encoder, features = fitted()
    given = np.concatenate(
        [
            encoder.words.transform(texts).toarray(),
            encoder.characters.transform(texts).toarray(),
            features[:, 8:22] * 0.3,
        ],
        axis=1,
    )
    fold = dialogue_folds(dialogues, 3, 0)
    expected = np.zeros((len(texts), 3))
    for number in range(3):
        model = LogisticRegression(max_iter=60, tol=1e-3).fit(given[fold != number], labels[fold != number])
        expected[fold == number] = model.predict_log_proba(given[fold == number])
    expected -= expected.mean(axis=1, keepdims=True)
    mean, deviation = expected.mean(axis=0), expected.std(axis=0)
    assert features[:, 22:] == pytest.approx((expected - mean) / deviation, abs=5e-3)
    model = LogisticRegression(max_iter=60, tol=1e-3).fit(given, labels)
    whole = model.predict_log_proba(given)
    whole -= whole.mean(axis=1, keepdims=True)
    assert encoder.transform(texts)[:, 22:] == pytest.approx((whole - mean) / deviation, abs=5e-3)


def test_the_labels_of_a_dialogue_never_reach_its_own_train_features() -> None:
    train = corpus()
    labels, dialogues = train.labels, train.dialogues
    changed = labels.copy()
    changed[dialogues == 4] = (changed[dialogues == 4] + 1) % 3
    raw = []
    for given_labels in (labels, changed):
        encoder, features = fitted(replace(train, labels=given_labels))
        raw.append(features[:, 22:] * encoder.arrays["score_deviation"] + encoder.arrays["score_mean"])
    fold = dialogue_folds(dialogues, SMALL.score_folds, SMALL.seed)
    same_fold = fold == fold[dialogues == 4][0]
    assert raw[0][same_fold] == pytest.approx(raw[1][same_fold], abs=1e-5)
    assert np.abs(raw[0][~same_fold] - raw[1][~same_fold]).max() > 1e-2


def test_dialogues_stay_whole_in_folds() -> None:
    dialogues = np.repeat(np.arange(23), 4)
    fold = dialogue_folds(dialogues, 5, 0)
    assert all(len(set(fold[dialogues == dialogue])) == 1 for dialogue in range(23))
    assert set(np.bincount(fold) // 4) <= {4, 5}


def test_every_row_is_encoded_on_its_own() -> None:
    encoder, _ = fitted()
    texts = corpus(4, seed=9).texts
    together = encoder.transform(texts)
    alone = np.concatenate([encoder.transform([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert encoder.transform([]).shape == (0, together.shape[1])


def test_labels_are_not_needed_without_class_scores() -> None:
    train = corpus()
    without = SMALL.model_copy(update={"class_scores": False})
    features = [
        fitted(replace(train, labels=labels), without)[1] for labels in (train.labels, np.zeros_like(train.labels))
    ]
    assert np.array_equal(features[0], features[1])
    assert features[0].shape[1] == 22


def test_an_utterance_without_a_label_and_a_class_that_never_occurs() -> None:
    train = replace(corpus(), class_count=5)
    texts, labels = train.texts, train.labels
    labels[::7] = -1
    encoder, features = fitted(train)
    assert np.isfinite(features).all()
    scores = encoder.transform(texts)[:, 22:] * encoder.arrays["score_deviation"] + encoder.arrays["score_mean"]
    assert scores[:, 3:].max() < scores[:, :3].min()
    two = np.where(labels == 1, 1, 0)
    encoder, _ = fitted(replace(train, labels=two, class_count=2))
    scores = encoder.transform(texts)[:, 22:] * encoder.arrays["score_deviation"] + encoder.arrays["score_mean"]
    assert ((scores[:, 1] > scores[:, 0]) == (two == 1)).mean() > 0.9


def test_linear_algebra_has_one_thread_and_gets_the_others_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    seen: list[set[int]] = []
    original_fit, original_svd = LogisticRegression.fit, randomized_svd

    def fit(self: Any, *given: Any) -> Any:
        seen.append(threads())
        return original_fit(self, *given)

    def svd(*given: Any, **more: Any) -> Any:
        seen.append(threads())
        return original_svd(*given, **more)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    monkeypatch.setattr(tfidf, "randomized_svd", svd)
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        fitted()
        assert threads() == before
    assert len(seen) == 1 + SMALL.score_folds + 1
    assert seen == [{1}] * len(seen)
