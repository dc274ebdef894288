"""How often each method is wrong where nothing differs, and how often it finds what does: with its error.

    python -m tests.statistics.simulation             # what docs/statistics.md shows; half an hour on a quiet core
    python -m tests.statistics.simulation --trials 100 --only tables

A rate is followed by twice its standard error.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mer_bench.predictions import DialogueCounts
from mer_bench.statistics import adjust_holm, compare, compare_across, mean_interval, rank_rows
from mer_bench.statistics.bootstrap import observed_scores
from mer_bench.statistics.counts import count_runs
from tests.statistics.simulated import IEMOCAP, MELD, Corpus, Experiment

CORPORA = {"MELD": MELD, "IEMOCAP": IEMOCAP}
POINT = {"MELD": 0.0344, "IEMOCAP": 0.0333}
"""What `better` has to be for one point of weighted F1; `truth` of both finds it."""


def truth(corpus: Corpus, better: float = 0.0) -> float:
    """The mean weighted F1 that dialogues and seeds without end would show."""
    values = []
    for seed in range(20):
        experiment = Experiment(corpus, 10_000 + seed, dialogues=80_000 // round(corpus.length))
        values.append(float(np.mean([mean(experiment.model(2, better)) for _ in range(2)])))
    return math.fsum(values) / len(values)


def mean(runs: Sequence[DialogueCounts]) -> float:
    """Mean weighted F1 of some runs."""
    return float(observed_scores(count_runs(runs)).mean())


def ranked(rows: Iterable[list[DialogueCounts]]) -> list[list[DialogueCounts]]:
    """Rows as a table has them, the best first."""
    return sorted(rows, key=mean, reverse=True)


def covers(corpus: Corpus, seeds: int, trial: int, true: float, resamples: int) -> bool:
    """Whether the interval of a model holds what is true."""
    found = mean_interval(Experiment(corpus, trial).model(seeds), resamples=resamples, seed=trial)
    return found.low <= true <= found.high


def differs(corpus: Corpus, seeds: int, trial: int, better: float, resamples: int) -> bool:
    """Whether a pair is told apart, of which the first is better by so much."""
    experiment = Experiment(corpus, trial)
    found = compare(experiment.model(seeds, better), experiment.model(seeds), resamples=resamples, seed=trial)
    return found.p_value <= 0.05


def table_alarms(corpus: Corpus, rows: int, seeds: int, trial: int, resamples: int) -> tuple[bool, bool]:
    """Whether any two of some equal rows are told apart; and whether Holm's correction alone would have done so."""
    experiment = Experiment(corpus, trial)
    found = rank_rows(ranked(experiment.model(seeds) for _ in range(rows)), resamples=resamples, seed=trial)
    alone = min(adjust_holm([pair.difference.p_value for pair in found.pairs])) <= 0.05
    return any(pair.is_separated for pair in found.pairs), alone


def table_finds(corpus: Corpus, rows: int, seeds: int, better: float, trial: int, resamples: int) -> bool:
    """Whether one row that is better is told apart from the last of a table of others that are alike."""
    experiment = Experiment(corpus, trial)
    table = ranked([experiment.model(seeds, better), *(experiment.model(seeds) for _ in range(rows - 1))])
    return rank_rows(table, resamples=resamples, seed=trial).rows[-1].rank != 1


def across_alarms(
    models: int, datasets: int, generator: np.random.Generator, better: float = 0.0
) -> tuple[bool, bool, bool]:
    """Whether Friedman, Nemenyi and Wilcoxon-Holm speak of a difference where the first model is better by so much.

    Scores vary by dataset and, by as much as the unit of `better`, from model to model. With `better` the last two
    are asked about the first model and the one with the worst mean rank.
    """
    scores = generator.normal(0, 3, datasets)[:, None] + generator.normal(0, 1, (datasets, models))
    scores[:, 0] += better
    names = [f"m{number:02}" for number in range(models)]
    found = compare_across(
        {f"d{place:02}": dict(zip(names, row, strict=True)) for place, row in enumerate(scores.tolist())}
    )
    widest = max(found.mean_ranks) - min(found.mean_ranks)
    return (
        found.friedman_p is not None and found.friedman_p <= 0.05,
        found.critical_difference is not None and widest >= found.critical_difference,
        any(each.adjusted <= 0.05 for each in found.signed),
    )


def rate(hits: Sequence[bool]) -> str:
    """A share in percent and twice its standard error."""
    share = sum(hits) / len(hits)
    return f"{100 * share:5.1f} ± {200 * math.sqrt(max(share * (1 - share), 1 / len(hits) ** 2) / len(hits)):.1f} %"


def say(line: str) -> None:
    """A line at once, however long the next one takes."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description="Rates of false alarms and power of every method.")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--only", choices=["intervals", "pairs", "tables", "across"])
    given = parser.parse_args()
    parts: dict[str, Callable[[int, int], None]] = {
        "intervals": _intervals,
        "pairs": _pairs,
        "tables": _tables,
        "across": _across,
    }
    for name, part in parts.items():
        if given.only in (None, name):
            part(given.trials, given.resamples)


def _intervals(trials: int, resamples: int) -> None:
    for name, corpus in CORPORA.items():
        true = truth(corpus)
        for seeds in (1, 3, 5):
            hits = [covers(corpus, seeds, trial, true, resamples) for trial in range(trials)]
            say(f"interval, {name}, {seeds} seeds: the truth is inside in {rate(hits)} (95 %)")


def _pairs(trials: int, resamples: int) -> None:
    for (name, corpus), seeds in itertools.product(CORPORA.items(), (1, 3, 5)):
        for points in (0, 1, 2, 4):
            hits = [differs(corpus, seeds, trial, points * POINT[name], resamples) for trial in range(trials)]
            said = "false alarms (5 %)" if points == 0 else f"found with {points} points between them"
            say(f"pair, {name}, {seeds} seeds: {rate(hits)} {said}")


def _tables(trials: int, resamples: int) -> None:
    for (name, corpus), seeds, rows in itertools.product(CORPORA.items(), (1, 3, 5), (3, 8, 21)):
        count = max(1, trials // (2 if rows == 21 else 1))
        hits = [table_alarms(corpus, rows, seeds, trial, resamples) for trial in range(count)]
        both, holm = zip(*hits, strict=True)
        say(
            f"table of {rows} rows, {name}, {seeds} seeds: any false alarm in {rate(both)} (5 %); with Holm alone "
            f"{rate(holm)}",
        )
    for (name, corpus), points in itertools.product(CORPORA.items(), (2, 4)):
        finds = [table_finds(corpus, 8, 5, points * POINT[name], trial, resamples) for trial in range(trials // 2)]
        say(f"table of 8 rows, {name}, 5 seeds, the first {points} points better: found in {rate(finds)}")


def _across(trials: int, resamples: int) -> None:
    del resamples
    generator = np.random.default_rng(0)
    for models, datasets in itertools.product((3, 5, 10), (3, 4, 6, 10, 20)):
        for better in (0.0, 2.0):
            found = [across_alarms(models, datasets, generator, better) for _ in range(trials)]
            friedman, nemenyi, wilcoxon = map(rate, zip(*found, strict=True))
            said = "false alarms" if better == 0 else "power"
            say(
                f"{models} models on {datasets} datasets, {said}: Friedman {friedman}, Nemenyi {nemenyi}, "
                f"Wilcoxon-Holm {wilcoxon}",
            )


if __name__ == "__main__":
    main()
