"""Graphs of typed edges between the utterances of a dialogue that lie within a window of each other.

An edge runs from a source, which is heard, to a target, which hears it; its relation says whether the source
came before or after, and how the two speakers relate. No utterance has an edge to itself: what an utterance
keeps of itself is each layer's own matter.

The relations lie in a block (T, T) a dialogue, and `RelationGraph.edges` gives the same as the edge list of
torch-geometric, whose `GraphConv` and `TransformerConv` are fast on it. Its `RGCNConv` is not, once relations are
many (it visits one after the other: a tenth of a second a step at 162), and it takes no edge weights:
`RelationalConv` is the same layer on the blocks, with both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mer_bench.errors import DataError

SpeakerRelations = Literal["roles", "pairs", "none"]


@dataclass(frozen=True)
class RelationGraph:
    """The relation of every edge of a batch of dialogues.

    Shapes (B dialogues, T turns):
        kinds: (B, T, T), long; [b, i, j] is the relation with which turn i hears turn j, `relations` where it
            does not.
    """

    kinds: Tensor
    relations: int

    @property
    def joined(self) -> Tensor:
        """Where there is an edge: (B, T, T), bool."""
        return self.kinds < self.relations

    def edges(self) -> tuple[Tensor, Tensor]:
        """The edge list over nodes `b * T + t`, sorted by target and then by source.

        Shapes:
            returns: (2, E), long, source above target; (E,), long, relation of each edge.
        """
        turns = self.kinds.shape[1]
        dialogue, target, source = self.joined.nonzero(as_tuple=True)
        first = dialogue * turns
        return torch.stack([first + source, first + target]), self.kinds[dialogue, target, source]


def relation_count(who: SpeakerRelations, directions: bool, speakers: int) -> int:
    """Relations of a graph: one, four or so many for all ordered pairs of speakers, by two directions."""
    return {"roles": 2, "pairs": speakers**2, "none": 1}[who] * (2 if directions else 1)


def window_relations(
    speakers: Tensor,
    mask: Tensor,
    past: int,
    future: int,
    who: SpeakerRelations = "roles",
    directions: bool = True,
    most_speakers: int = 1,
) -> RelationGraph:
    """Every turn hears the turns of its dialogue that lie at most `past` before and `future` after it.

    Args:
        who: `roles`: a relation for the turn's own speaker and one for all others, so that renaming speakers
            changes nothing; `pairs`: one for each ordered pair of speakers (Ghosal et al. 2019, "DialogueGCN",
            2 M^2 relations with the directions); `none`: speakers don't matter.
        directions: Whether a source before its target has another relation than one after it.
        most_speakers: M of `pairs`.

    Shapes:
        speakers: (B, T), long. mask: (B, T), bool.

    Raises:
        DataError: If `pairs` meets more speakers than `most_speakers`.
    """
    turn = torch.arange(mask.shape[1], device=mask.device)
    offset = turn - turn.unsqueeze(1)  # (T, T), negative where the source came before
    near = (offset >= -past) & (offset <= future) & (offset != 0)
    joined = near & mask.unsqueeze(1) & mask.unsqueeze(2)  # (B, T, T)
    if who == "roles":
        kinds = (speakers.unsqueeze(2) != speakers.unsqueeze(1)).long()
    elif who == "pairs":
        most = int(speakers.masked_fill(~mask, 0).max()) + 1
        if most > most_speakers:
            raise DataError(f"a dialogue has {most} speakers, but this model was built for at most {most_speakers}.")
        kinds = speakers.unsqueeze(2) * most_speakers + speakers.unsqueeze(1)
    else:
        kinds = torch.zeros_like(joined, dtype=torch.long)
    if directions:
        kinds = 2 * kinds + (offset > 0)
    relations = relation_count(who, directions, most_speakers)
    return RelationGraph(kinds.masked_fill(~joined, relations), relations)


class RelationalConv(nn.Module):
    """`h_i = sum_r sum_{j in N_i^r} weight_ij W_r x_j + own_i W_0 x_i + b`, on blocks.

    The layer of Schlichtkrull et al. (2018), "Modeling Relational Data with Graph Convolutional Networks",
    equations 2 and 3: without weights it divides by the number of edges of each relation, as
    `torch_geometric.nn.RGCNConv` does.

    Args:
        bases: W_r is a learned mixture of so many matrices; 0: each relation has its own.

    Shapes:
        values: (B, T, inputs). weights: (B, T, T), [b, i, j] of the edge from j to i. own: (B, T, 1).
        returns: (B, T, outputs).
    """

    def __init__(self, inputs: int, outputs: int, relations: int, bases: int = 0) -> None:
        super().__init__()
        self.matrices = bases or relations
        self.weight = nn.Parameter(torch.empty(inputs, self.matrices, outputs))
        self.mixture = nn.Parameter(torch.empty(relations, bases)) if bases else None
        self.root = nn.Linear(inputs, outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        bound = math.sqrt(6 / (inputs + outputs))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.mixture is not None:
            nn.init.uniform_(self.mixture, -math.sqrt(3 / bases), math.sqrt(3 / bases))

    def forward(
        self, values: Tensor, graph: RelationGraph, weights: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        dialogues, turns, _ = values.shape
        if weights is None:
            weights = relation_means(graph, values.dtype)
        matrices: Tensor = self.weight
        if self.mixture is not None and len(self.mixture) >= self.matrices:
            mixture: Tensor = self.mixture
        else:
            mixture = torch.eye(graph.relations, dtype=values.dtype, device=values.device)
            if self.mixture is not None:
                # Fewer relations than bases: mixed first, so that every utterance meets the fewer matrices.
                matrices = torch.einsum("rb,ibo->iro", self.mixture, self.weight)
        mixture = torch.cat([mixture, mixture.new_zeros(1, mixture.shape[1])])  # the last row: no edge
        shares = mixture[graph.kinds] * weights.unsqueeze(-1)  # (B, T, T, matrices)
        heard = (values @ matrices.flatten(1)).view(dialogues, turns * matrices.shape[1], -1)
        mixed = torch.bmm(shares.flatten(2), heard)  # (B, T, outputs)
        kept = self.root(values)
        result: Tensor = mixed + (kept if own is None else own * kept) + self.bias
        return result


def relation_means(graph: RelationGraph, dtype: torch.dtype) -> Tensor:
    """`1 / |N_i^r|` for each edge of relation r to i, 0 where there is none: (B, T, T)."""
    kinds = graph.kinds
    counts = torch.zeros(*kinds.shape[:2], graph.relations + 1, dtype=dtype, device=kinds.device)
    counts = counts.scatter_add(2, kinds, torch.ones_like(kinds, dtype=dtype))  # (B, T, relations + 1)
    return counts.reciprocal().gather(2, kinds).masked_fill(~graph.joined, 0)
