"""Records of an ablation → three tables: mean and spread over seeds, and what can be told from chance."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mer_bench.errors import RecordError
from mer_bench.metrics import count_dialogues
from mer_bench.predictions import DialogueCounts, Predictions, read_outcomes
from mer_bench.records import Record, Scores, record_folder
from mer_bench.statistics import Difference, adjust_holm, compare


@dataclass(frozen=True)
class Mean:
    """A score over seeds.

    Attributes:
        spread: Standard deviation; None for a single seed.
        each: By seed.
    """

    mean: float
    spread: float | None
    each: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """Of at least one value."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, tuple(values))


@dataclass(frozen=True)
class Row:
    """A variant or a condition, and how it differs from the whole model.

    Attributes:
        name: `text+audio`, `only-text`, `missing-0.3`, or the name of an ablation.
        question: Of an ablation. changes: Its settings.
        runs: By seed one record, or one for each mask.
        dev: Weighted F1 on dev, in its complete form. test: On test.
        between_masks: Standard deviation over the masks of a seed, averaged over seeds; None without masks.
        reached: The share of missing pairs that random masks reached.
        difference: From the whole model; None where there are too few dialogues to tell.
        p_value: Of the difference, with Holm's correction over the rows of the table.
    """

    name: str
    runs: tuple[tuple[Record, ...], ...]
    dev: Mean
    test: Mean
    question: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    between_masks: float | None = None
    reached: float | None = None
    difference: Difference | None = None
    p_value: float | None = None

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds whose runs were done."""
        return tuple(run[0].seed for run in self.runs)


@dataclass(frozen=True)
class Table:
    """Rows that are compared with the whole model, and with nothing else.

    Attributes:
        name: `modalities`, `missing` or `settings`.
        whole: The model with all modalities, as it is, on the complete test split.
        notes: What is not in the table, and why: a sentence each.
    """

    name: str
    whole: Row
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def make_row(
    name: str, runs: Sequence[Sequence[Record]], question: str = "", changes: dict[str, Any] | None = None
) -> Row:
    """A row of the records of at least one seed, none of which failed."""
    tested = [[_scores(record.test).weighted_f1 for record in run] for run in runs]
    condition = runs[0][0].test_condition
    random = condition is not None and condition.rate is not None
    return Row(
        name=name,
        runs=tuple(tuple(run) for run in runs),
        dev=Mean.of([_scores(run[0].dev).weighted_f1 for run in runs]),
        test=Mean.of([statistics.fmean(values) for values in tested]),
        question=question,
        changes=changes or {},
        between_masks=statistics.fmean(map(_deviation, tested)) if random else None,
        reached=condition.reached if condition else None,
    )


def make_table(name: str, whole: Row, rows: Sequence[Row], notes: Sequence[str], out: Path) -> Table:
    """Compare each row with the whole model, and correct the p-values for how many there are.

    Where the rows are the whole model's own seeds scored under conditions, what a seed does to both scores is
    no chance of their difference, and only the seeds that both have are compared.

    Args:
        out: Folder of the records, whose predictions are read.

    Raises:
        RecordError: If predictions are damaged.
    """
    counted = _counts_in(out)
    compared = [_compared(row, whole, counted, same_models=name == "missing") for row in rows]
    tested = [row for row in compared if row.difference]
    adjusted = iter(adjust_holm([row.difference.p_value for row in tested if row.difference]))
    finished = [replace(row, p_value=next(adjusted)) if row.difference else row for row in compared]
    return Table(name, whole, tuple(finished), tuple(notes))


def _compared(row: Row, whole: Row, counted: Callable[[Record], DialogueCounts], *, same_models: bool) -> Row:
    if same_models:
        whole = replace(whole, runs=tuple(run for run in whole.runs if run[0].seed in row.seeds))
    first = [counted(record) for run in row.runs for record in run]
    second = [counted(record) for run in whole.runs for record in run]
    try:
        found = compare(first, second, repeats=len(row.runs[0]), same_models=same_models)
    except RecordError:  # too few dialogues: the scores stand there all the same
        return row
    return replace(row, difference=found)


def _counts_in(out: Path) -> Callable[[Record], DialogueCounts]:
    """Reads the predictions of a record as counts by dialogue, each file once."""
    known: dict[str, DialogueCounts] = {}

    def counted(record: Record) -> DialogueCounts:
        assert record.predictions is not None
        if record.run not in known:
            outcomes = read_outcomes(record_folder(out, record) / record.predictions.file)
            known[record.run] = count_dialogues(outcomes) if isinstance(outcomes, Predictions) else outcomes
        return known[record.run]

    return counted


def _scores(scores: Scores | None) -> Scores:
    assert scores is not None  # of a run that is done
    return scores


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
