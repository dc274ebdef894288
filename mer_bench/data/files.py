"""Files whose content is known: checksums, and the pins of published files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mer_bench.cards import Source
from mer_bench.errors import DataError

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
