"""Batches against a reference in plain loops: padding, masks, order, labels."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.data.batches import NO_LABEL, Batch, Split
from mer_bench.data.store import StoreContent, write_store
from mer_bench.errors import DataError

from .content import KEY, contents, make_content


def split_of(content: StoreContent, labels: bool = True) -> Split:
    """All dialogues of a content as one split, not through a store."""
    return Split(
        name="train",
        features={name: torch.from_numpy(values) for name, values in content.features.items()},
        present={name: torch.from_numpy(values) for name, values in content.present.items()},
        speakers=torch.from_numpy(content.speakers).long(),
        offsets=torch.from_numpy(content.offsets),
        labels=torch.from_numpy(content.labels).long() if labels else None,
    )


@settings(max_examples=100, deadline=None)
@given(content=contents(), data=st.data())
def test_a_batch_is_its_dialogues_padded(content: StoreContent, data: st.DataObject) -> None:
    count = len(content.dialogue_ids)
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=6))
    batch = split_of(content).batch(chosen)
    lengths = [int(content.offsets[d + 1] - content.offsets[d]) for d in chosen]
    turns = max(lengths)
    assert batch.mask.shape == (len(chosen), turns)
    assert batch.lengths.tolist() == lengths
    assert batch.dialogues.tolist() == chosen
    assert batch.modalities == tuple(content.features)
    assert batch.labels is not None
    for b, dialogue in enumerate(chosen):
        for t in range(turns):
            real = t < lengths[b]
            row = int(content.offsets[dialogue]) + t
            assert batch.mask[b, t].item() == real
            assert batch.labels[b, t].item() == (content.labels[row] if real else NO_LABEL)
            assert batch.speakers[b, t].item() == (content.speakers[row] if real else 0)
            for name, values in content.features.items():
                assert batch.features[name].shape == (len(chosen), turns, values.shape[1])
                there = real and bool(content.present[name][row])
                assert batch.present[name][b, t].item() == there
                expected = values[row] if there else np.zeros(values.shape[1])
                assert batch.features[name][b, t].tolist() == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(content=contents(), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_an_epoch_has_every_dialogue_once(content: StoreContent, size: int, seed: int) -> None:
    split = split_of(content)
    everything = list(range(len(content.dialogue_ids)))
    for epoch in (split.in_order(size), split.shuffled(size, torch.Generator().manual_seed(seed))):
        batches = list(epoch)
        assert sorted(d for batch in batches for d in batch.dialogues.tolist()) == everything
        assert max(len(batch.dialogues) for batch in batches) <= size
        assert len(batches) == -(-len(everything) // size)


@settings(max_examples=10, deadline=None)
@given(content=contents())
def test_a_split_from_a_store_makes_the_same_batches(content: StoreContent) -> None:
    dialogues = np.flatnonzero(content.splits == 1)
    wanted = split_of(content).batch(dialogues.tolist())
    with TemporaryDirectory() as name:
        split = write_store(Path(name) / "s", content, KEY, {}).split("dev")
        found = split.batch(range(len(dialogues)))
        assert torch.equal(found.mask, wanted.mask)
        assert torch.equal(found.speakers, wanted.speakers)
        assert wanted.labels is not None
        assert found.labels is not None
        assert torch.equal(found.labels, wanted.labels)
        for modality in content.features:
            assert torch.equal(found.features[modality], wanted.features[modality])
            assert torch.equal(found.present[modality], wanted.present[modality])
        del split


def orders(split: Split, seed: int) -> list[list[int]]:
    return [batch.dialogues.tolist() for batch in split.shuffled(4, torch.Generator().manual_seed(seed))]


def test_a_seed_decides_the_order_and_epochs_differ() -> None:
    split = split_of(make_content([1 + d % 9 for d in range(60)], [0] * 60, {"text": 1}))
    assert orders(split, 1) == orders(split, 1)
    assert orders(split, 1) != orders(split, 2)
    generator = torch.Generator().manual_seed(1)
    first, second = ([b.dialogues.tolist() for b in split.shuffled(4, generator)] for _ in range(2))
    assert first != second


def test_batches_are_by_length() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 34, 300).tolist()
    split = split_of(make_content(lengths, [0] * 300, {"text": 1}))
    cells = sum(batch.mask.numel() for batch in split.shuffled(16, torch.Generator().manual_seed(0)))
    assert cells < 1.35 * sum(lengths)
    assert sum(batch.mask.numel() for batch in split.in_order(16)) < 1.15 * sum(lengths)
    longest = [int(batch.lengths.max()) for batch in split.in_order(16)]
    assert longest == sorted(longest, reverse=True)


def test_without_labels_a_batch_has_none() -> None:
    content = make_content([2, 3], [0, 0], {"text": 2})
    assert split_of(content, labels=False).batch([0]).labels is None
    batch = split_of(content).batch([0, 1])
    blind = batch.without_labels()
    assert blind.labels is None
    assert blind.features is batch.features
    assert batch.labels is not None


def test_a_batch_moves_and_changes_its_float_type() -> None:
    batch = split_of(make_content([2, 3], [0, 0], {"text": 2})).batch([0, 1])
    moved = batch.to("cpu", torch.float64)
    assert moved.features["text"].dtype == torch.float64
    assert moved.mask.dtype == torch.bool
    assert moved.speakers.dtype == torch.long
    assert isinstance(moved, Batch)


def test_a_split_that_does_not_fit_is_refused() -> None:
    content = make_content([2, 3], [0, 0], {"text": 2})
    split = split_of(content)
    with pytest.raises(DataError, match=r"text of split train should be \(utterances, width\) with 5 rows"):
        Split("train", {"text": torch.zeros(4, 2)}, split.present, split.speakers, split.offsets)
    with pytest.raises(DataError, match="has a dialogue without utterances"):
        Split("train", split.features, split.present, split.speakers, torch.tensor([0, 2, 2, 5]))
