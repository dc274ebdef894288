"""`mer-bench run`: train one model on one dataset, once or with several seeds, and show honest scores."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mer_bench.cli.options import DataRoot, Debug, Json, LabelsId, Plugins, ProtocolId
from mer_bench.cli.run_options import (
    Assignments,
    DatasetName,
    Deterministic,
    Device,
    FeaturesId,
    Modalities,
    ModelName,
    Out,
    Seed,
    Seeds,
    SettingsFile,
    Threads,
    Track,
    TrackTo,
    given_settings,
    parse_modalities,
    planned,
)

if TYPE_CHECKING:
    from mer_bench.cli.console import Screen
    from mer_bench.errors import DivergedError
    from mer_bench.records import Record, Scores
    from mer_bench.runner import RunRequest
    from mer_bench.trackers import Following


def run(
    *,
    model: ModelName,
    dataset: DatasetName,
    labels: LabelsId = None,
    features: FeaturesId = None,
    protocol: ProtocolId = None,
    modalities: Modalities = None,
    seed: Seed = None,
    seeds: Seeds = None,
    assignments: Assignments = None,
    settings: SettingsFile = None,
    out: Out = Path("runs"),
    device: Device = "auto",
    threads: Threads = None,
    deterministic: Deterministic = True,
    require_real: Annotated[
        bool,
        typer.Option(
            "--require-real",
            envvar="MER_BENCH_REQUIRE_REAL",
            help="Fail rather than let synthetic data stand in.",
        ),
    ] = False,
    keep_predictions: Annotated[
        bool,
        typer.Option(
            "--keep-predictions",
            help="Where the corpus forbids to pass on labels of utterances: write them too, to a .private.npz.",
        ),
    ] = False,
    audit_selection: Annotated[
        bool,
        typer.Option(
            "--audit-selection",
            help="Once the record is written, score every epoch on test too: what choosing the epoch there would give.",
        ),
    ] = False,
    stack_seeds: Annotated[
        bool,
        typer.Option(
            "--stack-seeds",
            help="Train the seeds of --seeds together, in one pass; they then share the order of batches.",
        ),
    ] = False,
    track: Track = None,
    track_to: TrackTo = Path("tracked"),
    plugins: Plugins = None,
    data_root: DataRoot = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train and score a model, and write a record.

    The epoch is chosen on dev; test is scored once, at the end. With --audit-selection the record also tells, apart
    from its scores, what they would have been with the epoch chosen on test. A run that was stopped or killed goes on
    where it was when the same command is given again, and ends with the same numbers.

    \b
    Examples:
      mer-bench run --model cmath --dataset meld
      mer-bench run --model dialoguernn --dataset meld --modalities text,audio --seeds 5
      mer-bench run --model cmath --dataset meld --set learning_rate=0.0005 --set batch_size=16
      mer-bench run --model mmgcn --dataset meld --seeds 3 --audit-selection
      mer-bench run --model dialoguernn --dataset meld --seeds 5 --stack-seeds

    \b
    Exit codes:
      0 done, 1 the run failed, 2 the request was wrong, 75 stopped and saved (by SIGTERM or Ctrl-C,
      after the epoch: run it again to go on), 130 stopped by Ctrl-C
    """
    from mer_bench import runner
    from mer_bench.cli.console import Screen
    from mer_bench.cli.fallback import bring_data
    from mer_bench.errors import DivergedError, RequestError
    from mer_bench.trackers.catalogue import check_trackers

    if seed is not None and seeds is not None:
        raise RequestError(f"--seed {seed} is one run and --seeds {seeds} are several; give one of the two.")
    if stack_seeds:
        _check_stack(seeds, track)
    if track:
        check_trackers(track)
    screen = Screen(quiet_output=as_json)
    request = runner.RunRequest(
        model=model,
        dataset=dataset,
        labels=labels,
        features=features,
        protocol=protocol,
        modalities=parse_modalities(modalities),
        seed=seed or 0,
        out=out,
        device=device,
        threads=threads,
        deterministic=deterministic,
        data_root=data_root,
        keep_predictions=keep_predictions,
        audit_selection=audit_selection,
    )
    # Names first: a mistyped model should not be answered with a fault of its settings.
    runner.plan(request)
    request = replace(request, settings=given_settings(request, settings, assignments or []))
    plan = planned(request, settings, assignments or [])
    stand_in = bring_data(plan, screen, require_real)
    if stand_in:
        request = stand_in.request
        runner.plan(request)
        stand_in.announce(screen)
    requests = [request] if seeds is None else [replace(request, seed=number) for number in range(seeds)]
    records, failed = (
        _run_stacked(screen, request, len(requests))
        if stack_seeds
        else _run_each(screen, requests, track or [], track_to)
    )
    if as_json and records:
        screen.answer(_answer(records, several=seeds is not None))
    elif records:
        show_results(screen, records, several=seeds is not None)
    show_audits(screen, records)
    if records:
        screen.line()
    warn_of_lost_classes(screen, records)
    for record in records:
        screen.exactly(f"record: {record_path(out, record)}")
    if stand_in:
        stand_in.remind(screen)
    if failed:
        numbers = ", ".join(str(number) for number, _ in failed)
        raise DivergedError(f"{len(failed)} of {len(requests)} seeds failed ({numbers}): {failed[0][1]}")


