"""Relations within a window against a literal loop, and the relational layer against torch-geometric's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import RGCNConv

from mer_bench.errors import DataError
from mer_bench.nn.relations import (
    RelationalConv,
    RelationGraph,
    SpeakerRelations,
    relation_count,
    relation_means,
    window_relations,
)

SPEAKERS = torch.tensor([[0, 1, 0, 2, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 3, 1])
MASK = torch.arange(6) < LENGTHS.unsqueeze(1)
KINDS: tuple[SpeakerRelations, ...] = ("roles", "pairs", "none")


def literal_edges(past: int, future: int, who: str, directions: bool) -> list[tuple[int, int, int]]:
    """(target, source, relation) of every edge over nodes b * 6 + t, one turn at a time."""
    edges = []
    for dialogue, length in enumerate(LENGTHS.tolist()):
        for target in range(length):
            for source in range(max(0, target - past), min(length, target + future + 1)):
                if source == target:
                    continue
                hearer, heard = int(SPEAKERS[dialogue, target]), int(SPEAKERS[dialogue, source])
                kind = {"roles": int(hearer != heard), "pairs": hearer * 3 + heard, "none": 0}[who]
                if directions:
                    kind = 2 * kind + (1 if source > target else 0)
                edges.append((dialogue * 6 + target, dialogue * 6 + source, kind))
    return edges


def graph_of(past: int, future: int, who: SpeakerRelations = "roles", directions: bool = True) -> RelationGraph:
    return window_relations(SPEAKERS, MASK, past, future, who, directions, most_speakers=3)


@pytest.mark.parametrize("who", KINDS)
@pytest.mark.parametrize("directions", [True, False])
@pytest.mark.parametrize(("past", "future"), [(2, 1), (0, 3), (9, 9), (1, 0), (0, 0)])
def test_the_edges_are_those_of_a_literal_loop(who: SpeakerRelations, directions: bool, past: int, future: int) -> None:
    graph = graph_of(past, future, who, directions)
    (source, target), kind = graph.edges()
    found = list(zip(target.tolist(), source.tolist(), kind.tolist(), strict=True))
    assert found == literal_edges(past, future, who, directions)
    assert graph.relations == {"roles": 2, "pairs": 9, "none": 1}[who] * (2 if directions else 1)


def test_three_turns_by_hand() -> None:
    graph = window_relations(torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.bool), 2, 1)
    earlier_own, later_other, earlier_other, none = 0, 3, 2, 4
    assert graph.kinds.tolist() == [
        [[none, later_other, none], [earlier_other, none, later_other], [earlier_own, earlier_other, none]]
    ]


def test_roles_do_not_change_when_speakers_are_renamed() -> None:
    renamed = window_relations((SPEAKERS + 1) % 3, MASK, 2, 2)
    assert torch.equal(graph_of(2, 2).kinds, renamed.kinds)
    pairs = window_relations((SPEAKERS + 1) % 3, MASK, 2, 2, "pairs", most_speakers=3)
    assert not torch.equal(graph_of(2, 2, "pairs").kinds, pairs.kinds)


def test_what_stands_on_padding_does_not_matter() -> None:
    for who in KINDS:
        garbage = SPEAKERS.masked_fill(~MASK, 2)
        other = window_relations(garbage, MASK, 2, 2, who, most_speakers=3)
        assert torch.equal(graph_of(2, 2, who).kinds, other.kinds)


def test_more_speakers_than_built_for_are_refused() -> None:
    with pytest.raises(DataError, match="has 3 speakers, but this model was built for at most 2"):
        window_relations(SPEAKERS, MASK, 2, 2, "pairs", most_speakers=2)
    assert relation_count("pairs", True, 9) == 162


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("who", "bases"), [("roles", 0), ("roles", 2), ("roles", 7), ("pairs", 0), ("pairs", 5), ("none", 0)]
)
def test_the_layer_is_the_one_of_torch_geometric(who: SpeakerRelations, bases: int) -> None:
    graph = graph_of(2, 1, who)
    torch.manual_seed(0)
    ours = RelationalConv(4, 3, graph.relations, bases).double()
    theirs = RGCNConv(4, 3, graph.relations, num_bases=bases or None).double()
    with torch.no_grad():
        ours.bias.normal_()
        theirs.weight.copy_(ours.weight.transpose(0, 1))
        theirs.root.copy_(ours.root.weight.T)
        theirs.bias.copy_(ours.bias)
        if ours.mixture is not None:
            theirs.comp.copy_(ours.mixture)
    values = drawn(1, 3, 6, 4).requires_grad_()
    found = ours(values, graph)
    expected = theirs(values.flatten(0, 1), *graph.edges()).view(3, 6, 3)
    torch.testing.assert_close(found, expected)
    weights = drawn(2, 3, 6, 3)
    (grad,) = torch.autograd.grad((found * weights).sum(), values)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), values)
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("bases", [0, 2, 7])
def test_weighted_edges_one_at_a_time(bases: int) -> None:
    graph = graph_of(2, 1)
    torch.manual_seed(0)
    layer = RelationalConv(4, 3, graph.relations, bases).double()
    values, weights, own = drawn(1, 3, 6, 4), drawn(2, 3, 6, 6), drawn(3, 3, 6, 1)
    found = layer(values, graph, weights, own)
    for dialogue in range(3):
        for target in range(6):
            expected = own[dialogue, target] * (layer.root.weight @ values[dialogue, target]) + layer.bias
            for goal, source, kind in literal_edges(2, 1, "roles", True):
                if goal == dialogue * 6 + target:
                    if layer.mixture is None:
                        matrix = layer.weight[:, kind]
                    else:
                        matrix = sum(
                            (layer.mixture[kind, base] * layer.weight[:, base] for base in range(bases)),
                            start=torch.zeros(4, 3, dtype=torch.float64),
                        )
                    weight = weights[dialogue, target, source - dialogue * 6]
                    expected = expected + weight * (values[dialogue, source - dialogue * 6] @ matrix)
            torch.testing.assert_close(found[dialogue, target], expected)


def test_means_count_the_edges_of_one_relation() -> None:
    graph = window_relations(torch.tensor([[0, 0, 0, 1]]), torch.ones(1, 4, dtype=torch.bool), 3, 3)
    expected = torch.tensor([[0, 0.5, 0.5, 1], [1, 0, 1, 1], [0.5, 0.5, 0, 1], [1 / 3, 1 / 3, 1 / 3, 0]])
    torch.testing.assert_close(relation_means(graph, torch.float32)[0], expected)
