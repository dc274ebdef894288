"""Where studies are kept: by default a SQLite file that makes itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, RDBStorage

from mer_bench.errors import StorageError

LOCKED_SECONDS = 60.0
"""How long a worker waits for another one that is writing to the same SQLite file."""


def open_storage(text: str | None, default: Path) -> BaseStorage:
    """The storage that `--storage` names.

    Args:
        text: A file, a URL, or None.
        default: The SQLite file for None.

    Raises:
        StorageError: If it cannot be opened.
    """
    file = default if text is None else Path(text)
    try:
        return _open_sqlite(file)
    except Exception as error:
        raise StorageError(f"the storage {file} cannot be opened: {error}") from error


def _open_sqlite(file: Path) -> RDBStorage:
    """A SQLite file with a write-ahead log, which a killed process cannot damage.

    Optuna commits after each reported epoch. With SQLite's own settings each of these waits for the disk (27 ms
    measured here); with the log and `synchronous=NORMAL` a commit takes 0.02 ms. What a machine wrote last may be
    lost if its power fails, but the file stays whole.
    """
    from sqlalchemy import event

    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file, timeout=LOCKED_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # stays with the file
    storage = RDBStorage(f"sqlite:///{file.absolute()}", engine_kwargs={"connect_args": {"timeout": LOCKED_SECONDS}})

    def quick(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # holds for one connection

    event.listen(storage.engine, "connect", quick)
    storage.engine.dispose()  # those that were opened before this
    return storage