def _run_each(
    screen: Screen, requests: Sequence[RunRequest], track: Sequence[str], track_to: Path
) -> tuple[list[Record], list[tuple[int, DivergedError]]]:
    """The records of the runs that were done, and the seeds of those that diverged, each with its error.

    Args:
        track: Trackers that follow the runs. track_to: Folder where they write.

    Raises:
        DivergedError: Where there was but one run; among several, another seed may well converge.
        StoppedError: If SIGTERM or Ctrl-C came; the same command goes on.
    """
    from mer_bench import runner
    from mer_bench.cli.progress import ProgressListener
    from mer_bench.cli.stopping import StopSignals
    from mer_bench.errors import DivergedError, StoppedError
    from mer_bench.trackers import Following, Several
    from mer_bench.unfinished import GO_ON

    records: list[Record] = []
    failed: list[tuple[int, DivergedError]] = []
    with (
        Following(track, track_to, screen.warn) as following,
        StopSignals() as signals,
        ProgressListener(screen, signals) as progress,
    ):
        listener = Several(progress, following) if track else progress
        taken = runner.begin_all(requests, listener) if len(requests) > 1 else {}
        if taken:
            seeds = ", ".join(str(seed) for seed in taken)
            screen.line(f"going on where the command was stopped; done before: seed {seeds}", tone="quiet")
        for request in requests:
            if request.seed in taken:
                records.append(taken[request.seed])
                continue
            if signals.wanted:
                raise StoppedError(
                    f"stopped by {signals.wanted} with {len(records)} of {len(requests)} seeds done: {GO_ON}."
                )
            try:
                records.append(runner.run(request, listener))
            except DivergedError as error:
                if len(requests) == 1:
                    raise
                failed.append((request.seed, error))
                screen.warn(f"seed {request.seed} failed: {error}")
    show_tracked(screen, following)
    return records, failed


def _check_stack(seeds: int | None, track: Sequence[str] | None) -> None:
    from mer_bench.errors import RequestError

    if seeds is None or seeds < 2:
        raise RequestError("--stack-seeds trains several seeds together; say how many with --seeds, 2 or more.")
    if track:
        raise RequestError("--track follows one run at a time, not the seeds of a stack; leave one of the two out.")


def _run_stacked(
    screen: Screen, request: RunRequest, seeds: int
) -> tuple[list[Record], list[tuple[int, DivergedError]]]:
    """The records of seeds that are trained together, and the seeds that diverged.

    Raises:
        NotStackableError: If the model does not stack. StoppedError: If SIGTERM or Ctrl-C came.
    """
    from mer_bench.cli.progress import ProgressListener
    from mer_bench.cli.stopping import StopSignals
    from mer_bench.stacking.running import run_stack

    with StopSignals() as signals, ProgressListener(screen, signals) as progress:
        result = run_stack(request, range(seeds), progress)
    for seed, error in result.failed:
        screen.warn(f"seed {seed} failed: {error}")
    return result.records, result.failed


def show_tracked(screen: Screen, following: Following) -> None:
    """Where the trackers wrote what they followed."""
    for name, folder in following.places.items():
        screen.exactly(f"followed by {name}: {folder}")


def record_path(out: Path, record: Record) -> Path:
    """Where a record lies."""
    from mer_bench.records import record_file, record_folder

    return record_file(record_folder(out, record), record.run)


