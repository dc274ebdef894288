"""Storages of studies: each kind is opened for real, workers take turns, lost trials are run again, and what cannot
be used is told in one sentence without a password."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import text

from mer_bench.errors import MerBenchError, RequestError, StorageError
from mer_bench.tuning import storages
from mer_bench.tuning.storages import beat_once, counted, open_storage, release, release_stale, shown, turn
from tests.tuning.databases import PASSWORD, QUOTED, Postgres, free_port, grpc_server, postgres_server

KINDS = ("file", "journal", "postgresql", "grpc")

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def grpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with grpc_server(tmp_path_factory.mktemp("grpc")) as url:
        yield url


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--storage` is given, of each kind in turn."""
    match request.param:
        case "file":
            return str(tmp_path / "studies.sqlite3")
        case "journal":
            return f"journal:{tmp_path / 'studies.journal'}"
        case "postgresql":
            server: Postgres = request.getfixturevalue("postgres")
            return server.make(tmp_path.name)
        case _:
            url: str = request.getfixturevalue("grpc")
            return url


def opened(text: str | None, stale_after: float | None = None) -> BaseStorage:
    return open_storage(text, Path("unused.sqlite3"), stale_after)


def ask(study: optuna.Study) -> optuna.Trial:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return study.ask()


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def fault(text: str) -> MerBenchError:
    with pytest.raises(MerBenchError) as caught:
        opened(text)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    for secret in (PASSWORD, QUOTED, "hunter2"):
        assert secret not in sentence
    return caught.value


def test_a_study_is_kept_and_found_again(kind: str, tmp_path: Path) -> None:
    study = optuna.create_study(study_name=tmp_path.name, storage=opened(kind))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    again = optuna.load_study(study_name=tmp_path.name, storage=opened(kind))
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


def test_only_one_worker_has_its_turn(kind: str, tmp_path: Path) -> None:
    name = tmp_path.name
    optuna.create_study(study_name=name, storage=opened(kind)).set_user_attr("count", 0)

    def work(_: int) -> None:
        storage = opened(kind)
        study = optuna.load_study(study_name=name, storage=storage)
        for _ in range(4):
            with turn(storage, name):
                before = study.user_attrs["count"]
                time.sleep(0.01)
                study.set_user_attr("count", before + 1)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert optuna.load_study(study_name=name, storage=opened(kind)).user_attrs["count"] == 12
    assert [each.study_name for each in opened(kind).get_all_studies() if each.study_name.endswith(".turn")] == []


def test_studies_do_not_wait_for_each_other_on_a_server(postgres: Postgres) -> None:
    storage = opened(postgres.make("several"))
    with turn(storage, "one"), turn(storage, "other"):
        pass


def test_a_turn_that_a_killed_worker_left_is_taken_from_it(grpc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "ABANDONED_SECONDS", 0.3)
    storage = opened(grpc)
    storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "left.turn")
    with turn(storage, "left"):
        assert [each.study_name for each in storage.get_all_studies() if each.study_name == "left.turn"]


def test_a_trial_whose_worker_is_silent_is_run_again_once(kind: str, tmp_path: Path) -> None:
    storage = opened(kind, stale_after=2)
    study = optuna.create_study(study_name=tmp_path.name, storage=storage, direction="maximize")
    trial = ask(study)
    value = trial.suggest_float("x", 0, 1)
    beat_once(storage, trial._trial_id)
    release_stale(study, storage, 2)
    assert states(study) == ["RUNNING"]
    if isinstance(storage, RDBStorage):
        with storage.engine.begin() as connection:  # rather than to wait
            connection.execute(text("UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00'"))
    else:
        time.sleep(0.2)
    for _ in range(2):
        release_stale(study, storage, 2 if isinstance(storage, RDBStorage) else 0.1)
    assert states(study) == ["FAIL", "WAITING"]
    assert counted(study.trials) == []
    assert ask(study).suggest_float("x", 0, 1) == value
    assert [trial.number for trial in counted(study.trials)] == [1]


