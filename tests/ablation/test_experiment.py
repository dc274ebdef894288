"""An ablation from its request to its tables: what is run, what is there already, what a kill and a failure leave."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

import mer_bench
from mer_bench.ablation import Ablation, AblationListener, AblationRequest, ablate
from mer_bench.ablation.experiment import chosen_tables, seeds_from
from mer_bench.errors import MerBenchError, RecordError, RequestError, StorageError, UnknownNameError
from mer_bench.metrics import rescore
from mer_bench.recording import Recording
from mer_bench.records import Record, read_record
from mer_bench.request import Plan, RunRequest
from tests.trios import Place

pytestmark = pytest.mark.usefixtures("place")


class Heard(AblationListener):
    """Notes what was trained, found and lost."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.found: list[str] = []
        self.lost: list[str] = []
        self.failed: list[str] = []
        self.started: list[tuple[str, int, int, int]] = []
        self.announced: tuple[int, int] | None = None

    def ablation_started(self, plan: Plan, runs: int, conditions: int) -> None:
        self.announced = (runs, conditions)

    def variant_started(self, name: str, seed: int, number: int, runs: int) -> None:
        self.started.append((name, seed, number, runs))

    def run_ended(self, record: Record) -> None:
        self.trained.append(record.run)

    def variant_found(self, record: Record) -> None:
        self.found.append(record.run)

    def variant_failed(self, name: str, seed: int, error: MerBenchError) -> None:
        self.failed.append(f"{name} {seed}")

    def weights_lost(self, record: Record) -> None:
        self.lost.append(record.run)


def files(out: Path) -> dict[str, bytes]:
    """Predictions by name: what a repeat must not change."""
    return {file.name: file.read_bytes() for file in out.rglob("*.npz")}


def shown(found: Ablation, table: str) -> dict[str, float]:
    return {row.name: row.test.mean for row in found.tables[table].rows}


def test_three_tables(whole: RunRequest) -> None:
    heard = Heard()
    found = ablate(AblationRequest(whole, seeds=(0, 1)), heard)
    assert list(found.tables) == ["modalities", "missing", "settings"]
    assert shown(found, "modalities") == dict.fromkeys(
        ("text+audio", "text+visual", "audio+visual", "text", "audio", "visual"), 1.0
    )  # trained anew, it reads whatever is there
    missing = shown(found, "missing")
    assert [missing[f"only-{name}"] for name in ("text-audio", "text-visual", "text")] == [1, 1, 1]
    assert missing["only-audio-visual"] == missing["only-audio"] == missing["only-visual"] < 0.6
    rates = [missing[f"missing-{number / 10:g}"] for number in range(1, 8)]
    assert rates == sorted(rates, reverse=True)
    assert shown(found, "settings") == {"wrong": 0}
    assert found.tables["settings"].notes == ("same was left out: it is what the whole model's settings say already.",)
    for table in found.tables.values():
        assert table.whole.test.mean == 1
        assert table.whole.seeds == (0, 1)
        assert all(row.difference and row.difference.seeds == (2, 2) for row in table.rows)
    # 2 seeds x (whole, 6 subsets, 2 ablations of which one breaks), and 41 conditions of 2 models
    assert heard.announced == (18, 41)
    assert [each[2] for each in heard.started] == list(range(1, 19))
    assert (len(heard.trained), heard.failed) == (16, ["broken 0", "broken 1"])
    records = [read_record(file) for file in whole.out.rglob("*.json")]
    assert len(records) == 18 + 82
    assert sum(record.status == "failed" for record in records) == 2
    assert [(each.name, each.seed) for each in found.failed] == [("broken", 0), ("broken", 1)]


def test_a_subset_is_an_ordinary_run(whole: RunRequest) -> None:
    ablate(AblationRequest(whole, only=("modalities",)))
    record = mer_bench.run(
        model="reader", dataset="trios", data_root=whole.data_root, out=whole.out / "again", modalities=("audio",)
    )
    assert (whole.out / "trios" / "reader" / f"{record.run}.json").exists()


