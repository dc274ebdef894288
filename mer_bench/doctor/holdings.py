"""Which data are on this machine, and whether they are what they should be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mer_bench import registry
from mer_bench.cards import DatasetCard
from mer_bench.data.preparation import prepared_stores
from mer_bench.data.store import open_store
from mer_bench.data.verification import verify_dataset
from mer_bench.doctor.finding import Finding, fault, note, ok
from mer_bench.errors import DataError, MerBenchError, MissingDataError
from mer_bench.locations import raw_folder, store_folder
from mer_bench.registry import Plugin


def data(root: Path, thorough: bool) -> Iterator[Finding]:
    """Files and stores of every dataset.

    Args:
        thorough: Read everything and compare it by checksum; else sizes and forms alone.
    """
    try:
        if root.exists() and not root.is_dir():
            yield fault("data", "data folder", f"{root} is a file", "Name a folder with MER_BENCH_DATA.")
            return
        if root.is_dir():
            next(root.iterdir(), None)
    except OSError as error:
        yield fault(
            "data",
            "data folder",
            f"{root} cannot be read: {error.strerror or error}",
            "Change its permissions, or name another one with MER_BENCH_DATA.",
        )
        return
    found = 0
    for name, plugin in sorted(registry.datasets(root).plugins.items()):
        try:
            findings = list(_thorough(plugin, root) if thorough else _quick(plugin, root))
        except OSError as error:
            place = error.filename or root
            findings = [
                fault(
                    "data",
                    name,
                    f"{place} cannot be read: {error.strerror or error}",
                    "Change its permissions.",
                )
            ]
        except MerBenchError as error:
            findings = [fault("data", name, str(error), "See: mer-bench data status")]
        found += len(findings)
        yield from findings
    if not found:
        yield ok("data", "data folder", f"nothing is in {root} yet", "mer-bench data fetch meld")


def _quick(plugin: Plugin[DatasetCard], root: Path) -> Iterator[Finding]:
    """Sizes of the files as published, and of the stores as their manifests say."""
    raw = raw_folder(root, plugin.name)
    sources = [(source, raw / source.name) for source in plugin.card.sources]
    there = [(source, file) for source, file in sources if file.is_file()]
    problems = [
        (str(file), f"has {size} bytes, but the published file has {source.bytes}")
        for source, file in there
        if source.bytes and (size := file.stat().st_size) != source.bytes
    ]
    stores = prepared_stores(root, plugin.name)
    yield from (
        fault("data", plugin.name, f"{what} {problem}", "Delete it and bring it again: mer-bench data fetch")
        for what, problem in problems
    )
    whole = 0
    for key in stores:
        try:
            store = open_store(store_folder(root, key))
        except (DataError, MissingDataError) as error:
            # The sentence ends in what to do; here that has a line of its own.
            found = str(error).partition(" Prepare it again with")[0]
            yield fault("data", plugin.name, f"{key}: {found}", _prepare(key.dataset, key.features))
            continue
        whole += 1
        protocol = plugin.card.protocols.get(key.protocol)
        now = (plugin.card.version, protocol.version if protocol else None)
        if (store.manifest.dataset_version, store.manifest.protocol_version) != now:
            yield note(
                "data",
                plugin.name,
                f"{key} was made by another version of the card",
                "It is made again when used.",
            )
    sound = len(there) - len(problems)
    if sound or whole:
        files = f"{sound} of {len(sources)} files" if sources else "no files needed"
        told = f"{files}, {whole} prepared store{'' if whole == 1 else 's'}, of the right sizes"
        yield ok("data", plugin.name, told)


def _thorough(plugin: Plugin[DatasetCard], root: Path) -> Iterator[Finding]:
    """Every byte, against pins and manifests."""
    checked = verify_dataset(plugin, root)
    for each in checked:
        if each.problem:
            yield fault("data", plugin.name, each.problem)
        elif each.state == "older card":
            yield note(
                "data",
                plugin.name,
                f"{each.what} was made by another version of the card",
                "It is made again when used.",
            )
    good = sum(not each.problem for each in checked)
    if good:
        yield ok("data", plugin.name, f"{good} files and stores have the checksums that they should have")


def _prepare(dataset: str, features: str) -> str:
    return f"mer-bench data prepare {dataset} --features {features}"
