"""Text features against independent references, and that nothing leaks from a held-out dialogue."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from mer_bench.data.text import (
    STYLE_VALUES,
    NgramWeights,
    TextEncoder,
    TextSettings,
    WordVectors,
    dialogue_folds,
    normalise,
    read_vectors,
    style,
    tokens,
    vector_tokens,
)
from mer_bench.errors import DataError, MissingDataError

PHRASE = "oh no! yes? I don't know... it's a great day! we love pizza, HE left so so sad what? you are mean"
WORDS = PHRASE.split()
SMALL = TextSettings(topics=8, score_folds=3)


def corpus(dialogues: int = 20, seed: int = 0) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Texts of five words, three labels that the words tell, and five utterances a dialogue."""
    rng = np.random.default_rng(seed)
    rows = 5 * dialogues
    texts = [" ".join(rng.choice(WORDS, 5)) for _ in range(rows)]
    labels = np.array([0 if "!" in text else 1 if "?" in text else 2 for text in texts])
    return texts, labels, np.repeat(np.arange(dialogues), 5)


def vectors(width: int = 3) -> WordVectors:
    rng = np.random.default_rng(5)
    names = ["oh", "no", "!", "great", "day", "love"]
    return WordVectors("ab" * 32, width, {name: rng.normal(size=width).astype(np.float32) for name in names})


def fitted(**more: Any) -> tuple[TextEncoder, NDArray[np.float32]]:
    texts, labels, dialogues = corpus()
    return TextEncoder.fit(texts, labels, dialogues, class_count=3, settings=SMALL, **more)


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


