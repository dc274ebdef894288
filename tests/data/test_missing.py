"""Random missing modalities: how many go, which stay, and what decides it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mer_bench.api import Split
from mer_bench.data import missing
from mer_bench.data.missing import MASKS, RATES, masked, only, pairs_missing, random_mask
from mer_bench.errors import RequestError

ALL = ("text", "audio", "visual")
FIXED = {"text": "100010000100", "audio": "101101001101", "visual": "111101110010"}
SIZES = st.integers(1, 200)
NUMBERS = st.integers(1, MASKS)
RATE = st.floats(0, 1)


def stacked(mask: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """(utterances, modalities)."""
    return np.stack(list(mask.values()), axis=1)


@given(SIZES, st.integers(1, 3), RATE, NUMBERS)
def test_one_modality_of_each_utterance_stays(utterances: int, modalities: int, rate: float, number: int) -> None:
    there = stacked(random_mask(utterances, ALL[:modalities], rate, number))
    assert there.shape == (utterances, modalities)
    assert there.any(axis=1).all()


@given(SIZES, st.integers(1, 3), RATE, NUMBERS)
def test_the_rate_is_reached_as_far_as_it_can_be(utterances: int, modalities: int, rate: float, number: int) -> None:
    there = stacked(random_mask(utterances, ALL[:modalities], rate, number))
    reachable = min(rate, (modalities - 1) / modalities)
    assert abs((~there).sum() - reachable * there.size) <= 0.5 + 1e-9
    assert (~there).sum() == pairs_missing(utterances, modalities, rate)


@given(SIZES, st.integers(1, 3), RATE, RATE, NUMBERS)
def test_a_higher_rate_takes_all_that_a_lower_one_took(
    utterances: int, modalities: int, one: float, other: float, number: int
) -> None:
    low, high = (stacked(random_mask(utterances, ALL[:modalities], rate, number)) for rate in sorted((one, other)))
    assert not (high & ~low).any()


@given(SIZES, RATE, NUMBERS, st.permutations(ALL))
def test_the_order_of_the_modalities_decides_nothing(
    utterances: int, rate: float, number: int, order: list[str]
) -> None:
    usual, other = random_mask(utterances, ALL, rate, number), random_mask(utterances, order, rate, number)
    assert list(other) == order
    for name in ALL:
        assert np.array_equal(usual[name], other[name])


def test_five_utterances_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {"text": [9, 1, 5, 8, 2], "audio": [3, 7, 6, 4, 10]}
    monkeypatch.setattr(missing, "_drawn", lambda _, name, *__: np.array(drawn[name], np.uint64))
    # The larger of each utterance stays; of the others 2 (text) goes after 1 (text), then 3 and 4 (audio), then 5.
    for rate, text, audio in (
        (0.0, [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]),
        (0.1, [1, 0, 1, 1, 1], [1, 1, 1, 1, 1]),
        (0.2, [1, 0, 1, 1, 0], [1, 1, 1, 1, 1]),
        (0.4, [1, 0, 1, 1, 0], [0, 1, 1, 0, 1]),
        (0.5, [1, 0, 0, 1, 0], [0, 1, 1, 0, 1]),
        (0.7, [1, 0, 0, 1, 0], [0, 1, 1, 0, 1]),
    ):
        found = random_mask(5, ("text", "audio"), rate, 1)
        assert (found["text"].astype(int).tolist(), found["audio"].astype(int).tolist()) == (text, audio), rate


def test_the_masks_are_fixed() -> None:
    # Written down once: a mask that changed would make old records and new ones incomparable.
    found = random_mask(12, ALL, 0.5, 1)
    assert {name: "".join(str(int(each)) for each in there) for name, there in found.items()} == FIXED


def test_masks_folds_and_modalities_draw_numbers_of_their_own() -> None:
    masks = [stacked(random_mask(400, ALL, 0.5, number)) for number in range(1, MASKS + 1)]
    masks += [stacked(random_mask(400, ALL, 0.5, 1, fold)) for fold in (1, 2)]
    for index, one in enumerate(masks):
        for other in masks[:index]:
            assert 0.35 < (one == other).mean() < 0.65
    text, audio, visual = masks[0].T
    assert 0.3 < (text == audio).mean() < 0.6
    for column in (text, audio, visual):
        assert abs((~column).mean() - 0.5) < 0.06


def test_rates_rise_to_what_three_modalities_allow() -> None:
    taken = [pairs_missing(2610, 3, rate) for rate in RATES]
    assert all(low < high for low, high in pairwise(taken))
    assert taken[-1] == 2 * 2610
    assert taken[0] == 783


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(RequestError, match="must lie in"):
        random_mask(3, ALL, rate, 1)


def split(**changes: Any) -> Split:
    values = {
        "name": "test",
        "features": {"text": torch.ones(5, 2), "audio": torch.ones(5, 3)},
        "present": {"text": torch.tensor([1, 1, 0, 1, 1]).bool(), "audio": torch.ones(5, dtype=torch.bool)},
        "speakers": torch.zeros(5, dtype=torch.long),
        "offsets": torch.tensor([0, 2, 5]),
        "labels": torch.zeros(5, dtype=torch.long),
    }
    return Split(**(values | changes))


def test_what_a_mask_takes_away_a_batch_does_not_have() -> None:
    whole = split()
    there = {"text": np.array([0, 1, 1, 1, 0], np.bool_), "audio": np.array([1, 0, 1, 1, 1], np.bool_)}
    taken = masked(whole, there)
    batch = taken.batch([1, 0])
    assert batch.present["text"].tolist() == [[False, True, False], [False, True, False]]  # the corpus's own gap stays
    assert batch.present["audio"].tolist() == [[True, True, True], [True, False, False]]
    for name in ("text", "audio"):
        assert torch.equal(batch.features[name].any(-1), batch.present[name])
    assert torch.equal(taken.labels, whole.labels)  # type: ignore[arg-type]
    assert whole.present["text"].tolist() == [True, True, False, True, True]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_the_size_of_a_batch_decides_nothing(batch_size: int) -> None:
    there = random_mask(5, ("text", "audio"), 0.3, 2)
    taken = masked(split(present={name: torch.ones(5, dtype=torch.bool) for name in ("text", "audio")}), there)
    seen = {name: torch.zeros(5, dtype=torch.bool) for name in there}
    for batch in taken.in_order(batch_size):
        rows, mask = taken.rows(batch.dialogues)
        for name in there:
            seen[name][rows[mask]] = batch.present[name][mask]
    for name, expected in there.items():
        assert seen[name].tolist() == expected.tolist()


def test_only_some_modalities() -> None:
    found = only(3, ALL, ("audio",))
    assert {name: there.tolist() for name, there in found.items()} == {
        "text": [False] * 3,
        "audio": [True] * 3,
        "visual": [False] * 3,
    }
