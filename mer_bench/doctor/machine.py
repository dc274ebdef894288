"""The machine: its processors, memory, clock and folders, and what torch makes of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from mer_bench.atomic import TEMPORARY_SUFFIX, storage_errors
from mer_bench.doctor.finding import Finding, State, fault, note, ok
from mer_bench.errors import StorageError

LEAST_FREE_BYTES = 100_000_000
LITTLE_FREE_BYTES = 2_000_000_000
LEAST_MEMORY_BYTES = 500_000_000
LITTLE_MEMORY_BYTES = 2_000_000_000
FIRST_YEAR, LAST_YEAR = 2024, 2100
TORCH_SECONDS = 60.0
"""Far more than an import takes, on a busy machine with a slow disk too."""
MOST_RECORDS = 20_000
"""Records whose dates are looked at: enough to see a clock that was set back."""
_PROBE_BYTES = 1 << 16

_TORCH = """
import json, sys, warnings
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import numpy, torch
    found = {
        "version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(),
        "available": torch.cuda.is_available(), "sum": float(torch.ones(3).sum()),
        "devices": [], "fault": "",
    }
    try:
        for index in range(torch.cuda.device_count() if found["available"] else 0):
            about = torch.cuda.get_device_properties(index)
            free, total = torch.cuda.mem_get_info(index)
            found["devices"].append([about.name, total, free])
    except (RuntimeError, AssertionError) as error:
        found["fault"] = str(error).splitlines()[0]