def show_results(screen: Screen, records: Sequence[Record], several: bool) -> None:
    """The table of several seeds, or all the scores of one run."""
    if several:
        show_seeds(screen, records)
    else:
        show_scores(screen, records[0])


def show_scores(screen: Screen, record: Record) -> None:
    """The scores of one run: whole splits, then each class."""
    from mer_bench.cli.console import Column, percent
    from mer_bench.metrics import METRICS, value

    if record.test is None:
        return
    several_folds = f" of all {len(record.folds)} folds" if record.folds else ""
    test, dev = record.test, record.dev
    # External predictions are of test alone.
    splits = {"test": test} if dev is None else {"dev": dev, "test": test}
    rows = [
        [metric.title, *(percent(_value(value, scores, name)) for scores in splits.values())]
        for name, metric in METRICS.items()
    ]
    screen.line()
    screen.table(
        [Column("in percent"), *(Column(split, number=True) for split in splits)],
        rows,
        title=f"{record.model} on {_where(record)}, seed {record.seed}, test{several_folds}: "
        f"{test.utterances} utterances",
    )
    _show_folds(screen, record)
    _show_subsets(screen, record)
    screen.line()
    screen.table(
        [
            Column("class of test"),
            Column("precision", number=True),
            Column("recall", number=True),
            Column("F1", number=True),
            Column("support", number=True),
        ],
        [
            [name, percent(each.precision), percent(each.recall), percent(each.f1), str(each.support)]
            for name, each in test.classes.items()
        ],
        tones={row: "warning" for row, each in enumerate(test.classes.values()) if each.support and each.f1 == 0},
    )


def show_audits(screen: Screen, records: Sequence[Record]) -> None:
    """What the scores would have been with the epoch chosen on test: one row an audited run, then the mean."""
    from mer_bench.cli.console import Column, percent
    from mer_bench.metrics import METRICS, selection_gap

    rows, gaps = [], []
    for record in records:
        if record.audit is None:
            continue
        folds = [fold.audit for fold in record.folds] or [record.audit]
        chosen = [record.selection, *(fold.selection for fold in record.folds)]
        gaps.append(selection_gap(record.audit))
        rows.append(
            [
                str(record.seed),
                ", ".join(str(each.epoch) for each in chosen if each),
                percent(record.audit.chosen),
                ", ".join(str(each.best_epoch) for each in folds if each),
                percent(record.audit.best),
                f"{100 * gaps[-1]:+.2f}",
            ]
        )
    if not rows:
        return
    if len(rows) > 1:
        audits = [record.audit for record in records if record.audit]
        means = [statistics.fmean(each.chosen for each in audits), statistics.fmean(each.best for each in audits)]
        rows.append(["mean", "", percent(means[0]), "", percent(means[1]), f"{100 * statistics.fmean(gaps):+.2f}"])
    metric = next(record.audit.metric for record in records if record.audit)
    title = SHORT_TITLES.get(metric, METRICS[metric].title)
    screen.line()
    screen.table(
        [
            Column("seed"),
            Column("epoch chosen on dev", number=True),
            Column("test", number=True),
            Column("best epoch on test", number=True),
            Column("test", number=True),
            Column("gap", number=True),
        ],
        rows,
        title=f"audit: test {title} in percent, had the epoch been chosen on test",
        tones={len(gaps): "good"} if len(gaps) > 1 else {},
    )


def _show_folds(screen: Screen, record: Record) -> None:
    """One row a fold, where the protocol has any."""
    from mer_bench.cli.console import Column, percent

    if not record.folds:
        return
    screen.line()
    screen.table(
        [
            Column("fold"),
            Column("epoch", number=True),
            Column("dev weighted F1", number=True),
            Column("test weighted F1", number=True),
            Column("utterances", number=True),
        ],
        [
            [
                str(fold.fold),
                str(fold.selection.epoch),
                percent(fold.dev.weighted_f1),
                percent(fold.test.weighted_f1),
                str(fold.test.utterances),
            ]
            for fold in record.folds
        ],
    )


def _show_subsets(screen: Screen, record: Record) -> None:
    """One row a named part of the corpus, where its card lists any."""
    from mer_bench.cli.console import Column, percent

    if record.test is None or not record.test.subsets:
        return
    screen.line()
    screen.table(
        [
            Column("part of test"),
            Column("weighted F1", number=True),
            Column("accuracy", number=True),
            Column("macro F1", number=True),
            Column("UAR", number=True),
            Column("utterances", number=True),
            Column("dialogues", number=True),
        ],
        [
            [
                name,
                *(percent(each) for each in (part.weighted_f1, part.accuracy, part.macro_f1, part.uar)),
                str(part.utterances),
                str(part.dialogues),
            ]
            for name, part in record.test.subsets.items()
        ],
    )


