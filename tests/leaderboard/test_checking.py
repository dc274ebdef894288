"""Checking records that are handed in: those of this repository pass, and whatever is changed in one is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mer_bench import runner
from mer_bench.errors import RequestError
from mer_bench.identity import external_identity, identity_of, run_name, split_checksum
from mer_bench.leaderboard.checking import Checked, check_records, find_records
from mer_bench.leaderboard.layout import difference, layout_of
from mer_bench.metrics import count_dialogues, score
from mer_bench.predictions import DialogueCounts, Predictions, read_outcomes, read_predictions, write_predictions
from mer_bench.records import Condition, External, Record, read_record, record_text, write_record
from tests.sessions import sessions_installed

RECORDS = Path(__file__).resolve().parents[2] / "leaderboards" / "records"
MELD = "meld/mmgcn/mmgcn.transcripts.seed3"
COUNTS = "iemocap/cmath/cmath.transcripts.seed1"


def refusals(checked: Checked) -> dict[str, str]:
    return {each.check: each.said for each in checked.reasons}


def test_all_records_of_this_repository_pass_and_soon() -> None:
    files = find_records([RECORDS])
    clock = time.process_time()
    found = check_records(files)
    assert {checked.file.name: refusals(checked) for checked in found if checked.reasons} == {}
    assert len(found) == len(files) >= 391
    outcomes = [each for checked in found for each in checked.findings if each.check == "metrics"]
    assert {each.state for each in outcomes} == {"passed"}
    assert (time.process_time() - clock) / len(files) < 0.15


@dataclass
class Desk:
    """Records on a desk, to be tampered with; the rest of their table is trusted."""

    folder: Path
    file: Path
    trusted: list[Path]

    @property
    def record(self) -> Record:
        return read_record(self.file)

    @property
    def predictions(self) -> Path:
        return self.file.with_name(f"{self.file.stem}.predictions.npz")

    def values(self) -> dict[str, Any]:
        return json.loads(self.file.read_text())  # type: ignore[no-any-return]

    def put(self, values: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(values, ensure_ascii=False))

    def change(self, path: str, value: Any) -> None:
        """Change one entry of the record's file; a callable is given what is there."""
        values = self.values()
        *above, last = path.split(".")
        place: Any = values
        for name in above:
            place = place[int(name) if isinstance(place, list) else name]
        key: Any = int(last) if isinstance(place, list) else last
        place[key] = value(place[key]) if callable(value) else value
        self.put(values)

    def dress(self, **changes: Any) -> None:
        """Change the record as somebody does who knows how identities and names come to be."""
        record = self.record
        record = record.model_copy(update=changes)
        identity = identity_of(record, 1, record.test_condition)
        features = record.features.partition("/")[2]
        run = run_name(record.model, features, record.seed, record.test_condition, identity)
        assert record.predictions is not None
        told = record.predictions.model_copy(update={"file": f"{run}.predictions.npz"})
        new = self.file.with_name(f"{run}.json")
        moved = self.predictions.rename(new.with_name(told.file))
        assert moved.exists()
        self.file.unlink()
        self.file = new
        write_record(new, record.model_copy(update={"identity": identity, "run": run, "predictions": told}))

    def predict(self, outcomes: Predictions | DialogueCounts) -> None:
        """Put other predictions in place, with the scores that they give."""
        checksum = write_predictions(self.predictions, outcomes)
        record = self.record
        assert record.predictions is not None
        told = record.predictions.model_copy(update={"sha256": checksum, "utterances": outcomes.utterances})
        changed = record.model_copy(update={"predictions": told, "test": score(outcomes)})
        self.file.write_text(record_text(changed))

    def check(self, trusted: bool = True) -> Checked:
        (checked,) = check_records([self.file], self.trusted if trusted else ())
        return checked


def desk_of(name: str, folder: Path) -> Desk:
    """A record of the repository and its table; without its audit, which tests of audits bring themselves."""
    start = RECORDS / name
    (file,) = start.parent.glob(f"{start.name}.*.json")
    folder.mkdir(exist_ok=True)
    for each in (file, file.with_name(f"{file.stem}.predictions.npz")):
        shutil.copy(each, folder)
    (folder / file.name).write_text(record_text(read_record(file).model_copy(update={"audit": None})))
    features = start.name.rpartition(".")[0]
    trusted = [each for each in sorted(start.parent.glob(f"{features}.*.json")) if each != file]
    assert len(trusted) >= 2
    return Desk(folder, folder / file.name, trusted)


