"""Which versions are installed, which extras are there, and which plugins cannot be used."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from mer_bench import __version__, registry
from mer_bench.doctor.finding import Finding, fault, note, ok

DISTRIBUTION = "mer-bench"

SHOWN = ("torch", "numpy", "scikit-learn", "torch-geometric", "optuna")
"""Distributions that have a line of their own; of the others only what is wrong is told."""

PURPOSES = {
    "cluster": "sweep over many machines",
    "grpc": "studies shared over gRPC",
    "mlflow": "run --track mlflow",
    "mysql": "studies shared in MySQL",
    "parquet": "Parquet files in and out",
    "plot": "figures of info and of tune show --html",
    "postgresql": "studies shared in PostgreSQL",
    "tensorboard": "run --track tensorboard",
    "transformers": "text features by a transformer",
    "tune": "tune --sampler cmaes",
    "wandb": "run --track wandb",
}
"""What each extra is for."""

CONTRIBUTORS = {"test", "speed", "docs", "dev"}
"""Extras for those who work on mer-bench itself."""

OTHER_FILES = "Another version's files come first on the import path, or the checkout changed: install it again."

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*([^;]*)(?:;\s*(.*))?$")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")
_BOUND = re.compile(r"(>=|<=|<|>|==|!=|~=)\s*([0-9][0-9A-Za-z.+!-]*)")


def versions() -> Iterator[Finding]:
    """Python, mer-bench and what it is built on."""
    yield _python()
    try:
        required = metadata.requires(DISTRIBUTION) or []
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield note(
            "versions",
            "mer-bench",
            f"{__version__}, run from its files without being installed",
            "So plugins are not found, and extras not known. Install it with: python -m pip install -e .",
        )
        return
    differs = "" if installed == __version__ else f", though {installed} was installed"
    place = Path(__file__).resolve().parents[2]
    yield Finding(
        "versions",
        "mer-bench",
        "note" if differs else "ok",
        f"{__version__}{differs} ({place})",
        OTHER_FILES if differs else "",
    )
    for name, bounds, extra in _requirements(required):
        if extra is None:
            yield from _required(name, bounds)


def extras() -> Iterator[Finding]:
    """Each extra: there or not, and what it is for."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # told of among the versions
        return
    by_extra: dict[str, list[tuple[str, str]]] = {}
    for name, bounds, extra in _requirements(required):
        if extra is not None and extra not in CONTRIBUTORS and name != DISTRIBUTION:
            by_extra.setdefault(extra, []).append((name, bounds))
    absent = []
    for extra, needs in sorted(by_extra.items()):
        found = {name: _version(name) for name, _ in needs}
        old = [name for name, bounds in needs if found[name] and not _fits(found[name], bounds)]
        if not all(found.values()):
            absent.append(extra)
            continue
        told = ", ".join(f"{name} {version}" for name, version in found.items())
        advice = (
            f"mer-bench wants {old[0]} {dict(needs)[old[0]]}: python -m pip install 'mer-bench[{extra}]'" if old else ""
        )
        yield Finding("extras", extra, "note" if old else "ok", f"{told}: {_purpose(extra)}", advice)
    for extra in absent:
        yield ok("extras", extra, f"not installed: {_purpose(extra)}", f"python -m pip install 'mer-bench[{extra}]'")


def plugins(root: Path) -> Iterator[Finding]:
    """Models and datasets, and those of them that cannot be used."""
    for shelf in (registry.models(), registry.datasets(root)):
        count = len(shelf.plugins)
        kind = f"{shelf.kind}s"
        if count:
            yield ok("plugins", kind, f"{count} {kind}")
        else:
            yield fault("plugins", kind, f"no {shelf.kind} at all", "Install mer-bench again: pip install -e .")
        for broken in shelf.broken:
            yield fault(
                "plugins",
                broken.name,
                f"the {shelf.kind} in {broken.package} cannot be used: {broken.reason}",
                "Repair or remove it; all others work without it.",
            )


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return ok("versions", "python", found)
    return fault("versions", "python", found, "mer-bench works with Python 3.11 to 3.13; use one of them.")


def _requirements(required: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """Name, bounds and extra of each requirement; () where another marker than an extra decides."""
    for text in required:
        parts = _REQUIREMENT.match(text)
        if parts is None:
            continue
        name, bounds, marker = parts.groups()
        extra = _EXTRA.search(marker or "")
        if marker and extra is None:
            continue
        yield name, bounds.strip(" ()"), extra.group(1) if extra else None


def _required(name: str, bounds: str) -> Iterator[Finding]:
    version = _version(name)
    install = f"python -m pip install '{name}{bounds}'"
    if version is None:
        yield fault("versions", name, "not installed", install)
    elif not _fits(version, bounds):
        yield fault("versions", name, f"{version}, but mer-bench needs {bounds}", install)
    elif name in SHOWN:
        yield ok("versions", name, version)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(version: str | None, bounds: str) -> bool:
    """Whether a version lies within bounds; only lower and upper ones are looked at."""
    if version is None:
        return False
    for sign, bound in _BOUND.findall(bounds):
        mine, other = _numbers(version), _numbers(bound)
        if (sign == ">=" and mine < other) or (sign == "<" and mine >= other):
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version, without trailing zeros, so that 2.4 is 2.4.0."""
    begin = re.match(r"\d+(?:\.\d+)*", version)
    found = [int(part) for part in begin.group(0).split(".")] if begin else []
    while found and found[-1] == 0:
        found.pop()
    return tuple(found)


def _purpose(extra: str) -> str:
    return PURPOSES.get(extra, "an extra of mer-bench")
