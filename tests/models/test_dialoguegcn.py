"""DialogueGCN against a literal reading of its formulas, one turn at a time, and PyTorch's own recurrences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from mer_bench_models.dialoguegcn.config import DialogueGcnConfig
from mer_bench_models.dialoguegcn.model import DialogueGcn, SequentialContext
from torch import Tensor, nn

from mer_bench.api import InputSpec
from mer_bench.data.batches import Batch
from mer_bench.errors import DataError
from mer_bench.nn.recurrent import GruWeights, LstmWeights, turn_order
from tests.models.batches import batch_with_gaps

CLASSES = ("anger", "joy", "neutral")
WIDTHS = {"text": 6, "audio": 4, "visual": 3}
NARROW: dict[str, Any] = {"context_width": 6, "graph_width": 5, "past": 2, "future": 1}
SPEAKERS = 3
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"neighbours": "mean", "relation_means": True, "past": 4, "future": 3},
    {"scaled_scores": True},
    {"edge_weights": "uniform", "speaker_relations": "none"},
    {"speaker_relations": "pairs", "bases": 4},
    {"nodal_attention": False, "directions": False},
    {"context": "none"},
    {"past": 0, "future": 0},
)


def small_model(names: tuple[str, ...] = ("text", "audio"), seed: int = 0, **changes: Any) -> DialogueGcn:
    torch.manual_seed(seed)
    spec = InputSpec({name: WIDTHS[name] for name in names}, CLASSES, SPEAKERS)
    model = DialogueGcn(spec, DialogueGcnConfig(**{**NARROW, **changes})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def make_batch(lengths: list[int], names: tuple[str, ...] = ("text", "audio"), seed: int = 0) -> Batch:
    return batch_with_gaps({name: WIDTHS[name] for name in names}, lengths, SPEAKERS, seed)


def literal_relation(config: DialogueGcnConfig, said: list[int], target: int, source: int) -> int:
    kind = {"roles": int(said[target] != said[source]), "pairs": said[target] * SPEAKERS + said[source], "none": 0}
    number = kind[config.speaker_relations]
    return 2 * number + int(source > target) if config.directions else number


def literal_graph(model: DialogueGcn, context: list[Tensor], said: list[int]) -> list[Tensor]:
    """The two graph layers of one dialogue."""
    config, graph = model.settings, model.graph
    conv = graph.by_relation
    turns = len(context)
    hearing = [[j for j in range(turns) if -config.past <= j - i <= config.future] for i in range(turns)]
    first = []
    for i in range(turns):
        if graph.edge is None:
            weights = torch.full((len(hearing[i]),), 1 / len(hearing[i]), dtype=torch.float64)
        else:
            bilinear = graph.edge.weight  # scores are g_j' W g_i
            weights = torch.stack([context[j] @ (bilinear @ context[i]) for j in hearing[i]])
            weights = (weights / (len(context[i]) ** 0.5 if config.scaled_scores else 1)).softmax(0)
        kinds = {j: literal_relation(config, said, i, j) for j in hearing[i] if j != i}
        total = conv.bias
        for j, weight in zip(hearing[i], weights, strict=True):
            if j == i:
                total = total + weight * (conv.root.weight @ context[i])
                continue
            matrix = (
                conv.weight[:, kinds[j]]
                if conv.mixture is None
                else torch.einsum("k,iko->io", conv.mixture[kinds[j]], conv.weight)
            )
            count = list(kinds.values()).count(kinds[j]) if config.relation_means else 1
            total = total + weight / count * (context[j] @ matrix)
        first.append(total.clamp_min(0))
    plain = graph.over_neighbours
    second = []
    for i in range(turns):
        others = [first[j] for j in hearing[i] if j != i]
        heard = torch.stack(others).sum(0) if others else torch.zeros_like(first[i])
        if config.neighbours == "mean" and others:
            heard = heard / len(others)
        mixed = plain.lin_rel.weight @ heard + plain.lin_rel.bias + plain.lin_root.weight @ first[i]
        second.append(mixed.clamp_min(0))
    return second


@pytest.mark.parametrize("changes", VARIANTS)
def test_one_dialogue_turn_by_turn(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    batch = make_batch([5, 2, 1])
    found = model(batch).logits
    for index, length in enumerate(batch.lengths.tolist()):
        rows = torch.cat(
            [
                torch.where(batch.present[name][index].unsqueeze(-1), batch.features[name][index], model.missing[name])
                for name in ("text", "audio")
            ],
            dim=-1,
        )[:length]
        order = turn_order(torch.tensor([length]), length)
        context = list(model.context(rows.unsqueeze(0), order)[0])
        graph = literal_graph(model, context, batch.speakers[index, :length].tolist())
        both = [torch.cat(pair) for pair in zip(context, graph, strict=True)]
        for turn in range(length):
            row = both[turn]
            if model.nodal is not None:
                scores = torch.stack([other @ (model.nodal.weight @ row) for other in both])
                scores = (scores / (len(row) ** 0.5 if model.settings.scaled_scores else 1)).softmax(0)
                row = sum((w * other for w, other in zip(scores, both, strict=True)), torch.zeros_like(row))
            expected = model.classes(model.hidden(row).clamp_min(0))
            torch.testing.assert_close(found[index, turn], expected)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_the_context_is_pytorchs_own_recurrence(kind: str) -> None:
    torch.manual_seed(0)
    ours = SequentialContext(4, DialogueGcnConfig(**{**NARROW, "context": kind, "layers": 2})).double().eval()
    theirs = (nn.GRU if kind == "gru" else nn.LSTM)(4, 3, 2, bidirectional=True, batch_first=True).double()
    for number, layer in enumerate(ours.layers):
        for side, name in enumerate((f"l{number}", f"l{number}_reverse")):
            weights = [getattr(theirs, f"{part}_{name}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            assert isinstance(layer, GruWeights | LstmWeights)
            load = layer.load_cell if isinstance(layer, GruWeights) else layer.load_layer
            load(side, *weights)
    values = torch.randn(2, 5, 4, dtype=torch.float64)
    found = ours(values, turn_order(torch.tensor([5, 3]), 5))
    torch.testing.assert_close(found[0], theirs(values[:1])[0][0])
    torch.testing.assert_close(found[1, :3], theirs(values[1:, :3])[0][0])


def test_dropout_stands_between_recurrent_layers_alone() -> None:
    values = torch.randn(2, 5, 4, dtype=torch.float64)
    order = turn_order(torch.tensor([5, 3]), 5)
    for layers in (1, 2):
        config = DialogueGcnConfig(**{**NARROW, "layers": layers, "dropout": 0.5})
        context = SequentialContext(4, config).double()
        expected = context.eval()(values, order)
        assert torch.equal(context.train()(values, order), expected) == (layers == 1)


def test_edge_weights_sum_to_one_over_the_window() -> None:
    model = small_model()
    captured = []
    model.graph.by_relation.register_forward_pre_hook(lambda _, given: captured.append(given))
    batch = make_batch([5, 3])
    model(batch)
    _, graph, weights, own = captured[0]
    torch.testing.assert_close(weights.sum(-1)[batch.mask], torch.ones(8, dtype=torch.float64))
    assert bool((weights[~graph.joined & ~torch.eye(5, dtype=torch.bool)] == 0).all())
    torch.testing.assert_close(own.squeeze(-1), weights.diagonal(dim1=1, dim2=2))


def test_only_pairs_tell_speakers_apart_by_name() -> None:
    batch = make_batch([6, 4])
    renamed = replace(batch, speakers=((batch.speakers + 1) % SPEAKERS) * batch.mask)
    one = replace(batch, speakers=torch.zeros_like(batch.speakers))
    for who, feels_renaming, feels_speakers in (("roles", 0, 1), ("pairs", 1, 1), ("none", 0, 0)):
        model = small_model(speaker_relations=who)
        expected = model(batch).logits[batch.mask]
        assert torch.allclose(model(renamed).logits[batch.mask], expected) != bool(feels_renaming)
        assert torch.allclose(model(one).logits[batch.mask], expected) != bool(feels_speakers)


def test_more_speakers_than_built_for_are_refused() -> None:
    batch = make_batch([3])
    with pytest.raises(DataError, match="has 4 speakers, but this model was built for at most 3"):
        small_model(speaker_relations="pairs")(replace(batch, speakers=torch.full_like(batch.speakers, 3)))
