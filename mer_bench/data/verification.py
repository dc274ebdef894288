"""Whether what is on this machine of a dataset is what it should be.

Source files are compared with their pins, prepared stores with their manifests, and each store with the source
files that lie there now: a store that was made from other files is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mer_bench.atomic import storage_errors
from mer_bench.cards import DatasetCard
from mer_bench.data.files import difference_from_pin, sha256_of_file
from mer_bench.data.overlap import Overlap
from mer_bench.data.preparation import prepared_stores
from mer_bench.data.store import Store, open_store
from mer_bench.errors import DataError, MissingDataError
from mer_bench.locations import StoreKey, raw_folder, store_folder
from mer_bench.registry import Plugin

State = Literal["good", "not pinned", "older card", "other sources", "damaged"]
"""What was found; the last two are problems. `older card`: the store is prepared again when it is next used."""


@dataclass(frozen=True)
class Checked:
    """A source file or a prepared store, and what was found.

    Attributes:
        what: Name of the source, or the store's key in words.
        problem: What is wrong and what to do, in a sentence; "" where nothing is.
        overlap: Of a store: how much of dev and test stands in train; None where it keeps no texts.
    """

    what: str
    state: State
    problem: str = ""
    key: StoreKey | None = None
    overlap: tuple[Overlap, ...] | None = None


def verify_dataset(plugin: Plugin[DatasetCard], root: Path) -> list[Checked]:
    """Read every source file and every prepared store of a dataset in full and check it.

    Raises:
        StorageError: If a source file cannot be read.
    """
    raw = raw_folder(root, plugin.name)
    checked: list[Checked] = []
    checksums: dict[str, str] = {}
    with storage_errors(f"read the files in {raw}"):
        for source in plugin.card.sources:
            file = raw / source.name
            if not file.is_file():
                continue
            checksums[source.name] = sha256_of_file(file)
            if difference := difference_from_pin(file, source):
                problem = f"{file} is not the published file: {difference}. Delete it and bring it again."
                checked.append(Checked(source.name, "damaged", problem))
            else:
                checked.append(Checked(source.name, "good" if source.sha256 or source.git_blob else "not pinned"))
        # A store may have been made from files that no card lists, as that of a user's own data is.
        for file in sorted(raw.rglob("*")) if raw.is_dir() else ():
            name = file.relative_to(raw).as_posix()
            if file.is_file() and name not in checksums and not file.name.startswith("."):
                checksums[name] = sha256_of_file(file)
    for key in prepared_stores(root, plugin.name):
        checked.append(_checked_store(key, root, plugin.card, checksums))
    return checked


def _checked_store(key: StoreKey, root: Path, card: DatasetCard, checksums: Mapping[str, str]) -> Checked:
    try:
        store = open_store(store_folder(root, key))
        store.verify()
        overlap = store.measure_overlap()
        if store.manifest.key != key:
            raise DataError(
                f"the store {store.folder} is that of {store.manifest.key}, not of {key}. Delete the folder."
            )
    except (DataError, MissingDataError) as error:
        return Checked(str(key), "damaged", str(error), key)
    if problem := _made_from_others(store, checksums):
        return Checked(str(key), "other sources", problem, key, overlap)
    return Checked(str(key), "good" if _is_of(store, card) else "older card", "", key, overlap)


def _made_from_others(store: Store, checksums: Mapping[str, str]) -> str:
    """What differs between the files that a store was made from and those that lie there; "" where nothing does."""
    others = [name for name, made in store.manifest.sources.items() if checksums.get(name, made) != made]
    if not others:
        return ""
    key = store.manifest.key
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return (
        f"the store {key} was prepared from another {others[0]}{more} than the one that is there now. "
        f"Prepare it again with: mer-bench data prepare {key.dataset} --features {key.features} "
        f"--labels {key.labels} --protocol {key.protocol}"
    )


def _is_of(store: Store, card: DatasetCard) -> bool:
    """Whether the store was made by the versions of the dataset and the protocol that the card has now."""
    manifest = store.manifest
    protocol = card.protocols.get(manifest.protocol)
    now = (card.version, None if protocol is None else protocol.version)
    return (manifest.dataset_version, manifest.protocol_version) == now
