"""Workers that share a study, as real processes before real storages: the limits are the study's, and whoever is
killed costs no more than the trial that he ran."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from mer_bench import registry
from mer_bench.errors import RunError, StorageError
from mer_bench.runner import RunRequest, open_device, open_run
from mer_bench.tuning import workers
from mer_bench.tuning.storages import counted, open_storage, release
from mer_bench.tuning.study import StudyPlan, TuneRequest, default_storage, plan_study
from mer_bench.tuning.team import share
from mer_bench.tuning.workers import TuneListener, join, tune
from tests.trios import Place
from tests.tuning.databases import Postgres, grpc_server, postgres_server

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

LIMIT = 4
SLOW = {"seconds": 0.2, "breaks": ""}
"""Of each of the four epochs of a trial, so that a kill meets one that runs."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def grpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with grpc_server(tmp_path_factory.mktemp("grpc")) as url:
        yield url


@pytest.fixture
def place_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """What `--storage` is given for a kind of storage."""

    def place(kind: str) -> str:
        match kind:
            case "postgresql":
                server: Postgres = request.getfixturevalue("postgres")
                return server.make(tmp_path.name)
            case "grpc":
                url: str = request.getfixturevalue("grpc")
                return url
            case "journal":
                return f"journal:{tmp_path / 'studies.journal'}"
            case _:
                return str(tmp_path / "studies.sqlite3")

    return place


def request_for(run: RunRequest, storage: str, name: str, count: int = 1) -> TuneRequest:
    run = replace(run, settings=SLOW)
    return TuneRequest(
        run,
        sampler="random",
        pruner="none",
        trials=LIMIT,
        study=name,
        storage=storage,
        workers=count,
        stale_after=2 if count == 1 else 5,
    )


def study_in(storage: str, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=open_storage(storage, Path()))


def expect_complete(study: optuna.Study) -> None:
    """Exactly as many trials as were asked for, each tried with other settings, and nobody left at work."""
    trials = study.get_trials(deepcopy=False)
    assert [trial.state.name for trial in counted(trials)] == ["COMPLETE"] * LIMIT
    assert {trial.state.name for trial in trials} <= {"COMPLETE", "FAIL"}
    tried = [json.dumps(trial.params, sort_keys=True) for trial in counted(trials)]
    assert len(set(tried)) == LIMIT


class Killing(TuneListener):
    """Kills workers as soon as the first trial of any has ended."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.ended: list[int] = []
        self.died: list[tuple[str, str]] = []

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.ended.append(trial.number)
        for process in multiprocessing.active_children():
            if len(self.ended) == 1 and process.name in self.names:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGKILL)

    def worker_died(self, name: str, reason: str) -> None:
        self.died.append((name, reason))


@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_one_of_two_workers_is_killed_and_the_other_goes_on(
    kind: str, place_of: Callable[[str], str], run: RunRequest, tmp_path: Path
) -> None:
    listener = Killing("worker 1")
    storage = place_of(kind)
    study = tune(plan_study(request_for(run, storage, tmp_path.name, 2)), listener)
    assert listener.died == [("worker 1", "it was ended by SIGKILL")]
    expect_complete(study)
    assert sorted(listener.ended) == [trial.number for trial in counted(study.trials)]
    again = tune(plan_study(request_for(run, storage, tmp_path.name)), listener)
    assert len(again.trials) == len(study.trials)


def test_all_workers_are_killed_and_the_study_goes_on(run: RunRequest, tmp_path: Path) -> None:
    storage = str(tmp_path / "studies")
    with pytest.raises(RunError, match=r"no worker is left.*worker 1: it was ended by SIGKILL.*worker 2: it was"):
        tune(plan_study(request_for(run, storage, "s", 2)), Killing("worker 1", "worker 2"))
    expect_complete(tune(plan_study(request_for(run, storage, "s"))))


class Command:
    """`mer-bench tune` in a process group of its own."""

    def __init__(self, models: Place, storage: str, name: str, out: Path, *more: str) -> None:
        self.said = ""
        plugins = [word for file in registry.added_places() for word in ("--plugin", str(file))]
        words = ["--model", "searched", "--dataset", "trios", "--data-root", str(models.data), "--out", str(out)]
        words += [
            "--fix",
            "seconds=0.2",
            "--fix",
            "breaks=",
            "--sampler",
            "random",
            "--pruner",
            "none",
            "--trials",
            str(LIMIT),
        ]
        words += ["--study", name, "--threads", "1", *plugins, *more]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mer_bench", "tune", *words],
            env={**os.environ, "MER_BENCH_STORAGE": storage, "PYTHONPATH": str(models.installed)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (no threads here)
        )

    def wait_for_trials(self, count: int) -> None:
        """Until so many trials have ended and another one runs."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            count -= line.startswith("trial ")
            if count == 0:
                time.sleep(0.4)
                return
        raise AssertionError(f"the command ended before: {self.said}")

    def end(self) -> str:
        """The rest of what it says; nobody of the group is left."""
        said, _ = self.process.communicate(timeout=60)
        until = time.monotonic() + 20
        while time.monotonic() < until:
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return said
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        raise AssertionError(f"somebody is left: {said}")