def _subset_columns(records: Sequence[Record]) -> dict[str, list[float | None]]:
    """Weighted F1 of each run on each named part of the corpus, by the part's name."""
    names = sorted({name for record in records if record.test for name in record.test.subsets})
    parts = {name: [record.test.subsets.get(name) if record.test else None for record in records] for name in names}
    return {name: [part.weighted_f1 if part else None for part in each] for name, each in parts.items()}


def show_seeds(screen: Screen, records: Sequence[Record]) -> None:
    """One row a seed, then mean and spread over the seeds, of the test split."""
    from mer_bench.cli.console import Column, percent
    from mer_bench.metrics import METRICS, value

    done = [record for record in records if record.test is not None]
    columns = [[_value(value, record.test, name) for record in done] for name in METRICS]
    rows = [[str(record.seed), *(percent(column[row]) for column in columns)] for row, record in enumerate(done)]
    rows.append(["mean", *(percent(mean(column)) for column in columns)])
    rows.append(["spread", *(percent(spread(column)) for column in columns)])
    screen.line()
    screen.table(
        [
            Column("seed"),
            *(Column(SHORT_TITLES.get(name, metric.title), number=True) for name, metric in METRICS.items()),
        ],
        rows,
        title=f"{done[0].model} on {_where(done[0])}, test, in percent",
        tones={len(done): "good", len(done) + 1: "quiet"},
    )
    subsets = _subset_columns(done)
    if subsets:
        screen.line()
        screen.table(
            [Column("part of test"), Column("mean weighted F1", number=True), Column("spread", number=True)],
            [[name, percent(mean(column)), percent(spread(column))] for name, column in subsets.items()],
        )
    screen.line("spread: standard deviation over the seeds", tone="quiet")


SHORT_TITLES = {
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "uar": "UAR",
    "calibration_error": "ECE",
    "emotion_shift_accuracy": "shift",
}


def mean(values: Sequence[float | None]) -> float | None:
    """Mean over the runs that have the score."""
    there = [value for value in values if value is not None]
    return statistics.fmean(there) if there else None


def spread(values: Sequence[float | None]) -> float | None:
    """Sample standard deviation over the runs; None for fewer than two."""
    there = [value for value in values if value is not None]
    return statistics.stdev(there) if len(there) > 1 else None


def warn_of_lost_classes(screen: Screen, records: Sequence[Record]) -> None:
    """Name the classes that the model never got right: the average hides them."""
    from mer_bench.metrics import zero_f1_classes

    seeds_of: dict[str, list[int]] = {}
    for record in records:
        for name in zero_f1_classes(record.test) if record.test else []:
            seeds_of.setdefault(name, []).append(record.seed)
    if not seeds_of:
        return
    told = [
        name if len(seeds) == len(records) else f"{name} (seed {', '.join(str(seed) for seed in seeds)})"
        for name, seeds in seeds_of.items()
    ]
    screen.warn(
        f"{records[0].model} on {records[0].dataset} found not one test utterance of {', '.join(told)} (F1 = 0)."
    )


def _where(record: Record) -> str:
    return f"{record.features}, {record.labels.partition('/')[2]}, {'+'.join(record.modalities)}"


def _value(value: Any, scores: Scores | None, metric: str) -> float | None:
    if scores is None or getattr(scores, metric, 0.0) is None:
        return None
    return float(value(scores, metric))


def _answer(records: Sequence[Record], several: bool) -> Any:
    from mer_bench.metrics import METRICS, value

    told = [record.model_dump(mode="json") for record in records]
    if not several:
        return told[0]
    summary = {}
    for name in METRICS:
        column = [_value(value, record.test, name) for record in records]
        summary[name] = {"mean": mean(column), "spread": spread(column), "each": column}
    subsets = {
        name: {"weighted_f1": {"mean": mean(column), "spread": spread(column), "each": column}}
        for name, column in _subset_columns(records).items()
    }
    return {
        "seeds": [record.seed for record in records],
        "test": summary,
        **({"subsets": subsets} if subsets else {}),
        "records": told,
    }
