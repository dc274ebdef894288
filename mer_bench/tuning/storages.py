"""Where studies are kept: by default a SQLite file that makes itself."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import BaseStorage, RDBStorage

from mer_bench.errors import StorageError


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
        file.parent.mkdir(parents=True, exist_ok=True)
        return RDBStorage(f"sqlite:///{file.absolute()}")
    except Exception as error:
        raise StorageError(f"the storage {file} cannot be opened: {error}") from error