@pytest.fixture
def meld(tmp_path: Path) -> Desk:
    return desk_of(MELD, tmp_path / "desk")


@pytest.fixture
def iemocap(tmp_path: Path) -> Desk:
    return desk_of(COUNTS, tmp_path / "counts")


def raised(value: float) -> float:
    return value + 0.01


# What is changed, to what, and which check says so. An entry for each field of a record.
TAMPERINGS: dict[str, tuple[Any, str]] = {
    "schema_version": (2, "schema"),
    "kind": ("walk", "schema"),
    "run": (lambda run: run.replace("seed3", "seed4"), "names"),
    "identity": ("0" * 64, "identity"),
    "status": ("failed", "schema"),
    "dataset": ("melt", "schema"),
    "labels": ("meld/sentiment", "labels"),
    "features": ("meld/mmgcn", "identity"),
    "features_detail.sources": ("1" * 64, "sources"),
    "features_detail.widths.text": (3, "widths"),
    "protocol": ("meld/unofficial", "protocol"),
    "protocol_version": (2, "protocol"),
    "modalities": (["text"], "features"),
    "synthetic": (True, "dataset"),
    "model": ("cmath", "names"),
    "model_version": (7, "identity"),
    "seed": (11, "names"),
    "settings.dropout": (raised, "identity"),
    "training.learning_rate": (raised, "identity"),
    "training.patience": (3, "selection"),
    "options.settings": ({"dropout": 0.123}, "settings"),
    "options": ({"settings": ["dropout"]}, "settings"),
    "curve": (lambda curve: curve[:-1], "selection"),
    "curve.0.epoch": (3, "selection"),
    "curve.0.dev.weighted_f1": (0.99, "selection"),
    "curve.0.dev": ({"loss": 1.0}, "selection"),
    "curve.1.dev.loss": (-1.0, "selection"),
    "curve.2.dev.uar": (1.5, "selection"),
    "selection.epoch": (1, "selection"),
    "selection.rule": ("best test weighted_f1", "selection"),
    "selection.metric": ("accuracy", "protocol"),
    "selection.score": (raised, "selection"),
    "selection.ended": ("fitted", "selection"),
    "dev.weighted_f1": (raised, "dev"),
    "dev.accuracy": (raised, "dev"),
    "dev.calibration_error": (raised, "dev"),
    "dev.emotion_shift_accuracy": (raised, "dev"),
    "dev.classes.joy.f1": (raised, "dev"),
    "test.weighted_f1": (raised, "metrics"),
    "test.accuracy": (raised, "metrics"),
    "test.macro_f1": (raised, "metrics"),
    "test.uar": (raised, "metrics"),
    "test.calibration_error": (raised, "metrics"),
    "test.emotion_shift_accuracy": (raised, "metrics"),
    "test.emotion_shift_support": (3, "metrics"),
    "test.classes.joy.recall": (raised, "metrics"),
    "test.classes.joy.support": (3, "schema"),
    "test.utterances": (3, "schema"),
    "test.confusion.0": (lambda row: row[::-1], "metrics"),
    "predictions.file": ("other.npz", "names"),
    "predictions.sha256": ("2" * 64, "predictions"),
    "predictions.utterances": (2611, "predictions"),
    "cost.wall_seconds": (1.0, "cost"),
    "cost.epochs_per_second": (1e9, "cost"),
    "cost.memory_bytes": (12, "cost"),
    "cost.parameters": (10**13, "cost"),
    "started": ("2999-01-01T00:00:00+00:00", "time"),
    "machine.platform": ("Linux in /home/somebody/mer", "privacy"),
    "failure": ({"kind": "RunError", "reason": "none"}, "schema"),
    "folds": ([{"fold": 1}], "schema"),
    "test_condition": ({"name": "only-text", "present": ["text"], "model_of": "3" * 64}, "identity"),
    "model_code": ({"origin": "file", "sha256": "4" * 64}, "identity"),
    "stack": ([0, 1, 2, 3, 4], "identity"),
    "tuned": ({"study": 3}, "schema"),
    "audit": ({"metric": "weighted_f1", "epochs": [], "best_epoch": None, "best": 0.7, "chosen": 0.6}, "schema"),
    "extra": (1, "schema"),
}


def test_every_field_of_a_record_is_tampered_with() -> None:
    # `started`'s day and what of the machine ran it are told, not checked; all else has an entry above.
    assert set(Record.model_fields) - {path.partition(".")[0] for path in TAMPERINGS} <= {"version", "external"}


