"""How sure a mean or a difference is: intervals, tests and effect sizes from dialogue counts, and across datasets.

Utterances of one dialogue are not independent, so whole dialogues are drawn; seeds of one model are a second source of
chance. What is told of a test split takes one `DialogueCounts` a seed, all of that split (`metrics.count_dialogues`
makes them from predictions).

Nothing here depends on the order in which seeds or dialogues are given, on the number of threads, on the other rows of
a table, or on a random generator whose stream a library may change. The last bits of logarithms and quantile functions
are a machine's own, so that a number that is to be the same everywhere is rounded where it is written down.
"""

from __future__ import annotations

from mer_bench.statistics.across import Across, Signed, compare_across, datasets_needed
from mer_bench.statistics.bootstrap import (
    FEWEST_DIALOGUES,
    RESAMPLES,
    Difference,
    Interval,
    compare,
    mean_interval,
)
from mer_bench.statistics.contributions import Effect, contributions_of, effect_of
from mer_bench.statistics.correction import adjust_holm
from mer_bench.statistics.rows import LEVEL, ComparedPair, RankedRow, Ranking, rank_rows

__all__ = [
    "FEWEST_DIALOGUES",
    "LEVEL",
    "RESAMPLES",
    "Across",
    "ComparedPair",
    "Difference",
    "Effect",
    "Interval",
    "RankedRow",
    "Ranking",
    "Signed",
    "adjust_holm",
    "compare",
    "compare_across",
    "contributions_of",
    "datasets_needed",
    "effect_of",
    "mean_interval",
    "rank_rows",
]
