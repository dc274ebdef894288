"""Predictions files: round trips, stable bytes, size, and everything that must be refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench import predictions as room
from mer_bench.errors import RecordError
from mer_bench.metrics import count_dialogues
from mer_bench.predictions import (
    DialogueCounts,
    Predictions,
    decode_outcomes,
    pooled,
    read_outcomes,
    read_predictions,
    write_predictions,
)

MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


def meld_sized(seed: int = 0) -> Predictions:
    """As many rows as MELD's test split, with probabilities as spread as a trained model's."""
    generator = np.random.default_rng(seed)
    lengths = np.bincount(generator.integers(0, 280, 2610 - 280), minlength=280) + 1
    dialogue = np.repeat(np.arange(280), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    logits = generator.normal(size=(2610, 7)) * 2 + np.log([0.47, 0.11, 0.03, 0.07, 0.17, 0.02, 0.13])
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return Predictions(
        classes=MELD,
        ids=[f"test/dia{number}/utt{turn}" for number, turn in zip(dialogue, position, strict=True)],
        dialogues=[f"test/dia{number}" for number in dialogue],
        positions=position,
        speakers=generator.integers(0, 8, 2610, np.int16),
        true=generator.integers(0, 7, 2610, np.int16),
        predicted=scores.argmax(axis=1),
        log_probabilities=scores,
    )


def small(**changes: Any) -> Predictions:
    values: dict[str, Any] = {
        "classes": ("sad", "glad"),
        "ids": ["a1", "a2", "b1"],
        "dialogues": ["a", "a", "b"],
        "positions": np.array([0, 1, 0]),
        "speakers": np.array([0, 1, 0]),
        "true": np.array([0, -1, 1]),
        "predicted": np.array([0, 1, 1]),
        "log_probabilities": np.log([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]]),
    }
    return Predictions(**values | changes)


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    for part in fields(left):
        first, second = getattr(left, part.name), getattr(right, part.name)
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            assert first.shape == second.shape
            assert np.array_equal(first, second)
        elif isinstance(first, dict):
            assert list(first) == list(second)
            assert all(np.array_equal(first[name], second[name]) for name in first)
        else:
            assert first == second


IDS = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=12),
        st.from_regex(r"Ses0[1-5][FM]_impro0[0-9]{1,3}_[FM][0-9]{3}", fullmatch=True),
        st.from_regex(r"[0-9]{1,25}", fullmatch=True),
        st.from_regex(r"(dia[0-9]{1,4}_)?utt[0-9]{1,12}", fullmatch=True),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


def in_parts(**changes: Any) -> Predictions:
    """The small ones with folds and subsets; `none` holds no dialogue."""
    subsets = {"script": np.array([True, False]), "none": np.zeros(2, bool), "all": np.ones(2, bool)}
    return small(**{"subsets": subsets, "folds": np.array([2, 1])} | changes)


class TestRoundTrip:
    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        for predictions in (small(), small(log_probabilities=None), meld_sized()):
            checksum = write_predictions(tmp_path / "p.npz", predictions)
            assert_same(read_predictions(tmp_path / "p.npz"), predictions)
            assert checksum == hashlib.sha256((tmp_path / "p.npz").read_bytes()).hexdigest()

    def test_dialogue_counts_too(self, tmp_path: Path) -> None:
        for predictions in (small(), small(log_probabilities=None), meld_sized()):
            counts = count_dialogues(predictions)
            write_predictions(tmp_path / "p.npz", counts)
            assert_same(read_outcomes(tmp_path / "p.npz"), counts)

    def test_subsets_and_folds_too(self, tmp_path: Path) -> None:
        for predictions in (in_parts(), in_parts(subsets={}), in_parts(folds=None), in_parts(log_probabilities=None)):
            write_predictions(tmp_path / "p.npz", predictions)
            assert_same(read_predictions(tmp_path / "p.npz"), predictions)
            counts = count_dialogues(predictions)
            assert list(counts.subsets) == list(predictions.subsets) == sorted(predictions.subsets)
            write_predictions(tmp_path / "p.npz", counts)
            assert_same(read_outcomes(tmp_path / "p.npz"), counts)

    @settings(max_examples=300, deadline=None)
    @given(IDS)
    def test_ids_of_any_kind_come_back(self, ids: list[str]) -> None:
        arrays = room._packed("ids", ids)
        assert room._unpacked(arrays, "ids") == ids
        assert not arrays

    @pytest.mark.parametrize("name", ["007", "0", "00", "1e5", "²", "١٢", "line\nend", "\ud800", "9" * 30, "a[0]{1}"])
    def test_awkward_ids_come_back_from_a_file(self, name: str, tmp_path: Path) -> None:
        predictions = small(ids=[name, name + "x1", "x0" + name])
        write_predictions(tmp_path / "p.npz", predictions)
        assert read_predictions(tmp_path / "p.npz").ids == predictions.ids

    def test_numpy_opens_the_file_without_pickle(self, tmp_path: Path) -> None:
        predictions = meld_sized()
        write_predictions(tmp_path / "p.npz", predictions)
        with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
            assert np.array_equal(archive["true"], predictions.true)
            assert predictions.log_probabilities is not None
            assert np.array_equal(archive["log_probabilities"], predictions.log_probabilities)
            assert all(not archive[name].dtype.hasobject for name in archive.files)


class TestBytes:
    def test_melds_test_split_takes_less_than_45_thousand_bytes(self, tmp_path: Path) -> None:
        write_predictions(tmp_path / "p.npz", meld_sized())
        assert (tmp_path / "p.npz").stat().st_size < 45_000

    def test_the_same_predictions_give_the_same_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = write_predictions(tmp_path / "a.npz", meld_sized())
        monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
        monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
        again = replace(
            meld_sized(),
            ids=list(meld_sized().ids),
            true=meld_sized().true.astype(np.int64),
            positions=meld_sized().positions[:],
        )
        assert write_predictions(tmp_path / "b.npz", again) == first
        assert write_predictions(tmp_path / "c.npz", meld_sized(1)) != first

    def test_without_subsets_and_folds_a_file_holds_what_it_always_held(self) -> None:
        folder = Path(__file__).resolve().parents[1] / "leaderboards" / "records"
        files = sorted(folder.rglob("*.predictions.npz"))
        assert files
        for file in files[:: max(1, len(files) // 12)]:
            outcomes = decode_outcomes(file.read_bytes())
            if outcomes.subsets or outcomes.folds is not None:
                continue
            with zipfile.ZipFile(file) as old, zipfile.ZipFile(io.BytesIO(room._encoded(outcomes))) as new:
                # The members, not the archive: another release of zlib may compress them otherwise.
                assert new.namelist() == old.namelist()
                assert all(new.read(name) == old.read(name) for name in old.namelist())

    def test_the_order_of_subsets_is_of_no_account(self, tmp_path: Path) -> None:
        turned = in_parts(subsets=dict(reversed(list(in_parts().subsets.items()))))
        assert write_predictions(tmp_path / "a.npz", turned) == write_predictions(tmp_path / "b.npz", in_parts())

    def test_columns_in_another_order_of_memory_give_the_same_bytes(self, tmp_path: Path) -> None:
        predictions = meld_sized()
        turned = replace(predictions, log_probabilities=np.asfortranarray(predictions.log_probabilities))
        first = write_predictions(tmp_path / "a.npz", predictions)
        assert write_predictions(tmp_path / "b.npz", turned) == first

    def test_dialogue_counts_hold_no_utterance(self, tmp_path: Path) -> None:
        write_predictions(tmp_path / "p.npz", count_dialogues(meld_sized()))
        with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
            assert all(2610 not in archive[name].shape for name in archive.files)
            assert b"utt" not in b"".join(archive[name].tobytes() for name in archive.files)
        with pytest.raises(RecordError, match="dialogue counts"):
            read_predictions(tmp_path / "p.npz")


class TestChecks:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"ids": ["a1", "a1", "b1"]}, "'a1' occurs twice"),
            ({"ids": ["a1", "", "b1"]}, "non-empty texts"),
            ({"ids": ["a1", 7, "b1"]}, "non-empty texts, but holds 7"),
            ({"ids": []}, "is empty"),
            ({"classes": ("sad", "sad")}, "'sad' occurs twice"),
            ({"dialogues": ["a", "b"]}, "dialogues should have 3 entries"),
            ({"dialogues": ["a", "a", "a"]}, "turn 0 of dialogue 'a' occurs twice, the second time as 'b1'"),
            ({"positions": np.array([0, 1])}, r"positions should be whole numbers of shape \(3,\)"),
            ({"positions": np.array([0, -1, 0])}, "positions should lie in"),
            ({"speakers": np.array([0.0, 1.0, 0.0])}, "speakers should be whole numbers"),
            ({"speakers": np.array([0, 1, 2**15])}, "speakers should lie in"),
            ({"true": np.array([0, -2, 1])}, r"true should lie in \[-1, 1\], but holds -2"),
            ({"true": np.array([0, 2, 1])}, r"true should lie in \[-1, 1\], but holds 2"),
            ({"predicted": np.array([0, -1, 1])}, r"predicted should lie in \[0, 1\], but holds -1"),
            ({"predicted": np.array([1, 1, 1])}, "'a1' is predicted as glad, but sad has the largest"),
            ({"log_probabilities": np.zeros((3, 3))}, r"\(utterances, classes\) = \(3, 2\)"),
            ({"log_probabilities": np.zeros((3, 2), int)}, "should be numbers"),
            ({"log_probabilities": np.array([[2.0, 1], [1, 1], [0, 3]])}, "'a1' should sum to 1"),
            ({"log_probabilities": np.full((3, 2), np.nan)}, "'a1' should sum to 1, but sum to nan"),
            ({"subsets": {"s": np.ones(3, bool)}}, r"the subset 's' should be true or false for each of the 2"),
            ({"subsets": {"s": np.ones(2, int)}}, r"the subset 's' should be .* but is int64"),
            ({"subsets": {"": np.ones(2, bool)}}, "subsets should be non-empty texts"),
            ({"subsets": ("s",)}, "subsets should be arrays by name"),
            ({"folds": np.array([1])}, r"folds should be whole numbers of shape \(2,\)"),
            ({"folds": np.array([0, 1])}, r"folds should lie in \[1, 32767\], but holds 0"),
        ],
    )
    def test_what_contradicts_itself_is_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(RecordError, match=message):
            small(**changes)

    def test_parts_of_dialogue_counts_are_checked_too(self) -> None:
        counts = count_dialogues(in_parts())
        for changes in ({"subsets": {"s": np.ones(3, bool)}}, {"folds": np.array([1, 2, 3])}):
            with pytest.raises(RecordError, match="should be"):
                replace(counts, **changes)

    def test_types_are_brought_into_line(self) -> None:
        found = small(predicted=np.array([0, 1, 1], np.uint8))
        assert found.positions.dtype == np.int32
        assert {found.true.dtype, found.predicted.dtype, found.speakers.dtype} == {np.dtype(np.int16)}
        assert found.log_probabilities is not None
        assert found.log_probabilities.dtype == np.float16

    def test_a_tie_after_rounding_is_not_a_contradiction(self) -> None:
        scores = np.log([[0.5 - 1e-6, 0.5 + 1e-6]] * 3)
        found = small(predicted=np.array([1, 1, 1]), log_probabilities=scores)
        assert found.log_probabilities is not None
        assert found.log_probabilities[0, 0] == found.log_probabilities[0, 1]

    def test_a_probability_of_zero_is_kept(self) -> None:
        with np.errstate(divide="ignore"):
            found = small(predicted=np.zeros(3, int), log_probabilities=np.log([[1.0, 0.0]] * 3))
        assert found.log_probabilities is not None
        assert np.isneginf(found.log_probabilities[:, 1]).all()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"confusion": np.zeros((2, 2, 3), int)}, "confusion should be whole numbers of shape"),
            ({"confusion": np.full((2, 2, 2), -1)}, "confusion should lie in"),
            ({"shift": np.array([[2, 1], [0, 0]])}, "shift counts more"),
            ({"shift": np.array([[0, 9], [0, 0]])}, "shift counts more"),
            ({"calibration": np.zeros((3, 3))}, "calibration should be of shape"),
            ({"calibration": np.zeros((15, 3))}, "does not count the same"),
            ({"dialogues": ["a", "a"]}, "'a' occurs twice"),
        ],
    )
    def test_dialogue_counts_that_contradict_themselves(self, changes: dict[str, Any], message: str) -> None:
        counts = count_dialogues(small())
        with pytest.raises(RecordError, match=message):
            replace(counts, **changes)


class TestPooled:
    def test_folds_follow_each_other(self) -> None:
        first = in_parts(folds=None)
        second = small(ids=["c1", "d1", "d2"], dialogues=["c", "d", "d"], positions=np.array([0, 0, 1]))
        found = pooled([first, second])
        assert found.ids == ("a1", "a2", "b1", "c1", "d1", "d2")
        assert found.folds is not None
        assert found.folds.tolist() == [1, 1, 2, 2]
        assert found.dialogue_names == ("a", "b", "c", "d")
        assert found.true.tolist() == [0, -1, 1, 0, -1, 1]
        # A subset that only one fold knows has no dialogue of the other.
        assert found.subsets["all"].tolist() == [True, True, False, False]
        assert found.subsets["script"].tolist() == [True, False, False, False]
        assert found.log_probabilities is not None
        assert found.log_probabilities.shape == (6, 2)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({}, "dialogue 'a' is in fold 1 and in fold 2"),
            ({"classes": ("sad", "merry")}, "do not have the same classes"),
            ({"ids": ["c", "d", "e"], "dialogues": ["c", "c", "d"], "log_probabilities": None}, "some folds have log"),
        ],
    )
    def test_folds_that_do_not_belong_together(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(RecordError, match=message):
            pooled([small(), small(**changes)])
        with pytest.raises(RecordError, match="no folds"):
            pooled([])


class TestPart:
    def test_some_dialogues_of_counts(self) -> None:
        counts = count_dialogues(in_parts())
        part = counts.part(np.array([False, True]))
        assert part.dialogues == ("b",)
        assert part.confusion.tolist() == [[[0, 0], [0, 1]]]
        assert part.calibration is None
        assert part.folds is not None
        assert part.folds.tolist() == [1]
        assert {name: members.tolist() for name, members in part.subsets.items()} == {
            "all": [True],
            "none": [False],
            "script": [False],
        }
        with pytest.raises(RecordError, match="dialogues should name at least one"):
            counts.part(np.zeros(2, bool))


def repacked(change: Callable[[dict[str, bytes]], None], content: bytes) -> bytes:
    """The same archive after its members were changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def npy(array: Any, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version=(1, 0), allow_pickle=allow_pickle)
    return stream.getvalue()