@pytest.mark.parametrize("path", TAMPERINGS)
def test_a_changed_field_is_refused_for_the_right_reason(path: str, meld: Desk) -> None:
    value, check = TAMPERINGS[path]
    if path in ("failure", "folds", "test_condition", "model_code", "stack", "tuned", "audit", "extra"):
        meld.put(meld.values() | {path: value})
    else:
        meld.change(path, value)
    assert check in refusals(meld.check()), refusals(meld.check())


def test_what_was_not_touched_passes(meld: Desk, iemocap: Desk) -> None:
    for desk in (meld, iemocap):
        assert refusals(desk.check()) == {}
        alone = desk.check(trusted=False)
        assert refusals(alone) == {}
        untold = {each.check for each in alone.findings if each.state == "not checked"}
        assert untold >= {"sources", "utterances", "dev labels", "copies"}


@pytest.mark.parametrize(
    ("changes", "check", "says"),
    [
        ({"features_detail": {"sources": "1" * 64}}, "sources", "made from other files"),
        ({"seed": 9}, "copies", "their training curves are the same|predictions are the same"),
        ({"protocol_version": 2}, "protocol", "version 2 of meld/official, but that is at version 1"),
        ({"settings": {"dropout": 0.0}}, "", ""),
    ],
)
def test_somebody_who_knows_how_identities_come_to_be(
    changes: dict[str, Any], check: str, says: str, meld: Desk
) -> None:
    original = meld.file.with_name("kept")
    original.mkdir()
    for file in (meld.file, meld.predictions):
        shutil.copy(file, original)
    record = meld.record
    merged = {
        name: {**getattr(record, name), **value} if name == "settings" else value for name, value in changes.items()
    }
    if "features_detail" in merged:
        assert record.features_detail is not None
        merged["features_detail"] = record.features_detail.model_copy(update=merged["features_detail"])
    meld.dress(**merged)
    meld.trusted += list(original.glob("*.json"))
    found = refusals(meld.check())
    if check:
        assert check in found
        assert any(part in found[check] for part in says.split("|")), found
    else:
        # Other settings of the same model and seed: a setting may change nothing, so that this is no proof of a copy.
        assert found == {}


def test_a_corpus_that_nobody_knows_is_told_with_its_nearest_name(meld: Desk) -> None:
    names = {
        name: f"melt/{getattr(meld.record, name).partition('/')[2]}" for name in ("labels", "features", "protocol")
    }
    meld.dress(dataset="melt", **names)
    assert refusals(meld.check(trusted=False))["dataset"] == "no dataset is called melt here; did it mean meld?"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "nobody"}, "no model is called nobody here"),
        ({"model_version": 7}, "it is of version 7 of the model, and here is "),
        ({"machine": None}, "the record names no commit"),
        ({"machine": "f" * 40}, "its commit ffffffffffff is not known here"),
    ],
)
def test_code_that_is_not_here_cannot_be_checked_and_is_told(changes: dict[str, Any], says: str, meld: Desk) -> None:
    machine = meld.record.machine
    assert machine is not None
    if "machine" in changes:
        changes = {"machine": machine.model_copy(update={"commit": changes["machine"]})}
    meld.dress(**changes)
    (code,) = [each for each in meld.check().findings if each.check == "code"]
    assert code.state == "not checked"
    assert says in code.said


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ({"text": 10, "visual": 10}, "modalities are text, audio, but there are widths of text, visual"),
        ({"text": 10, "audio": 3}, "audio"),
    ],
)
def test_widths_that_the_features_do_not_have(widths: dict[str, int], says: str, meld: Desk) -> None:
    detail = meld.record.features_detail
    assert detail is not None
    meld.dress(features_detail=detail.model_copy(update={"widths": widths}))
    assert says in refusals(meld.check(trusted=False))["features"]


def relabelled(predictions: Predictions) -> Predictions:
    """Three utterances that were predicted wrong get the label that was predicted."""
    true = predictions.true.copy()
    wrong = np.flatnonzero((true != predictions.predicted) & (true >= 0))[:3]
    true[wrong] = predictions.predicted[wrong]
    return replace(predictions, true=true)


