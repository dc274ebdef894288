"""Where studies are kept, and how workers that share a study come one after the other.

`--storage` names a SQLite file, which makes itself, or `journal:FILE`, `postgresql://...`, `mysql://...`,
`grpc://host:port`. Optuna does the keeping; from here it gets heartbeats, so that a trial whose worker was killed is
found and run again, and settings under which workers wait for each other rather than fail. Two things are added:
`turn`, a moment in which one worker of a study acts alone, and `release_stale`, for the storages without heartbeats.

No message holds a password.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import random
import sqlite3
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from mer_bench.errors import MerBenchError, RequestError, StorageError

if TYPE_CHECKING:
    from types import TracebackType

    from sqlalchemy import Connection, Engine

HEARTBEAT_SECONDS: Final = 10
"""How often a worker says in a database that it is alive."""
STALE_SECONDS: Final = 60.0
"""A trial whose worker has said nothing for so long is run again, where there are heartbeats."""
STALE_AGE_SECONDS: Final = 3600.0
"""Where there are none: a trial that began so long ago is run again."""
RETRIES: Final = 5
"""How often at most; a trial that ends its worker each time stays a failed one."""
LOCKED_SECONDS: Final = 60.0
"""How long a worker waits for another one that writes to the same file."""
CONNECT_SECONDS: Final = 10
"""How long a server may take to answer."""
ABANDONED_SECONDS: Final = 30.0
"""A turn that was held for so long over gRPC was left by a killed worker."""

KINDS: Final = "a file, journal:FILE, postgresql://..., mysql://... or grpc://HOST:PORT"
DRIVERS: Final = {"postgresql": ("psycopg", "psycopg"), "mysql": ("pymysql", "pymysql")}
"""The driver that a plain URL takes: its name in a URL, and its package; the extra is called like the scheme."""


class SqliteStorage(RDBStorage):
    """A SQLite file with a write-ahead log, which a killed process cannot damage.

    Optuna commits after each reported epoch. With SQLite's own settings each of these waits for the disk (27 ms
    measured); with the log and `synchronous=NORMAL` a commit takes 0.02 ms. What a machine wrote last may be lost
    if its power fails, but the file stays whole. The log needs a local disk: on a network share, take a server.
    """

    def __init__(self, file: Path, **beating: Any) -> None:
        from sqlalchemy import event

        self.file = file
        with closing(sqlite3.connect(file, timeout=LOCKED_SECONDS)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
        super().__init__(
            f"sqlite:///{str(file.absolute()).replace('{', '{{').replace('}', '}}')}",
            engine_kwargs={"connect_args": {"timeout": LOCKED_SECONDS}},
            **beating,
        )

        def quick(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA synchronous=NORMAL")  # holds for one connection

        event.listen(self.engine, "connect", quick)
        self.engine.dispose()  # those that were opened before this


class JournalFile(JournalStorage):
    """Optuna's journal: a file to which every change is appended. It has no heartbeats."""

    def __init__(self, file: Path) -> None:
        self.file = file
        super().__init__(JournalFileBackend(str(file)))


def open_storage(text: str | None, default: Path, stale_after: float | None = None) -> BaseStorage:
    """The storage that `--storage` names.

    Args:
        text: A file, a URL, or None.
        default: The SQLite file for None.
        stale_after: Seconds; None: what is usual for the kind of storage.

    Raises:
        RequestError: If there is no such kind, its driver is not installed, or a file is not what it should be.
        StorageError: If it cannot be opened.
    """
    where = shown(text, default)
    with storage_faults(where, text), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _open(text, default, where, stale_after)


def _open(text: str | None, default: Path, where: str, stale_after: float | None) -> BaseStorage:
    scheme, _, rest = (text or "").partition(":")
    kind = scheme.partition("+")[0].lower()
    if kind == "journal" and not rest.startswith("//"):
        return _open_journal(Path(rest))
    if text is None or not rest.startswith("//"):
        return _open_sqlite(Path(text) if text else default, stale_after)
    match kind:
        case "sqlite":
            return _open_sqlite(Path(rest.removeprefix("///")), stale_after)
        case "postgresql" | "postgres":
            return _open_database("postgresql", text, where, stale_after)
        case "mysql" | "mariadb":
            return _open_database("mysql", text, where, stale_after)
        case "grpc":
            return _open_proxy(rest.removeprefix("//"), where)
        case _:
            raise RequestError(f"studies cannot be kept in '{scheme}://...'. --storage takes {KINDS}.")


