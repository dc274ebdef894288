"""Afterwards: the best settings of a study, run with several seeds, as records that say where they come from.

The study chose on dev; these runs score test, once each. A record's identity does not depend on who chose its
settings, so that the same settings may have been run before, by hand or as the card's. Then that record is taken
as it is, nothing is trained again, and it is marked: only `tuned` is written into it. It names the study that
chose these settings last, and a plain `run` that repeats it later keeps the mark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial, TrialState

from mer_bench.atomic import storage_errors
from mer_bench.errors import MerBenchError, StorageError
from mer_bench.recording import Recording
from mer_bench.records import Record, Tuned, write_record
from mer_bench.request import RunRequest, plan
from mer_bench.runner import Listener, open_device, open_run, run_opened
from mer_bench.tuning.kept import KeptStudy, settings_of
from mer_bench.tuning.settings_file import settings_text

SEEDS = 5
"""Of the best settings, where nothing else is said."""


@dataclass(frozen=True)
class BestRuns:
    """What came out.

    Attributes:
        records: Of the runs that have scores, in the order of their seeds.
        failed: The other seeds, each with its error; their records say so too.
    """

    tuned: Tuned
    records: tuple[Record, ...]
    failed: tuple[tuple[int, MerBenchError], ...]


class BestListener(Listener):
    """Hears of the runs of the best settings."""

    def best_chosen(self, tuned: Tuned, seeds: int) -> None:
        """The settings of a trial are run next, with so many seeds."""

    def record_found(self, record: Record, marked: bool) -> None:
        """The record of a seed is there, so that nothing is trained; `marked`: that it is tuned was written into it."""


def is_at_rest(study: optuna.Study) -> bool:
    """Whether nobody works on a study any more, so that its best settings are final."""
    return not any(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def tuned_of(kept: KeptStudy, trial: FrozenTrial) -> Tuned:
    """What a record with a trial's settings says of the study."""
    return Tuned(
        study=kept.name,
        trial=trial.number,
        trials=len(kept.ended),
        budget_trials=kept.budget.get("trials"),
        budget_seconds=kept.budget.get("timeout"),
        seeds_per_trial=len(kept.about["seeds"]),
        sampler=kept.about["sampler"],
        dev=trial.values[0],
    )


def run_best(
    study: optuna.Study, request: RunRequest, seeds: Sequence[int], listener: BestListener | None = None
) -> BestRuns:
    """Run the best settings of a study; a run whose record is there is not repeated.

    Args:
        request: Of the study: model, dataset and the rest. Its settings and its seed are not used.

    Raises:
        RequestError: If no trial is complete. StorageError: If results could not be written.
    """
    listener = listener or BestListener()
    kept = KeptStudy(study)
    trial = kept.best()
    tuned = tuned_of(kept, trial)
    request = replace(request, settings=settings_of(trial), tuned=tuned)
    opened = open_run(plan(request), open_device(request), listener)
    listener.best_chosen(tuned, len(seeds))
    records: list[Record] = []
    failed: list[tuple[int, MerBenchError]] = []
    for seed in seeds:
        one = replace(opened, plan=plan(replace(request, seed=seed)))
        recording = Recording(one.plan, one.stores)
        found = recording.found()
        if found:
            marked = mark(recording, found, tuned)
            listener.record_found(marked, marked is not found)
            records.append(marked)
            continue
        listener.run_started(one.plan)
        try:
            records.append(run_opened(one, listener))
        except StorageError:
            raise
        except MerBenchError as error:
            failed.append((seed, error))
    return BestRuns(tuned, tuple(records), tuple(failed))


def mark(recording: Recording, record: Record, tuned: Tuned) -> Record:
    """Write into a record that a study chose its settings; the same record where it says so already.

    Raises:
        StorageError: If it cannot be written.
    """
    if record.tuned == tuned:
        return record
    marked = record.model_copy(update={"tuned": tuned})
    with storage_errors(f"write {recording.file}"):
        write_record(recording.file, marked)
    return marked


def export_text(kept: KeptStudy, trial: FrozenTrial) -> str:
    """The settings of a trial as a file for `run --settings`, with a word on where they come from."""
    about = kept.about
    seeds = len(about["seeds"])
    of = "" if seeds == 1 else f", the mean over {seeds} seeds"
    comments = [
        f"Settings of {about['model']} on {about['features']}: trial {trial.number} of the study {kept.name}.",
        f"dev {about['metric']} {trial.values[0]:.6f}{of}; {len(kept.ended)} trials, sampler {about['sampler']}.",
        f"Only what was searched or fixed; the rest is what the card of {about['model']} says for {about['dataset']}.",
        f"Run them: {run_command(kept, 'FILE')}",
    ]
    return settings_text(settings_of(trial), comments)


def run_command(kept: KeptStudy, file: str) -> str:
    """The command that runs an exported file on just the data that the study was about."""
    about = kept.about
    ids = " ".join(f"--{kind} {about[kind].partition('/')[2]}" for kind in ("features", "labels", "protocol"))
    modalities = ",".join(about["modalities"])
    return (
        f"mer-bench run --model {about['model']} --dataset {about['dataset']} {ids} --modalities {modalities} "
        f"--settings {file}"
    )