def rows_of(predictions: Predictions, rows: Any) -> Predictions:
    """Some rows of predictions."""
    assert predictions.log_probabilities is not None
    return Predictions(
        classes=predictions.classes,
        ids=[predictions.ids[row] for row in rows],
        dialogues=[predictions.dialogues[row] for row in rows],
        positions=predictions.positions[rows],
        speakers=predictions.speakers[rows],
        true=predictions.true[rows],
        predicted=predictions.predicted[rows],
        log_probabilities=predictions.log_probabilities[rows],
    )


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (relabelled, "the true labels were changed: utterance '"),
        (
            lambda given: rows_of(given, np.flatnonzero(given.true == given.predicted)),
            "are not predicted, such as 'test/dia0_utt0'",
        ),
        (lambda given: replace(given, ids=[*given.ids[:-1], "mine"]), "are not predicted, such as"),
        (lambda given: replace(given, speakers=given.speakers[::-1]), "has another dialogue, turn or speaker"),
        (lambda given: replace(given, true=np.where(np.arange(2610) < 5, -1, given.true)), "is unlabelled, but"),
    ],
)
def test_predictions_of_another_test_split(tamper: Callable[[Predictions], Predictions], says: str, meld: Desk) -> None:
    meld.predict(tamper(read_predictions(meld.predictions)))
    found = refusals(meld.check())
    assert says in found["utterances"]
    assert "metrics" not in found


def test_the_order_of_the_rows_is_of_no_account(meld: Desk) -> None:
    given = read_predictions(meld.predictions)
    meld.predict(rows_of(given, np.random.default_rng(0).permutation(given.utterances)))
    assert refusals(meld.check()) == {}


def test_dialogue_counts_of_another_test_split(iemocap: Desk) -> None:
    given = read_outcomes(iemocap.predictions)
    assert isinstance(given, DialogueCounts)
    confusion = given.confusion.copy()
    cell = tuple(int(place[0]) for place in np.nonzero(confusion * (1 - np.eye(6, dtype=int))))
    confusion[cell] -= 1
    confusion[cell[0], cell[2], cell[2]] += 1  # a miss of one class becomes a hit of another
    bins = given.calibration
    assert bins is not None
    bins = bins.copy()
    room = int(np.argmax(bins[:, 0] - bins[:, 1]))
    bins[room, 1] += 1
    iemocap.predict(replace(given, confusion=confusion, calibration=bins))
    assert "has other labels than in cmath.transcripts" in refusals(iemocap.check())["utterances"]


def noisy(predictions: Predictions, much: float) -> Predictions:
    """The same predictions with noise on every score."""
    if not much:
        return predictions
    assert predictions.log_probabilities is not None
    noise = np.random.default_rng(1).normal(0, much, predictions.log_probabilities.shape)
    scores = predictions.log_probabilities.astype(np.float64) + noise
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return replace(
        predictions, log_probabilities=scores.astype(np.float16), predicted=scores.argmax(axis=1).astype(np.int16)
    )


@pytest.mark.parametrize(("much", "says"), [(0.0, "are the same"), (0.01, "are nearly the same: they differ by 0.00")])
def test_copied_predictions_under_another_models_name(much: float, says: str, meld: Desk) -> None:
    copied = meld.file.with_name("theirs")
    copied.mkdir()
    for file in (meld.file, meld.predictions):
        shutil.copy(file, copied)
    meld.trusted += list(copied.glob("*.json"))
    meld.predict(noisy(read_predictions(meld.predictions), much))
    record = meld.record
    curve = [epoch.model_copy(update={"train": {"total": 1.0}}) for epoch in record.curve]
    meld.dress(model="cogmen", curve=curve)
    assert says in refusals(meld.check())["copies"]
    assert "there already" in refusals(meld.check())["copies"]


def test_copied_counts(iemocap: Desk) -> None:
    copied = iemocap.file.with_name("theirs")
    copied.mkdir()
    for file in (iemocap.file, iemocap.predictions):
        shutil.copy(file, copied)
    record = iemocap.record
    iemocap.dress(model="mmgcn", curve=[epoch.model_copy(update={"train": {}}) for epoch in record.curve])
    iemocap.trusted += list(copied.glob("*.json"))
    assert "dialogue counts are the same in 100 %" in refusals(iemocap.check())["copies"]


def test_a_stolen_curve(meld: Desk) -> None:
    copied = meld.file.with_name("theirs")
    copied.mkdir()
    for file in (meld.file, meld.predictions):
        shutil.copy(file, copied)
    meld.predict(noisy(read_predictions(meld.predictions), 0.5))
    meld.dress(seed=8)
    meld.trusted += list(copied.glob("*.json"))
    assert "training curves are the same" in refusals(meld.check())["copies"]


def test_the_same_run_counts_once(meld: Desk) -> None:
    twice = meld.folder / "again"
    twice.mkdir()
    for file in (meld.file, meld.predictions):
        shutil.copy(file, twice)
    for checked in check_records(find_records([meld.folder])):
        assert "both are the same run with seed 3" in refusals(checked)["copies"]


