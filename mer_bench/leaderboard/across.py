"""Tables → models over several datasets: one table of each dataset, and the models that have a row in all of them."""

from __future__ import annotations

from collections.abc import Sequence

from mer_bench.leaderboard.table import AcrossDatasets, Row, Table
from mer_bench.statistics import compare_across

DECIMALS = 6


def across_tables(tables: Sequence[Table]) -> AcrossDatasets | None:
    """Compare models over datasets; None where fewer than two tables share two models.

    Of each dataset the table with the most rows counts, on its complete test split: tables of one dataset tell of the
    same dialogues and are no further datasets. Of each model its row with the card's settings counts; which row scores
    best on test does not decide it. Made-up data never count. A dataset that few models were run on is left out where
    it would cost more models than it brings: models times datasets is as large as can be.
    """
    scores = _shared({table.name: _scores(table) for table in _one_a_dataset(tables)})
    if not scores:
        return None
    found = compare_across(scores)
    return AcrossDatasets(
        tables=found.datasets,
        models=found.models,
        ranks=found.ranks,
        mean_ranks=tuple(round(rank, DECIMALS) for rank in found.mean_ranks),
        friedman_p=_rounded(found.friedman_p),
        critical_difference=_rounded(found.critical_difference),
        cliques=found.cliques,
        wilcoxon_pairs=tuple((each.first, each.second, round(each.adjusted, DECIMALS)) for each in found.signed),
        verdict=found.verdict,
    )


def _one_a_dataset(tables: Sequence[Table]) -> list[Table]:
    best: dict[str, Table] = {}
    for table in sorted(tables, key=lambda table: (-len(table.rows), table.name)):
        if table.key.condition is None and not table.key.synthetic:
            best.setdefault(table.key.dataset, table)
    return sorted(best.values(), key=lambda table: table.name)


def _shared(scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of the tables with most models as many as are best taken together, with the models that all of those have."""
    order = sorted(scores, key=lambda name: (-len(scores[name]), name))
    best: dict[str, dict[str, float]] = {}
    for count in range(2, len(order) + 1):
        names = sorted(order[:count])
        models = sorted(set.intersection(*(set(scores[name]) for name in names)))
        if len(models) > 1 and len(models) * count > sum(map(len, best.values())):
            best = {name: {model: scores[name][model] for model in models} for name in names}
    return best


def _scores(table: Table) -> dict[str, float]:
    rows: dict[str, Row] = {}
    for row in sorted(table.rows, key=lambda row: row.label):
        if row.setting in ("card settings", "external"):
            rows.setdefault(row.model, row)
    return {model: row.weighted_f1.mean for model, row in rows.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
