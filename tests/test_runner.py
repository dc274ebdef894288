"""The runner: names and settings, the closed test split, records whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import mer_bench
from mer_bench import registry, runner
from mer_bench.data import preparation
from mer_bench.data.store import Store
from mer_bench.errors import (
    DivergedError,
    MissingDataError,
    RequestError,
    RunError,
    SettingError,
    StorageError,
    UnknownNameError,
)
from mer_bench.metrics import score
from mer_bench.predictions import read_predictions
from mer_bench.records import read_record
from mer_bench.runner import RunRequest

REQUEST = RunRequest(model="majority", dataset="meld-synthetic")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the synthetic corpus is prepared once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def request_here(data: Path, tmp_path: Path) -> RunRequest:
    return replace(REQUEST, data_root=data, out=tmp_path / "runs", threads=1)


def test_a_plan_fills_in_the_cards_defaults() -> None:
    plan = runner.plan(replace(REQUEST, model="cmath", settings={"epochs": 3}))
    assert (plan.labels, plan.features, plan.protocol) == (
        "meld-synthetic/emotion",
        "meld-synthetic/default",
        "meld-synthetic/official",
    )
    assert plan.modalities == ("text", "audio", "visual")
    assert plan.training.epochs == 3
    assert plan.synthetic


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"model": "dialogernn"}, UnknownNameError, "Did you mean 'dialoguernn'"),
        ({"dataset": "meld-syntetic"}, UnknownNameError, "Did you mean 'meld-synthetic'"),
        ({"features": "defalt"}, UnknownNameError, "Did you mean 'default'"),
        ({"labels": "emotions"}, UnknownNameError, "Did you mean 'emotion'"),
        ({"protocol": "oficial"}, UnknownNameError, "Did you mean 'official'"),
        ({"modalities": ("text", "vidual")}, UnknownNameError, "Did you mean 'visual'"),
        ({"modalities": ()}, RequestError, "needs text, audio, visual"),
        ({"settings": {"learning_rte": 1}}, UnknownNameError, "Did you mean 'learning_rate'"),
        ({"settings": {"epochs": 0}}, SettingError, r"epochs must be a whole number in \[1, 10000\], but is 0"),
        ({"settings": {"epochs": "many"}}, SettingError, "but is 'many'"),
        ({"seed": -1}, RequestError, "a seed must be 0 or more"),
        ({"threads": 0}, RequestError, "threads must be 1 or more"),
        ({"device": "gpu"}, RequestError, "a device is auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:x"}, RequestError, "a device is auto, cpu, cuda or cuda:N"),
    ],
)
def test_a_wrong_request_says_what_is_right(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        runner.plan(replace(REQUEST, **changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a cuda device")
def test_a_device_that_is_not_there(request_here: RunRequest) -> None:
    with pytest.raises(RequestError, match="0 cuda devices are there"):
        runner.run(replace(request_here, device="cuda"))
    assert not request_here.out.exists()


def test_planning_imports_no_torch() -> None:
    code = textwrap.dedent("""
        import sys
        from mer_bench import runner
        runner.plan(runner.RunRequest(model="cmath", dataset="meld-synthetic"))
        sys.exit("torch" in sys.modules)
    """)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Guarded(Store):
    """A store whose test split may be touched once, and only after the selection is frozen."""

    frozen = False
    touched = 0

    def split(self, name: str, *args: Any, **options: Any) -> Any:
        if name == "test":
            assert Guarded.frozen, "the test split was read before the selection was frozen"
            Guarded.touched += 1
        return super().split(name, *args, **options)

    def identifiers(self, name: str) -> Any:
        assert name != "test" or Guarded.frozen, "the test split was read before the selection was frozen"
        return super().identifiers(name)


@pytest.mark.parametrize("model", ["majority", "mmgcn"])
def test_the_test_split_is_closed_until_the_epoch_is_chosen(
    model: str, request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench.trainer import Trainer

    real_open, real_fit = preparation.open_or_prepare, Trainer.fit

    def guarded_open(*args: Any, **options: Any) -> Store:
        store = real_open(*args, **options)
        return Guarded(**{field.name: getattr(store, field.name) for field in fields(store)})

    def freezing_fit(self: Trainer, *args: Any, **options: Any) -> Any:
        trained = real_fit(self, *args, **options)
        Guarded.frozen = True
        return trained

    monkeypatch.setattr(Guarded, "frozen", False)
    monkeypatch.setattr(Guarded, "touched", 0)
    monkeypatch.setattr(runner, "open_or_prepare", guarded_open)
    monkeypatch.setattr(Trainer, "fit", freezing_fit)
    runner.run(replace(request_here, model=model, settings={"epochs": 1}))
    assert Guarded.touched == 1


def test_a_run_leaves_one_record_and_its_scores_are_those_of_its_predictions(request_here: RunRequest) -> None:
    record = mer_bench.run(
        model="majority", dataset="meld-synthetic", data_root=request_here.data_root, out=request_here.out
    )
    folder = request_here.out / "meld-synthetic" / "majority"
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        f"{record.run}.{ending}" for ending in ("json", "model.safetensors", "predictions.npz")
    )
    stored = read_record(folder / f"{record.run}.json")
    assert stored == record
    assert stored.synthetic
    assert stored.test == score(read_predictions(folder / f"{record.run}.predictions.npz"))
    assert stored.test is not None
    assert stored.test.utterances == 2610
    text = (folder / f"{record.run}.json").read_text()
    assert str(request_here.out) not in text
    assert str(request_here.data_root) not in text


def test_the_identity_knows_what_decides_and_nothing_else(request_here: RunRequest) -> None:
    first = runner.run(request_here)
    again = runner.run(replace(request_here, out=request_here.out / "elsewhere", threads=2))
    other = runner.run(replace(request_here, seed=1))
    torch.set_num_threads(1)
    assert first.identity == again.identity
    assert first.run == again.run
    assert other.identity != first.identity
    assert first.predictions is not None
    assert again.predictions is not None
    assert first.predictions.sha256 == again.predictions.sha256


OWN_MODEL = """
# /// mer-bench
# title = "Shares"
# summary = "The same for every utterance."
# entry = "Shares"
# config = "Settings"
# modalities = ["text"]
# uses_speakers = false
# ours = ["all of it"]
# ///
import torch
from mer_bench.api import FittedModel, Output, Settings

