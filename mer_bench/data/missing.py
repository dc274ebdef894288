"""Random missing modalities: which (utterance, modality) pairs a test split is scored without.

The rule. Every pair draws a number; of each utterance the pair with the largest one stays, and of all the
others those with the smallest numbers go, as many as the rate asks for. So each pair goes with the same
chance, independently of the others, except that an utterance never loses its last modality; the rate is
reached to the nearest pair; and a higher rate takes away all that a lower one took, and more. With M
modalities no more than (M - 1) of M pairs can go: a higher rate is no more than that.

The numbers depend on the number of the mask, the fold, the name of the modality and the place of the
utterance in the test split, and on nothing else: no model, no batch, no seed of a run. Two models on the
same modalities of the same split see the same masks. A modality that an utterance lacks in the corpus
counts as if it were there, so that the masks do not depend on a feature set's gaps; such an utterance can
be left with nothing.

As in the experiments of the field (Zhao, Li & Jin 2021, "Missing Modality Imagination Network"; Lian et al.
2023, "GCNet"), where one modality of each utterance stays and 0.7 stands for two of three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mer_bench.errors import RequestError

if TYPE_CHECKING:
    from mer_bench.data.batches import Split

RATES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MASKS = 5
"""Masks of each rate, numbered from 1."""


def pairs_missing(utterances: int, modalities: int, rate: float) -> int:
    """How many pairs of a split go at a rate: to the nearest one, and never the last of an utterance.

    Raises:
        RequestError: If the rate is no share.
    """
    if not 0 <= rate <= 1:
        raise RequestError(f"a missing rate must lie in [0, 1], but is {rate}.")
    return min(round(rate * utterances * modalities), utterances * (modalities - 1))


def random_mask(
    utterances: int, modalities: Sequence[str], rate: float, number: int, fold: int | None = None
) -> dict[str, NDArray[np.bool_]]:
    """Which pairs are still there at a rate, by modality.

    Args:
        utterances: Of the test split, those without a label too.
        modalities: Of the run; their order decides nothing.
        number: Of the mask, from 1; another number is another mask.
        fold: Under a protocol with folds the one whose test split it is.

    Raises:
        RequestError: If the rate is no share.

    Shapes:
        returns[m]: (utterances,), bool.
    """
    gone = pairs_missing(utterances, len(modalities), rate)
    draws = np.stack([_drawn(utterances, name, number, fold) for name in modalities], axis=1)  # (U, M)
    draws[np.arange(utterances), draws.argmax(axis=1)] = np.iinfo(np.uint64).max
    there = np.ones(draws.size, np.bool_)
    there[np.argsort(draws, axis=None, kind="stable")[:gone]] = False
    return dict(zip(modalities, there.reshape(draws.shape).T.copy(), strict=True))


def only(utterances: int, modalities: Sequence[str], present: Collection[str]) -> dict[str, NDArray[np.bool_]]:
    """The mask under which some modalities are there for every utterance, and the others for none."""
    return {name: np.full(utterances, name in present) for name in modalities}


def masked(split: Split, there: Mapping[str, NDArray[np.bool_]]) -> Split:
    """The same split without the pairs that a mask takes away; a batch has zeros there and says so.

    Shapes:
        there[m]: (utterances,), bool, for each modality of the split.
    """
    import torch

    kept = {name: torch.from_numpy(there[name]).to(split.device) for name in split.features}
    return replace(split, present={name: split.present[name] & kept[name] for name in split.features})


def _drawn(utterances: int, modality: str, number: int, fold: int | None) -> NDArray[np.uint64]:
    """One number a row, the same with every version of NumPy: raw bits, whose stream is guaranteed."""
    purpose = f"missing/{number}/{fold or 0}/{modality}"
    seed = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
    bits: NDArray[np.uint64] = np.random.PCG64(seed).random_raw(utterances)
    return bits
