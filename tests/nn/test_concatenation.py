"""The modalities of an utterance side by side."""

from __future__ import annotations

import torch
from torch.nn import functional

from mer_bench.data.batches import Batch
from mer_bench.nn.concatenation import ConcatenatedUtterances

WIDTHS = {"text": 3, "audio": 2}


def make_batch() -> Batch:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    present = {"text": mask.clone(), "audio": mask.clone()}
    present["audio"][0, 1] = False
    features = {name: torch.randn(2, 3, width) * present[name].unsqueeze(-1) for name, width in WIDTHS.items()}
    speakers, lengths, dialogues = torch.zeros(2, 3, dtype=torch.long), torch.tensor([3, 1]), torch.arange(2)
    return Batch(features, present, mask, speakers, lengths, dialogues)


def test_a_learned_vector_stands_where_a_modality_is_missing() -> None:
    utterances, batch = ConcatenatedUtterances(WIDTHS, 0, 0.0), make_batch()
    assert utterances.out == 5
    assert torch.equal(utterances(batch), torch.cat([batch.features["text"], batch.features["audio"]], dim=-1))
    utterances.missing["audio"].data.copy_(torch.tensor([7.0, 8.0]))
    found = utterances(batch)
    assert found[0, 1, 3:].tolist() == [7.0, 8.0]
    assert torch.equal(found[0, 0, 3:], batch.features["audio"][0, 0])
    assert torch.equal(found[0, 1, :3], batch.features["text"][0, 1])


def test_the_layer_is_a_linear_map_a_norm_and_a_gelu() -> None:
    utterances, batch = ConcatenatedUtterances(WIDTHS, 4, 0.0), make_batch()
    assert utterances.out == 4
    assert utterances.entry is not None
    values = torch.cat([batch.features["text"], batch.features["audio"]], dim=-1)
    weight, bias = utterances.entry.state_dict()["0.weight"], utterances.entry.state_dict()["0.bias"]
    expected = functional.gelu(functional.layer_norm(values @ weight.T + bias, [4]))
    torch.testing.assert_close(utterances(batch), expected)


def test_dropout_acts_in_training_alone() -> None:
    utterances, batch = ConcatenatedUtterances(WIDTHS, 4, 0.5), make_batch()
    assert not torch.allclose(utterances(batch), utterances(batch))
    utterances.eval()
    assert torch.equal(utterances(batch), utterances(batch))
