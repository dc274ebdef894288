"""The rows of a table → who stands where, and what chance alone would not explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mer_bench.leaderboard.table import Pair
from mer_bench.predictions import DialogueCounts
from mer_bench.statistics import RankedRow, rank_rows


@dataclass(frozen=True)
class Contender:
    """A row of a table, before it has a rank.

    Attributes:
        runs: What was predicted on the same dialogues, seed by seed.
        repeats: Runs of each seed, such as under several random masks.
    """

    label: str
    runs: tuple[DialogueCounts, ...]
    repeats: int = 1


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
    """Compare each row with the leader and with its neighbour below; see `statistics.rank_rows`.

    Args:
        contenders: Best first.
    """
    if not contenders:
        return Standings((), (), 0)
    found = rank_rows([each.runs for each in contenders], repeats=[each.repeats for each in contenders])
    return Standings(
        tuple(map(_standing, found.rows)),
        tuple(
            Pair(
                first=contenders[pair.first].label,
                second=contenders[pair.second].label,
                difference=pair.difference.difference,
                low=pair.difference.low,
                high=pair.difference.high,
                p_value=pair.difference.p_value,
                adjusted=pair.adjusted,
            )
            for pair in found.pairs
        ),
        found.resamples,
    )


def _standing(row: RankedRow) -> Standing | None:
    if row.interval is None or row.rank is None:
        return None
    return Standing(
        low=row.interval.low,
        high=row.interval.high,
        rank=row.rank,
        effect_size=row.effect.size if row.effect else None,
        superiority=row.effect.superiority if row.effect else None,
    )
