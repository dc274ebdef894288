"""Real stores are read back; and whatever a tracker does, the run is what it would have been without it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import mer_bench
from mer_bench import runner
from mer_bench.errors import DivergedError, RequestError, RunError, UnknownNameError
from mer_bench.records import Record, predictions_file, read_record, record_folder
from mer_bench.runner import Listener, RunRequest
from mer_bench.trackers import TRACKERS, Following, Several, check_trackers
from mer_bench.trackers.catalogue import TrackerEntry
from tests.conftest import write_plugin

FAULTY = '''
import os, signal, time
from mer_bench.trackers.tracker import Tracker

class Faulty(Tracker):
    """Does what it is told at the call that it is told."""

    def __init__(self, folder):
        super().__init__(folder)
        self.call, self.does = folder.name.split("-")
        self.act("made")

    def act(self, call):
        if call != self.call:
            return
        if self.does == "raises":
            raise OSError(28, "No space left on device")
        if self.does == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "hangs":
            time.sleep(1000)
        if self.does == "prints":
            print("x" * 100000)
            os.write(2, b"y" * 100000)

    def begin(self, name, settings): self.act("begin")
    def epoch(self, step, values): self.act("epoch")
    def end(self, scores, record): self.act("end")
    def fail(self, reason): self.act("fail")
    def close(self): self.act("close")
'''


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the synthetic corpus is prepared once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def request_here(data: Path, tmp_path: Path) -> RunRequest:
    return RunRequest(
        "textonly",
        "meld-synthetic",
        settings={"epochs": 2, "dropout": 0.3},
        data_root=data,
        out=tmp_path / "runs",
        threads=1,
    )


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Adds trackers named by the call at which they fail and how: `epoch-raises`."""
    folder = tmp_path / "code"
    write_plugin(folder, {"faulty_tracker.py": FAULTY})
    monkeypatch.syspath_prepend(str(folder))
    for call in ("made", "begin", "epoch", "end", "close"):
        for does in ("raises", "dies", "hangs", "prints"):
            entry = TrackerEntry("Faulty", "json", "faulty_tracker:Faulty")
            monkeypatch.setitem(TRACKERS, f"{call}-{does}", entry)
    return "faulty"


def follow(request: RunRequest, names: list[str], folder: Path, seconds: float = 600) -> tuple[Record, list[str]]:
    told: list[str] = []
    with Following(names, folder, told.append, seconds) as following:
        record = runner.run(request, following)
    return record, told


def without_time(record: Record) -> dict[str, Any]:
    """All of a record but how long it took, and in how much memory."""
    assert record.cost is not None
    cost = record.cost.model_copy(update={"wall_seconds": 0.0, "epochs_per_second": 0.0, "memory_bytes": 0})
    return record.model_copy(update={"cost": cost, "started": ""}).model_dump()


