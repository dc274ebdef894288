"""Fetch the published files of a feature set, each pinned by its content, from their host or a mirror of it.

A mirror is any server whose paths are `<owner>/<repository>/<commit>/<path>`, as those of the usual host of raw
files are: a static file server over a folder in that layout will do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from mer_bench.atomic import storage_errors
from mer_bench.cards import DatasetCard, Source
from mer_bench.data import licence
from mer_bench.data.files import difference_from_pin
from mer_bench.data.transfer import MIRROR_VARIABLE, Progress, Transfer, open_client, unfinished_file
from mer_bench.errors import DataError, MissingDataError, SettingError
from mer_bench.locations import raw_folder
from mer_bench.registry import Plugin

HOST = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class Extent:
    """What is about to be fetched.

    Attributes:
        files: Names of the sources.
        bytes: All that is still to come of them; None where the card and the host state no size.
    """

    files: tuple[str, ...]
    bytes: int | None


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did.

    Attributes:
        files: Every source of the feature set that is on this machine now, in the card's order.
        brought: Names of those that were fetched; the others were there.
        unpublished: Names of sources that nobody publishes and that are not here: the user brings them.
    """

    files: tuple[Path, ...]
    brought: tuple[str, ...]
    unpublished: tuple[str, ...]


def fetch(
    plugin: Plugin[DatasetCard],
    features: str,
    root: Path,
    *,
    accept_licence: bool = False,
    mirror: str | None = None,
    progress: Progress | None = None,
    confirm: Callable[[Extent], None] | None = None,
) -> Fetched:
    """Bring the sources of a feature set into the raw folder; what is there and right stays.

    An interrupted file is taken up where it stopped. A file appears under its name only once its size and
    checksums are those of the card.

    Args:
        accept_licence: The user accepts the terms that the card states; remembered in the raw folder.
        mirror: Address that takes the host's place; else `MER_BENCH_MIRROR`, else the host itself.
        progress: Called with file name, bytes so far and bytes in all (0: unknown).
        confirm: Called once with what is to come, before any of it does and only if there is any; raises to
            stop. Where the card states no size, the host is asked for it first.

    Raises:
        LicenceError: If the card states terms that were not accepted; no host was asked for anything.
        UnreachableError: If no host answered at all: a name or a connection failure.
        DataError: If the host has no such file, or another one; what came is deleted.
        RunError: If a host answered and then broke off, again and again. StorageError: If a file cannot be written.
        MissingDataError: If no source that is still missing is published. SettingError: For an address or a proxy
            that is none.
    """
    base = _base_address(mirror)
    folder = raw_folder(root, plugin.name)
    sources = [plugin.card.source(name) for name in plugin.card.feature_sets[features].sources]
    absent = [source for source in sources if not _is_here(source, folder)]
    unpublished = tuple(source.name for source in absent if not _is_published(source))
    wanted = [source for source in absent if _is_published(source)]
    for source in wanted:
        if not (source.sha256 or source.git_blob):
            raise DataError(f"the card of {plugin.name} has no checksum for {source.name}, so that it is not fetched.")
    if unpublished and not wanted:
        raise MissingDataError(
            f"{', '.join(unpublished)} of {plugin.name}/{features} {'is' if len(unpublished) == 1 else 'are'} not "
            f"published; bring it with: mer-bench data import {plugin.name} --from FOLDER"
        )
    if wanted:
        licence.require(plugin, root, accept_licence)
        with storage_errors(f"write to {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        with open_client() as client:
            transfer = Transfer(client, base, progress or (lambda name, done, total: None))
            if confirm is not None:
                confirm(Extent(tuple(source.name for source in wanted), _bytes_to_come(transfer, wanted, folder)))
            for source in wanted:
                transfer.bring(source, folder / source.name)
    return Fetched(
        files=tuple(folder / source.name for source in sources if source.name not in unpublished),
        brought=tuple(source.name for source in wanted),
        unpublished=unpublished,
    )


def _is_published(source: Source) -> bool:
    return bool(source.repository and source.commit and source.path)


def _is_here(source: Source, folder: Path) -> bool:
    """Whether the raw folder has the file; where it is published, that very file."""
    file = folder / source.name
    return file.is_file() and not (_is_published(source) and difference_from_pin(file, source))


def _bytes_to_come(transfer: Transfer, wanted: list[Source], folder: Path) -> int | None:
    """Bytes of the files, less those that an interrupted transfer left; None where a size is nowhere stated."""
    total = 0
    for source in wanted:
        size = source.bytes or transfer.size(source)
        if size is None:
            return None
        left = unfinished_file(source, folder / source.name)
        kept = left.stat().st_size if left.is_file() else 0
        total += size - kept if kept <= size else size
    return total


def _base_address(mirror: str | None) -> str:
    given = mirror or os.environ.get(MIRROR_VARIABLE, "").strip() or HOST
    try:
        parts = urlsplit(given)
        sound = bool(
            parts.scheme in ("http", "https")
            and parts.hostname
            and parts.port != 0
            and not (parts.query or parts.fragment)
            and httpx.URL(given).host
        )
    except (ValueError, httpx.InvalidURL):
        sound = False
    if not sound:
        origin = "--mirror" if mirror else MIRROR_VARIABLE
        raise SettingError(f"a mirror is an address like http://localhost:8000, but {origin} is '{given}'.")
    return given.rstrip("/")
