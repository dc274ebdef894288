"""Building: what is one row, what it is called, what its cells say, and that nothing else decides a byte of it."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.errors import RecordError
from mer_bench.leaderboard import gathering
from mer_bench.leaderboard.building import build_boards, outline
from mer_bench.leaderboard.gathering import Entry, gather
from mer_bench.leaderboard.published import published_for
from mer_bench.leaderboard.table import Boards, Row, Table
from mer_bench.leaderboard.writing import files_of
from mer_bench.records import read_record
from mer_bench.statistics import mean_interval

from .runs import predictions, under, write_failure, write_run

ROOT = Path(__file__).resolve().parents[2]


def boards(folder: Path) -> Boards:
    return build_boards(gather([folder]))


def table(folder: Path) -> Table:
    """The only table."""
    (found,) = boards(folder).tables
    return found


def labels(rows: Iterable[Row]) -> list[str]:
    return [row.label for row in rows]


class TestRows:
    def test_seeds_are_one_row_with_mean_and_deviation(self, tmp_path: Path) -> None:
        files = [write_run(tmp_path, right=0.5 + seed / 10, seed=seed) for seed in range(3)]
        (row,) = table(tmp_path).rows
        tests = [read_record(file).test for file in files]
        values = [test.weighted_f1 for test in tests if test]
        assert row.seeds == (0, 1, 2)
        assert row.weighted_f1.mean == round(statistics.mean(values), 6)
        assert row.weighted_f1.sd == round(statistics.stdev(values), 6)
        assert row.accuracy.mean == round(statistics.mean(test.accuracy for test in tests if test), 6)
        assert row.classes["joy"].f1 == round(statistics.mean(test.classes["joy"].f1 for test in tests if test), 6)
        assert row.classes["joy"].support == tests[0].classes["joy"].support  # type: ignore[union-attr]
        assert row.confusion[0][0] == sum(test.confusion[0][0] for test in tests if test)
        assert [run.weighted_f1 for run in row.runs] == [round(value, 6) for value in values]
        assert row.runs[0].curve == ((1, 2.0, 0.4), (2, 1.0, 0.5))
        assert (row.parameters, row.train_seconds, row.memory_bytes, row.device) == (1000, 1.5, 10**8, "cpu")

    def test_the_best_is_first_and_names_decide_between_equals(self, tmp_path: Path) -> None:
        write_run(tmp_path, 0.5, model="low")
        for name in ("b", "a", "c"):
            write_run(tmp_path, 0.9, model=name)
        found = table(tmp_path)
        assert labels(found.rows) == ["a", "b", "c", "low"]
        assert [row.rank for row in found.rows] == [1, 1, 1, 4]
        assert {(pair.first, pair.second) for pair in found.pairs} == {
            *(("a", other) for other in ("b", "c", "low")),
            *(("b", "c"), ("c", "low")),
        }

    def test_the_interval_is_that_of_the_statistics(self, tmp_path: Path) -> None:
        for seed in range(2):
            write_run(tmp_path, seed=seed)
        (row,) = table(tmp_path).rows
        expected = mean_interval([entry.counts() for entry in gather([tmp_path])])
        assert row.weighted_f1.low == pytest.approx(expected.low, abs=2e-6)
        assert row.weighted_f1.high == pytest.approx(expected.high, abs=2e-6)

    def test_the_effect_is_the_leaders_over_the_row(self, tmp_path: Path) -> None:
        write_run(tmp_path, 0.9, model="best")
        write_run(tmp_path, 0.4, model="weak")
        best, weak = table(tmp_path).rows
        assert (best.effect_size, best.superiority) == (None, None)
        assert weak.effect_size is not None
        assert weak.effect_size > 0
        assert weak.superiority is not None
        assert 0.5 < weak.superiority <= 1

    def test_with_few_dialogues_nothing_is_ranked(self, tmp_path: Path) -> None:
        for model in ("a", "b"):
            write_run(tmp_path, model=model, dialogues=9)
        found = table(tmp_path)
        assert [row.rank for row in found.rows] == [None, None]
        assert found.rows[0].weighted_f1.low is None
        assert (found.pairs, found.resamples) == ((), 0)

    def test_what_was_not_measured_is_none(self, tmp_path: Path) -> None:
        write_run(tmp_path, scored=False)
        (row,) = table(tmp_path).rows
        assert row.calibration_error is None
        assert row.weighted_f1.sd is None
        assert row.selection_gap is None
        assert row.trials is None

    def test_a_value_that_some_seeds_lack_is_not_a_mean_of_the_others(self, tmp_path: Path) -> None:
        write_run(tmp_path, scored=False)
        write_run(tmp_path, seed=1)
        (row,) = table(tmp_path).rows
        assert row.calibration_error is None

    def test_devices_and_threads_that_differ(self, tmp_path: Path) -> None:
        machine = {"device": "cpu", "threads": 1, "platform": "Linux", "python": "3.11", "versions": {}}
        write_run(tmp_path, machine=machine)
        write_run(tmp_path, seed=1, machine={**machine, "device": "another", "threads": 2})
        (row,) = table(tmp_path).rows
        assert (row.device, row.threads) == ("another, cpu", None)


class TestExperiments:
    def test_settings_tell_rows_apart_and_name_them(self, tmp_path: Path) -> None:
        write_run(tmp_path, 0.9)
        write_run(tmp_path, 0.6, settings={"width": 32, "fusion": "gated"}, options={"settings": {"width": 32}})
        found = {row.label: row for row in table(tmp_path).rows}
        assert set(found) == {"gru", "gru (width=32)"}
        assert (found["gru"].setting, found["gru"].overrides) == ("card settings", ())
        assert (found["gru (width=32)"].setting, found["gru (width=32)"].overrides) == ("own settings", ("width=32",))

    def test_a_setting_that_is_the_cards_own_is_no_choice(self, tmp_path: Path) -> None:
        write_run(tmp_path, options={"settings": {"width": 64}})
        write_run(tmp_path, seed=1)
        (row,) = table(tmp_path).rows
        assert (row.setting, row.overrides, row.seeds) == ("card settings", (), (0, 1))

    def test_tuned_settings_say_how_many_trials(self, tmp_path: Path) -> None:
        tuned = {
            "study": "gru-talks",
            "trial": 3,
            "trials": 20,
            "budget_trials": 20,
            "budget_seconds": None,
            "seeds_per_trial": 1,
            "sampler": "tpe",
            "dev": 0.5,
        }
        write_run(tmp_path, settings={"width": 8}, tuned=tuned, options={"settings": {"width": 8}})
        write_run(tmp_path)
        found = {row.label: row for row in table(tmp_path).rows}
        assert (found["gru (tuned)"].setting, found["gru (tuned)"].trials) == ("tuned", 20)

    @pytest.mark.parametrize(
        ("changes", "label"),
        [
            ({"model_version": 2}, "gru (version 2)"),
            ({"model_code": {"origin": "file", "sha256": "d" * 64}}, "gru (code dddddddd)"),
            ({"training": {"learning_rate": 0.5}}, "gru (learning_rate=0.5)"),
        ],
    )
    def test_what_else_makes_another_row(self, tmp_path: Path, changes: dict[str, Any], label: str) -> None:
        write_run(tmp_path)
        write_run(tmp_path, **changes)
        assert label in labels(table(tmp_path).rows)
        assert len(set(labels(table(tmp_path).rows))) == 2

    def test_names_are_different_however_alike_the_rows_are(self, tmp_path: Path) -> None:
        for width in range(3):
            for depth in range(3):
                for version in (1, 2):
                    chosen = {"settings": {"width": width}, "device": "auto", "threads": 1}
                    write_run(
                        tmp_path, settings={"width": width, "depth": depth}, options=chosen, model_version=version
                    )
        assert len(set(labels(table(tmp_path).rows))) == 18

    def test_one_seed_twice_is_named(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        write_run(tmp_path, started="2026-01-01T00:00:00Z")  # another identity in these tests
        with pytest.raises(RecordError, match=r"are two runs of gru with the same settings and the same seed 0"):
            boards(tmp_path)

    def test_failed_runs_stand_in_their_row(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        write_failure(tmp_path, seed=1)
        (row,) = table(tmp_path).rows
        assert row.seeds == (0,)
        assert row.failed == {1: "DivergedError: the loss became NaN"}

    def test_an_experiment_that_only_failed_has_no_row_and_is_told_of(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        write_failure(tmp_path, model="unlucky")
        found = table(tmp_path)
        assert labels(found.rows) == ["gru"]
        assert [(each.label, each.failed) for each in found.failed] == [
            ("unlucky", {0: "DivergedError: the loss became NaN"})
        ]

    def test_a_leaderboard_of_failures_has_no_page(self, tmp_path: Path) -> None:
        write_failure(tmp_path)
        found = boards(tmp_path)
        assert found.tables == ()
        assert [each.name for each in found.unscored] == ["talks.emotion.transcripts.official.text-audio"]
        assert "DivergedError: the loss became NaN" in files_of(found)["index.md"]


EXTERNAL: dict[str, Any] = {
    "kind": "external",
    "model": "some-llm",
    **dict.fromkeys(("features_detail", "model_version", "selection", "dev", "cost", "machine")),
    **{"settings": {}, "training": {}, "options": {}, "curve": []},
    "features": "talks/external",
}


def external(rule: str) -> dict[str, Any]:
    told = {"name": "some-llm", "selection_rule": rule, "file_sha256": "1" * 64, "test_split": "2" * 64}
    return {**EXTERNAL, "external": told}


class TestExternal:
    def test_what_a_system_does_not_say_is_a_dash(self, tmp_path: Path) -> None:
        for seed in range(2):
            write_run(tmp_path, seed=seed, **external("zero-shot"))
        found = boards(tmp_path)
        (row,) = found.tables[0].rows
        assert (row.setting, row.selection_rule, row.seeds) == ("external", "zero-shot", (0, 1))
        assert [row.dev, row.parameters, row.train_seconds, row.memory_bytes, row.device, row.threads] == [None] * 6
        assert (row.runs[0].curve, row.runs[0].epoch) == ((), None)
        assert found.tables[0].key.sources == "2" * 64
        assert all("None" not in text for text in files_of(found).values())

    def test_another_stated_rule_is_another_row(self, tmp_path: Path) -> None:
        write_run(tmp_path, **external("zero-shot"))
        write_run(tmp_path, **external("best on test"))
        rows = table(tmp_path).rows
        assert len(set(labels(rows))) == 2
        assert {row.selection_rule for row in rows} == {"zero-shot", "best on test"}


class TestPublished:
    def test_figures_of_the_label_set_stand_beside_the_rows(self, tmp_path: Path) -> None:
        ids: dict[str, Any] = {
            "dataset": "meld",
            "labels": "meld/emotion",
            "features": "meld/x",
            "protocol": "meld/official",
        }
        write_run(tmp_path, **ids)
        found = table(tmp_path)
        assert found.published == published_for("meld", "emotion") != ()
        assert labels(found.rows) == ["gru"]

    def test_made_up_dialogues_and_conditions_have_none(self, tmp_path: Path) -> None:
        ids: dict[str, Any] = {
            "dataset": "meld",
            "labels": "meld/emotion",
            "features": "meld/x",
            "protocol": "meld/official",
        }
        write_run(tmp_path, synthetic=True, **ids)
        write_run(tmp_path, **ids, **under({"name": "only-text", "present": ("text",)}, "f" * 64))
        assert [each.published for each in boards(tmp_path).tables] == [(), ()]


class TestKeys:
    @pytest.mark.parametrize(
        ("changes", "name"),
        [
            ({"labels": "talks/other"}, "talks.other.transcripts.official.text-audio"),
            ({"features": "talks/other"}, "talks.emotion.other.official.text-audio"),
            ({"protocol": "talks/other"}, "talks.emotion.transcripts.other.text-audio"),
            ({"protocol_version": 2}, "talks.emotion.transcripts.official-v2.text-audio"),
            ({"modalities": ("text",)}, "talks.emotion.transcripts.official.text"),
        ],
    )
    def test_what_makes_another_table(self, tmp_path: Path, changes: dict[str, Any], name: str) -> None:
        write_run(tmp_path)
        write_run(tmp_path, **changes)
        assert {each.name for each in boards(tmp_path).tables} == {
            "talks.emotion.transcripts.official.text-audio",
            name,
        }

    @pytest.mark.parametrize(
        "changes",
        [
            {"synthetic": True},
            {"features_detail": {"sources": "e" * 64, "store": "c" * 64, "widths": {"text": 6, "audio": 8}}},
        ],
    )
    def test_names_that_would_be_the_same_get_a_checksum(self, tmp_path: Path, changes: dict[str, Any]) -> None:
        write_run(tmp_path)
        write_run(tmp_path, **changes)
        found = boards(tmp_path)
        assert len({each.name for each in found.tables}) == 2
        assert all(each.name.startswith("talks.emotion.transcripts.official.text-audio.") for each in found.tables)
        assert all(len(each.rows) == 1 for each in found.tables)

    def test_the_order_of_modalities_makes_no_table(self, tmp_path: Path) -> None:
        write_run(tmp_path, modalities=("audio", "text"))
        write_run(tmp_path, model="other")
        assert table(tmp_path).key.modalities == ("text", "audio")

    def test_a_name_never_leaves_the_folder(self, tmp_path: Path) -> None:
        write_run(tmp_path, modalities=("../../../etc/passwd", "x" * 300))
        for place in files_of(boards(tmp_path)):
            assert place.count("/") <= 1
            assert ".." not in Path(place).parts
            assert len(place) < 230

    def test_other_labels_are_not_the_same_test_split(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        write_run(tmp_path, model="other", split=1)
        with pytest.raises(RecordError, match=r"were scored on other labels of dialogue 'd\d+': they are not"):
            boards(tmp_path)

    def test_other_dialogues_are_not_the_same_test_split(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        write_run(tmp_path, model="other", dialogues=13)
        with pytest.raises(RecordError, match=r"were scored on other dialogues \('d12' is not in both\)"):
            boards(tmp_path)


class TestAcross:
    def fill(self, folder: Path, dataset: str, models: str, **changes: Any) -> None:
        ids = {name: f"{dataset}/{name}" for name in ("labels", "features", "protocol")}
        for place, model in enumerate(models):
            write_run(folder, 0.9 - place / 10, model=model, dataset=dataset, **{**ids, **changes})

    def test_one_table_a_dataset_and_models_that_are_in_all(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "one", "abcd")
        self.fill(tmp_path, "one", "ab", features="one/others")  # fewer models: the table above speaks for it
        self.fill(tmp_path, "two", "bac")
        self.fill(tmp_path, "three", "abc")
        self.fill(tmp_path, "made-up", "cba", synthetic=True)
        found = boards(tmp_path).across
        assert found is not None
        assert [name.split(".")[:3] for name in found.tables] == [
            [dataset, "labels", "features"] for dataset in ("one", "three", "two")
        ]
        assert found.models == ("a", "b", "c")
        assert found.ranks == ((1, 1, 2), (2, 2, 1), (3, 3, 3))
        assert found.mean_ranks == (1.333333, 1.666667, 3.0)

    def test_a_dataset_with_few_models_does_not_cost_the_others(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "one", "abcdef")
        self.fill(tmp_path, "two", "abcdef")
        self.fill(tmp_path, "three", "ab")
        found = boards(tmp_path).across
        assert found is not None
        assert len(found.models) == 6
        assert len(found.tables) == 2

    def test_a_row_of_own_settings_speaks_for_no_model(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "one", "ab")
        self.fill(tmp_path, "two", "ab", settings={"width": 2}, options={"settings": {"width": 2}})
        assert boards(tmp_path).across is None

    def test_of_one_dataset_there_is_nothing_to_say(self, tmp_path: Path) -> None:
        self.fill(tmp_path, "one", "abc")
        assert boards(tmp_path).across is None


def masked(mask: int) -> dict[str, Any]:
    return {"name": "missing-0.3", "present": ("text", "audio"), "rate": 0.3, "reached": 0.3, "mask": mask}


class TestConditions:
    def whole_and_parts(self, folder: Path) -> None:
        for seed in range(2):
            whole = read_record(write_run(folder, 0.9, seed=seed)).identity
            only = under({"name": "only-text", "present": ("text",)}, whole)
            write_run(folder, 0.7, seed=seed, **only)
            for mask in (1, 2):
                write_run(folder, 0.5 + mask / 10, seed=seed, **under(masked(mask), whole))

    def test_a_condition_is_a_table_and_a_curve_of_the_whole_one(self, tmp_path: Path) -> None:
        self.whole_and_parts(tmp_path)
        tables = {each.key.condition: each for each in boards(tmp_path).tables}
        assert set(tables) == {None, "only-text", "missing-0.3"}
        (curve,) = tables[None].missing
        assert [rate for rate, _ in curve.rates] == [0.0, 0.3]
        assert curve.rates[0][1] == tables[None].rows[0].weighted_f1.mean
        assert curve.rates[1][1] == tables["missing-0.3"].rows[0].weighted_f1.mean
        assert curve.only == {"only-text": tables["only-text"].rows[0].weighted_f1.mean}
        assert tables["only-text"].missing == ()

    def test_masks_are_averaged_within_their_seed(self, tmp_path: Path) -> None:
        self.whole_and_parts(tmp_path)
        entries = [entry for entry in gather([tmp_path]) if entry.key.condition == "missing-0.3"]
        by_seed = [
            statistics.mean(entry.test.weighted_f1 for entry in entries if entry.seed == seed and entry.test)
            for seed in range(2)
        ]
        (row,) = next(each for each in boards(tmp_path).tables if each.key.condition == "missing-0.3").rows
        assert row.seeds == (0, 1)
        assert len(row.runs) == 4
        assert row.weighted_f1.mean == round(statistics.mean(by_seed), 6)
        assert row.weighted_f1.sd == round(statistics.stdev(by_seed), 6)
        assert row.rank == 1

    def test_a_row_without_the_masks_of_the_others_is_not_ranked(self, tmp_path: Path) -> None:
        self.whole_and_parts(tmp_path)
        write_run(tmp_path, 0.9, model="hasty", **under(masked(1), "f" * 64))
        found = next(each for each in boards(tmp_path).tables if each.key.condition == "missing-0.3")
        assert {row.label: row.rank for row in found.rows} == {"hasty": None, "gru": 1}


BUILD = """
import random, sys
from pathlib import Path
from mer_bench.leaderboard.building import build_boards
from mer_bench.leaderboard.gathering import gather, find_records
from mer_bench.leaderboard.writing import write_boards
files = find_records([Path(sys.argv[1])])
random.Random(int(sys.argv[3])).shuffle(files)
write_boards(build_boards(gather(files)), Path(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """Of several models, conditions and masks, one of them failed."""
    folder = tmp_path_factory.mktemp("records")
    for model, right in (("a", 0.5), ("b", 0.5), ("c", 0.8)):
        for seed in range(2):
            write_run(folder, right, seed=seed, model=model, options={"settings": {"name": f"ç-{model}"}})
    TestConditions().whole_and_parts(folder)
    write_failure(folder, seed=7)
    return gather([folder])


class TestReproducible:
    @settings(max_examples=15, deadline=None)
    @given(order=st.randoms(use_true_random=False))
    def test_the_order_of_entries_changes_no_byte(self, entries: list[Entry], order: Any) -> None:
        shuffled = list(entries)
        order.shuffle(shuffled)
        assert files_of(build_boards(shuffled)) == files_of(build_boards(entries))

    def test_processes_change_no_byte(self, entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gathering, "FEWEST_FOR_PROCESSES", 1)
        assert files_of(build_boards(entries, processes=2)) == files_of(build_boards(entries))

    def test_place_locale_time_hash_seed_and_threads_change_no_byte(self, tmp_path: Path) -> None:
        for seed in range(3):
            for model, right in (("a", 0.5), ("b", 0.55), ("c", 0.8)):
                write_run(tmp_path / "records", right, seed=seed, model=model)
        ways = [
            {"LC_ALL": "C", "TZ": "UTC", "PYTHONHASHSEED": "1", "OMP_NUM_THREADS": "1"},
            {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "2"},
            {"LC_ALL": "C", "TZ": "America/St_Johns", "PYTHONHASHSEED": "77", "PYTHONUTF8": "0"},
        ]
        found = []
        for number, way in enumerate(ways):
            out = tmp_path / f"out{number}"
            place = tmp_path / f"elsewhere-{number}"
            (tmp_path / "records").rename(place)
            words = [sys.executable, "-c", BUILD, str(place), str(out), str(number)]
            subprocess.run(words, env={**os.environ, **way}, cwd=tmp_path, check=True)
            place.rename(tmp_path / "records")
            found.append(contents(out))
        assert len(found[0]) > 4
        assert found[0] == found[1] == found[2]

    def test_nothing_of_the_machine_is_written(self, tmp_path: Path) -> None:
        write_run(tmp_path)
        hidden = {str(tmp_path), tmp_path.name, platform.node(), sys.version.split()[0], str(Path.home())}
        for place, text in files_of(boards(tmp_path)).items():
            for word in hidden:
                assert len(word) < 5 or word not in text, (place, word)  # short ones are names in the pages' scripts


def test_outlines_are_the_tables_to_come(tmp_path: Path) -> None:
    write_run(tmp_path, 0.5, model="a")
    write_run(tmp_path, 0.9, model="b")
    write_failure(tmp_path, model="c")
    (found,) = outline(gather([tmp_path]))
    (built,) = build_boards(gather([tmp_path])).tables
    assert [each.label for each in found.experiments] == labels(built.rows) == ["b", "a"]
    assert [each.label for each in found.failed] == ["c"]
    assert build_boards(gather([tmp_path]), lambda each: each.name != built.name).tables == ()


def test_predictions_of_these_tests_differ_by_seed() -> None:
    assert (predictions(0.5, 0).predicted != predictions(0.5, 1).predicted).any()