@pytest.mark.parametrize(
    "name",
    ["made-raises", "begin-dies", "epoch-raises", "epoch-dies", "end-raises", "close-raises", "close-dies"],
)
def test_a_tracker_that_fails_is_dropped_in_one_line_and_the_run_is_the_same(
    request_here: RunRequest, faulty: str, tmp_path: Path, name: str
) -> None:
    alone = runner.run(replace(request_here, out=tmp_path / "alone"))
    record, told = follow(request_here, [name], tmp_path / "tracked")
    assert without_time(record) == without_time(alone)
    files = [predictions_file(record_folder(out, record), record.run) for out in (request_here.out, tmp_path / "alone")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(told) == 1
    assert told[0].startswith("Faulty was dropped: ")
    assert told[0].endswith(". The run itself is not affected.")
    assert ("No space left on device" in told[0]) == name.endswith("raises")
    assert "\n" not in told[0]


def test_one_that_hangs_is_dropped_at_the_limit(request_here: RunRequest, faulty: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    record, told = follow(request_here, ["epoch-hangs", "close-hangs"], tmp_path / "tracked", seconds=2)
    assert record.status == "done"
    assert told == ["Faulty was dropped: it did not close within 2 seconds. The run itself is not affected."] * 2
    assert time.monotonic() - begun < 60


def test_one_that_takes_nothing_more_never_stops_the_run(request_here: RunRequest, faulty: str, tmp_path: Path) -> None:
    """More calls than a pipe and the queue hold are made while the tracker hangs."""
    told: list[str] = []
    plan = runner.plan(request_here)
    with Following(["begin-hangs"], tmp_path / "tracked", told.append, seconds=0.5) as following:
        begun = time.monotonic()
        for _ in range(12_000):
            following.run_started(plan)
        assert time.monotonic() - begun < 60
    assert told == ["Faulty was dropped: it takes no more; it seems to hang. The run itself is not affected."]


def test_what_a_tracker_prints_is_on_nobodys_screen(
    request_here: RunRequest, faulty: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, told = follow(request_here, ["epoch-prints"], tmp_path / "tracked")
    assert told == []
    assert capfd.readouterr() == ("", "")


def test_processes_are_gone_afterwards(request_here: RunRequest, faulty: str, tmp_path: Path) -> None:
    with Following(["begin-hangs"], tmp_path / "tracked", seconds=1) as following:
        runner.run(request_here, following)
        (process,) = [each._process for each in following._followers]
        assert process is not None
    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_names_are_checked_before_anything_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'tensorboard'"):
        check_trackers(["tensorbord"])
    with pytest.raises(RequestError, match="named twice"):
        check_trackers(["mlflow", "mlflow"])
    monkeypatch.setitem(TRACKERS, "absent", TrackerEntry("Absent", "no_such_module", "no_such_module:X"))
    with pytest.raises(RequestError, match=r"needs Absent, which is not installed.*'mer-bench\[absent\]'"):
        mer_bench.run("majority", "meld-synthetic", track=["absent"], out=tmp_path / "runs")
    answer = CliRunner().invoke(
        _app(), ["run", "--model", "majority", "--dataset", "meld-synthetic", "--track", "absent"]
    )
    assert answer.exit_code == 2
    assert not list(tmp_path.iterdir())


def _app() -> Any:
    from mer_bench.cli import app

    return app


def test_several_listeners_hear_everything_in_order() -> None:
    heard: list[str] = []

    class Ear(Listener):
        def __init__(self, name: str) -> None:
            self.name = name

        def preparing(self, text: str) -> None:
            heard.append(f"{self.name} {text}")

    class Other(Ear):
        def best_chosen(self, tuned: Any, seeds: int) -> None:
            heard.append(f"{self.name} {seeds}")

    both: Any = Several(Ear("a"), Other("b"))
    both.preparing("x")
    both.best_chosen(None, 5)
    assert heard == ["a x", "b x", "b 5"]


def scalars(folder: Path) -> tuple[dict[str, dict[int, float]], dict[str, str], bytes]:
    """Scalars by tag and step, texts by tag, and the settings of a TensorBoard folder, by its own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = {file.parent for file in folder.rglob("events.out.tfevents.*")}
    read = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    tags = read.Tags()
    found = {tag: {event.step: event.value for event in read.Scalars(tag)} for tag in tags["scalars"]}
    texts = {
        tag: read.Tensors(tag)[0].tensor_proto.string_val[0].decode()
        for tag in tags["tensors"]
        if read.Tensors(tag)[0].tensor_proto.string_val
    }
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return found, texts, content


def expected(record: Record) -> dict[str, dict[int, float]]:
    """Values by name and epoch, as the record has them."""
    found: dict[str, dict[int, float]] = {}
    for epoch in record.curve:
        parts: Mapping[str, Mapping[str, float]] = {"train": epoch.train, "dev": epoch.dev}
        for part, values in parts.items():
            for name, value in values.items():
                found.setdefault(f"{part}/{name}", {})[epoch.epoch] = value
    return found


def test_real_tensorboard_files(request_here: RunRequest, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    record, told = follow(request_here, ["tensorboard"], tmp_path / "tracked")
    assert told == []
    found, texts, settings = scalars(tmp_path / "tracked/tensorboard")
    assert len(record.curve) == 2
    for name, by_step in expected(record).items():
        assert found[name] == pytest.approx(by_step, rel=1e-6), name
    assert record.test is not None
    assert found["test/weighted_f1"] == pytest.approx({2: record.test.weighted_f1}, rel=1e-6)
    assert f'"run": "{record.run}"' in texts[f"record/{record.run}.json"]
    assert "| training.epochs | 2 |" in texts["settings"]
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    started = HParamsPluginData.FromString(settings).session_start_info
    assert started.hparams["training.epochs"].number_value == 2
    assert started.hparams["model"].string_value == "textonly"


def test_a_real_mlflow_store(request_here: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow import MlflowClient

    record, told = follow(request_here, ["mlflow"], tmp_path / "tracked")
    assert told == []
    client = MlflowClient(f"sqlite:///{tmp_path / 'tracked/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("mer-bench/meld-synthetic")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == record.run
    assert (run.data.params["model"], run.data.params["training.epochs"]) == ("textonly", "2")
    assert record.test is not None
    assert run.data.metrics["test/weighted_f1"] == record.test.weighted_f1
    for name, by_step in expected(record).items():
        history = {metric.step: metric.value for metric in client.get_metric_history(run.info.run_id, name)}
        assert history == by_step, name
    (artefact,) = (tmp_path / "tracked/mlflow/artifacts").rglob("*.json")
    assert read_record(artefact) == record


def test_a_run_that_fails_is_marked_as_failed(request_here: RunRequest, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    request = replace(request_here, settings={"epochs": 3, "learning_rate": 0.1, "clip": 0.0})
    told: list[str] = []

    class Diverging(Following):
        def epoch_ended(self, *values: Any) -> None:
            super().epoch_ended(*values)
            raise DivergedError("the loss term task became NaN")

    with pytest.raises(RunError), Diverging(["mlflow"], tmp_path / "tracked", told.append, 600) as following:
        runner.run(request, following)
    client = MlflowClient(f"sqlite:///{tmp_path / 'tracked/mlflow/mlflow.db'}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.info.status == "FAILED"
    assert "became NaN" in run.data.tags["failure"]
    assert told == []


def test_a_real_offline_run_of_wandb(request_here: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    record, told = follow(request_here, ["wandb"], tmp_path / "tracked")
    assert told == []
    (file,) = (tmp_path / "tracked/wandb").rglob("run-*.wandb")
    assert file.parent.name.startswith("offline-run-")
    content = file.read_bytes()
    assert record.test is not None
    for words in ("test/weighted_f1", "dev/weighted_f1", "training.epochs", record.run):
        assert words.encode() in content, words
    assert repr(record.test.weighted_f1).encode()[:10] in content


def test_the_command_line_says_where(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    words = ["run", "--model", "majority", "--dataset", "meld-synthetic", "--data-root", str(data), "--threads", "1"]
    answer = CliRunner().invoke(_app(), [*words, "--track", "tensorboard"])
    assert answer.exit_code == 0
    assert f"followed by tensorboard: {tmp_path / 'tracked/tensorboard'}" in answer.output
    assert list((tmp_path / "tracked/tensorboard").rglob("events.out.tfevents.*"))


def test_a_killed_run_leaves_no_tracker_behind(data: Path, tmp_path: Path) -> None:
    """The tracker's process sees the end of its pipe, closes the run as failed, and goes."""
    pytest.importorskip("tensorboard")
    code = f"""
import os, pathlib, signal
from mer_bench import runner
from mer_bench.trackers import Following
class Killed(Following):
    def epoch_ended(self, *values):
        super().epoch_ended(*values)
        import time; time.sleep(3)
        print(self._followers[0]._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
with Killed(["tensorboard"], pathlib.Path({str(tmp_path / "tracked")!r})) as following:
    runner.run(runner.RunRequest("textonly", "meld-synthetic", data_root=pathlib.Path({str(data)!r}),
               out=pathlib.Path({str(tmp_path / "runs")!r}), threads=1), following)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == -9
    child = int(done.stdout)
    for _ in range(300):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the tracker's process lives on")
    _, texts, _ = scalars(tmp_path / "tracked/tensorboard")
    assert texts["failure"] == "the process of the run is gone"
