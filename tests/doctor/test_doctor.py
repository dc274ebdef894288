"""Broken environments, each told as a fault with what to do, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mer_bench import registry
from mer_bench.cli import app
from mer_bench.data.preparation import open_or_prepare, resolve
from mer_bench.doctor import Finding, holdings, installation, machine, worst
from tests.conftest import ShelfWriter


def doctor(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--json", "--data-root", str(root), "--out", str(root / "runs"), *words])


def told(findings: Iterator[Finding] | list[Finding], state: str) -> list[Finding]:
    return [each for each in findings if each.state == state]


@pytest.fixture(autouse=True)
def quick_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing torch takes seconds; only the tests whose names speak of it, and one of the whole, do so."""

    class Quick:
        def findings(self) -> list[Finding]:
            return [Finding("devices", "cpu", "ok", "torch works")]

    if "torch" not in request.node.name and "healthy" not in request.node.name:
        monkeypatch.setattr(machine, "TorchProbe", Quick)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    open_or_prepare(resolve("meld-synthetic"), tmp_path)
    return tmp_path


def test_a_healthy_machine(prepared: Path) -> None:
    answer = doctor(prepared)
    found = json.loads(answer.stdout)
    faults = [each for each in found["findings"] if each["state"] == "fault"]
    assert faults == []
    assert answer.exit_code == 0
    topics = {each["topic"] for each in found["findings"]}
    assert topics == {
        "versions", "extras", "plugins", "devices", "threads", "memory", "folders", "disk", "clock", "data",
    }  # fmt: skip
    assert {"python", "mer-bench", "torch", "numpy", "scikit-learn", "torch-geometric", "optuna"} <= {
        each["subject"] for each in found["findings"]
    }
    assert not list(prepared.glob(".mer-bench-doctor*"))
    assert not (prepared / "runs").exists()


