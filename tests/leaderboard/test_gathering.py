"""Gathering: every record once, whole ones alone, and by any number of processes the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from mer_bench.errors import RecordError, RequestError, RunError
from mer_bench.leaderboard import gathering
from mer_bench.leaderboard.gathering import Reader, find_records, gather
from mer_bench.metrics import count_dialogues
from mer_bench.predictions import Decoder, decode_outcomes, read_predictions, write_predictions

from .runs import predictions, run_of, write_failure, write_run


def changed(file: Path, *path: str, to: Any) -> None:
    """Change one value of a record, as an editor would."""
    values = json.loads(file.read_text(encoding="utf-8"))
    part = values
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = to
    file.write_text(json.dumps(values), encoding="utf-8")


def beside(file: Path) -> Path:
    return file.with_name(f"{file.stem}.predictions.npz")


class TestFinding:
    def test_every_record_is_found_once_however_it_is_named(self, tmp_path: Path) -> None:
        files = [write_run(tmp_path, seed=seed) for seed in range(3)]
        (tmp_path / "link.json").symlink_to(files[0])
        found = find_records([tmp_path, files[1], tmp_path / "talks"])
        assert sorted(file.resolve() for file in found) == sorted(file.resolve() for file in files)

    def test_hidden_work_is_passed_over(self, tmp_path: Path) -> None:
        file = write_run(tmp_path)
        for hidden in (".run.unfinished/state.json", "talks/.gru.json", ".git/x.json"):
            (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / hidden).write_text("{}")
        assert find_records([tmp_path]) == [file]

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"there are no records at .*nowhere: no such file"):
            find_records([tmp_path / "nowhere"])

    def test_a_file_that_is_no_record(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"npz is no record"):
            find_records([beside(write_run(tmp_path))])

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(RequestError, match=r"there are no records in .* A run writes one: mer-bench run --out"):
            find_records([tmp_path])


class TestReading:
    @pytest.mark.parametrize("counts", [False, True])
    def test_an_entry_counts_what_was_predicted(self, tmp_path: Path, counts: bool) -> None:
        write_run(tmp_path, right=0.7, counts=counts, dialogues=300)  # more than one letter of a byte can number
        (entry,) = gather([tmp_path])
        expected = count_dialogues(predictions(0.7, dialogues=300))
        found = entry.counts()
        order = np.argsort(np.array(expected.dialogues))
        assert list(found.dialogues) == sorted(expected.dialogues)
        assert np.array_equal(found.confusion, expected.confusion[order])
        assert entry.confusion is not None
        assert entry.confusion.dtype == np.uint8

    def test_dialogues_without_a_label_are_none_of_the_split(self, tmp_path: Path) -> None:
        made = predictions()
        made.true[:5] = -1
        told = run_of(made)
        assert told.predictions is not None
        checksum = write_predictions(tmp_path / told.predictions.file, made)
        file = tmp_path / f"{told.run}.json"
        file.write_text(run_of(made, checksum).model_dump_json())
        (entry,) = gather([file])
        assert entry.split is not None
        assert len(entry.split.dialogues) == 11
        assert entry.split.labelled.sum() == 55

    def test_splits_are_kept_once(self, tmp_path: Path) -> None:
        for seed in range(3):
            write_run(tmp_path, seed=seed)
        assert len({id(entry.split) for entry in gather([tmp_path])}) == 1

    def test_entries_come_in_an_order_of_their_own(self, tmp_path: Path) -> None:
        for seed in range(5):
            write_run(tmp_path / str(seed % 2), seed=seed)
        found = gather([tmp_path])
        assert [entry.identity for entry in found] == sorted(entry.identity for entry in found)

    def test_a_failed_run_has_no_predictions(self, tmp_path: Path) -> None:
        write_failure(tmp_path, reason="the loss became NaN")
        (entry,) = gather([tmp_path])
        assert entry.failure == "DivergedError: the loss became NaN"
        assert entry.test is None
        assert entry.split is None


class TestDamage:
    @pytest.mark.parametrize(
        ("path", "value", "says"),
        [
            (("test", "weighted_f1"), 0.99, "says test.weighted_f1 is 0.99, but"),
            (("test", "calibration_error"), None, "says test.calibration_error is None, but"),
            (("test", "classes", "joy", "f1"), 0.99, "says test.classes.joy.f1 is 0.99, but"),
            (("test", "emotion_shift_accuracy"), 0.99, "says test.emotion_shift_accuracy is 0.99"),
            (("predictions", "sha256"), "0" * 64, "is not the file that"),
            (("predictions", "file"), "other.npz", "cannot be read"),
            (("seed",), "0", "is not a valid record: seed"),
        ],
    )
    def test_a_tampered_record_is_named(self, tmp_path: Path, path: tuple[str, ...], value: Any, says: str) -> None:
        file = write_run(tmp_path)
        write_run(tmp_path, seed=1)
        changed(file, *path, to=value)
        with pytest.raises(RecordError) as error:
            gather([tmp_path])
        assert says in str(error.value)
        assert file.stem in str(error.value)
        assert "\n" not in str(error.value)

    def test_another_confusion_matrix_of_the_same_sums(self, tmp_path: Path) -> None:
        file = write_run(tmp_path)
        confusion = json.loads(file.read_text())["test"]["confusion"]
        confusion[0] = [confusion[0][0], confusion[0][2] + 1, confusion[0][1] - 1]
        changed(file, "test", "confusion", to=confusion)
        with pytest.raises(RecordError, match=r"says test.confusion is another, but"):
            gather([tmp_path])

    def test_predictions_of_another_run_under_its_name(self, tmp_path: Path) -> None:
        first, second = write_run(tmp_path), write_run(tmp_path, seed=1)
        shutil.copy(beside(second), beside(first))
        with pytest.raises(RecordError, match=r"is not the file that .* was written with"):
            gather([tmp_path])

    def test_every_cut_of_a_record_and_of_its_predictions_is_refused(self, tmp_path: Path) -> None:
        file = write_run(tmp_path)
        for each in (file, beside(file)):
            whole = each.read_bytes()
            for length in range(0, len(whole) - 2, max(1, len(whole) // 25)):
                each.write_bytes(whole[:length])
                with pytest.raises(RecordError, match=file.stem):
                    gather([tmp_path])
            each.write_bytes(whole)
        gather([tmp_path])

    def test_a_page_in_place_of_a_record(self, tmp_path: Path) -> None:
        (tmp_path / "table.json").write_text('{"key": {}, "rows": []}')
        with pytest.raises(RecordError, match=r"table\.json is not a valid record"):
            gather([tmp_path])


class TestCopies:
    def test_a_copy_counts_once(self, tmp_path: Path) -> None:
        write_run(tmp_path / "here")
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        assert len(gather([tmp_path])) == 1

    def test_two_records_of_one_run_that_differ(self, tmp_path: Path) -> None:
        first = write_run(tmp_path / "here")
        shutil.copytree(tmp_path / "here", tmp_path / "there")
        changed(tmp_path / "there" / first.relative_to(tmp_path / "here"), "started", to="2026-01-01T00:00:00Z")
        for paths in ([tmp_path / "here", tmp_path / "there"], [tmp_path / "there", tmp_path / "here"]):
            with pytest.raises(RecordError) as error:
                gather(paths)
            here, there = (str(tmp_path / name / first.relative_to(tmp_path / "here")) for name in ("here", "there"))
            assert str(error.value).startswith(f"{here} and {there} are two different records of one run")

    def test_a_run_that_failed_first_and_was_done_then(self, tmp_path: Path) -> None:
        write_failure(tmp_path / "a")
        write_run(tmp_path / "b")
        write_failure(tmp_path / "c", reason="another reason")
        (entry,) = gather([tmp_path])
        assert entry.failure == ""


class TestProcesses:
    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gathering, "FEWEST_FOR_PROCESSES", 1)
        monkeypatch.setattr(gathering, "_CHUNK", 2)

    def test_they_find_the_same(self, tmp_path: Path) -> None:
        for seed in range(5):
            write_run(tmp_path, seed=seed, split=seed % 2, dataset=f"talks{seed % 2}", **of(f"talks{seed % 2}"))
        told: list[tuple[int, int]] = []
        several = gather([tmp_path], processes=2, told=lambda done, total: told.append((done, total)))
        alone = gather([tmp_path])
        assert told == [(2, 5), (4, 5), (5, 5)]
        assert [entry.run for entry in several] == [entry.run for entry in alone]
        assert len({id(entry.split) for entry in several}) == 2
        for ours, theirs in zip(several, alone, strict=True):
            assert np.array_equal(ours.counts().confusion, theirs.counts().confusion)
            assert ours.test == theirs.test

    def test_the_first_damaged_file_is_named(self, tmp_path: Path) -> None:
        files = sorted(write_run(tmp_path, seed=seed) for seed in range(6))
        for file in (files[5], files[3]):
            file.write_text("{}")
        with pytest.raises(RecordError, match=files[3].stem):
            gather([tmp_path], processes=2)

    def test_a_process_that_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for seed in range(3):  # of one chunk alone this process would take care itself
            write_run(tmp_path, seed=seed)
        monkeypatch.setattr(gathering, "_read_chunk", kill_yourself)
        with pytest.raises(RunError, match="a process that worked on the records was ended"):
            gather([tmp_path], processes=2)


def kill_yourself(files: Any) -> Any:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def of(dataset: str) -> dict[str, Any]:
    return {name: f"{dataset}/{name}" for name in ("labels", "features", "protocol")}


class TestDecoder:
    def test_it_decodes_as_one_by_one(self, tmp_path: Path) -> None:
        decoder = Decoder()
        variants: list[dict[str, Any]] = [{}, {"split": 1}, {"dialogues": 9}, {"scored": False}]
        for seed in range(3):
            for place, variant in enumerate(variants):
                file = tmp_path / f"{place}-{seed}.npz"
                write_predictions(file, predictions(0.5, seed, **variant))
                found, expected = decoder.decode(file.read_bytes()), read_predictions(file)
                assert list(vars(expected)) == [name for name in vars(found) if name in vars(expected)]
                for name, value in vars(expected).items():
                    assert np.array_equal(getattr(found, name), value) or getattr(found, name) == value, name

    def test_the_second_file_is_checked_as_the_first(self, tmp_path: Path) -> None:
        decoder = Decoder()
        file = tmp_path / "p.npz"
        write_predictions(file, predictions())
        decoder.decode(file.read_bytes())
        for wrong in ("class", "most probable", "sum"):
            made = predictions(0.5, 1)
            scores = made.log_probabilities
            assert scores is not None
            if wrong == "class":
                made.predicted[4] = 3
            elif wrong == "most probable":
                made.predicted[4] = (made.predicted[4] + 1) % 3
            else:
                scores[4] += np.float16(-1)
            write_predictions(file, made)
            with pytest.raises(RecordError) as alone:
                decode_outcomes(file.read_bytes())
            with pytest.raises(RecordError) as after:
                decoder.decode(file.read_bytes())
            assert str(after.value) == str(alone.value)


def test_no_torch_is_imported(tmp_path: Path) -> None:
    write_run(tmp_path)
    code = (
        "import sys; from pathlib import Path; from mer_bench.leaderboard.gathering import gather\n"
        "from mer_bench.leaderboard.building import build_boards\n"
        "from mer_bench.leaderboard.writing import write_boards\n"
        f"write_boards(build_boards(gather([Path({str(tmp_path)!r})])), Path({str(tmp_path / 'out')!r}))\n"
        "print([name for name in ('torch', 'sklearn', 'optuna', 'mer_bench.data') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_a_reader_is_no_more_than_its_files(tmp_path: Path) -> None:
    file = write_run(tmp_path)
    reader = Reader()
    assert reader.entry(file).test == reader.entry(file).test


def threads_of_products(_: int) -> int:
    np.ones((64, 64)) @ np.ones((64, 64))
    return max(int(library["num_threads"]) for library in threadpool_info() if library["user_api"] == "blas")


def test_each_of_several_processes_keeps_to_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    assert list(gathering.in_processes(threads_of_products, [0, 1], 2, gathering.FEWEST_FOR_PROCESSES)) == [1, 1]
