"""The study opens in the real optuna-dashboard, unchanged."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from mer_bench.runner import RunRequest
from mer_bench.tuning.kept import find_study
from mer_bench.tuning.study import TuneRequest, plan_study
from mer_bench.tuning.workers import tune

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed; it is in the extra `test`")


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A study of two trials, of which each trained one epoch."""
    small = {"epochs": 1, "width": 64, "layers": 1, "heads": 2, "feedforward": 1, "batch_size": 64}
    run = RunRequest(
        "textonly", "meld-synthetic", settings=small, out=tmp_path / "runs", data_root=tmp_path / "data", threads=1
    )
    tune(plan_study(TuneRequest(run, study="toy", trials=2)))
    return tmp_path / "runs" / "studies.sqlite3"


@pytest.fixture
def dashboard(storage: Path) -> Iterator[httpx.Client]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = "from optuna_dashboard._cli import main; main()"
    words = [f"sqlite:///{storage}", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        try:
            for _ in range(300):
                try:
                    client.get("/dashboard/")
                    break
                except httpx.TransportError:
                    assert process.poll() is None, process.stderr.read() if process.stderr else ""
                    time.sleep(0.1)
            yield client
        finally:
            process.terminate()
            process.communicate(timeout=20)


def dump(storage: Path) -> list[str]:
    with sqlite3.connect(storage) as connection:
        return list(connection.iterdump())


def test_the_dashboard_shows_the_study_and_leaves_it_as_it_was(storage: Path, dashboard: httpx.Client) -> None:
    before = dump(storage)
    kept = find_study("toy", str(storage))
    assert dashboard.get("/dashboard/").status_code == 200
    (listed,) = dashboard.get("/api/studies").json()["study_summaries"]
    assert listed["study_name"] == "toy"
    shown: dict[str, Any] = dashboard.get(f"/api/studies/{listed['study_id']}?after=0").json()
    assert shown["name"] == "toy"
    assert shown["directions"] == ["maximize"]
    assert [each["state"] for each in shown["trials"]] == ["Complete", "Complete"]
    assert [each["values"][0] for each in shown["trials"]] == [trial.value for trial in kept.trials]
    told = {each["key"]: each["value"] for each in shown["user_attrs"]}
    assert json.loads(told["budget"]) == dict(kept.budget)
    assert json.dumps(dict(kept.about)).startswith(told["about"][:500])  # of long texts it shows the beginning
    settings = next(each["value"] for each in shown["trials"][0]["user_attrs"] if each["key"] == "settings")
    assert json.loads(settings) == kept.trials[0].user_attrs["settings"]
    assert dump(storage) == before
