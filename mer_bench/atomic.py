"""Whole files or none: what is written is on the disk in full before it takes its name."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mer_bench.errors import StorageError


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a kill never meets half of it.

    The bytes go to a hidden file in the same folder, are forced onto the disk, and take the file's
    name in one step; then the folder is forced too. A kill can leave behind only the hidden file,
    whose name starts with a dot and ends in `.partial`. Folders that are missing are made.

    Raises:
        StorageError: If the folder cannot be written to or the disk is full; nothing is left behind
            and an older file of that name stays as it was.
    """
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, file)  # noqa: PTH105 (beside the other os calls that tests replace)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _force_folder(file.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{file} cannot be written: {reason}. Free the disk or choose another folder.") from error


def _force_folder(folder: Path) -> None:
    """Force a folder's list of names onto the disk, where the system can do that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