def test_an_audited_record_may_take_the_place_of_one_without(finished: tuple[Record, Path], tmp_path: Path) -> None:
    without = tmp_path / finished[1].name
    shutil.copy(finished[1].with_name(f"{finished[1].stem}.predictions.npz"), tmp_path)
    values = json.loads(finished[1].read_text())
    for part in (values, *values["folds"]):
        part.pop("audit")
    without.write_text(json.dumps(values))
    (audited,) = check_records([finished[1]], [without])
    assert refusals(audited) == {}
    (plain,) = check_records([without], [finished[1]])
    assert "counts once" in refusals(plain)["copies"]


def test_what_is_fitted_at_one_go_is_no_copy_of_its_other_seeds() -> None:
    files = sorted((RECORDS / "meld/majority").glob("*.json")) + sorted((RECORDS / "meld/logistic").glob("*.json"))
    assert len(files) >= 10
    assert all(not checked.reasons for checked in check_records(files))


def test_without_trusted_records_the_most_decide(tmp_path: Path, meld: Desk) -> None:
    meld.predict(relabelled(read_predictions(meld.predictions)))
    for name in ("mmgcn.transcripts.seed0", "mmgcn.transcripts.seed1"):
        for file in (RECORDS / "meld/mmgcn").glob(f"{name}.*"):
            shutil.copy(file, meld.folder)
    found = {checked.file: refusals(checked) for checked in check_records(find_records([meld.folder]))}
    assert [file for file, reasons in found.items() if reasons] == [meld.file]
    _, second, _ = sorted(found)
    assert second != meld.file
    pair = check_records([meld.file, second])  # two who contradict each other: nobody knows who is right
    assert all("no further record says which of the two is right" in refusals(each)["utterances"] for each in pair)


def test_labels_of_a_corpus_that_forbids_them_are_refused(iemocap: Desk) -> None:
    labels = np.array([0, 1, 2, 3], np.int16)
    given = Predictions(
        classes=read_outcomes(iemocap.predictions).classes,
        ids=["a", "b", "c", "d"],
        dialogues=["x", "x", "y", "y"],
        positions=np.array([0, 1, 0, 1], np.int32),
        speakers=np.zeros(4, np.int16),
        true=labels,
        predicted=labels,
        log_probabilities=None,
    )
    iemocap.predict(given)
    assert "may not be passed on" in refusals(iemocap.check())["licence"]


def test_counts_where_labels_may_be_passed_on_are_refused(meld: Desk) -> None:
    meld.predict(count_dialogues(read_predictions(meld.predictions)))
    assert "dialogue counts only" in refusals(meld.check())["licence"]


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of a record's part, with its path."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else enumerate(values)
        for name, value in items:
            yield from leaves(value, f"{path}.{name}" if path else str(name))
    elif not isinstance(values, bool) and isinstance(values, int | float):
        yield path, values


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Desk]:
    return {name: desk_of(name, tmp_path_factory.mktemp("originals") / "desk") for name in (MELD, COUNTS)}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_digit_of_a_score_is_refused(originals: dict[str, Desk], data: st.DataObject) -> None:
    desk = originals[data.draw(st.sampled_from([MELD, COUNTS]))]
    values = desk.values()
    part = data.draw(st.sampled_from(["test", "dev", "selection"]))
    # Of the named parts of dev nothing tells which utterances they have.
    told = {name: value for name, value in values[part].items() if part != "dev" or name != "subsets"}
    path, value = data.draw(st.sampled_from(list(leaves(told))))
    text = repr(value)
    place = data.draw(st.sampled_from([place for place, letter in enumerate(text) if letter.isdigit()]))
    digit = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != text[place]]))
    changed = text[:place] + digit + text[place + 1 :]
    assume(isinstance(value, float) or changed == "0" or changed[0] != "0")
    # Another machine's sums may differ in the last bits: a change as small as that is none.
    name = path.rpartition(".")[2]
    bits = {"calibration_error": 1e-12, "weighted_f1": 1e-15, "macro_f1": 1e-15, "uar": 1e-15}.get(name, 0.0)
    new = type(value)(changed)
    assume(abs(new - value) > (bits if part == "test" else 0.0))
    before = desk.file.read_bytes()
    try:
        desk.change(f"{part}.{path}", new)
        (checked,) = check_records([desk.file])
    finally:
        desk.file.write_bytes(before)
    assert checked.reasons, (part, path, text, changed)


