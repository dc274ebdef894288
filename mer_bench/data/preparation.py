"""From raw files to prepared stores: what is there, what is missing, and making it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_bench import registry
from mer_bench.atomic import copy_atomically, storage_errors, write_atomically
from mer_bench.cards import DatasetCard, Source, option_shown
from mer_bench.data.files import check_pin, difference_from_pin, sha256_of, sha256_of_file
from mer_bench.data.store import Store, open_store, write_store
from mer_bench.errors import DataError, MissingDataError, SettingError, UnknownNameError
from mer_bench.locations import StoreKey, raw_folder, store_folder
from mer_bench.registry import Plugin


@dataclass(frozen=True)
class PreparationRequest:
    """What a dataset is asked to turn into a feature store.

    Attributes:
        features, labels, protocol: Ids without the dataset's name: `transcripts`, `emotion`, `official`.
        fold: Number of the fold from 1, or None under a protocol with one fixed split.
        files: Where each raw source of the feature set lies, by the source's name.
        options: What the user gave to `data prepare`: `{"vectors": Path(...)}`, `{"transformer": "NAME"}`.
    """

    features: str
    labels: str
    protocol: str
    fold: int | None
    files: Mapping[str, Path]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportReport:
    """What `import_files` did.

    Attributes:
        imported: Where each source that was copied came from, by its name.
        unchanged: Sources that were in the raw folder already and are not below the folder.
        missing: Feature sets that need a source that is nowhere, by the source's name.
        ready: Feature sets all of whose sources are there now.
    """

    dataset: str
    raw: Path
    imported: Mapping[str, Path]
    unchanged: tuple[str, ...]
    missing: Mapping[str, tuple[str, ...]]
    ready: tuple[str, ...]


@dataclass(frozen=True)
class StoreStatus:
    """A prepared store on disk: its size, and what is wrong with it (None: nothing was found)."""

    key: StoreKey
    folder: Path
    bytes: int
    problem: str | None


@dataclass(frozen=True)
class FeatureStatus:
    """What is there of a feature set: its sources, found and missing by name, and its prepared stores."""

    features: str
    found: tuple[str, ...]
    missing: tuple[str, ...]
    needs: tuple[str, ...]
    stores: tuple[StoreStatus, ...]


@dataclass(frozen=True)
class DatasetStatus:
    """What is on this machine of a dataset."""

    dataset: str
    raw: Path
    features: tuple[FeatureStatus, ...]


def find_sources(plugin: Plugin[DatasetCard], features: str, root: Path) -> tuple[dict[str, Path], list[str]]:
    """The raw files of a feature set: where those lie that are there, and the names of the others."""
    raw = raw_folder(root, plugin.name)
    found: dict[str, Path] = {}
    missing: list[str] = []
    for name in plugin.card.feature_sets[features].sources:
        if (raw / name).is_file():
            found[name] = raw / name
        else:
            missing.append(name)
    return found, missing


def import_files(dataset: str, folder: Path, root: Path) -> ImportReport:
    """Copy a dataset's raw files from anywhere below a folder into the raw data folder.

    A file is recognised by the end of its published path, or by its name alone. Where a source is
    pinned its content must be the published one; other line endings, which git writes on some
    systems, are put right. Nothing is copied unless every file that was found is good.

    Raises:
        UnknownNameError: If there is no such dataset.
        MissingDataError: If the folder, or any file of the dataset below it, is not there.
        DataError: If a file is not the published one; names it and, where it can be told, line and column.
        StorageError: If a copy cannot be written.
    """
    plugin = registry.datasets(root).find(dataset)
    folder = folder.expanduser()
    if not folder.is_dir():
        raise MissingDataError(f"{folder} is not a folder. Name the folder that holds the files of {dataset}.")
    if not plugin.card.sources:
        raise MissingDataError(f"{dataset} is made from no files; there is nothing to import.")
    raw = raw_folder(root, plugin.name)
    chosen: dict[str, tuple[Path, bytes | None]] = {}
    candidates = _candidates(folder, plugin.card.sources)
    for source in plugin.card.sources:
        if candidates[source.name]:
            chosen[source.name] = _choose(plugin, source, candidates[source.name], root)
    if not chosen:
        names = ", ".join(source.name for source in plugin.card.sources)
        raise MissingDataError(f"no file of {dataset} is anywhere below {folder}. It should hold: {names}.")
    for name, (file, content) in chosen.items():
        if content is not None:
            write_atomically(raw / name, content)
        elif not _same_file(file, raw / name):
            copy_atomically(file, raw / name)
    unchanged, missing = [], {}
    for source in plugin.card.sources:
        if source.name in chosen:
            continue
        if (raw / source.name).is_file():
            unchanged.append(source.name)
        else:
            missing[source.name] = tuple(
                key for key, features in plugin.card.feature_sets.items() if source.name in features.sources
            )
    ready = [key for key in plugin.card.feature_sets if not find_sources(plugin, key, root)[1]]
    imported = {name: file for name, (file, _) in chosen.items()}
    return ImportReport(plugin.name, raw, imported, tuple(unchanged), missing, tuple(ready))


def _candidates(folder: Path, sources: Iterable[Source]) -> dict[str, list[Path]]:
    """Files below a folder that may be each source, those whose path ends like the published one first."""
    names_of: dict[str, list[Source]] = {}
    found: dict[str, list[Path]] = {}
    for source in sources:
        found[source.name] = []
        for name in {source.name, source.path.rpartition("/")[2] or source.name}:
            names_of.setdefault(name, []).append(source)

    def unreadable(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be searched: {error.strerror}.") from None

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted(names):
            for source in names_of.get(name, ()):
                found[source.name].append(Path(place) / name)
    for source in sources:
        # Stable, and False sorts before True: the published path's end first, then in the order of the walk.
        found[source.name].sort(key=lambda file: not (source.path and file.as_posix().endswith("/" + source.path)))
    return _told_apart(found, sources)


def _told_apart(candidates: dict[str, list[Path]], sources: Iterable[Source]) -> dict[str, list[Path]]:
    """The candidates without files that are another source's by their content: two releases share a file name."""
    claims: dict[Path, list[Source]] = {}
    for source in sources:
        for file in candidates[source.name]:
            claims.setdefault(file, []).append(source)
    for file, claimed in claims.items():
        pinned = [source for source in claimed if source.sha256 or source.git_blob] if len(claimed) > 1 else []
        if owners := [source for source in pinned if not difference_from_pin(file, source)]:
            for source in claimed:
                if source not in owners:
                    candidates[source.name].remove(file)
    return candidates


