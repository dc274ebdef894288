"""The rows of a table → who stands where, and what chance alone would not explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mer_bench.leaderboard.table import Pair
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics import FEWEST_DIALOGUES, RESAMPLES, adjust_holm, compare, mean_interval

LEVEL = 0.05


@dataclass(frozen=True)
class Contender:
    """A row of a table, before it has a rank.

    Attributes:
        seeds: One each: what was predicted on the same dialogues.
    """

    label: str
    seeds: tuple[DialogueCounts, ...]


@dataclass(frozen=True)
class Standing:
    """What the tests say of a row; see `table.Row` and `table.Figure`."""

    low: float
    high: float
    rank: int
    effect_size: float | None = None
    superiority: float | None = None


@dataclass(frozen=True)
class Standings:
    """Of all rows, in their order; None where nothing can be told, since there are too few dialogues."""

    rows: tuple[Standing | None, ...]
    pairs: tuple[Pair, ...]
    resamples: int


def stand(contenders: Sequence[Contender]) -> Standings:
    """Compare each row with the leader and with its neighbour below.

    Args:
        contenders: Best first.
    """
    if not contenders or len(contenders[0].seeds[0].dialogues) < FEWEST_DIALOGUES:
        return Standings((None,) * len(contenders), (), 0)
    tested = [(0, other) for other in range(1, len(contenders))]
    tested += [(row, row + 1) for row in range(1, len(contenders) - 1)]
    found = [compare(contenders[first].seeds, contenders[second].seeds) for first, second in tested]
    adjusted = adjust_holm([each.p_value for each in found])
    by_pair = dict(zip(tested, adjusted, strict=True))
    ranks = [1]
    for row in range(1, len(contenders)):
        behind_leader = ranks[-1] == 1 and by_pair[0, row] < LEVEL
        ranks.append(row + 1 if behind_leader or by_pair[row - 1, row] < LEVEL else ranks[-1])
    intervals = [mean_interval(each.seeds) for each in contenders]
    return Standings(
        tuple(Standing(each.low, each.high, rank) for each, rank in zip(intervals, ranks, strict=True)),
        tuple(
            Pair(
                first=contenders[first].label,
                second=contenders[second].label,
                difference=each.difference,
                low=each.low,
                high=each.high,
                p_value=each.p_value,
                adjusted=by_pair[first, second],
            )
            for (first, second), each in zip(tested, found, strict=True)
        ),
        RESAMPLES,
    )