class Shares(FittedModel):
    def fit(self, train):
        pass

    def forward(self, batch):
        return Output(torch.zeros(*batch.mask.shape, self.spec.class_count) + batch.features["text"][..., :1] * 0)
"""


def test_the_record_tells_which_code_ran_and_two_codes_of_one_name_are_two_runs(
    request_here: RunRequest, tmp_path: Path, add_plugin: Callable[[Path], tuple[str, ...]]
) -> None:
    records = []
    for place, text in (("a", OWN_MODEL), ("b", OWN_MODEL), ("b", OWN_MODEL.replace("zeros", "ones"))):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "shares.py").write_text(text)
        add_plugin(tmp_path / place / "shares.py")
        records.append(runner.run(replace(request_here, model="shares")))
        registry.remove_plugin(tmp_path / place / "shares.py")
    first, again, other = records
    assert first.model_code is not None
    assert first.model_code.origin == "file"
    assert again.model_code == first.model_code
    assert again.identity == first.identity
    assert other.model_code != first.model_code
    assert other.identity != first.identity
    files = sorted((request_here.out / "meld-synthetic" / "shares").glob("*.json"))
    assert [file.stem for file in files] == sorted([first.run, other.run])
    assert read_record(files[0]).model_code is not None
    assert str(tmp_path) not in files[0].read_text()


def test_a_model_of_mer_bench_itself_has_no_checksum_of_its_code(request_here: RunRequest) -> None:
    record = runner.run(request_here)
    assert record.model_code is None
    assert "model_code" not in (request_here.out / "meld-synthetic" / "majority" / f"{record.run}.json").read_text()


def test_the_same_command_gives_the_same_bytes(request_here: RunRequest) -> None:
    request = replace(request_here, model="dialoguernn", settings={"epochs": 1})
    first = runner.run(request)
    again = runner.run(replace(request, out=request.out / "again"))
    assert first.predictions == again.predictions
    assert first.curve == again.curve


def test_missing_data_are_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    request = RunRequest(model="majority", dataset="meld", data_root=tmp_path / "empty", out=tmp_path / "runs")
    with pytest.raises(MissingDataError, match="meld"):
        runner.run(request)
    assert not (tmp_path / "runs").exists()


def _fail(error: Exception) -> Any:
    def fit(*_: Any, **__: Any) -> None:
        raise error

    return fit


@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (DivergedError("the loss term task became NaN."), DivergedError, "DivergedError"),
        (KeyError("speaker"), RunError, "RunError"),
    ],
)
def test_a_failed_run_is_a_record_too(
    error: Exception, raised: type[Exception], kind: str, request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench.trainer import Trainer

    monkeypatch.setattr(Trainer, "fit", _fail(error))
    with pytest.raises(raised):
        runner.run(request_here)
    (file,) = request_here.out.rglob("*.json")
    record = read_record(file)
    assert record.status == "failed"
    assert record.failure is not None
    assert record.failure.kind == kind
    assert record.test is None


def test_a_failed_repeat_does_not_replace_a_result(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench.trainer import Trainer

    runner.run(request_here)
    monkeypatch.setattr(Trainer, "fit", _fail(DivergedError("no.")))
    with pytest.raises(DivergedError):
        runner.run(request_here)
    (file,) = request_here.out.rglob("*.json")
    assert read_record(file).status == "done"


def test_a_full_disk_leaves_no_record_and_no_scrap(request_here: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    from mer_bench import predictions

    def full(*_: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictions, "write_predictions", full)
    with pytest.raises(StorageError, match="the disk is full"):
        runner.run(request_here)
    assert [file for file in request_here.out.rglob("*") if file.is_file()] == []


@contextmanager
def disk(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own at a folder; only root can mount one."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        reason = f"no file system can be mounted here: {mounted.stderr.strip()}"
        # Where everything is at hand, a test that does not run is a fault.
        (pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip)(reason)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tmpfs is Linux's")
@pytest.mark.parametrize(
    ("options", "says"), [("size=8k", "the disk is full"), ("ro", "the folder may not be written to")]
)
def test_a_disk_that_is_full_or_read_only_gets_one_sentence_and_keeps_no_scrap(
    options: str, says: str, request_here: RunRequest
) -> None:
    with disk(request_here.out, options):
        with pytest.raises(StorageError, match=f"cannot write records to .*: {says}"):
            runner.run(request_here)
        assert [file for file in request_here.out.rglob("*") if file.is_file()] == []


def test_a_folder_that_cannot_be_written_is_noticed_before_training(
    request_here: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mer_bench.trainer import Trainer

    monkeypatch.setattr(Trainer, "fit", _fail(AssertionError("it trained first")))
    blocked = request_here.out
    blocked.write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot write records to"):
        runner.run(request_here)


def test_a_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("epochs = 3\nschedule = 'cosine'\n")
    assert runner.read_settings_file(file) == {"epochs": 3, "schedule": "cosine"}
    file.write_text("[model]\nepochs = 3\n")
    with pytest.raises(RequestError, match="should be flat"):
        runner.read_settings_file(file)
    file.write_text("epochs = = 3")
    with pytest.raises(RequestError, match="not valid TOML"):
        runner.read_settings_file(file)
    with pytest.raises(RequestError, match="cannot be read"):
        runner.read_settings_file(tmp_path / "absent.toml")


KILLED_AT = """
    import os, signal, sys
    from dataclasses import replace
    from pathlib import Path
    from mer_bench import registry, runner

    out, data, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    request = runner.RunRequest(model="majority", dataset="meld-synthetic", data_root=data, out=out, threads=1)
    calls = 0

    def killing(function):
        def counted(*arguments, **options):
            global calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return counted

    runner.run(request)  # a whole record lies there; the repeat below is killed while it writes
    # Other predictions than before, as another thread count could give: mixed files would not agree.
    honest = runner.predictions_of
    runner.predictions_of = lambda *given: honest(*given[:3], given[3].roll(1, dims=1), *given[4:])
    for name in ("replace", "fsync"):
        setattr(os, name, killing(getattr(os, name)))
    for name in ("replace", "unlink"):
        setattr(Path, name, killing(getattr(Path, name)))
    runner.run(request)
    sys.exit(7)
"""


@pytest.mark.parametrize("step", [2, 7, 8, 9, 10, 11])
def test_a_kill_while_writing_leaves_a_whole_record_or_none(step: int, data: Path, tmp_path: Path) -> None:
    from mer_bench.metrics import rescore

    arguments = [str(tmp_path), str(data), str(step)]
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED_AT), *arguments], check=False)
    assert ended.returncode == -9
    for file in tmp_path.rglob("*.json"):
        assert rescore(file) == read_record(file).test  # reads the predictions and their checksum too
    again = runner.run(replace(REQUEST, data_root=data, out=tmp_path, threads=1))
    folder = tmp_path / "meld-synthetic" / "majority"
    assert rescore(folder / f"{again.run}.json") == again.test


def test_folders_may_be_given_as_texts(data: Path, tmp_path: Path) -> None:
    record = mer_bench.run("majority", "meld-synthetic", data_root=str(data), out=str(tmp_path / "runs"), threads=1)
    assert [read_record(file) for file in (tmp_path / "runs").rglob("*.json")] == [record]