def _choose(
    plugin: Plugin[DatasetCard], source: Source, candidates: list[Path], root: Path
) -> tuple[Path, bytes | None]:
    """The candidate that is the published file, with its content where that had to be put right.

    Raises:
        DataError: If none is.
    """
    if not (source.sha256 or source.git_blob):
        first = sha256_of_file(candidates[0])
        for other in candidates[1:]:
            if sha256_of_file(other) != first:
                raise DataError(
                    f"both {candidates[0]} and {other} may be {source.name}, and they differ; "
                    "name a folder that holds one of them."
                )
        return candidates[0], None
    for file in candidates:
        if not difference_from_pin(file, source):
            return file, None
    for file in candidates:
        content = _with_published_line_ends(file, source)
        if content is not None:
            return file, content
    raise _fault(plugin, source, candidates[0], root)


def _fault(plugin: Plugin[DatasetCard], source: Source, file: Path, root: Path) -> DataError:
    """What is wrong with a file that is not the published one: line and column where the dataset can tell."""
    try:
        registry.load_dataset(plugin.name, root).examine(source.name, file)
        check_pin(file, source)
    except DataError as error:
        return error
    return DataError(f"{file} changed while it was read; try again.")


def _with_published_line_ends(file: Path, source: Source) -> bytes | None:
    """A text file's published content, where only its line ends differ from that; else None."""
    if not source.sha256 or not source.bytes or file.stat().st_size > 2 * source.bytes:
        return None
    unix = file.read_bytes().replace(b"\r\n", b"\n")
    for content in (unix, unix.replace(b"\n", b"\r\n")):
        if sha256_of(content) == source.sha256:
            return content
    return None


def _same_file(left: Path, right: Path) -> bool:
    return right.exists() and left.samefile(right)