found["told"] = [str(each.message).splitlines()[0] for each in told if "CUDA" in str(each.message)]
print("FOUND " + json.dumps(found))
"""


class TorchProbe:
    """torch in a process of its own: it may be broken, hang on a driver or take its time, while others are asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._reason = ""
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TORCH],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            self._reason = f"python could not be started: {error.strerror or error}"

    def findings(self) -> Iterator[Finding]:
        """What torch says of itself and of its devices."""
        found = self._answer()
        if found is None:
            yield fault(
                "devices",
                "torch",
                f"cannot be imported: {self._reason}",
                "Install it again: python -m pip install --force-reinstall torch. See https://pytorch.org",
            )
            return
        yield ok("devices", "cpu", f"torch works, with {found['threads']} threads")
        yield from cuda(found)

    def _answer(self) -> dict[str, object] | None:
        if self._process is None:
            return None
        try:
            out, errors = self._process.communicate(timeout=TORCH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            self._reason = f"it did not answer within {TORCH_SECONDS:g} seconds"
            return None
        for line in out.splitlines():
            if line.startswith("FOUND "):
                answer: dict[str, object] = json.loads(line.removeprefix("FOUND "))
                return answer
        lines = errors.strip().splitlines()
        self._reason = lines[-1] if lines else f"its process ended with code {self._process.returncode}"
        return None


def cuda(
    found: Mapping[str, object], environment: Mapping[str, str] = os.environ, proc: Path = Path("/proc")
) -> Iterator[Finding]:
    """What is to be said of GPUs.

    Args:
        found: What torch said.
    """
    driver = _driver(proc)
    devices = found["devices"]
    assert isinstance(devices, list)
    for index, (name, total, free) in enumerate(devices):
        yield ok("devices", f"cuda:{index}", f"{name}, {_size(free)} of {_size(total)} free")
    if devices and not found["fault"]:
        return
    hidden = environment.get("CUDA_VISIBLE_DEVICES")
    told = found["told"]
    assert isinstance(told, list)
    if found["fault"] or (driver and found["cuda"]):
        why = found["fault"] or (told[0] if told else f"torch for CUDA {found['cuda']} finds no device")
        advice = (
            f"The driver is {driver or 'unknown'}; torch was built for CUDA {found['cuda']}. Update the driver, or "
        )
        advice += "install a torch for an older CUDA: https://pytorch.org. Until then: --device cpu"
        if hidden is not None and not found["fault"]:
            why, advice = f"hidden by CUDA_VISIBLE_DEVICES={hidden or '(empty)'}", "Unset it to use the GPU."
        yield note("devices", "cuda", str(why), advice)
    elif driver:
        yield note(
            "devices",
            "cuda",
            f"there is an NVIDIA driver ({driver}), but torch {found['version']} was built without CUDA",
            "Install a torch with CUDA: https://pytorch.org",
        )
    else:
        yield ok("devices", "cuda", "no NVIDIA GPU: runs use the CPU, which these models are made for")


def _driver(proc: Path) -> str:
    """Version of the NVIDIA driver; "" where there is none."""
    text = _text(proc / "driver/nvidia/version")
    found = next((word for word in text.split() if "." in word and word[0].isdigit()), "")
    return found or ("of unknown version" if text else "")


def threads(environment: Mapping[str, str] = os.environ, system: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Processors, and how many threads libraries will start on them."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = cpu_quota(system)
    allowed = usable if quota is None else max(1, min(usable, int(quota + 0.5)))
    told = f"{cores} cores"
    if usable < cores:
        told += f", {usable} of them for this process"
    if quota is not None and quota < usable:
        told += f", of which the container may use {quota:g}"
    yield ok("threads", "cores", told)
    named = {name: environment[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if environment.get(name)}
    wrong = {name: value for name, value in named.items() if not value.isdecimal() or int(value) < 1}
    for name, value in wrong.items():
        yield note("threads", name, f"{value}, which is no number of threads", f"Set it to {allowed}, or unset it.")
    high = {name: value for name, value in named.items() if name not in wrong and int(value) > allowed}
    for name, value in high.items():
        yield note(
            "threads",
            name,
            f"{value}, but {allowed} can run at once",
            f"More are slower: export {name}={allowed}",
        )
    if not named and quota is not None and allowed < usable:
        yield note(
            "threads",
            "OMP_NUM_THREADS",
            f"not set: torch would start {usable} threads where {allowed} can run",
            f"export OMP_NUM_THREADS={allowed}, or give --threads {allowed}",
        )
    for name in (each for each in named if each not in wrong and each not in high):
        yield ok("threads", name, named[name])
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if busy > 1.5 * allowed:
        yield note(
            "threads",
            "load",
            f"{busy:.1f} processes want {allowed} cores",
            "Times that are measured now say little.",
        )


def cpu_quota(system: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Processors that a container may use at once; None without a limit."""
    words = _text(system / "cpu.max").split()
    if not words:
        words = [_text(system / f"cpu/cpu.cfs_{what}_us").strip() for what in ("quota", "period")]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or nothing there
        return None
    return quota / period if quota > 0 and period > 0 else None


def memory(proc: Path = Path("/proc"), system: Path = Path("/sys/fs/cgroup")) -> Iterator[Finding]:
    """Memory that is free, by the machine's and by the container's limit."""
    lines = dict(line.split(":", 1) for line in _text(proc / "meminfo").splitlines() if ":" in line)
    free, total = (_kilobytes(lines.get(name, "")) for name in ("MemAvailable", "MemTotal"))
    told = "of the machine's"
    limit, used = (_number(_text(system / name)) for name in ("memory.max", "memory.current"))
    if limit is None:
        limit, used = (_number(_text(system / f"memory/memory.{name}_in_bytes")) for name in ("limit", "usage"))
    if limit is not None and total is not None and limit < total:
        total, told = limit, "of the container's"
        free = min(free or limit, max(0, limit - (used or 0)))
    if free is None or total is None:
        yield ok("memory", "memory", "this system does not tell")
        return
    state, advice = _scarce(free, LEAST_MEMORY_BYTES, LITTLE_MEMORY_BYTES)
    if advice:
        advice = "A run on MELD needs 0.4 to 1 GB. Close something, or take smaller batches: --set batch_size=8"
    yield Finding("memory", "memory", state, f"{_size(free)} {told} {_size(total)} free", advice)


def clock(out: Path, now: float | None = None) -> Iterator[Finding]:
    """Whether the date can be right: no certificate is valid, and no record in order, where it is not."""
    now = time.time() if now is None else now
    told = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    advice = "Set the clock: timedatectl set-ntp true"
    if not FIRST_YEAR <= datetime.fromtimestamp(now, UTC).year <= LAST_YEAR:
        yield fault("clock", "date", f"{told}, which cannot be", advice)
        return
    newest, name = newest_record(out)
    if newest > now + 300:
        at = datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M UTC")
        yield note(
            "clock",
            "date",
            f"{told}, before the newest record ({name}, {at})",
            f"The clock was set back, or the record came from a machine whose clock is ahead. {advice}",
        )
        return
    yield ok("clock", "date", told)


def newest_record(out: Path) -> tuple[float, str]:
    """Time at which the newest record below a folder was written, and its name; 0 and "" where there is none."""
    newest, name, seen = 0.0, "", 0
    for folder, inside, files in os.walk(out):
        inside[:] = sorted(each for each in inside if not each.startswith("."))
        for file in files:
            if not file.endswith(".json"):
                continue
            seen += 1
            if seen > MOST_RECORDS:
                return newest, name
            try:
                written = Path(folder, file).stat().st_mtime
            except OSError:  # removed at this moment
                continue
            if written > newest:
                newest, name = written, file
    return newest, name


def folders(places: Mapping[str, Path]) -> Iterator[Finding]:
    """Whether each folder can be written to, and how much room it has.

    Args:
        places: By what they are for.
    """
    for what, place in places.items():
        yield _writable(what, place)
        yield from _room(what, place)


def _writable(what: str, place: Path) -> Finding:
    """Write a small file, and take it away again."""
    try:
        existing = _existing(place)
    except OSError as error:
        return fault("folders", what, f"{place} cannot be reached: {error.strerror or error}", _elsewhere(what))
    if not existing.is_dir():
        return fault("folders", what, f"{place}: {existing} is a file", _elsewhere(what))
    probe = existing / f".mer-bench-doctor.{os.getpid()}{TEMPORARY_SUFFIX}"
    try:
        with storage_errors(f"write to {place}"):
            try:
                probe.write_bytes(bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)
    except StorageError as error:
        return fault(
            "folders",
            what,
            f"{place} cannot be written to: {error.reason.partition('. ')[0].rstrip('.')}",
            _elsewhere(what),
        )
    there = "can be written to" if existing == place else "is not there yet and can be made"
    return ok("folders", what, f"{place} {there}")


def _elsewhere(what: str) -> str:
    if what == "records":
        return "Choose another folder with --out, or change its permissions."
    return "Name another folder with --data-root or MER_BENCH_DATA, or change its permissions."


def _existing(place: Path) -> Path:
    """The nearest folder above that exists.

    Raises:
        OSError: If the way there may not be walked.
    """
    for folder in (place, *place.parents):
        try:
            folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return folder
    return place


def _room(what: str, place: Path) -> Iterator[Finding]:
    try:
        usage = shutil.disk_usage(_existing(place))
        entries = os.statvfs(_existing(place)) if hasattr(os, "statvfs") else None
    except OSError:  # told of by the folder's own line
        return
    state, advice = _scarce(usage.free, LEAST_FREE_BYTES, LITTLE_FREE_BYTES)
    if advice:
        advice = f"Free some space, or choose another folder. {advice}"
    yield Finding("disk", what, state, f"{_size(usage.free)} of {_size(usage.total)} free", advice)
    if entries is not None and entries.f_files and entries.f_favail < 1000:
        yield fault(
            "disk",
            what,
            f"room for {entries.f_favail} more files",
            "Remove files that are not needed; records are small.",
        )


def _scarce(free: int, least: int, little: int) -> tuple[State, str]:
    if free < least:
        return "fault", f"A run needs at least {_size(least)}."
    if free < little:
        return "note", f"Less than {_size(little)} is little."
    return "ok", ""


def _text(file: Path) -> str:
    """A small file of the system's; "" where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _kilobytes(text: str) -> int | None:
    number = _number(text.removesuffix("kB"))
    return None if number is None else number * 1024


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdecimal() else None


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
