"""Tables as CSV, one line a row: every column, scores as fractions, for programs and spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from mer_bench.leaderboard.table import Figure, Row, Table

NOT_MEASURED = "-"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_of(table: Table) -> str:
    """A leaderboard as CSV in UTF-8 with a line of names; a dash where nothing was measured."""
    rows = [_cells(row, table) for row in table.rows]
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _cells(row: Row, table: Table) -> dict[str, str]:
    found: dict[str, object] = {
        "leaderboard": table.name,
        "rank": row.rank,
        "label": row.label,
        "model": row.model,
        **_figure("weighted_f1", row.weighted_f1),
        "weighted_f1_low": row.weighted_f1.low,
        "weighted_f1_high": row.weighted_f1.high,
        **_figure("accuracy", row.accuracy),
        **_figure("macro_f1", row.macro_f1),
        **_figure("uar", row.uar),
        **_figure("calibration_error", row.calibration_error),
        **_figure("emotion_shift_accuracy", row.emotion_shift_accuracy),
        **_figure("dev_weighted_f1", row.dev),
        **_figure("selection_gap", row.selection_gap),
        "effect_size": row.effect_size,
        "superiority": row.superiority,
        "seeds": " ".join(map(str, row.seeds)),
        "failed_seeds": " ".join(map(str, row.failed)),
        "settings": row.setting,
        "trials": row.trials,
        "overrides": "; ".join(row.overrides),
        "selection_rule": row.selection_rule,
        "parameters": row.parameters,
        "train_seconds": row.train_seconds,
        "memory_bytes": row.memory_bytes,
        "device": row.device,
        "threads": row.threads,
    }
    for name in table.classes:
        scores = row.classes[name]
        found[f"f1.{name}"] = scores.f1
        found[f"f1_sd.{name}"] = scores.f1_sd
        found[f"precision.{name}"] = scores.precision
        found[f"recall.{name}"] = scores.recall
        found[f"support.{name}"] = scores.support
    return {_text(name): _text(value) for name, value in found.items()}


def _figure(name: str, figure: Figure | None) -> Mapping[str, object]:
    return {name: figure and figure.mean, f"{name}_sd": figure and figure.sd}


def _text(value: object) -> str:
    """A number as itself, text so that no spreadsheet takes it for a formula."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(value) if isinstance(value, float) else str(value)
