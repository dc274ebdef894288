"""The idf-weighted mean of word vectors against one written out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mer_bench.data.text.tokens import vector_tokens
from mer_bench.data.text.vectors import VectorsEncoder, VectorsSettings
from mer_bench.errors import MissingDataError

from .said import corpus, table, vectors_file


@pytest.mark.parametrize("weighting", ["idf", "none"])
def test_mean_by_hand(tmp_path: Path, weighting: str) -> None:
    train = corpus()
    settings = VectorsSettings.model_validate({"weighting": weighting})
    encoder, features = VectorsEncoder.fit(train, {"vectors": vectors_file(tmp_path)}, settings)
    said = [vector_tokens(text) for text in train.texts]
    means = []
    for tokens in said:
        total, weights = np.zeros(3), 0.0
        for token in tokens:
            if token in table():
                texts_with = sum(token in other for other in said)
                weight = math.log((1 + len(said)) / (1 + texts_with)) + 1 if weighting == "idf" else 1.0
                total, weights = total + weight * table()[token].astype(float), weights + weight
        means.append(total / weights if weights else np.full(3, np.nan))
    raw = np.array(means)
    assert np.isnan(raw).any()
    expected = np.nan_to_num((raw - np.nanmean(raw, axis=0)) / np.nanstd(raw, axis=0))
    assert features == pytest.approx(expected, abs=1e-5)
    assert features.dtype == np.float32
    assert encoder.blocks() == {"vectors": 3}
    assert np.array_equal(encoder.transform(train.texts), features)


def test_words_that_train_does_not_have_are_passed_over_and_only_its_own_are_kept(tmp_path: Path) -> None:
    encoder, _ = VectorsEncoder.fit(corpus(), {"vectors": vectors_file(tmp_path)})
    assert "zebra" in table()
    assert [word.decode() for word in encoder.state()[0]["words"].tolist()] == sorted(set(table()) - {"zebra"})
    alone, beside, nothing = encoder.transform(["oh great", "zebra oh QQQ great", "zebra"])
    assert np.array_equal(alone, beside)
    assert nothing.tolist() == [0, 0, 0]
    assert encoder.transform([]).shape == (0, 3)


def test_the_labels_have_no_part(tmp_path: Path) -> None:
    train, options = corpus(), {"vectors": vectors_file(tmp_path)}
    unlabelled = replace(train, labels=np.full_like(train.labels, -1))
    assert np.array_equal(VectorsEncoder.fit(train, options)[1], VectorsEncoder.fit(unlabelled, options)[1])


def test_what_is_noticed(tmp_path: Path) -> None:
    encoder, _ = VectorsEncoder.fit(corpus(), {"vectors": vectors_file(tmp_path)})
    assert encoder.noticed(["oh no, zebra!!", ""]) == {"share of tokens with a word vector": 0.6}
    assert encoder.noticed([]) == {"share of tokens with a word vector": 0}


def test_without_a_file() -> None:
    with pytest.raises(MissingDataError, match=r"need a file of word vectors. Give it with: --vectors FILE"):
        VectorsEncoder.fit(corpus(), {})