def test_what_is_there_is_not_done_again(whole: RunRequest) -> None:
    earlier = mer_bench.run(model="reader", dataset="trios", data_root=whole.data_root, out=whole.out)
    first = Heard()
    found = ablate(AblationRequest(whole, only=("modalities", "missing")), first)
    assert (first.found, len(first.trained)) == ([earlier.run], 6)
    before = {file: file.stat().st_mtime_ns for file in whole.out.rglob("*") if file.is_file()}
    again = Heard()
    assert ablate(AblationRequest(whole, only=("modalities", "missing")), again) == found
    assert (again.trained, len(again.found)) == ([], 7)
    assert {file: file.stat().st_mtime_ns for file in whole.out.rglob("*") if file.is_file()} == before


def test_records_of_a_condition_need_no_weights_and_new_ones_do(whole: RunRequest) -> None:
    ablate(AblationRequest(whole, only=("missing",)))
    before = files(whole.out)
    for file in whole.out.rglob("*.safetensors"):
        file.unlink()
    heard = Heard()
    ablate(AblationRequest(whole, only=("missing",)), heard)
    assert (heard.trained, heard.lost) == ([], [])
    next(whole.out.rglob("*.only-audio.*.json")).unlink()
    ablate(AblationRequest(whole, only=("missing",)), heard)
    assert len(heard.trained) == len(heard.lost) == 1
    assert files(whole.out) == before


def test_a_damaged_record_is_told_and_not_replaced(whole: RunRequest) -> None:
    ablate(AblationRequest(whole, only=("missing",)))
    file = next(whole.out.rglob("*.only-audio.*.json"))
    file.write_text("{}")
    with pytest.raises(RecordError, match="is not a valid record"):
        ablate(AblationRequest(whole, only=("missing",)))
    assert file.read_text() == "{}"


def test_predictions_that_are_not_the_records_are_told(whole: RunRequest) -> None:
    ablate(AblationRequest(whole, only=("missing",)))
    one, other = (next(whole.out.rglob(f"*.{name}.*.npz")) for name in ("only-audio", "only-text"))
    one.write_bytes(other.read_bytes())
    with pytest.raises(RecordError, match="is not the file that"):
        ablate(AblationRequest(whole, only=("missing",)))


def test_a_record_without_its_predictions_is_made_again(whole: RunRequest) -> None:
    ablate(AblationRequest(whole, only=("missing",)))
    before = files(whole.out)
    next(whole.out.rglob("*.only-audio.*.npz")).unlink()
    ablate(AblationRequest(whole, only=("missing",)))
    assert files(whole.out) == before