def resolve(
    dataset: str,
    features: str | None = None,
    labels: str | None = None,
    protocol: str | None = None,
    fold: int | None = None,
    root: Path | None = None,
) -> StoreKey:
    """The key that names stand for; what is not given is the first in the dataset's card.

    Args:
        features, labels, protocol: `transcripts`, or with the dataset's name: `meld/transcripts`.
        fold: From 1; stays None where not given, under a protocol with folds too.
        root: The data folder, where the user's own datasets are; None is the default one.

    Raises:
        UnknownNameError: For a name that does not exist, with the nearest ones.
        SettingError: If the protocol has no such fold.
    """
    plugin = registry.datasets(root).find(dataset)
    card = plugin.card

    def chosen(kind: str, given: str | None, known: Mapping[str, Any]) -> str:
        if given is None:
            return next(iter(known))
        short = given.removeprefix(f"{plugin.name}/")
        if short not in known:
            raise UnknownNameError(f"{kind} of {plugin.name}", short, known, f"mer-bench info {plugin.name}")
        return short

    key = StoreKey(
        dataset=plugin.name,
        features=chosen("feature set", features, card.feature_sets),
        labels=chosen("label set", labels, card.label_sets),
        protocol=chosen("protocol", protocol, card.protocols),
        fold=fold,
    )
    if fold is not None:
        folds = card.protocols[key.protocol].folds
        if folds == 0:
            raise SettingError(
                f"the protocol {plugin.name}/{key.protocol} has no folds, but fold {fold} was asked for."
            )
        if not 1 <= fold <= folds:
            raise SettingError(f"fold must lie in [1, {folds}] under {plugin.name}/{key.protocol}, but is {fold}.")
    return key


def prepare(key: StoreKey, root: Path, options: Mapping[str, Any] | None = None) -> Store:
    """Make a store from the raw files, replacing one that may be there.

    Args:
        options: What the feature set needs or takes besides its sources: `{"vectors": Path(...)}`.

    Raises:
        MissingDataError: If a source or an option is missing; says how to come by it.
        SettingError: If an option is given that the feature set does not take, or no fold where one is needed.
        DataError: If a source is damaged or not the published one; names file, line and column.
        StorageError: If the store cannot be written.
    """
    plugin = registry.datasets(root).find(key.dataset)
    card = plugin.card
    given = dict(options or {})
    _check_fold(key, card)
    features = card.feature_sets[key.features]
    known = (*features.needs, *features.takes)
    for option in given:
        if option not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no option"
            raise SettingError(f"{key.dataset}/{key.features} {takes}, but '{option}' was given.")
    found, missing = find_sources(plugin, key.features, root)
    if missing:
        raise MissingDataError(_how_to_obtain(plugin, key.features, missing, root))
    for need in features.needs:
        if given.get(need) is None:
            raise MissingDataError(
                f"{key.dataset}/{key.features} needs the option {need}. Give it with: mer-bench data prepare "
                f"{key.dataset} --features {key.features} {option_shown(need)}"
            )
    request = PreparationRequest(key.features, key.labels, key.protocol, key.fold, found, given)
    with storage_errors("read the raw files"):
        checksums = {name: sha256_of_file(file) for name, file in found.items()}
        for name, file in found.items():
            if difference_from_pin(file, card.source(name)):
                raise _fault(plugin, card.source(name), file, root)
    content = registry.load_dataset(key.dataset, root).prepare(request)
    return write_store(
        store_folder(root, key),
        content,
        key,
        checksums,
        dataset_version=card.version,
        protocol_version=card.protocols[key.protocol].version,
    )


def open_prepared(key: StoreKey, root: Path) -> Store | None:
    """Open a store that is prepared, by this version of the dataset's card; None where it is not.

    Raises:
        DataError: If it is damaged; names the file.
    """
    store, is_current = _open_if_there(key, root, registry.datasets(root).find(key.dataset).card)
    return store if is_current else None


def _open_if_there(key: StoreKey, root: Path, card: DatasetCard) -> tuple[Store | None, bool]:
    """The store, and whether this version of the card made it."""
    _check_fold(key, card)
    folder = store_folder(root, key)
    try:
        store = open_store(folder)
    except MissingDataError:
        return None, False
    if store.manifest.key != key:
        raise DataError(f"the store {folder} is that of {store.manifest.key}, not of {key}. Delete the folder.")
    versions = (card.version, card.protocols[key.protocol].version)
    return store, (store.manifest.dataset_version, store.manifest.protocol_version) == versions