@pytest.mark.parametrize("name", [MELD, COUNTS])
def test_a_change_in_the_fourteenth_decimal_is_refused(name: str, originals: dict[str, Desk]) -> None:
    desk = originals[name]
    before = desk.file.read_bytes()
    scores = desk.values()["test"]
    paths = [path for path, value in leaves(scores) if isinstance(value, float) and 0.01 < value < 0.99]
    assert len(paths) > 20
    for path in paths:
        small = 1e-11 if path == "calibration_error" else 1e-14
        try:
            desk.change(f"test.{path}", lambda value, small=small: value + small)
            (checked,) = check_records([desk.file])
        finally:
            desk.file.write_bytes(before)
        assert f"test.{path} is " in refusals(checked)["metrics"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_record_whatsoever_breaks_the_check(originals: dict[str, Desk], data: st.DataObject) -> None:
    desk = originals[data.draw(st.sampled_from([MELD, COUNTS]))]
    values = desk.values()
    place: Any = values
    for _ in range(data.draw(st.integers(1, 4))):
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        above, place = place, place[key]
    above[key] = data.draw(st.sampled_from([0, -1, 1e300, 10**30, "", [], {}]) | ANYTHING)
    before = desk.file.read_bytes()
    try:
        desk.file.write_text(json.dumps(values))
        (checked,) = check_records([desk.file], desk.trusted[:1])
    finally:
        desk.file.write_bytes(before)
    assert checked.findings


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_predictions_are_refused(originals: dict[str, Desk], data: st.DataObject) -> None:
    desk = originals[MELD]
    content = desk.predictions.read_bytes()
    record = desk.file.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    honest = data.draw(st.booleans())
    try:
        desk.predictions.write_bytes(damaged)
        if not honest:  # the checksum too
            desk.change("predictions.sha256", hashlib.sha256(damaged).hexdigest())
        (checked,) = check_records([desk.file], desk.trusted[:1])
    finally:
        desk.predictions.write_bytes(content)
        desk.file.write_bytes(record)
    # A flipped bit of what no reader looks at (a time stamp in the archive) changes no prediction.
    assert checked.reasons or not honest
    if not checked.reasons:
        assert next(each for each in checked.findings if each.check == "metrics").state == "passed"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"run": NaN}', b'{"run": 1, "run": 2}']
)
def test_what_is_no_record(content: bytes, meld: Desk) -> None:
    meld.file.write_bytes(content)
    assert set(refusals(meld.check())) == {"schema"}


def test_predictions_that_are_missing(meld: Desk) -> None:
    meld.predictions.unlink()
    assert "cannot be read" in refusals(meld.check())["predictions"]


def test_which_files_are_meant(tmp_path: Path, meld: Desk) -> None:
    (meld.folder / ".hidden.unfinished").mkdir()
    (meld.folder / ".hidden.unfinished" / "state.json").write_text("{}")
    assert find_records([meld.folder, meld.file]) == [meld.file]
    for path, says in (
        (tmp_path / "absent", "is not there"),
        (meld.predictions, "is no record; give the .json file"),
        (meld.folder / ".hidden.unfinished" / "none", "is not there"),
    ):
        with pytest.raises(RequestError, match=says):
            find_records([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no records"):
        find_records([tmp_path / "empty"])


def test_a_record_that_is_trusted_is_not_compared_with_itself(meld: Desk) -> None:
    (checked,) = check_records([meld.file], [meld.file, *meld.trusted])
    assert refusals(checked) == {}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Record, Path]]:
    """An audited run of five folds, while its corpus is installed."""
    with sessions_installed(tmp_path_factory.mktemp("installed")):
        request = runner.RunRequest(
            "textonly",
            "sessions",
            protocol="loso",
            settings={"epochs": 3, "batch_size": 4, "width": 8, "layers": 1, "heads": 2},
            data_root=tmp_path_factory.mktemp("data"),
            out=tmp_path_factory.mktemp("runs"),
            threads=1,
            audit_selection=True,
        )
        record = runner.run(request)
        (file,) = request.out.rglob("*.json")
        yield record, file