@pytest.mark.parametrize("stop", [1, 2, 20, 45])
def test_what_was_stopped_goes_on(stop: int, whole: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = replace(whole, out=whole.out / "undisturbed")
    request = AblationRequest(whole, only=("missing", "settings"))
    expected = ablate(replace(request, run=undisturbed))
    written = 0
    write = Recording.write

    def stopping(self: Recording, *arguments: object) -> Record:
        nonlocal written
        written += 1
        if written == stop:
            raise KeyboardInterrupt
        return write(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Recording, "write", stopping)
        if stop <= 43:  # whole, 41 conditions, one ablation that does not break
            with pytest.raises(KeyboardInterrupt):
                ablate(request)
        else:
            ablate(request)
    done = len(list((whole.out / "trios").rglob("*.json")))
    found = ablate(request)
    for name, table in expected.tables.items():
        assert [row.test for row in found.tables[name].rows] == [row.test for row in table.rows]
    assert done >= min(stop, 43) - 1
    assert files(whole.out / "trios") == files(undisturbed.out / "trios")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from mer_bench import ablation, runner

    data, out, step = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    calls = 0
    replace = Path.replace

    def killing(self, target):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = killing
    request = runner.RunRequest("reader", "trios", data_root=data, out=out, threads=1)
    ablation.ablate(ablation.AblationRequest(request, only=("missing",)))
    sys.exit(7)
"""


@pytest.mark.parametrize("step", [2, 4, 5, 31])
def test_what_was_killed_goes_on(step: int, whole: RunRequest, place: Place, tmp_path: Path) -> None:
    arguments = [str(place.data), str(whole.out), str(step)]
    environment = {**os.environ, "PYTHONPATH": str(place.installed)}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), *arguments], check=False, env=environment, cwd=tmp_path
    )
    assert ended.returncode == -9
    before = sorted(file.name for file in whole.out.rglob("*.json"))
    for file in whole.out.rglob("*.json"):
        assert rescore(file) == read_record(file).test
    heard = Heard()
    ablate(AblationRequest(whole, only=("missing",)), heard)
    assert len(heard.trained) == (0 if before else 1)
    found = sorted(file.name for file in whole.out.rglob("*.json"))
    assert len(found) == 42
    assert set(before) < set(found)


def test_a_condition_that_fails_leaves_the_others(whole: RunRequest) -> None:
    request = replace(whole, settings={"breaks_without_text": True})
    heard = Heard()
    found = ablate(AblationRequest(request, seeds=(0,), only=("missing",)), heard)
    assert heard.failed == ["only-audio-visual 0", "only-audio 0", "only-visual 0"]
    assert list(shown(found, "missing"))[:3] == ["only-text-audio", "only-text-visual", "only-text"]
    assert len(found.failed) == 3


def test_a_whole_model_that_fails_leaves_no_table(whole: RunRequest) -> None:
    found = ablate(AblationRequest(replace(whole, settings={"breaks": True}), only=("missing", "modalities")))
    assert found.tables == {}
    assert len(found.failed) == 7


def test_a_full_disk_ends_it(whole: RunRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> Record:
        raise StorageError("cannot write records: the disk is full.")

    monkeypatch.setattr(Recording, "write", full)
    with pytest.raises(StorageError):
        ablate(AblationRequest(whole))


def test_folds(whole: RunRequest) -> None:
    found = ablate(AblationRequest(replace(whole, protocol="halves"), only=("modalities", "missing")))
    missing = shown(found, "missing")
    assert missing["only-text"] == 1
    assert missing["only-audio"] < 0.6
    assert all(len(record.folds) == 2 for row in found.tables["missing"].rows for run in row.runs for record in run)


@pytest.mark.parametrize(
    ("changes", "only", "says"),
    [
        ({"modalities": ("text",)}, ("modalities", "missing"), "reads text alone here, of which there is no subset"),
        ({"model": "majority"}, ("settings",), "nothing to ablate: the card of majority lists no ablations"),
        ({"model": "raeder"}, ("settings",), "Did you mean 'reader'"),
        ({}, ("setings",), "Did you mean 'settings'"),
        ({}, (), "at least one seed and one table"),
        ({"settings": {"shift": 7}}, ("missing",), "shift must be a whole number"),
    ],
)
def test_a_wrong_request_runs_nothing(
    changes: dict[str, object], only: tuple[str, ...], says: str, whole: RunRequest
) -> None:
    with pytest.raises(RequestError, match=says):
        ablate(AblationRequest(replace(whole, **changes), only=only))  # type: ignore[arg-type]
    assert not whole.out.exists()


def test_from_python(whole: RunRequest) -> None:
    found = mer_bench.ablate(
        "reader", "trios", seeds=[4], only=["missing"], data_root=whole.data_root, out=whole.out, threads=1
    )
    assert found.tables["missing"].rows[0].seeds == (4,)


def test_seeds_and_tables_from_words() -> None:
    assert [seeds_from(None, None), seeds_from(7, None), seeds_from(None, 3)] == [(0,), (7,), (0, 1, 2)]
    with pytest.raises(RequestError, match="give one of the two"):
        seeds_from(1, 2)
    assert chosen_tables(None) == ("modalities", "missing", "settings")
    assert chosen_tables(["settings", "modalities"]) == ("modalities", "settings")
    with pytest.raises(UnknownNameError, match="Did you mean 'missing'"):
        chosen_tables(["mising"])