def shown(text: str | None, default: Path) -> str:
    """A storage as it may be shown: without a password, and without the query, which may hold one."""
    if text is None:
        return str(default)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    plain, _, query = rest.partition("?")
    if "@" not in plain:
        return f"{scheme}://..." if "@" in query else f"{scheme}://{plain}"
    user, _, host = plain.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}@{host}"


def _beating(stale_after: float | None) -> dict[str, Any]:
    grace = max(2, round(stale_after or STALE_SECONDS))
    return {
        "heartbeat_interval": max(1, min(HEARTBEAT_SECONDS, grace // 3)),
        "grace_period": grace,
        "heartbeat_stale_trial_callback": RetryHeartbeatStaleTrialCallback(max_retry=RETRIES),
    }


def _open_sqlite(file: Path, stale_after: float | None) -> SqliteStorage:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists() and file.stat().st_size:  # asked before anything is written, a file beside it included
        with closing(sqlite3.connect(file, timeout=LOCKED_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and tables.isdisjoint(("studies", "version_info")):  # of which another worker may just have made one
            raise RequestError(
                f"{file} is a SQLite file of something else: it has the table '{min(tables)}' and no studies. "
                "Nothing was changed; choose another file with --storage."
            )
    with _file_turn(file):
        return SqliteStorage(file, **_beating(stale_after))


def _open_journal(file: Path) -> JournalFile:
    if str(file) in ("", "."):
        raise RequestError("journal: needs a file, such as --storage journal:studies.journal.")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        with file.open("rb") as stream:
            first = stream.readline()
        try:
            sound = not first or "op_code" in json.loads(first)
        except (ValueError, TypeError):
            sound = False
        if not sound:
            raise RequestError(
                f"{file} is no journal of Optuna's. Nothing was changed; choose another file, or leave 'journal:' "
                "out where it is a SQLite file."
            )
        with file.open("ab"):
            pass  # says now what writing would say later
    return JournalFile(file)


def _open_database(kind: str, text: str, where: str, stale_after: float | None) -> RDBStorage:
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    driver, package = DRIVERS[kind]
    try:
        url = make_url(text)
        if "+" not in url.drivername:
            url = url.set(drivername=f"{kind}+{driver}")
            if find_spec(package) is None:
                raise _without_driver(where, package, kind)
        given = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        options = {"connect_args": {"connect_timeout": CONNECT_SECONDS}, "pool_pre_ping": True}
        engine = create_engine(url, **options)
    except (ArgumentError, ValueError, NoSuchModuleError):
        # The error itself may quote what was taken for a port, and that may be half a password.
        raise RequestError(
            f"{shown(text, Path())} is no URL of a database: it should be {kind}://USER:PASSWORD@HOST:PORT/DATABASE, "
            "with special characters in it written as %40 for @."
        ) from None
    except ImportError as error:
        raise _without_driver(where, error.name or package, kind) from None
    try:
        with _database_turn(engine, "tables"):  # two workers may make the tables at the same time
            storage = RDBStorage(given, engine_kwargs=options, **_beating(stale_after))
    finally:
        engine.dispose()
    pool = storage.engine.pool
    logging.getLogger(f"{type(pool).__module__}.{type(pool).__qualname__}").addFilter(_tells_of_an_error)
    return storage


def _tells_of_an_error(line: logging.LogRecord) -> bool:
    """False where Ctrl-C came while a connection was given back: it is raised all the same, and is not an error."""
    return not (line.exc_info and isinstance(line.exc_info[1], KeyboardInterrupt))


def _without_driver(where: str, package: str, extra: str) -> RequestError:
    return RequestError(f"{where} needs {package}, which is not installed: pip install 'mer-bench[{extra}]'.")


def _open_proxy(address: str, where: str) -> BaseStorage:
    host, separator, port = address.rstrip("/").rpartition(":")
    if not (separator and host and port.isdigit()):
        raise RequestError(f"{where} should be grpc://HOST:PORT, such as grpc://localhost:13000.")
    if find_spec("grpc") is None or find_spec("google.protobuf") is None:
        raise _without_driver(where, "grpcio", "grpc")
    from optuna.storages import GrpcStorageProxy

    storage: BaseStorage = GrpcStorageProxy(host=host, port=int(port))
    try:
        storage.wait_server_ready(timeout=CONNECT_SECONDS)  # type: ignore[attr-defined]
    except ConnectionError as error:
        raise StorageError(
            f"{where} cannot be reached: no answer in {CONNECT_SECONDS} seconds. What was kept there is safe; see that "
            "the server runs and give the same command again."
        ) from error
    return storage


@contextmanager
def storage_faults(where: str, text: str | None = None) -> Iterator[None]:
    """Say what a storage could not do in one sentence.

    Args:
        where: As `shown` gives it. text: With its password, which is not to be shown.

    Raises:
        RequestError: If a file is no database, or the password or the user is wrong. StorageError: Anything else.
    """
    try:
        yield
    except MerBenchError:
        raise
    except Exception as error:
        if not _is_of_storage(error):
            raise
        raise _fault(error, where, text) from error


def _is_of_storage(error: Exception) -> bool:
    rooms = ("optuna", "sqlalchemy", "sqlite3", "grpc", "psycopg", "pymysql", "filelock", "alembic")
    return isinstance(error, OSError) or any(each.__module__.partition(".")[0] in rooms for each in type(error).__mro__)


def _fault(error: BaseException, where: str, text: str | None) -> MerBenchError:
    told = _root(error, text)
    low = told.lower()
    if "file is not a database" in low or "malformed" in low:
        return RequestError(
            f"{where} is no SQLite file, so that it holds no studies. Nothing was changed; choose another file with "
            "--storage."
        )
    if "is locked" in low or type(error).__name__ == "Timeout":
        return StorageError(
            f"{where} was locked by another program for more than {LOCKED_SECONDS:g} seconds. What is in it is safe; "
            "end that program and give the same command again."
        )
    if "readonly" in low or "read-only" in low or isinstance(error, PermissionError):
        return StorageError(
            f"{where} may not be written to, so that no trial can be kept in it. Change its permissions or choose "
            "another place with --storage."
        )
    if any(each in low for each in ("password", "access denied", "authentication", "role ")):
        return RequestError(f"{where} did not let us in: {told}. Check the user and the password in --storage.")
    if _is_away(error) or any(
        each in low for each in ("could not connect", "can't connect", "connection", "resolve", "unavailable")
    ):
        return StorageError(
            f"{where} cannot be reached: {told}. What was kept in it is safe; see that the server runs and give the "
            "same command again."
        )
    return StorageError(f"the studies in {where} could not be read or written: {told}.")


def _is_away(error: BaseException | None) -> bool:
    """Whether gRPC says so, whose words for it differ: `Socket closed`, `Connection refused`."""
    while error is not None:
        code = getattr(error, "code", None)
        if callable(code) and getattr(code(), "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
            return True
        error = error.__cause__
    return False


def _root(error: BaseException, text: str | None) -> str:
    """The first line of what the driver says."""
    while error.__cause__ is not None and not getattr(error, "orig", None):
        error = error.__cause__
    found = getattr(error, "orig", None) or error
    details = getattr(found, "details", None)  # of gRPC
    if callable(details):
        found = details()
    elif len(getattr(found, "args", ())) == 2 and isinstance(found.args[0], int) and not isinstance(found, OSError):
        found = found.args[1]  # of MySQL: a number, and what it says
    said = str(found).strip() or type(error).__name__
    line = " ".join(said.splitlines()[0].split()).rstrip(".")
    if text and "://" in text:
        password = text.partition("://")[2].rpartition("@")[0].partition(":")[2]
        line = line.replace(password, "***") if password else line
    return line


def turn(storage: BaseStorage, study: str) -> AbstractContextManager[None]:
    """A moment in which no other worker of the study has its turn, on this machine or another.

    Counting the trials and beginning the next one is one step in it, so that a study never has more than it should.
    A worker that is killed in its turn does not hold up the others: locks on files and databases end with it, and
    over gRPC, where there are none, it is taken from it after a while.
    """
    if isinstance(storage, (SqliteStorage, JournalFile)):
        return _file_turn(storage.file)
    if isinstance(storage, RDBStorage):
        return _database_turn(storage.engine, study)
    return _study_turn(storage, study)


@contextmanager
def _file_turn(file: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(f"{file}.turn", timeout=LOCKED_SECONDS):
        yield


@contextmanager
def _database_turn(engine: Engine, study: str) -> Iterator[None]:
    digest = hashlib.sha256(f"mer-bench {study}".encode()).digest()
    with engine.begin() as connection:  # an open transaction for so long
        if engine.dialect.name == "postgresql":
            key = int.from_bytes(digest[:8], "big", signed=True)
            _ask(connection, "SELECT pg_advisory_xact_lock(:key)", key=key)
            yield
            return
        name = f"mer-bench.{digest.hex()[:32]}"
        if _ask(connection, "SELECT GET_LOCK(:name, :seconds)", name=name, seconds=LOCKED_SECONDS) != 1:
            raise StorageError(f"another worker held the study '{study}' for more than {LOCKED_SECONDS:g} seconds.")
        try:
            yield
        finally:
            _ask(connection, "SELECT RELEASE_LOCK(:name)", name=name)


def _ask(connection: Connection, question: str, **values: Any) -> Any:
    from sqlalchemy import text

    return connection.execute(text(question), values).scalar()


@contextmanager
def _study_turn(storage: BaseStorage, study: str) -> Iterator[None]:
    """By a study of a name that only one worker can make; it is there for as long as the turn takes."""
    name = f"{study}.turn"
    seen: tuple[int, Any] | None = None
    since = time.monotonic()
    while True:
        try:
            made = storage.create_new_study([StudyDirection.MAXIMIZE], name)
            break
        except optuna.exceptions.DuplicatedStudyError:
            with suppress(KeyError):  # it ended in this moment
                held = storage.get_study_id_from_name(name)
                holder = (held, storage.get_study_user_attrs(held).get("holder"))
                if holder != seen:
                    seen, since = holder, time.monotonic()
                elif time.monotonic() - since > ABANDONED_SECONDS:
                    storage.delete_study(held)
            time.sleep(random.uniform(0.02, 0.1))
    try:
        storage.set_study_user_attr(made, "holder", uuid.uuid4().hex)
        yield
    finally:
        with suppress(KeyError):
            storage.delete_study(made)


class Heartbeat:
    """Says that a trial's worker is alive, as long as it is entered; nothing where the storage keeps no heartbeats."""

    def __init__(self, storage: BaseStorage, trial_id: int) -> None:
        self._storage = storage
        self._trial_id = trial_id
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        if isinstance(self._storage, RDBStorage):
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        assert isinstance(self._storage, RDBStorage)
        while not self._ended.wait(self._storage.heartbeat_interval):
            # A database that is away for a moment is the worker's own affair, when it next reports.
            with suppress(Exception):
                beat_once(self._storage, self._trial_id)
        self._storage.remove_session()


def beat_once(storage: BaseStorage, trial_id: int) -> None:
    """Say once that a trial's worker is alive."""
    if isinstance(storage, RDBStorage):
        storage.record_heartbeat(trial_id)


def release_stale(study: optuna.Study, storage: BaseStorage, stale_after: float | None = None) -> None:
    """Put trials whose worker is gone back into the queue; to be called in a `turn`.

    A database knows them by their heartbeats. Where there are none, and for a worker that was killed before its
    first one, age decides.
    """
    if isinstance(storage, RDBStorage):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.storages.fail_stale_trials(study)
    limit = stale_after or (STALE_SECONDS if isinstance(storage, RDBStorage) else STALE_AGE_SECONDS)
    now = datetime.now()
    old = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial.datetime_start is not None and (now - trial.datetime_start).total_seconds() > limit
    ]
    if old and isinstance(storage, RDBStorage):
        from sqlalchemy import text

        with storage.engine.connect() as connection:
            beating = {row[0] for row in connection.execute(text("SELECT trial_id FROM trial_heartbeats"))}
        old = [trial for trial in old if trial._trial_id not in beating]
    for trial in old:
        release(study, storage, trial._trial_id, RETRIES)


def release(study: optuna.Study, storage: BaseStorage, trial_id: int, retries: int | None = None) -> None:
    """End a trial that nobody works on any more and queue it to be run again; to be called in a `turn`."""
    with suppress(optuna.exceptions.UpdateFinishedTrialError), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if storage.get_trial(trial_id).state == TrialState.RUNNING:
            storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
            again = RetryHeartbeatStaleTrialCallback(max_retry=retries)
            again(study, copy.deepcopy(storage.get_trial(trial_id)))


def once(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials, and of one that was run again, because its worker was gone, only the last."""
    again = {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}
    return [trial for trial in trials if trial.number not in again]


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count towards a limit: those that were begun, each once."""
    return [trial for trial in once(trials) if trial.state != TrialState.WAITING]