def test_thorough_finds_what_a_glance_does_not(prepared: Path) -> None:
    (file,) = prepared.rglob("labels.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert doctor(prepared).exit_code == 0
    answer = doctor(prepared, "--thorough")
    assert answer.exit_code == 1
    (fault,) = [each for each in json.loads(answer.stdout)["findings"] if each["state"] == "fault"]
    assert "labels.npy is damaged: its SHA-256 is" in fault["found"]


@pytest.mark.parametrize("name", ["labels.npy", "manifest.json", "pipeline.npz", "features.text.npy"])
def test_a_store_that_is_cut_off_or_gone(prepared: Path, name: str) -> None:
    (file,) = prepared.rglob(name)
    file.write_bytes(file.read_bytes()[:20])
    (fault,) = told(holdings.data(prepared, thorough=False), "fault")
    assert name in fault.found
    assert fault.advice == "mer-bench data prepare meld-synthetic --features default"
    file.unlink()
    assert told(holdings.data(prepared, thorough=False), "fault")


def test_a_published_file_of_another_size(tmp_path: Path) -> None:
    (tmp_path / "raw/meld").mkdir(parents=True)
    (tmp_path / "raw/meld/dev_sent_emo.csv").write_bytes(b"cut off")
    (fault,) = told(holdings.data(tmp_path, thorough=False), "fault")
    assert "has 7 bytes, but the published file has" in fault.found
    (fault,) = told(holdings.data(tmp_path, thorough=True), "fault")
    assert "is not the published file" in fault.found


@pytest.mark.parametrize("below", ["", "data"])
def test_a_data_folder_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    answer = doctor(tmp_path / "file" / below)
    assert answer.exit_code == 1
    faults = [each for each in json.loads(answer.stdout)["findings"] if each["state"] == "fault"]
    assert all(each["advice"] for each in faults)
    assert any("is a file" in each["found"] for each in faults)


def test_a_data_folder_that_may_not_be_read(tmp_path: Path) -> None:
    """As another user where the tests run as root, whom no permission stops."""
    closed = tmp_path / "closed"
    (closed / "data").mkdir(parents=True)
    code = f"""
import os, sys
from pathlib import Path
from mer_bench.doctor import holdings, machine
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
root = Path({str(closed / "data")!r})
for each in [*holdings.data(root, False), *machine.folders({{"data": root}})]:
    print(each.state, each.found, each.advice)
"""
    closed.chmod(0o700 if os.getuid() == 0 else 0o000)
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    finally:
        closed.chmod(0o700)
    if "PermissionError" in done.stderr and "mer_bench/doctor" not in done.stderr:
        pytest.skip("another user may not read this installation")
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("fault ")
    assert "Permission denied Change its permissions" in lines[0]
    assert "cannot be reached: Permission denied" in lines[1]


def test_a_folder_that_is_full_or_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, says in ((28, "the disk is full"), (30, "the folder may not be written to")):

        def refuse(self: Path, content: bytes, number: int = number) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr(Path, "write_bytes", refuse)
        (fault,) = told(machine.folders({"records": tmp_path / "runs"}), "fault")
        assert fault.found == f"{tmp_path / 'runs'} cannot be written to: {says}"
        assert "--out" in fault.advice


def test_a_full_disk_for_real(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        (place / "filler").write_bytes(bytes(90_000))
        faults = told(machine.folders({"records": place}), "fault")
        assert [each.topic for each in faults] == ["folders", "disk"]
        assert faults[0].found.endswith("the disk is full")
        assert [file.name for file in place.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_plugins_that_cannot_be_used(shelves: ShelfWriter, tmp_path: Path) -> None:
    shelves.add("models", "broken_shelf", {"odd": {"__init__.py": "1 / 0", "card.toml": 'title = "x'}})
    shelves.add("datasets", "absent_shelf", {}, importable=False)
    (tmp_path / "raw/mine").mkdir(parents=True)
    (tmp_path / "raw/mine/card.toml").write_text("title = ")
    faults = told(installation.plugins(tmp_path), "fault")
    assert sorted(each.subject for each in faults) == ["absent_shelf", "mine", "odd"]
    assert all(each.advice for each in faults)
    assert doctor(tmp_path).exit_code == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('libtorch.so: cannot open shared object file')", "libtorch.so: cannot open shared object"),
        ("import os; os.abort()", "its process ended with code -6"),
        ("import sys; sys.exit(3)", "its process ended with code 3"),
    ],
)
def test_a_torch_that_does_not_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, says: str) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (fault,) = machine.TorchProbe().findings()
    assert fault.state == "fault"
    assert says in fault.found
    assert "pytorch.org" in fault.advice


