"""Whole files or none: what is written is on the disk in full before it takes its name."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mer_bench.errors import StorageError

TEMPORARY_SUFFIX = ".partial"
ABANDONED_AFTER_SECONDS = 24 * 3600.0
"""Longer than any preparation, download or run's writing: what is older was left by a killed process."""


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that a reader, a crash or a kill never meets half of it.

    The bytes go to a hidden file in the same folder, are forced onto the disk, and take the file's
    name in one step; then the folder is forced too. A kill can leave behind only the hidden file,
    whose name starts with a dot and ends in `.partial`. Folders that are missing are made.

    Raises:
        StorageError: If the folder cannot be written to or the disk is full; nothing is left behind
            and an older file of that name stays as it was.
    """
    with storage_errors(f"write {file}"):
        _fill_and_rename(file, lambda stream: stream.write(content))


def copy_atomically(file: Path, target: Path) -> None:
    """Copy a file so that the copy is there as a whole or not at all.

    Raises:
        StorageError: If it cannot be copied; the unfinished copy is gone.
    """
    with storage_errors(f"copy {file} to {target}"), file.open("rb") as source:
        _fill_and_rename(target, lambda stream: shutil.copyfileobj(source, stream, 1 << 20))


def write_files_atomically(top: Path, texts: Mapping[Path, str]) -> None:
    """Write a folder with all its files, or one file, so that it is there as a whole or not at all.

    Args:
        top: What takes its name in the last step; nothing, or an empty folder, may be in its place.
        texts: By file: `top` itself, or files below it.

    Raises:
        StorageError: If it cannot be written; the unfinished one is gone.
    """
    with storage_errors(f"write {top}"):
        top.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(top)
        unfinished = temporary_beside(top.absolute())
        try:
            for file, text in texts.items():
                place = unfinished / file.relative_to(top)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text, encoding="utf-8", newline="\n")
                flush_to_disk(place)
            if top.is_dir():
                top.rmdir()
            unfinished.rename(top)
        finally:
            remove(unfinished)


def _fill_and_rename(target: Path, fill: Callable[[BinaryIO], object]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target)
    unfinished = temporary_beside(target)
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, target)  # noqa: PTH105 (beside the other os calls that tests replace)
    finally:
        unfinished.unlink(missing_ok=True)
    flush_to_disk(target.parent)


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence.

    Where one stands inside another the outer one speaks: it knows what the user asked for, the inner
    one only which hidden file was in hand.

    Args:
        doing: What was being done, to follow "cannot": `write the store in /data/prepared`.

    Raises:
        StorageError: For any OSError inside.
    """
    try:
        yield
    except StorageError as error:
        if not error.reason:
            raise
        raise StorageError(f"cannot {doing}: {error.reason}", error.reason) from error
    except OSError as error:
        reason = f"{error.strerror or error}."
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            reason = "the disk is full. Free some space and try again."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = "the folder may not be written to. Choose another one."
        raise StorageError(f"cannot {doing}: {reason}", reason) from error


def temporary_beside(target: Path) -> Path:
    """A name for something unfinished, in the folder of `target`, that nobody else uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_abandoned(target: Path, after_seconds: float = ABANDONED_AFTER_SECONDS) -> None:
    """Remove unfinished things of the same target that a killed process left a day ago or more.

    Args:
        after_seconds: Another age. Where nobody else can be writing, less than none: minus infinity, so that no
            clock that was set back keeps them.
    """
    for left in target.parent.glob(f".{target.name}.*{TEMPORARY_SUFFIX}"):
        try:
            if time.time() - left.stat().st_mtime < after_seconds:
                continue
        except FileNotFoundError:  # another process tidied up at the same moment
            continue
        remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Ask the operating system to write a file or a folder's list of names to the disk itself."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
