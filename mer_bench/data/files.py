"""Files whose content is known by checksum, and writing that leaves a whole file or none."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mer_bench.cards import Source
from mer_bench.errors import DataError, StorageError

TEMPORARY_SUFFIX = ".partial"
ABANDONED_AFTER_SECONDS = 24 * 3600.0
"""Longer than any preparation or download: what is older was left by a process that was killed."""

_CHUNK_BYTES = 1 << 20


def sha256_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def git_blob_of(content: bytes) -> str:
    """The id under which git keeps a file of that content: SHA-1 of `blob <bytes>\\0` + content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def git_blob_of_file(file: Path) -> str:
    """The same for a file, without holding it in memory."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def difference_from_pin(file: Path, source: Source) -> str:
    """How a file differs from what its source pins, in words; "" where it does not."""
    size = file.stat().st_size
    if source.bytes and size != source.bytes:
        return f"it has {size} bytes and the published file {source.bytes}"
    if source.sha256 and (found := sha256_of_file(file)) != source.sha256:
        return f"its SHA-256 is {found} and that of the published file {source.sha256}"
    if source.git_blob and (found := git_blob_of_file(file)) != source.git_blob:
        return f"its git blob id is {found} and that of the published file {source.git_blob}"
    return ""


def check_pin(file: Path, source: Source) -> None:
    """Check that a file is the one that its source pins.

    Raises:
        DataError: If size, SHA-256 or git blob differ; names the file, what was expected and found.
    """
    if difference := difference_from_pin(file, source):
        raise DataError(f"{file} is not the published {source.name}: {difference}. Obtain the file again.")


@contextmanager
def storage_errors(doing: str) -> Iterator[None]:
    """Turn what the operating system refuses into one sentence.

    Args:
        doing: What was being done, to follow "cannot": `write the store in /data/prepared`.

    Raises:
        StorageError: For any OSError inside.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise StorageError(f"cannot {doing}: the disk is full. Free some space and try again.") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"cannot {doing}: the folder may not be written to. Choose another one.") from error
        raise StorageError(f"cannot {doing}: {error.strerror or error}.") from error


def temporary_beside(target: Path) -> Path:
    """A name for something unfinished, in the folder of `target`, that nobody else uses."""
    return target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")


def remove_abandoned(target: Path) -> None:
    """Remove unfinished things of the same target that a killed process left a day ago or more."""
    for left in target.parent.glob(f".{target.name}.*{TEMPORARY_SUFFIX}"):
        try:
            if time.time() - left.stat().st_mtime < ABANDONED_AFTER_SECONDS:
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


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file that is there as a whole or, after a kill at any moment, as it was before.

    Raises:
        StorageError: If it cannot be written; the unfinished file is gone.
    """
    with storage_errors(f"write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        unfinished = temporary_beside(target)
        try:
            with unfinished.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        flush_to_disk(target.parent)


def copy_atomically(file: Path, target: Path) -> None:
    """Copy a file so that the copy is there as a whole or not at all.

    Raises:
        StorageError: If it cannot be copied; the unfinished copy is gone.
    """
    with storage_errors(f"copy {file} to {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        unfinished = temporary_beside(target)
        try:
            with file.open("rb") as source, unfinished.open("wb") as stream:
                shutil.copyfileobj(source, stream, _CHUNK_BYTES)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        flush_to_disk(target.parent)
