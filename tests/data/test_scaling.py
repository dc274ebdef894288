"""Standardising on train: hand-computed cases, blanks, missing rows, and scikit-learn as the reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from mer_bench.data.scaling import Standardiser
from mer_bench.errors import DataError

NAN = float("nan")


def test_hand_computed() -> None:
    values = np.array([[1.0, NAN], [3.0, 10.0], [100.0, 7.0], [5.0, 20.0]])
    present = np.array([True, True, False, True])
    scaler = Standardiser.fit(values, present, ["pitch", "rate"])
    assert scaler.mean.tolist() == [3.0, 15.0]
    assert scaler.deviation.tolist() == pytest.approx([np.sqrt(8 / 3), 5.0])
    assert scaler.indicated == (1,)
    step = 2 / np.sqrt(8 / 3)
    expected = [[-step, 0, 1], [0, -1, 0], [0, 0, 0], [step, 1, 0]]
    assert scaler.transform(values, present) == pytest.approx(np.array(expected), abs=1e-6)
    assert scaler.width == 3


def test_without_blanks_it_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    train, other = rng.normal(5, 3, (50, 4)), rng.normal(4, 2, (20, 4))
    scaler = Standardiser.fit(train, np.ones(50, bool), list("abcd"))
    reference = StandardScaler().fit(train).transform(other)
    assert scaler.transform(other, np.ones(20, bool)) == pytest.approx(reference, abs=1e-6)


def test_a_blank_elsewhere_makes_no_column_that_train_lacks() -> None:
    scaler = Standardiser.fit(np.array([[1.0], [3.0]]), np.ones(2, bool), ["a"])
    assert scaler.transform(np.array([[NAN]]), np.ones(1, bool)).tolist() == [[0.0]]


def test_a_missing_row_is_no_blank() -> None:
    values = np.array([[1.0], [3.0], [NAN]])
    scaler = Standardiser.fit(values, np.array([True, True, False]), ["a"])
    assert scaler.indicated == ()
    assert scaler.mean.tolist() == [2.0]


def test_a_constant_column_becomes_zero() -> None:
    values = np.full((1000, 1), 0.1)
    scaler = Standardiser.fit(values, np.ones(1000, bool), ["a"])
    assert np.abs(scaler.transform(values, np.ones(1000, bool))).max() < 1e-12


def test_a_column_without_a_value_is_refused() -> None:
    with pytest.raises(DataError, match="has not one value of b"):
        Standardiser.fit(np.array([[1.0, NAN], [2.0, NAN]]), np.ones(2, bool), ["a", "b"])
    with pytest.raises(DataError, match="has not one value of a"):
        Standardiser.fit(np.array([[1.0]]), np.zeros(1, bool), ["a"])


def test_state_round_trip() -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random((30, 3)) < 0.2, NAN, rng.normal(size=(30, 3)))
    present = rng.random(30) < 0.9
    scaler = Standardiser.fit(values, present, ["a", "b", "c"])
    arrays, settings = scaler.state()
    again = Standardiser.from_state(arrays, json.loads(json.dumps(settings)))
    assert np.array_equal(again.transform(values, present), scaler.transform(values, present))


def test_parts_change_no_bit() -> None:
    """Columns are learned from, and rows scaled, some at a time: the same numbers as all at once."""
    rng = np.random.default_rng(2)
    values = np.where(rng.random((5000, 70)) < 0.01, NAN, rng.normal(3, 2, (5000, 70)))
    present = rng.random(5000) < 0.9
    scaler = Standardiser.fit(values, present, [str(column) for column in range(70)])
    there = values[present]
    assert np.array_equal(scaler.mean, np.nanmean(there, axis=0))
    assert np.array_equal(scaler.deviation, np.nanstd(there, axis=0))
    blank = np.isnan(values)
    whole = np.where(blank, 0.0, (values - scaler.mean) / scaler.deviation)
    whole = np.concatenate([whole, blank[:, list(scaler.indicated)]], axis=1).astype(np.float32)
    whole[~present] = 0
    assert np.array_equal(scaler.transform(values, present), whole)
    for width in (1, 2, 33, 63, 65):
        part = Standardiser.fit(values[:, :width], present, [str(column) for column in range(width)])
        assert np.array_equal(part.deviation, np.nanstd(there[:, :width], axis=0))
