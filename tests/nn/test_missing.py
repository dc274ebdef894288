"""Learned vectors stand where a modality is missing, and nothing of what is written there comes through."""

from __future__ import annotations

import torch

from mer_bench.nn.missing import MissingVectors
from mer_bench.testing.samples import garbage_where_missing, sample_spec, sample_split, whole

SPEC = sample_spec(("visual", "audio", "text"))  # not in the order of the alphabet


def filled() -> MissingVectors:
    vectors = MissingVectors(SPEC.widths)
    with torch.no_grad():
        for number, name in enumerate(SPEC.widths, 1):
            vectors[name].fill_(number)
    return vectors


def test_vectors_start_at_zero() -> None:
    assert {name: value.tolist() for name, value in MissingVectors({"text": 2, "audio": 1}).items()} == {
        "text": [0.0, 0.0],
        "audio": [0.0],
    }


def test_each_utterance_has_its_features_or_the_vector() -> None:
    batch = garbage_where_missing(whole(sample_split(SPEC)))
    vectors = filled()
    for number, (name, width) in enumerate(SPEC.widths.items(), 1):
        there = batch.present[name]
        found = vectors.features(name, batch)
        assert torch.equal(found[there], batch.features[name][there].to(found.dtype))
        assert torch.equal(found[~there], torch.full((int((~there).sum()), width), float(number)))


def test_modalities_stand_in_the_order_of_the_run() -> None:
    batch = whole(sample_split(SPEC, dtype=torch.float32))
    vectors = filled()
    expected = torch.cat([vectors.features(name, batch) for name in ("visual", "audio", "text")], dim=-1)
    assert torch.equal(vectors.side_by_side(batch), expected)


def test_gradient_reaches_the_vectors_only_where_they_stand() -> None:
    batch = whole(sample_split(SPEC, dtype=torch.float32))
    vectors = filled()
    vectors.features("audio", batch).sum().backward()
    grad = vectors["audio"].grad
    assert grad is not None
    assert torch.equal(grad, torch.full((SPEC.widths["audio"],), float((~batch.present["audio"]).sum())))
    assert vectors["text"].grad is None