def test_a_worker_that_says_it_is_alive_keeps_its_trial(tmp_path: Path) -> None:
    storage = opened(str(tmp_path / "studies"), stale_after=2)
    study = optuna.create_study(storage=storage)
    trial = ask(study)
    beat_once(storage, trial._trial_id)
    with storages.Heartbeat(storage, trial._trial_id):
        time.sleep(4.1)
        release_stale(study, storage, 2)
    assert states(study) == ["RUNNING"]


def test_a_worker_killed_before_its_first_sign_of_life_loses_its_trial(tmp_path: Path) -> None:
    storage = opened(str(tmp_path / "studies"), stale_after=2)
    study = optuna.create_study(storage=storage)
    ask(study)
    time.sleep(2.1)
    release_stale(study, storage, 2)
    assert states(study) == ["FAIL", "WAITING"]


def test_a_trial_that_ends_every_worker_stays_a_failed_one(tmp_path: Path) -> None:
    storage = opened(str(tmp_path / "studies"))
    study = optuna.create_study(storage=storage)
    for _ in range(storages.RETRIES + 1):
        release(study, storage, ask(study)._trial_id, storages.RETRIES)
    assert states(study) == ["FAIL"] * (storages.RETRIES + 1)
    assert [trial.number for trial in counted(study.trials)] == [storages.RETRIES]


def test_a_trial_that_is_over_is_not_released(tmp_path: Path) -> None:
    storage = opened(str(tmp_path / "studies"))
    study = optuna.create_study(storage=storage)
    trial = ask(study)
    study.tell(trial, 1.0)
    release(study, storage, trial._trial_id)
    assert states(study) == ["COMPLETE"]


def test_the_default_file_makes_itself_and_does_not_block_readers(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "deep" / "studies.sqlite3"
    storage = open_storage(None, file)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("BEGIN IMMEDIATE")  # somebody writes
        assert storage.get_all_studies() == []


@pytest.mark.parametrize("password", [QUOTED, "hunter2"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("postgresql://me:{}@host:1/base", "postgresql://me@host:1/base"),
        ("postgresql://me@host/base?password={}", "postgresql://me@host/base"),
        ("postgresql://host/base?password={}@", "postgresql://..."),
        ("mysql://me:{}@host/base?charset=utf8", "mysql://me@host/base"),
        ("grpc://host:13000", "grpc://host:13000"),
        ("journal:here.journal", "journal:here.journal"),
    ],
)
def test_a_password_is_never_shown(given: str, told: str, password: str) -> None:
    assert shown(given.format(password), Path()) == told


def test_a_storage_of_an_unknown_kind() -> None:
    error = fault("redis://:hunter2@localhost:6379")
    assert isinstance(error, RequestError)
    assert "redis://..." in str(error)
    assert "journal:FILE" in str(error)


@pytest.mark.parametrize("text", ["postgresql://me:hunter2@host:port/base", "mysql://me:hunter2@host:3306x/base"])
def test_a_malformed_url(text: str) -> None:
    error = fault(text)
    assert isinstance(error, RequestError)
    assert "is no URL of a database" in str(error)


@pytest.mark.parametrize("text", ["grpc://localhost", "grpc://:13000", "journal:"])
def test_an_address_that_lacks_something(text: str) -> None:
    assert isinstance(fault(text), RequestError)


@pytest.mark.parametrize(
    ("text", "package", "extra"),
    [
        ("postgresql://me:hunter2@host/base", "psycopg", "postgresql"),
        ("mysql://me:hunter2@host/base", "pymysql", "mysql"),
        ("grpc://host:1", "grpcio", "grpc"),
    ],
)
def test_a_driver_that_is_missing(text: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "find_spec", lambda _: None)
    error = fault(text)
    assert isinstance(error, RequestError)
    assert f"needs {package}" in str(error)
    assert f"pip install 'mer-bench[{extra}]'" in str(error)


def test_a_driver_of_ones_own_that_is_missing() -> None:
    assert "pg8000" in str(fault("postgresql+pg8000://me:hunter2@host/base"))


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "grpc"])
def test_a_server_that_is_not_there(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "CONNECT_SECONDS", 1)
    for package in {"postgresql": ["psycopg"], "mysql": ["pymysql"], "grpc": ["grpc"]}[scheme]:
        pytest.importorskip(package)
    address = f"127.0.0.1:{free_port()}"
    error = fault(f"grpc://{address}" if scheme == "grpc" else f"{scheme}://me:hunter2@{address}/base")
    assert isinstance(error, StorageError)
    assert address in str(error)
    assert "cannot be reached" in str(error)