def test_a_torch_that_hangs_on_a_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("import time; time.sleep(1000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(machine, "TORCH_SECONDS", 1.0)
    (fault,) = machine.TorchProbe().findings()
    assert "did not answer within 1 seconds" in fault.found


TORCH = {"version": "2.9.0", "cuda": "13.0", "threads": 2, "devices": [], "told": [], "fault": ""}


@pytest.mark.parametrize(
    ("changes", "driver", "environment", "state", "says"),
    [
        ({"cuda": None}, "", {}, "ok", "no NVIDIA GPU"),
        (
            {"cuda": None},
            "535.104.05",
            {},
            "note",
            r"driver \(535.104.05\), but torch 2.9.0 was built",
        ),
        (
            {"told": ["The NVIDIA driver on your system is too old"]},
            "470.1",
            {},
            "note",
            "too old",
        ),
        ({}, "535.1", {}, "note", "torch for CUDA 13.0 finds no device"),
        ({}, "535.1", {"CUDA_VISIBLE_DEVICES": ""}, "note", r"hidden by CUDA_VISIBLE_DEVICES=\(empty\)"),
        ({"devices": [["H100", 80e9, 70e9]]}, "580.1", {}, "ok", "H100, 70.0 GB of 80.0 GB free"),
        ({"fault": "CUDA error: out of memory"}, "580.1", {}, "note", "CUDA error: out of memory"),
    ],
)
def test_what_is_said_of_gpus(
    tmp_path: Path, changes: Mapping[str, Any], driver: str, environment: dict[str, str], state: str, says: str
) -> None:
    import re

    if driver:
        file = tmp_path / "driver/nvidia/version"
        file.parent.mkdir(parents=True)
        file.write_text(
            f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  Sat Aug 19\nGCC version: gcc 12.2.0\n"
        )
    (found,) = machine.cuda({**TORCH, **changes}, environment, tmp_path)
    assert found.state == state
    assert re.search(says, found.found)
    assert bool(found.advice) == (state != "ok")


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_the_containers_share_of_processors(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine.cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(
    ("value", "state", "says"),
    [
        ("1", "ok", "1"),
        ("many", "note", "no number of threads"),
        ("0", "note", "no number"),
        ("999", "note", "can run at once"),
    ],
)
def test_the_thread_variables(tmp_path: Path, value: str, state: str, says: str) -> None:
    findings = [
        each for each in machine.threads({"OMP_NUM_THREADS": value}, tmp_path) if each.subject == "OMP_NUM_THREADS"
    ]
    assert [(each.state, says in each.found) for each in findings] == [(state, True)]


def test_a_quota_that_torch_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    (note,) = [each for each in machine.threads({}, tmp_path) if each.subject == "OMP_NUM_THREADS"]
    assert (note.state, note.found) == ("note", "not set: torch would start 16 threads where 2 can run")


@pytest.mark.parametrize(
    ("free", "limit", "state"),
    [(9_000_000, None, "ok"), (900_000, None, "note"), (90_000, None, "fault"), (9_000_000, 10**8, "fault")],
)
def test_memory(tmp_path: Path, free: int, limit: int | None, state: str) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal:       16000000 kB\nMemAvailable:   {free} kB\n")
    (tmp_path / "memory.max").write_text("max" if limit is None else str(limit))
    (tmp_path / "memory.current").write_text("50000000")
    (found,) = machine.memory(tmp_path, tmp_path)
    assert found.state == state
    assert ("container's" in found.found) == (limit is not None)


def test_the_clock(tmp_path: Path) -> None:
    (found,) = machine.clock(tmp_path / "absent")
    assert found.state == "ok"
    (found,) = machine.clock(tmp_path, now=5.0)
    assert (found.state, found.found) == ("fault", "1970-01-01 00:00 UTC, which cannot be")
    (tmp_path / "meld/sdt").mkdir(parents=True)
    (tmp_path / "meld/sdt/new.json").write_text("{}")
    now = time.time()
    assert next(machine.clock(tmp_path, now)).state == "ok"
    (found,) = machine.clock(tmp_path, now - 86_400)
    assert found.state == "note"
    assert "before the newest record (new.json" in found.found


def test_versions_that_are_too_old_or_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "httpx":
            raise metadata.PackageNotFoundError(name)
        return "1.9.2" if name == "torch" else real(name)

    monkeypatch.setattr(metadata, "version", version)
    faults = {each.subject: each for each in told(installation.versions(), "fault")}
    assert set(faults) == {"torch", "httpx"}
    assert faults["torch"].found == "1.9.2, but mer-bench needs >=2.4"
    assert faults["httpx"].advice.startswith("python -m pip install 'httpx")


def test_every_extra_has_a_purpose() -> None:
    findings = list(installation.extras())
    assert {each.subject for each in findings} >= {"mlflow", "parquet", "plot", "tensorboard", "transformers", "wandb"}
    assert [each.subject for each in findings if "an extra of mer-bench" in each.found] == []


def test_versions_are_compared_as_numbers() -> None:
    assert installation._fits("2.13.0+cpu", ">=2.4")
    assert installation._fits("2.4", ">=2.4.0")
    assert not installation._fits("2.3.9", ">=2.4")
    assert not installation._fits("3.0", "<3,>=2")
    assert installation._fits("odd", "")


def test_the_worst_of_several() -> None:
    findings = [Finding("a", "b", state, "") for state in ("ok", "fault", "note")]
    assert worst(findings) == "fault"
    assert worst(findings[::2]) == "note"
    assert worst([]) == "ok"


def test_for_people_each_fault_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = CliRunner().invoke(app, ["doctor", "--data-root", str(tmp_path / "file"), "--out", str(tmp_path)])
    assert answer.exit_code == 1
    assert "→ Name a folder with MER_BENCH_DATA." in answer.stdout
    assert answer.stdout.rstrip().splitlines()[-1].endswith("2 faults")
    assert "Traceback" not in answer.output
    registry.forget()