class TestFolds:
    def desk(self, finished: tuple[Record, Path], tmp_path: Path) -> Desk:
        for file in finished[1].parent.glob("*"):
            shutil.copy(file, tmp_path)
        return Desk(tmp_path, tmp_path / finished[1].name, [])

    def test_it_passes(self, finished: tuple[Record, Path], tmp_path: Path) -> None:
        checked = self.desk(finished, tmp_path).check()
        assert refusals(checked) == {}
        assert [each.state for each in checked.findings if each.check == "audit"] == ["passed"]

    @pytest.mark.parametrize(
        ("path", "value", "check"),
        [
            ("folds.1.test.weighted_f1", raised, "metrics"),
            ("folds.4.test.classes.calm.f1", raised, "metrics"),
            ("folds.0.dev.uar", raised, "dev"),
            ("folds.2.dev.weighted_f1", raised, "dev"),
            ("folds.2.selection.epoch", lambda epoch: epoch % 3 + 1, "selection"),
            ("folds.0.selection.score", raised, "selection"),
            ("dev.accuracy", raised, "dev"),
            ("folds", lambda folds: folds[:-1], "schema"),
            ("audit.chosen", raised, "audit"),
            ("audit.best", -0.1, "audit"),
            ("audit.metric", "uar", "audit"),
            ("folds.1.audit.chosen", raised, "audit"),
            ("folds.1.audit.best", raised, "schema"),
            ("folds.1.audit.epochs", lambda epochs: epochs[:-1], "schema"),
            ("features_detail.sources", "5" * 64, "identity"),
        ],
    )
    def test_each_fold_is_looked_at(
        self, path: str, value: Any, check: str, finished: tuple[Record, Path], tmp_path: Path
    ) -> None:
        desk = self.desk(finished, tmp_path)
        desk.change(path, value)
        assert check in refusals(desk.check())

    def test_an_audit_whose_best_epoch_is_not_the_best(self, finished: tuple[Record, Path], tmp_path: Path) -> None:
        desk = self.desk(finished, tmp_path)
        values = desk.values()
        audit = values["folds"][0]["audit"]
        other = audit["best_epoch"] % len(audit["epochs"])
        audit["epochs"][other]["test"]["weighted_f1"] = 0.0
        audit["best_epoch"], audit["best"] = other + 1, 0.0
        desk.put(values)
        assert "is better" in refusals(desk.check())["audit"]

    def test_an_audit_without_the_metric_in_some_epoch(self, finished: tuple[Record, Path], tmp_path: Path) -> None:
        desk = self.desk(finished, tmp_path)
        worst = finished[0].folds[0].audit
        assert worst is not None
        epoch = worst.best_epoch or 0
        desk.change(f"folds.0.audit.epochs.{epoch % 3}.test", {"accuracy": 0.5})
        assert f"epoch {epoch % 3 + 1} of the audit has no test weighted_f1" in refusals(desk.check())["audit"]

    def test_dev_scores_that_are_not_those_of_the_folds(self, finished: tuple[Record, Path], tmp_path: Path) -> None:
        desk = self.desk(finished, tmp_path)
        # Another whole confusion matrix, with all that follows from it.
        desk.change("dev", desk.values()["folds"][0]["dev"])
        assert refusals(desk.check())["dev"] == "dev.confusion is not the sum of that of the folds"

    def test_folds_that_the_protocol_has_not(self, finished: tuple[Record, Path], tmp_path: Path) -> None:
        desk = self.desk(finished, tmp_path)
        desk.change("protocol", "sessions/shared-dev")
        assert refusals(desk.check())["protocol"] == "it has 5 folds, but sessions/shared-dev has 2"

    @pytest.mark.parametrize(
        ("path", "change", "says"),
        [
            ("folds", lambda folds: folds % 5 + 1, "other folds tested its dialogues"),
            ("subsets", lambda parts: {name: ~part for name, part in parts.items()}, "the named parts of its test"),
        ],
    )
    def test_other_folds_and_parts_of_the_same_dialogues(
        self,
        path: str,
        change: Callable[[Any], Any],
        says: str,
        finished: tuple[Record, Path],
        tmp_path: Path,
    ) -> None:
        desk = self.desk(finished, tmp_path)
        given = read_outcomes(desk.predictions)
        other = replace(given, **{path: change(getattr(given, path))})
        found, expected = layout_of(other), layout_of(given)
        assert difference(expected, expected, "that") == ""
        assert says in difference(found, expected, "that")

    def test_an_audit_that_knows_another_score_of_the_chosen_epoch(
        self, finished: tuple[Record, Path], tmp_path: Path
    ) -> None:
        desk = self.desk(finished, tmp_path)
        chosen = finished[0].folds[0].selection.epoch
        desk.change(f"folds.0.audit.epochs.{chosen - 1}.test.macro_f1", 0.0)
        assert "the chosen epoch has test macro_f1" in refusals(desk.check())["audit"]


