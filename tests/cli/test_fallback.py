"""When `mer-bench run` fetches MELD, when made-up dialogues stand in for it, and when neither may happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mer_bench import registry, runner
from mer_bench.cli.data.fetching import LARGE_BYTES
from mer_bench.errors import DataError, MissingDataError, UnreachableError
from mer_bench.records import read_record
from tests.conftest import ShelfWriter
from tests.servers import ranges

from .conftest import Downloads, Invoke
from .talk import add_talk, publish_talk

MELD = ("run", "--model", "majority", "--dataset", "meld")


@pytest.fixture
def offline(downloads: Downloads) -> Downloads:
    downloads.answer = UnreachableError("no host answered: raw files of meld could not be fetched.")
    return downloads


@pytest.fixture
def root(synthetic: Path, tmp_path: Path) -> Path:
    """A data folder with nothing of MELD, in which the stand-in is prepared already."""
    root = tmp_path / "data"
    root.mkdir()
    (root / "prepared").mkdir()
    (root / "prepared" / "meld-synthetic").symlink_to(synthetic / "prepared" / "meld-synthetic")
    return root


def test_meld_names_its_stand_in() -> None:
    shelf = registry.datasets().plugins
    assert shelf["meld"].card.stand_in == "meld-synthetic"
    assert shelf["meld-synthetic"].card.synthetic
    assert not shelf["meld-synthetic"].card.stand_in


def test_without_data_and_network_made_up_dialogues_stand_in(invoke: Invoke, root: Path, offline: Downloads) -> None:
    result = invoke(*MELD)
    assert result.exit_code == 0
    assert offline.asked == [("meld", "transcripts")]
    before, run, after = result.stdout.partition("Majority class on meld-synthetic/default (synthetic)")
    assert "nothing of meld is on this machine; fetching meld/transcripts: 6 files" in before
    assert "meld is out of reach: this run uses meld-synthetic" in before
    assert "These are scores on meld-synthetic, not on meld" in after
    assert "mer-bench data import meld --from FOLDER" in after
    assert run
    (file,) = Path("runs").rglob("*.json")
    record = read_record(file)
    assert (record.dataset, record.synthetic, record.features) == ("meld-synthetic", True, "meld-synthetic/default")
    assert str(file) in result.stdout
    assert "majority on meld-synthetic/default" in after


def test_json_says_synthetic_and_the_panels_go_to_standard_error(
    invoke: Invoke, root: Path, offline: Downloads
) -> None:
    result = invoke(*MELD, "--json")
    assert json.loads(result.stdout)["dataset"] == "meld-synthetic"
    assert "meld is out of reach" in result.stderr


def test_several_seeds_decide_once(invoke: Invoke, root: Path, offline: Downloads) -> None:
    result = invoke(*MELD, "--seeds", "2")
    assert result.exit_code == 0
    assert len(offline.asked) == 1
    assert result.stdout.count("out of reach") == 1
    assert len(list(Path("runs").rglob("*.json"))) == 2


@pytest.mark.parametrize(("option", "env"), [(["--require-real"], {}), ([], {"MER_BENCH_REQUIRE_REAL": "1"})])
def test_real_data_can_be_required(
    invoke: Invoke, root: Path, offline: Downloads, option: list[str], env: dict[str, str]
) -> None:
    result = invoke(*MELD, *option, env=env)
    assert result.exit_code == 1
    assert "no host answered" in result.stderr
    assert "meld-synthetic does not stand in" in result.stderr
    assert not Path("runs").exists()
    result = invoke("run", "--model", "majority", "--dataset", "meld-synthetic", *option, env=env)
    assert result.exit_code == 2
    assert "meld-synthetic is synthetic, but real data are required" in result.stderr


@pytest.mark.parametrize(
    "extra",
    [["--features", "transcripts"], ["--labels", "sentiment"], ["--labels", "meld/emotion"]],
    ids=" ".join,
)
def test_what_the_stand_in_lacks_is_an_error(invoke: Invoke, root: Path, offline: Downloads, extra: list[str]) -> None:
    result = invoke(*MELD, *extra)
    assert result.exit_code == 1
    assert f"meld-synthetic cannot stand in: it has no {' '.join(extra)}." in result.stderr
    assert not Path("runs").exists()


@pytest.mark.parametrize("extra", [["--labels", "emotion"], ["--modalities", "audio"], ["--protocol", "official"]])
def test_what_the_stand_in_has_is_passed_on(invoke: Invoke, root: Path, offline: Downloads, extra: list[str]) -> None:
    assert invoke(*MELD, *extra).exit_code == 0
    (file,) = Path("runs").rglob("*.json")
    if "audio" in extra:
        assert read_record(file).modalities == ("audio",)


def test_a_modality_that_meld_itself_lacks_is_a_wrong_request(invoke: Invoke, root: Path, offline: Downloads) -> None:
    result = invoke(*MELD, "--modalities", "visual")
    assert result.exit_code == 2
    assert "visual" in result.stderr
    assert offline.asked == []


@pytest.mark.parametrize("features", ["mmgcn", "transcripts-vectors"])
def test_other_feature_sets_are_not_fetched_unasked(
    invoke: Invoke, root: Path, offline: Downloads, features: str
) -> None:
    result = invoke(*MELD, "--features", features)
    assert result.exit_code == 2
    assert "mer-bench data import meld" in result.stderr
    assert offline.asked == []


@pytest.mark.parametrize(
    "error", [DataError("404: the host has no such file."), DataError("dev.csv is not the published file.")]
)
def test_a_wrong_answer_is_an_error(invoke: Invoke, root: Path, downloads: Downloads, error: Exception) -> None:
    downloads.answer = error
    result = invoke(*MELD)
    assert (result.exit_code, result.stderr) == (2, f"mer-bench: {error}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("place", ["raw/meld/train_sent_emo.csv", "prepared/meld/mmgcn/emotion/official/manifest.json"])
def test_half_present_data_are_an_error(invoke: Invoke, root: Path, offline: Downloads, place: str) -> None:
    (root / place).parent.mkdir(parents=True)
    (root / place).write_text("half of it")
    result = invoke(*MELD)
    assert result.exit_code == 2
    assert "mer-bench data import meld" in result.stderr
    assert offline.asked == []


def test_a_network_that_breaks_half_way_is_an_error(invoke: Invoke, root: Path, downloads: Downloads) -> None:
    def half(plugin: Any, features: str, root: Path) -> list[Path]:
        (root / "raw" / "meld").mkdir(parents=True)
        (root / "raw" / "meld" / "train_sent_emo.csv").write_text("whole")
        raise UnreachableError("no host answered.")

    downloads.answer = half
    result = invoke(*MELD)
    assert (result.exit_code, result.stderr) == (1, "mer-bench: no host answered.\n")


def test_the_rest_of_a_broken_transfer_is_no_data(invoke: Invoke, root: Path, offline: Downloads) -> None:
    (root / "raw" / "meld").mkdir(parents=True)
    for name in (".train_sent_emo.csv.new", "train_sent_emo.csv.part"):
        (root / "raw" / "meld" / name).write_text("rest")
    assert invoke(*MELD).exit_code == 0
    assert len(offline.asked) == 1


@pytest.mark.real_data
def test_fetched_data_are_run_on(
    invoke: Invoke, downloads: Downloads, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring(plugin: Any, features: str, root: Path) -> list[Path]:
        from mer_bench.data.preparation import import_files

        return list(import_files("meld", shared_data / "published", root).imported.values())

    downloads.answer = bring
    asked: list[runner.RunRequest] = []

    def run(request: runner.RunRequest, _: Any) -> Any:
        asked.append(request)
        raise MissingDataError("far enough.")

    monkeypatch.setattr(runner, "run", run)
    result = invoke(*MELD)
    assert [request.dataset for request in asked] == ["meld"]
    assert "out of reach" not in result.output


class TestForReal:
    """`mer-bench run` as a process of its own, with a mirror on a loopback port."""

    def run(self, shelves: ShelfWriter, folder: Path, mirror: str, dataset: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(shelves.folder), "MER_BENCH_DATA": str(folder / "data")}
        environment |= {"MER_BENCH_MIRROR": mirror, "MER_BENCH_REQUIRE_REAL": "1"}
        words = ["run", "--model", "majority", "--dataset", dataset, "--out", str(folder / "runs")]
        command = [sys.executable, "-c", "from mer_bench.cli import main; main()", *words]
        return subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )

    def test_with_nothing_on_disk_it_fetches_with_one_line(self, shelves: ShelfWriter, tmp_path: Path) -> None:
        add_talk(shelves)
        with ranges(publish_talk(tmp_path / "published")) as (address, asked):
            done = self.run(shelves, tmp_path, address, "backed")
            assert done.returncode == 0, done.stderr
            assert asked == [("GET", "")]
            lines = done.stdout.splitlines()
            assert lines[0] == "nothing of backed is on this machine; fetching backed/words: 1 file, 22 bytes"
            assert [line for line in lines if "fetch" in line] == lines[:1]
        (file,) = (tmp_path / "runs").rglob("*.json")
        assert (read_record(file).dataset, read_record(file).synthetic) == ("backed", False)

    def test_nothing_under_a_licence_is_fetched_by_a_run(self, shelves: ShelfWriter, tmp_path: Path) -> None:
        add_talk(shelves)
        with ranges(publish_talk(tmp_path / "published")) as (address, asked):
            done = self.run(shelves, tmp_path, address, "guarded")
        assert done.returncode == 2
        assert "mer-bench data fetch guarded --features words (it shows the licence" in done.stderr
        assert "stand in" not in done.stderr
        assert asked == []


@pytest.mark.parametrize("change", [{"bytes": 0}, {"bytes": LARGE_BYTES + 1}], ids=str)
def test_what_is_large_is_not_fetched_unasked(
    invoke: Invoke, root: Path, offline: Downloads, monkeypatch: pytest.MonkeyPatch, change: dict[str, int]
) -> None:
    meld = registry.datasets().find("meld")
    first, *others = meld.card.sources
    card = meld.card.model_copy(update={"sources": (first.model_copy(update=change), *others)})
    shelf = registry.datasets()
    changed = replace(shelf, plugins={**shelf.plugins, "meld": replace(meld, card=card)})
    monkeypatch.setattr(registry, "datasets", lambda *_: changed)
    result = invoke(*MELD)
    assert result.exit_code == 2
    assert "mer-bench data fetch meld" in result.stderr
    assert offline.asked == []


def test_no_other_command_falls_back(invoke: Invoke, root: Path, offline: Downloads) -> None:
    for words in (["data", "prepare", "meld"], ["data", "fetch", "meld"], ["data", "verify", "meld"]):
        result = invoke(*words)
        assert result.exit_code in (1, 2)
        assert "meld-synthetic" not in result.output


def test_the_python_interface_never_falls_back(root: Path, offline: Downloads) -> None:
    import mer_bench

    with pytest.raises(MissingDataError):
        mer_bench.run(model="majority", dataset="meld", data_root=root)
    assert offline.asked == []