def open_or_prepare(key: StoreKey, root: Path, on_prepare: Callable[[str], None] | None = None) -> Store:
    """Open a store, or prepare it first when all that it is made from is there.

    A store that another version of the dataset's card prepared is prepared again.

    Args:
        on_prepare: Told one line when a preparation begins.

    Raises:
        MissingDataError: If it is not there and cannot be prepared without the user.
        DataError: If it, or a raw file, is damaged; names the file.
    """
    plugin = registry.datasets(root).find(key.dataset)
    card = plugin.card
    store, is_current = _open_if_there(key, root, card)
    if store is not None and is_current:
        return store
    why = "" if store is None else " again, since it was made by another version of the dataset"
    needs = card.feature_sets[key.features].needs
    missing = find_sources(plugin, key.features, root)[1]
    if missing:
        raise MissingDataError(_how_to_obtain(plugin, key.features, missing, root))
    if needs:
        options = " ".join(option_shown(need) for need in needs)
        raise MissingDataError(
            f"{key.dataset}/{key.features} must be prepared{why or ' first'}: mer-bench data prepare {key.dataset} "
            f"--features {key.features} --labels {key.labels} {options}"
        )
    if on_prepare is not None:
        on_prepare(f"Preparing {key}{why}.")
    return prepare(key, root)


def status(root: Path, verify: bool = False) -> list[DatasetStatus]:
    """What is on this machine of every dataset.

    Args:
        verify: Also read every prepared store in full and compare it with its checksums.
    """
    found = []
    for name, plugin in sorted(registry.datasets(root).plugins.items()):
        features = []
        for key in plugin.card.feature_sets:
            there, missing = find_sources(plugin, key, root)
            features.append(
                FeatureStatus(
                    features=key,
                    found=tuple(there),
                    missing=tuple(missing),
                    needs=plugin.card.feature_sets[key].needs,
                    stores=tuple(_stores(root, name, key, verify)),
                )
            )
        found.append(DatasetStatus(name, raw_folder(root, name), tuple(features)))
    return found


def prepared_stores(root: Path, dataset: str, features: str | None = None) -> list[StoreKey]:
    """The stores that stand on disk of a dataset, or of one of its feature sets; whole ones or not."""
    base = root / "prepared" / dataset
    found = []
    names = [features] if features else sorted(place.name for place in base.glob("*") if place.is_dir())
    for name in names:
        for place in sorted([*(base / name).glob("*/*"), *(base / name).glob("*/*/fold*")]):
            if place.name.startswith(".") or not place.is_dir() or any(place.glob("fold*/manifest.json")):
                continue
            labels, protocol, *folds = place.relative_to(base / name).parts
            number = folds[0].removeprefix("fold") if folds else ""
            key = StoreKey(dataset, name, labels, protocol, int(number) if number.isdecimal() else None)
            if store_folder(root, key) == place:
                found.append(key)
    return found


def _stores(root: Path, dataset: str, features: str, verify: bool) -> Iterable[StoreStatus]:
    for key in prepared_stores(root, dataset, features):
        place = store_folder(root, key)
        problem = None
        try:
            store = open_store(place)
            if verify:
                store.verify()
        except (DataError, MissingDataError) as error:
            problem = str(error)
        size = sum(file.stat().st_size for file in place.iterdir() if file.is_file())
        yield StoreStatus(key, place, size, problem)


def _check_fold(key: StoreKey, card: DatasetCard) -> None:
    if card.protocols[key.protocol].folds and key.fold is None:
        raise SettingError(f"{key.dataset}/{key.protocol} has one store for each fold; name one.")


def _how_to_obtain(plugin: Plugin[DatasetCard], features: str, missing: list[str], root: Path) -> str:
    name = plugin.name
    published = [source for source in missing if plugin.card.source(source).repository]
    fetch = ""
    if published:
        what = "them" if published == missing else ", ".join(published)
        terms = " (it shows the licence that their owner wants accepted)" if plugin.card.terms else ""
        fetch = f", or fetch {what} with: mer-bench data fetch {name} --features {features}{terms}"
    return (
        f"{name}/{features} needs {', '.join(missing)} in {raw_folder(root, name)}, which "
        f"{'is' if len(missing) == 1 else 'are'} not there. Import what you have with: mer-bench data import {name} "
        f"--from FOLDER{fetch}."
    )