def header(**changes: Any) -> bytes:
    values = {"format": room.FORMAT, "version": 1, "kind": "predictions", "classes": ["sad", "glad"]} | changes
    return npy(np.frombuffer(json.dumps(values).encode(), np.uint8))


class Bomb:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(Bomb.target),))

    target: Path


class TestHostileFiles:
    @pytest.fixture
    def content(self, tmp_path: Path) -> bytes:
        write_predictions(tmp_path / "good.npz", small())
        return (tmp_path / "good.npz").read_bytes()

    def refused(self, tmp_path: Path, content: bytes, reason: str = ".") -> None:
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(RecordError, match=reason) as caught:
            read_outcomes(tmp_path / "bad.npz")
        assert "bad.npz" in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match=r"none\.npz cannot be read: No such file"):
            read_predictions(tmp_path / "none.npz")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RecordError, match="cannot be read"):
            read_predictions(tmp_path)

    def test_every_truncation(self, tmp_path: Path, content: bytes) -> None:
        for length in range(0, len(content), 7):
            self.refused(tmp_path, content[:length], "not a valid predictions file")

    def test_every_flipped_byte_is_refused_or_changes_nothing(self, content: bytes) -> None:
        whole = decode_outcomes(content)
        refused = 0
        for place in range(0, len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 0x41
            try:
                found = decode_outcomes(bytes(damaged))
            except RecordError:
                refused += 1
            else:  # a byte that zip does not use: a time, a permission
                assert_same(found, whole)
        assert refused > len(content) * 0.7

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(18), pickle.dumps([1, 2]), b"{}" * 999])
    def test_foreign_files(self, tmp_path: Path, content: bytes) -> None:
        self.refused(tmp_path, content)

    def test_an_ordinary_npz(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "bad.npz", x=np.arange(3.0))
        with pytest.raises(RecordError, match="'header' is missing"):
            read_predictions(tmp_path / "bad.npz")

    def test_a_pickled_object_is_refused_and_never_runs(self, tmp_path: Path, content: bytes) -> None:
        Bomb.target = tmp_path / "ran"
        pickled = npy(np.array([Bomb()], dtype=object), allow_pickle=True)
        for name in ("true.npy", "header.npy", "ids.patterns.npy", "more.npy"):
            bad = repacked(lambda members, name=name: members.__setitem__(name, pickled), content)  # type: ignore[misc]
            self.refused(tmp_path, bad, "Python objects")
        bare = repacked(lambda members: members.__setitem__("true.npy", pickle.dumps(Bomb())), content)
        self.refused(tmp_path, bare, "'true' is not an array")
        assert not Bomb.target.exists()
        pickle.loads(pickle.dumps(Bomb()))
        assert Bomb.target.exists()  # it would have run

    @pytest.mark.parametrize(
        ("name", "member", "reason"),
        [
            ("true.npy", None, "'true' is missing"),
            ("more.npy", npy(np.zeros(1, np.int16)), "'more', which a predictions file does not have"),
            ("true.npy", npy(np.zeros(3, np.int64)), "'true' has the type <i8, which a predictions"),
            ("true.npy", npy(np.zeros((3, 1), np.int16)), "'true' should be int16 of 1 dimensions, but is int16 of 2"),
            ("true.npy", npy(np.zeros(3, np.float16)), "'true' should be int16 of 1 dimensions, but is float16 of 1"),
            ("true.npy", npy(np.zeros(2, np.int16)), "true should be whole numbers of shape"),
            ("true.npy", npy(np.zeros(3, ">i2")), "'true' has the type >i2"),
            ("true.npy", npy(np.zeros(3, "U2")), "'true' has the type <U2"),
            ("true.npy", npy(np.zeros(3, [("a", "<i2")])), "'true' is not an array as mer-bench"),
            ("true.npy", npy(np.zeros((3, 1), np.int16, order="F")), "'true' should be int16 of 1"),
            ("true.npy", npy(np.zeros((3, 2), np.int16, order="F")), "'true' is not an array as mer-bench"),
            ("true.npy", npy(np.zeros(3, np.int16))[:-1], "'true' is not as long as its header says"),
            ("true.npy", npy(np.zeros(3, np.int16)) + b"x", "'true' is not as long"),
            ("true.npy", npy(np.zeros(3, np.int16)).replace(b"(3,)", b"(999999999999,)"), "'true' is not as long"),
            ("true.npy", npy(np.zeros(3, np.int16)).replace(b"(3,)", b"(9999999999999,)"), "'true' is not an array"),
            ("true.npy", npy(np.zeros(3, np.int16)).replace(b"(3,)", b"(-3,"), "'true' is not an array"),
            ("true.npy", npy(np.int16(3)), "'true' is not an array"),
            ("true.npy", npy(np.array([0, 1, 2], np.int16)), r"true should lie in \[-1, 1\]"),
            ("dialogue.npy", npy(np.array([0, 1, 2], np.uint32)), "beyond the list of dialogues"),
            ("ids.pattern.npy", npy(np.array([0, 0, 9], np.uint32)), "do not fit together"),
            ("ids.pattern.npy", npy(np.array([0, 0], np.uint32)), "do not fit together"),
            ("ids.numbers.npy", npy(np.array([[-1], [0], [0]], np.int32)), "a number that no id has"),
            ("ids.patterns.npy", npy(np.frombuffer(b"[[0]]", np.uint8)), "does not hold patterns"),
            ("ids.patterns.npy", npy(np.frombuffer(b'[["a", 0]]', np.uint8)), "does not hold patterns"),
            ("ids.patterns.npy", npy(np.frombuffer(b'[["a", 10, ""]]', np.uint8)), "does not hold patterns"),
            ("ids.patterns.npy", npy(np.frombuffer(b'[["a", 0, "", 0, ""]]', np.uint8)), "does not hold patterns"),
            ("ids.patterns.npy", npy(np.frombuffer(b"[" * 100_000, np.uint8)), "is not JSON"),
            ("ids.patterns.npy", npy(np.frombuffer(b"\xff\xfe", np.uint8)), "is not JSON"),
            ("header.npy", npy(np.frombuffer(b"7", np.uint8)), "header is not that of"),
            ("header.npy", header(format="other"), "header is not that of"),
            ("header.npy", header(version=2), "it has version 2, and this mer-bench reads version 1"),
            ("header.npy", header(kind="novel"), "its kind is 'novel'"),
            ("header.npy", header(kind="dialogue counts"), "'calibration' is missing"),
            ("header.npy", header(classes=None), "names no classes"),
            ("header.npy", header(classes=["sad", 7]), "classes should be non-empty texts"),
            ("header.npy", header(classes=["sad"]), "should lie in"),
        ],
    )
    def test_a_changed_member(
        self, tmp_path: Path, content: bytes, name: str, member: bytes | None, reason: str
    ) -> None:
        def change(members: dict[str, bytes]) -> None:
            if member is None:
                del members[name]
            else:
                members[name] = member

        self.refused(tmp_path, repacked(change, content), reason)

    def test_a_bomb_is_refused_before_it_is_unpacked(
        self, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "_LARGEST_BYTES", 100_000)
        bomb = repacked(lambda members: members.__setitem__("more.npy", bytes(10**6)), content)
        assert len(bomb) < 10_000
        self.refused(tmp_path, bomb, "unpacked it would be larger")
        self.refused(tmp_path, bytes(200_000), "larger than any predictions file")

    def test_members_packed_in_another_way(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("header.npy", header())
        self.refused(tmp_path, stream.getvalue(), "another way than deflate")

    def test_a_member_twice(self, tmp_path: Path, content: bytes) -> None:
        stream = io.BytesIO(content)
        with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("true.npy", npy(np.zeros(3, np.int16)))
        self.refused(tmp_path, stream.getvalue(), "'true' is there twice")


def test_a_file_of_ids_alone_names_what_is_missing() -> None:
    with pytest.raises(RecordError, match="'header' is missing"):
        decode_outcomes(room._zipped({"ids": np.zeros(1)}))


def test_counts_say_how_many_utterances_are_labelled() -> None:
    assert small().utterances == 3
    counts = count_dialogues(small())
    assert isinstance(counts, DialogueCounts)
    assert counts.utterances == 2


class TestHostileParts:
    """A file with subsets and folds that were tampered with."""

    @pytest.fixture
    def content(self, tmp_path: Path) -> bytes:
        write_predictions(tmp_path / "good.npz", in_parts())
        return (tmp_path / "good.npz").read_bytes()

    @pytest.mark.parametrize(
        ("member", "value", "reason"),
        [
            ("subsets.npy", npy(np.ones((3, 3), np.uint8)), "the subset 'all' should be true or false"),
            ("subsets.npy", npy(np.ones((2, 2), np.uint8)), "'subsets' does not say"),
            ("subsets.npy", npy(np.full((3, 2), 2, np.uint8)), "'subsets' does not say"),
            ("subsets.npy", npy(np.ones((3, 2), np.int16)), "'subsets' should be uint8"),
            ("folds.npy", npy(np.ones(3, np.int16)), "folds should be whole numbers of shape"),
            ("folds.npy", npy(np.zeros(2, np.int16)), "folds should lie in"),
            ("header.npy", header(), "it holds 'subsets'"),
            ("folds.npy", None, "'folds' is missing"),
            ("subsets.npy", None, "'subsets' is missing"),
            ("header.npy", header(subsets=["all", "none", "script"]), "it holds 'folds'"),
            ("header.npy", header(subsets="all"), "'subsets' does not say"),
            ("header.npy", header(subsets=["a", "a", "b"]), "'a' occurs twice"),
            ("header.npy", header(subsets=["a", 1, "b"]), "holds 1"),
        ],
    )
    def test_what_contradicts_itself_is_refused(
        self, member: str, value: bytes | None, reason: str, content: bytes, tmp_path: Path
    ) -> None:
        def change(members: dict[str, bytes]) -> None:
            if value is None:
                del members[member]
            else:
                members[member] = value

        (tmp_path / "bad.npz").write_bytes(repacked(change, content))
        with pytest.raises(RecordError, match=reason):
            read_outcomes(tmp_path / "bad.npz")

    def test_every_flipped_byte_is_refused_or_changes_nothing(self, content: bytes) -> None:
        whole = decode_outcomes(content)
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 0x41
            try:
                found = decode_outcomes(bytes(damaged))
            except RecordError:
                continue
            assert_same(found, whole)