def test_a_condition_of_another_run(meld: Desk) -> None:
    """A record under a test condition names the run whose model it is by an identity that can be computed again."""
    whole = meld.record
    right = Condition(name="only-text", present=("text",), model_of=whole.identity)
    meld.dress(test_condition=right)
    assert "identity" not in refusals(meld.check())
    meld.dress(test_condition=right.model_copy(update={"model_of": "6" * 64}))
    assert "model_of is not the identity" in refusals(meld.check())["identity"]


def test_a_failed_run_is_a_record_too(meld: Desk) -> None:
    values = meld.values()
    values |= {"status": "failed", "test": None, "dev": None, "predictions": None, "selection": None}
    values["failure"] = {"kind": "DivergedError", "reason": "the loss became NaN.", "epoch": 3}
    meld.put(values)
    checked = meld.check()
    assert refusals(checked) == {}
    assert {each.check for each in checked.findings if each.state == "not checked"} >= {"metrics", "selection"}


@pytest.fixture
def outside(meld: Desk, tmp_path: Path) -> Desk:
    """External predictions for MELD, beside the trusted runs."""
    given = noisy(read_predictions(meld.predictions), 1.5)
    meld.predict(given)
    record = meld.record
    split = split_checksum(given.classes, given.ids, given.dialogues, given.positions, given.speakers, given.true)
    stated = External(name="gpt", selection_rule="zero-shot", file_sha256="d" * 64, test_split=split)
    nothing = dict.fromkeys(("features_detail", "model_version", "selection", "dev", "cost", "machine"))
    changes = {"kind": "external", "model": "gpt", "features": "meld/external", "external": stated, **nothing}
    changes |= {"settings": {}, "training": {}, "options": {}, "curve": []}
    told = {name: getattr(record, name) for name in ("dataset", "labels", "protocol", "protocol_version", "modalities")}
    identity = external_identity(
        **told, dataset_version=1, features="meld/external", sources=split, name="gpt", seed=3, predictions=given
    )
    run = run_name("gpt", "external", 3, None, identity)
    assert record.predictions is not None
    files = record.predictions.model_copy(update={"file": f"{run}.predictions.npz"})
    new = meld.file.with_name(f"{run}.json")
    meld.predictions.rename(new.with_name(files.file))
    meld.file.unlink()
    write_record(new, Record(**{**dict(record), **changes, "run": run, "identity": identity, "predictions": files}))
    return Desk(meld.folder, new, meld.trusted)


class TestExternal:
    def test_what_can_be_checked_is(self, outside: Desk) -> None:
        checked = outside.check()
        assert refusals(checked) == {}
        states = {each.check: each.state for each in checked.findings}
        assert {states[name] for name in ("metrics", "identity", "utterances", "test split", "labels")} == {"passed"}
        assert {states[name] for name in ("selection", "system")} == {"not checked"}
        assert refusals(outside.check(trusted=False)) == {}

    @pytest.mark.parametrize(
        ("path", "value", "check"),
        [
            ("test.weighted_f1", raised, "metrics"),
            ("test.classes.joy.f1", raised, "metrics"),
            ("identity", "0" * 64, "identity"),
            ("external.test_split", "1" * 64, "test split"),
            ("external.name", "other", "schema"),
            ("external.note", "in /home/somebody/mer", "privacy"),
            ("seed", 4, "identity"),
            ("features", "meld/transcripts", "schema"),
            ("protocol_version", 2, "protocol"),
            ("labels", "meld/sentiment", "labels"),
            ("model_version", 1, "schema"),
            ("started", "soon", "time"),
        ],
    )
    def test_a_changed_field_is_refused(self, path: str, value: Any, check: str, outside: Desk) -> None:
        outside.change(path, value)
        assert check in refusals(outside.check())

    def test_changed_labels(self, outside: Desk) -> None:
        outside.predict(relabelled(read_predictions(outside.predictions)))
        found = refusals(outside.check())
        assert "the true labels were changed" in found["utterances"]
        assert "test split" in found

    def test_a_runs_predictions_under_a_systems_name(self, outside: Desk) -> None:
        theirs = read_predictions(outside.trusted[0].with_name(f"{outside.trusted[0].stem}.predictions.npz"))
        outside.predict(replace(theirs, log_probabilities=None))
        assert "% of their predicted labels are the same" in refusals(outside.check())["copies"]


def test_it_works_without_torch(meld: Desk) -> None:
    code = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.modules["torch"] = None
        from mer_bench.leaderboard.checking import check_records
        (checked,) = check_records([Path({str(meld.file)!r})])
        sys.exit(bool(checked.reasons))
    """)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