@given(text=st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_has_finite_values(text: str) -> None:
    clean = normalise(text)
    assert normalise(clean) == clean
    values = style(clean)
    assert len(values) == len(STYLE_VALUES)
    assert np.isfinite(values).all()


@pytest.mark.parametrize(("kind", "least"), [("words", 1), ("words", 2), ("characters", 1), ("characters", 3)])
def test_ngram_weights_are_scikit_learns(kind: str, least: int) -> None:
    train, other = corpus(seed=1)[0], [*corpus(5, seed=2)[0], "zzz unknown", ""]
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
    texts, labels, dialogues = corpus()
    exact = SMALL.model_copy(update={"svd_iterations": 50})
    encoder, features = TextEncoder.fit(texts, labels, dialogues, class_count=3, settings=exact)
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
    texts, labels, dialogues = corpus()
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
    texts, labels, dialogues = corpus()
    changed = labels.copy()
    changed[dialogues == 4] = (changed[dialogues == 4] + 1) % 3
    raw = []
    for given_labels in (labels, changed):
        encoder, features = TextEncoder.fit(texts, given_labels, dialogues, class_count=3, settings=SMALL)
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
    encoder, _ = fitted(vectors=vectors())
    texts = corpus(4, seed=9)[0]
    together = encoder.transform(texts)
    alone = np.concatenate([encoder.transform([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert encoder.transform([]).shape == (0, together.shape[1])


def test_labels_are_not_needed_without_class_scores() -> None:
    texts, labels, dialogues = corpus()
    settings_without = SMALL.model_copy(update={"class_scores": False})
    features = [
        TextEncoder.fit(texts, given_labels, dialogues, class_count=3, settings=settings_without)[1]
        for given_labels in (labels, np.zeros_like(labels))
    ]
    assert np.array_equal(features[0], features[1])
    assert features[0].shape[1] == 22


def test_an_utterance_without_a_label_and_a_class_that_never_occurs() -> None:
    texts, labels, dialogues = corpus()
    labels[::7] = -1
    encoder, features = TextEncoder.fit(texts, labels, dialogues, class_count=5, settings=SMALL)
    assert np.isfinite(features).all()
    scores = encoder.transform(texts)[:, 22:] * encoder.arrays["score_deviation"] + encoder.arrays["score_mean"]
    assert scores[:, 3:].max() < scores[:, :3].min()
    two = np.where(labels == 1, 1, 0)
    encoder, _ = TextEncoder.fit(texts, two, dialogues, class_count=2, settings=SMALL)
    scores = encoder.transform(texts)[:, 22:] * encoder.arrays["score_deviation"] + encoder.arrays["score_mean"]
    assert ((scores[:, 1] > scores[:, 0]) == (two == 1)).mean() > 0.9


def test_average_of_word_vectors() -> None:
    table = vectors()
    encoder, features = fitted(vectors=table)
    texts = corpus()[0]
    known = {name: vector.astype(float) for name, vector in table.vectors.items()}
    means = []
    for text in texts:
        found = [known[token] for token in vector_tokens(text) if token in known]
        means.append(np.mean(found, axis=0) if found else np.full(3, np.nan))
    raw = np.array(means)
    expected = np.nan_to_num((raw - np.nanmean(raw, axis=0)) / np.nanstd(raw, axis=0))
    assert features[:, -3:] == pytest.approx(expected, abs=1e-5)
    assert encoder.blocks() == {"topics": 8, "style": 14, "class_scores": 3, "vectors": 3}
    assert encoder.transform(["zzz"])[0, -3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize("table", [None, vectors()])
def test_state_gives_the_very_same_features(tmp_path: Path, table: WordVectors | None) -> None:
    encoder, _ = fitted(vectors=table)
    arrays, values = encoder.state()
    np.savez(tmp_path / "state.npz", **arrays)  # type: ignore[arg-type]  # its stub takes the names for its own
    with np.load(tmp_path / "state.npz", allow_pickle=False) as archive:
        kept = {name: archive[name] for name in archive.files}
    again = TextEncoder.from_state(kept, json.loads(json.dumps(values)), table)
    texts = [*corpus(6, seed=3)[0], "na\u00efve \u2014 quite new!"]
    assert np.array_equal(again.transform(texts), encoder.transform(texts))
    if table is not None:
        with pytest.raises(MissingDataError, match="give it the vectors file"):
            TextEncoder.from_state(kept, values).transform(texts)
        other = WordVectors("cd" * 32, table.width, table.vectors)
        with pytest.raises(DataError, match="has the SHA-256 cdcd"):
            TextEncoder.from_state(kept, values, other)


def test_vectors_from_text(tmp_path: Path) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text("the 1 2 3\n. . . 4 5 6\noh -1e-1 0.5 7 \nunwanted x y z\noh 9 9 9\n", encoding="utf-8")
    found = read_vectors(file, {"oh", "the", "missing", ". . ."})
    assert {word: vector.tolist() for word, vector in found.vectors.items()} == {
        "the": [1, 2, 3],
        ". . .": [4, 5, 6],
        "oh": [pytest.approx(-0.1), 0.5, 7],
    }
    assert found.width == 3
    file.write_text("2 3\nthe 1 2 3\noh 1 2 3\n")
    assert set(read_vectors(file, {"oh", "2"}).vectors) == {"oh"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("the 1 2 3\noh 1 2\n", "line 2: expected a word and 3 numbers, but found 3 parts"),
        ("the\n", "line 1: expected a word and some numbers, but found 1 parts"),
        ("the 1 2 3\noh 1 x 3\n", "line 2: the vector of 'oh' has a value that is not finite"),
        ("the 1 2 3\noh 1 nan 3\n", "line 2: the vector of 'oh' has a value that is not finite"),
        ("the 1 2 3\n", "has not one of the 1 words"),
        ("", "has not one of the 1 words"),
    ],
)
def test_bad_vectors_in_text(tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "vectors.txt"
    file.write_text(content)
    with pytest.raises(DataError, match=re.escape(expected)):
        read_vectors(file, {"oh"})


def test_vectors_from_npz_are_those_from_text(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    words = ["oh", "no", "caf\u00e9"]
    np.savez(tmp_path / "v.npz", words=np.array(words), vectors=table)
    lines = [f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, table, strict=True)]
    (tmp_path / "v.txt").write_text("".join(lines), encoding="utf-8")
    one, two = (read_vectors(tmp_path / name, {"oh", "caf\u00e9"}) for name in ("v.npz", "v.txt"))
    assert one.vectors.keys() == two.vectors.keys() == {"oh", "caf\u00e9"}
    for word in one.vectors:
        assert np.array_equal(one.vectors[word], two.vectors[word])
    assert one.sha256 != two.sha256


def test_bad_vectors_in_npz(tmp_path: Path) -> None:
    file = tmp_path / "v.npz"

    def refused(**arrays: Any) -> str:
        np.savez(file, **arrays)
        with pytest.raises(DataError) as caught:
            read_vectors(file, {"oh"})
        return str(caught.value)

    words, table = np.array(["oh"]), np.ones((1, 2))
    assert "but holds: words" in refused(words=words)
    assert "1 words, but vectors of shape (2, 2)" in refused(words=words, vectors=np.ones((2, 2)))
    assert "is not a readable npz" in refused(words=np.array(["oh"], dtype=object), vectors=table)
    assert "but has (1,) <U2 and (1, 2) int64" in refused(words=words, vectors=table.astype(np.int64))
    assert "not finite in the vector of 'oh'" in refused(words=words, vectors=table * np.inf)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(DataError, match="is not a readable npz"):
        read_vectors(file, {"oh"})
    with pytest.raises(MissingDataError, match="is not there"):
        read_vectors(tmp_path / "none.txt", {"oh"})
