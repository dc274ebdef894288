"""Studies that are kept somewhere already: which there are, one by its name, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mer_bench.errors import RequestError, UnknownNameError
from mer_bench.tuning.storages import once, open_storage, shown, storage_faults
from mer_bench.tuning.study import ABOUT, BUDGET, ENDED, default_storage

DEFAULT_OUT = Path("runs")


class KeptStudy:
    """A study of `mer-bench tune`, read from where it is kept.

    Attributes:
        about: What it is about; see `study.about`.
        budget: Limits of the latest command that worked on it.
        trials: All of them, in their order, as they were when the study was read; one that was run again counts once.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.study = study
        told = study.user_attrs
        if ABOUT not in told:
            raise RequestError(f"the study '{study.study_name}' was not made by mer-bench tune, which cannot read it.")
        self.about: Mapping[str, Any] = told[ABOUT]
        self.budget: Mapping[str, Any] = told.get(BUDGET, {})
        self.trials: list[FrozenTrial] = once(study.get_trials(deepcopy=False))

    @property
    def name(self) -> str:
        """Of the study."""
        return self.study.study_name

    @property
    def weighs_cost(self) -> bool:
        """Whether a trial has two values: the score and the seconds of training."""
        return len(self.study.directions) > 1

    @property
    def ended(self) -> list[FrozenTrial]:
        """Complete, pruned and failed trials."""
        return [trial for trial in self.trials if trial.state in ENDED]

    @property
    def ranked(self) -> list[FrozenTrial]:
        """Complete trials, the best dev score first; of equal ones the earlier."""
        complete = self.in_state(TrialState.COMPLETE)
        return sorted(complete, key=lambda trial: (-trial.values[0], trial.number))

    @property
    def start(self) -> FrozenTrial | None:
        """The trial with the settings that the study started from: the card's, as far as they were not narrowed."""
        starts = {name: told["start"] for name, told in self.about["space"].items()}
        for trial in self.ended:
            if trial.params and {name: starts.get(name) for name in trial.params} == trial.params:
                return trial
        return None

    @property
    def front(self) -> list[FrozenTrial]:
        """Complete trials than which none is both better and cheaper, the cheapest first."""
        found: list[FrozenTrial] = []
        for trial in sorted(self.ranked, key=seconds_of):
            if not found or trial.values[0] > found[-1].values[0]:
                found.append(trial)
        return found

    def in_state(self, state: TrialState) -> list[FrozenTrial]:
        """Trials in a state, in their order."""
        return [trial for trial in self.trials if trial.state == state]

    def best(self) -> FrozenTrial:
        """The trial with the best dev score, whatever it cost.

        Raises:
            RequestError: If no trial is complete.
        """
        if not self.ranked:
            raise RequestError(
                f"the study '{self.name}' has no complete trial ({len(self.trials)} trials are there); "
                "there are no best settings yet."
            )
        return self.ranked[0]

    def complete_trial(self, number: int) -> FrozenTrial:
        """A complete trial by its number.

        Raises:
            RequestError: If there is none, or it has no score.
        """
        trial = next((each for each in self.trials if each.number == number), None)
        if trial is None:
            raise RequestError(
                f"the study '{self.name}' has no trial {number}: there are {len(self.trials)}, the first of them 0."
            )
        if trial.state != TrialState.COMPLETE:
            raise RequestError(f"trial {number} of the study '{self.name}' has no score: it is {state_of(trial)}.")
        return trial


def state_of(trial: FrozenTrial) -> str:
    """The state of a trial as a word: `complete`, `pruned`, `failed`, `running`, `waiting`."""
    return "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()


def seconds_of(trial: FrozenTrial) -> float:
    """Seconds of training that a trial took."""
    told = trial.user_attrs.get("seconds")
    if told is not None:
        return float(told)
    return trial.duration.total_seconds() if trial.duration else 0.0


def settings_of(trial: FrozenTrial) -> dict[str, Any]:
    """The settings of a trial, what was fixed included, as `--set` takes them."""
    return dict(trial.user_attrs.get("settings", {}))


def find_study(name: str, storage: str | None) -> KeptStudy:
    """A study by its name.

    Args:
        storage: What `--storage` names; None: the file that `mer-bench tune` makes by itself.

    Raises:
        RequestError: If there is no such storage or study. StorageError: If the storage cannot be read.
    """
    with _opened(storage) as opened:
        names = optuna.get_all_study_names(opened)
        if name not in names:
            raise UnknownNameError("study", name, names, "mer-bench tune show")
        return KeptStudy(optuna.load_study(study_name=name, storage=opened))


def study_names(storage: str | None) -> list[str]:
    """Names of the studies that are kept somewhere, sorted.

    Raises:
        RequestError: If there is no such storage. StorageError: If it cannot be read.
    """
    with _opened(storage) as opened:
        return sorted(optuna.get_all_study_names(opened))


@contextmanager
def _opened(storage: str | None) -> Iterator[optuna.storages.BaseStorage]:
    default = default_storage(DEFAULT_OUT)
    file = _file_of(storage, default)
    if file is not None and not file.is_file():  # who only looks makes no empty database
        raise RequestError(
            f"there are no studies: the file {file} is not there. Where they are kept elsewhere, give --storage."
        )
    with storage_faults(shown(storage, default), storage):
        yield open_storage(storage, default)


def _file_of(storage: str | None, default: Path) -> Path | None:
    """The file that a storage is kept in; None for a server."""
    if storage is None:
        return default
    if "://" not in storage:
        return Path(storage.removeprefix("journal:"))
    kind, _, rest = storage.partition(":///")
    return Path(rest) if kind.startswith("sqlite") and rest else None