@pytest.mark.parametrize("kind", ["journal", "postgresql", "grpc"])
def test_a_command_killed_with_all_it_started_goes_on_where_it_was(
    kind: str, place_of: Callable[[str], str], run: RunRequest, models: Place, tmp_path: Path
) -> None:
    storage = place_of(kind)
    command = Command(models, storage, tmp_path.name, tmp_path / "runs")
    command.wait_for_trials(2)
    os.killpg(command.process.pid, signal.SIGKILL)
    command.end()
    before = [trial.state.name for trial in study_in(storage, tmp_path.name).trials]
    assert before.count("COMPLETE") >= 2
    study = tune(plan_study(request_for(run, storage, tmp_path.name)))
    expect_complete(study)
    assert [trial.state.name for trial in study.trials].count("FAIL") == before.count("RUNNING") <= 1


def test_workers_end_when_the_one_that_looks_after_them_is_killed(models: Place, tmp_path: Path) -> None:
    storage = str(tmp_path / "studies")
    command = Command(models, storage, "s", tmp_path / "runs", "--workers", "2", "--trials", "100")
    command.wait_for_trials(1)
    command.process.kill()
    command.end()
    states = [trial.state.name for trial in study_in(storage, "s").trials]
    assert "RUNNING" not in states
    assert states.count("FAIL") == states.count("WAITING") > 0
    assert len(states) < 20


@pytest.mark.parametrize("count", [1, 2])
def test_ctrl_c_ends_all_workers_and_the_study_is_saved(count: int, models: Place, tmp_path: Path) -> None:
    storage = str(tmp_path / "studies")
    # So many trials that a busy machine cannot end them all before the signal comes.
    command = Command(models, storage, "s", tmp_path / "runs", "--workers", str(count), "--trials", "200")
    command.wait_for_trials(1)
    os.killpg(command.process.pid, signal.SIGINT)  # as a terminal does
    said = command.end()
    assert command.process.returncode == 130
    assert "study s is saved" in said
    assert "stopped by Ctrl-C" in said
    assert "Traceback" not in said
    states = [trial.state.name for trial in study_in(storage, "s").trials]
    assert "RUNNING" not in states
    assert states.count("FAIL") == states.count("WAITING") > 0


def begun(planned: StudyPlan) -> tuple[optuna.Study, BaseStorage]:
    return join(planned, open_run(planned.plan, open_device(planned.plan.request), TuneListener()))


@pytest.mark.parametrize("kind", ["file", "journal", "postgresql", "grpc"])
def test_workers_never_begin_more_trials_than_were_asked_for(
    kind: str, place_of: Callable[[str], str], run: RunRequest, tmp_path: Path
) -> None:
    planned = plan_study(request_for(run, place_of(kind), tmp_path.name))

    def work(_: int) -> None:
        study, storage = begun(planned)

        def objective(trial: optuna.Trial) -> float:
            planned.space.suggest(trial)
            return 0.5

        while (trial := workers._next_trial(study, storage, planned, TuneListener())) is not None:
            workers._perform(study, storage, trial, objective, TuneListener())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    study, _ = begun(planned)
    expect_complete(study)
    assert len(study.trials) == LIMIT


class Lost(TuneListener):
    """Takes the trial from its own worker, as another one does that heard nothing of it."""

    def __init__(self) -> None:
        self.lost: list[int] = []
        self.ended: list[int] = []

    def trial_begun(self, study: optuna.Study, trial: optuna.Trial) -> None:
        if trial.number == 1:
            storage = study._storage
            release(study, storage, trial._trial_id)

    def trial_lost(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.lost.append(trial.number)

    def trial_ended(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.ended.append(trial.number)


def test_a_trial_that_another_worker_took_is_not_counted_twice(run: RunRequest, tmp_path: Path) -> None:
    listener = Lost()
    request = replace(request_for(run, str(tmp_path / "studies"), "s"), trials=2, pruner="median")
    study = tune(plan_study(request), listener)
    assert listener.lost == [1]
    assert listener.ended == [0, 2]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]


def test_a_study_that_is_over_starts_no_worker(run: RunRequest, tmp_path: Path) -> None:
    storage = str(tmp_path / "studies")
    tune(plan_study(replace(request_for(run, storage, "s"), trials=1)))
    started = time.monotonic()
    tune(plan_study(replace(request_for(run, storage, "s", 2), trials=1)), Killing("worker 1", "worker 2"))
    assert time.monotonic() - started < 2


def test_a_database_that_goes_away_in_a_trial_is_no_fault_of_the_model(run: RunRequest, tmp_path: Path) -> None:
    server = ExitStack()

    class Ending(TuneListener):
        def trial_begun(self, study: optuna.Study, trial: optuna.Trial) -> None:
            server.close()

    with server:
        url = server.enter_context(grpc_server(tmp_path))
        with pytest.raises(StorageError, match="cannot be reached"):
            tune(plan_study(request_for(run, url, "s")), Ending())


def test_threads_are_shared() -> None:
    assert [share(8, 3), share(2, 2), share(1, 4)] == [2, 1, 1]


def test_the_default_storage_is_a_file_below_out(run: RunRequest) -> None:
    study = tune(plan_study(TuneRequest(run, trials=1, pruner="none")))
    assert default_storage(run.out).is_file()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"]
