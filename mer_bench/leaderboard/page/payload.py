"""What the drawings of a page are made from: the numbers of a table, rounded to what a screen can show."""

from __future__ import annotations

import math
from typing import Any

from mer_bench.leaderboard.page.scores import floor_of
from mer_bench.leaderboard.table import AcrossDatasets, Row, Run, Table
from mer_bench.leaderboard.words import short

MOST_POINTS = 40_000
"""Points of all training curves of a page; with more, every second, third, … epoch is drawn."""


def payload_of(table: Table) -> dict[str, Any]:
    """Numbers for the drawings of a table's page, as JSON takes them; scores in percent."""
    step = curve_step(table)
    return {
        "classes": table.classes,
        "step": step,
        "floor": _percent(floor_of(table)),
        "rows": [_row(row, step) for row in table.rows],
        "missing": [
            {"label": curve.label, "rates": [[rate, _percent(score)] for rate, score in curve.rates]}
            for curve in table.missing
            if curve.rates
        ],
    }


def curve_step(table: Table) -> int:
    """Every how many epochs a training curve is drawn: 1 but for a table with very many."""
    epochs = sum(len(run.curve) for row in table.rows for run in row.runs)
    return max(1, math.ceil(epochs / MOST_POINTS))


def payload_across(across: AcrossDatasets) -> dict[str, Any]:
    """Numbers for the critical-difference diagram."""
    return {
        "models": [
            {"label": model, "rank": round(rank, 4)}
            for model, rank in zip(across.models, across.mean_ranks, strict=True)
        ],
        "criticalDifference": _significant(across.critical_difference),
        "cliques": across.cliques,
    }


def _row(row: Row, step: int) -> dict[str, Any]:
    figure = row.weighted_f1
    return {
        "label": row.label,
        "rank": row.rank,
        "score": _percent(figure.mean),
        "low": _percent(figure.low),
        "high": _percent(figure.high),
        "parameters": row.parameters,
        "parametersText": None if row.parameters is None else short(row.parameters),
        "seconds": _significant(row.train_seconds),
        "confusion": row.confusion,
        "runs": [_run(run, step) for run in row.runs],
    }


def _run(run: Run, step: int) -> dict[str, Any]:
    kept = [point for place, point in enumerate(run.curve) if place % step == 0 or point[0] == run.epoch]
    return {
        "seed": run.seed,
        "score": _percent(run.weighted_f1),
        "best": _percent(run.best_on_test),
        "epoch": run.epoch,
        "epochs": [epoch for epoch, _, _ in kept],
        "loss": [_significant(loss) for _, loss, _ in kept],
        "dev": [_percent(dev) for _, _, dev in kept],
        "audit": [[epoch, _percent(value)] for epoch, value in run.audit],
    }


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 3)


def _significant(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