def test_a_wrong_password_and_a_missing_database(postgres: Postgres) -> None:
    error = fault(postgres.url("postgres", "hunter2"))
    assert isinstance(error, RequestError)
    assert "did not let us in" in str(error)
    assert "password authentication failed" in str(error)
    assert '"nowhere" does not exist' in str(fault(postgres.url("nowhere")))


@pytest.mark.parametrize("prefix", ["", "journal:"])
def test_a_file_that_holds_no_studies(prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    content = b"a shopping list\n" * 100
    file.write_bytes(content)
    error = fault(f"{prefix}{file}")
    assert isinstance(error, RequestError)
    assert "Nothing was changed" in str(error)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_database_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE birds (name TEXT)")
    content = file.read_bytes()
    error = fault(str(file))
    assert isinstance(error, RequestError)
    assert "'birds'" in str(error)
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_another_program_has_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "studies.sqlite3"
    optuna.create_study(study_name="kept", storage=opened(str(file)))
    monkeypatch.setattr(storages, "LOCKED_SECONDS", 0.3)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="was locked by another program"), storages.storage_faults(str(file)):
            optuna.create_study(study_name="new", storage=opened(str(file)))
    assert opened(str(file)).get_all_studies()[0].study_name == "kept"


@pytest.mark.parametrize("prefix", ["", "journal:"])
def test_a_file_that_may_not_be_written_to(prefix: str, tmp_path: Path) -> None:
    opened(f"{prefix}{tmp_path / 'first'}")  # everything is imported
    folder = Path(tempfile.mkdtemp())  # which, unlike tmp_path, other users may enter
    file = folder / "studies"
    try:
        optuna.create_study(study_name="kept", storage=opened(f"{prefix}{file}"))
        for path in (*folder.iterdir(), folder):
            path.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write everywhere
            try:
                error = fault(f"{prefix}{file}")
            finally:
                os.seteuid(0)
        else:
            error = fault(f"{prefix}{file}")
        assert isinstance(error, StorageError)
        assert "may not be written to" in str(error)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_server_that_goes_away_is_told_in_one_sentence(tmp_path: Path) -> None:
    with grpc_server(tmp_path) as url:
        storage = opened(url)
        study = optuna.create_study(study_name="s", storage=storage)
    with pytest.raises(StorageError, match="cannot be reached"), storages.storage_faults(url):
        ask(study)


def test_a_server_that_closes_the_line_is_away() -> None:
    grpc = pytest.importorskip("grpc")

    class ClosedError(grpc.RpcError):  # type: ignore[misc,name-defined]
        def code(self) -> object:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "Socket closed"

    with pytest.raises(StorageError, match=r"cannot be reached: Socket closed\."), storages.storage_faults("here"):
        raise ClosedError


def test_a_password_that_a_driver_repeats_is_not_shown() -> None:
    with (
        pytest.raises(StorageError, match=r"hears of \*\*\* for"),
        storages.storage_faults("here", "mysql://me:hunter2@host/base"),
    ):
        raise sqlite3.OperationalError("hears of hunter2 for the first time")


def test_faults_of_others_pass() -> None:
    with pytest.raises(ZeroDivisionError), storages.storage_faults("here"):
        _ = 1 / 0


def test_heartbeats_end_with_their_trial(tmp_path: Path) -> None:
    storage = opened(str(tmp_path / "studies"), stale_after=2)
    assert isinstance(storage, RDBStorage)
    trial = ask(optuna.create_study(storage=storage))
    before = threading.active_count()
    with storages.Heartbeat(storage, trial._trial_id):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert trial.study.trials[0].state == TrialState.RUNNING
