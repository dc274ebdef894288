"""Every layout: recognised by its structure, never by its name, and read utterance by utterance."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench.data import community
from mer_bench.data.community import BY_ID, LAYOUTS, read_release, recognise
from mer_bench.data.store import SPLITS
from mer_bench.errors import DataError, MerBenchError, MissingDataError, SettingError, UnknownNameError

from ..python2 import Python2Pickler  # noqa: TID252 - no folder of tests is a package
from .releases import (
    CLASSES,
    DEV,
    FOUR,
    LENGTHS,
    MERGED,
    NAMES,
    TEST,
    TRAIN,
    WHO,
    layers,
    meld,
    nine,
    numbered,
    one_hot,
    parts,
    releases,
    sdt,
    vectors,
)

ALL = releases()
TOLD_APART = [name for name in ALL if name not in ("sdt-iemocap", "graphsmile-iemocap", "m3ed")]
SPLIT = {**dict.fromkeys(TRAIN, 0), **dict.fromkeys(DEV, 1), **dict.fromkeys(TEST, 2)}


def write(folder: Path, values: list[Any], protocol: int = 4) -> list[Path]:
    """Files whose names say nothing."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"x{place}.pkl" for place in range(len(values))]
    for file, value in zip(files, values, strict=True):
        file.write_bytes(pickle.dumps(value, protocol=protocol))
    return files


def mosi_files(folder: Path) -> list[Path]:
    files = [folder / f"{name}.pickle" for name in ("text", "audio", "video")]
    for file, value in zip(files, ALL["bc-lstm-mosi"], strict=True):
        file.write_bytes(pickle.dumps(value))
    return files


def flat(by_dialogue: dict[str, Any]) -> list[Any]:
    return [value for name in NAMES for value in by_dialogue[name]]


def corpus_of(release: community.Release, **options: Any) -> Any:
    """The corpus; where the files list no dev dialogue `c1` is dev."""
    numbering = (3, 1, 1) if release.layout.numbering else None
    if numbering is None and "dev" not in release.summary().splits:
        options.setdefault("dev", DEV)
    return release.corpus(counts=numbering, **options)


class TestRecognised:
    def test_every_layout_is_written_here(self) -> None:
        single = {layout.id for layout in LAYOUTS}
        assert single - {f"bc-lstm-mosi-{name}" for name in ("text", "audio", "visual")} == {*ALL, *parts()}

    @pytest.mark.parametrize("name", [name for name in TOLD_APART if name != "bc-lstm-mosi"])
    def test_by_structure(self, tmp_path: Path, name: str) -> None:
        files = write(tmp_path, ALL[name])
        assert read_release(files).layout.id == name
        assert read_release(list(reversed(files))).layout.id == name
        assert read_release([tmp_path]).layout.id == name
        assert read_release(files).files == tuple(files)

    @pytest.mark.parametrize("name", ["sdt-iemocap", "graphsmile-iemocap", "m3ed", "dialoguernn", "mmgcn-meld"])
    def test_by_request(self, tmp_path: Path, name: str) -> None:
        assert read_release(write(tmp_path, ALL[name]), name).layout.id == name

    def test_two_of_one_structure_are_asked_about(self, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match=r"may be sdt-iemocap .* or graphsmile-iemocap .*--layout"):
            read_release(write(tmp_path, [sdt()]))

    def test_a_file_name_tells_apart_only_what_is_the_same_in_structure(self, tmp_path: Path) -> None:
        release = read_release(mosi_files(tmp_path))
        assert release.layout.id == "bc-lstm-mosi"
        assert [file.name for file in release.files] == ["text.pickle", "audio.pickle", "video.pickle"]
        with pytest.raises(SettingError, match=r"bc-lstm-mosi-text .* or bc-lstm-mosi-visual"):
            read_release(write(tmp_path / "nameless", [ALL["bc-lstm-mosi"][0]]))
        wrong = tmp_path / "video.pickle"
        wrong.write_bytes(pickle.dumps(ALL["mmgcn-meld"][0]))
        assert read_release([wrong]).layout.id == "mmgcn-meld"

    @pytest.mark.parametrize("name", [name for name in parts() if name != "mertools-labels"])
    def test_parts_are_told_and_are_no_corpus(self, tmp_path: Path, name: str) -> None:
        release = read_release(write(tmp_path, [parts()[name]]))
        assert release.layout.id == name
        assert release.summary().missing == (release.layout.incomplete,)
        with pytest.raises(SettingError):
            release.corpus()

    def test_an_npz_with_objects(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "label.npz", **parts()["mertools-labels"])
        assert read_release([tmp_path / "label.npz"]).layout.id == "mertools-labels"

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            ([1, 2], r"none of the layouts.*list of 2 fields; 0: int; 1: int"),
            ({"a": [1]}, "dict of 1 of list of 1 numbers"),
            (None, "NoneType"),
            (np.zeros((2, 3)), "array 2 x 3"),
            ([], "list of 0 fields"),
            (list(range(40)), "19: int; and 20 more"),
            (meld([*nine((600, 300, 341), one_hot()), 0]), r"nearest: mmgcn-meld .*field 5 \(visual\).*342.*5:.*341"),
            (nine((100, 1582, 342), labels={name: ["x"] * 9 for name in NAMES}), r"field 2 \(emotion\) should hold"),
            ([*nine((100, 1582, 342))[:7], 3, 4], r"field 7 \(train\) should be a list of dialogues"),
            ([{1: of} if isinstance(of, dict) else of for of in nine((100, 1582, 342))], "none of the layouts"),
        ],
    )  # fmt: skip
    def test_what_is_not_known_is_described(self, tmp_path: Path, value: Any, says: str) -> None:
        with pytest.raises(DataError, match=says):
            read_release(write(tmp_path, [value]))

    def test_wrong_requests(self, tmp_path: Path) -> None:
        files = write(tmp_path, ALL["mmgcn-iemocap"])
        with pytest.raises(UnknownNameError, match="mmgcn-meld"):
            read_release(files, "mmgcn-mled")
        with pytest.raises(DataError, match=r"layout mmgcn-meld .*10 fields. It holds: list of 9 fields"):
            read_release(files, "mmgcn-meld")
        with pytest.raises(MissingDataError, match="is not there"):
            read_release([tmp_path / "none.pkl"])
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingDataError, match="holds no file"):
            read_release([tmp_path / "empty"])
        with pytest.raises(MissingDataError, match="no file"):
            read_release([])

    def test_files_that_do_not_belong_together(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"no release together: .*mmgcn-iemocap.*cosmic-meld"):
            read_release(write(tmp_path, [ALL["mmgcn-iemocap"][0], ALL["cosmic-meld"][0]]))
        with pytest.raises(DataError, match="no release together"):
            read_release(write(tmp_path, [ALL["mmgcn-iemocap"][0]] * 2))


class TestCorpus:
    @pytest.mark.parametrize("name", [name for name in ALL if name not in ("bc-lstm-mosi", "conv-emotion-avec")])
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_labels_speakers_and_order(self, tmp_path: Path, name: str, protocol: int) -> None:
        release = read_release(write(tmp_path, ALL[name], protocol), name)
        corpus = corpus_of(release)
        if release.layout.numbering:
            assert corpus.dialogue_ids == ["train/dia0", "train/dia1", "train/dia2", "dev/dia0", "test/dia0"]
        else:
            assert corpus.dialogue_ids == list(NAMES)
        assert corpus.lengths == list(LENGTHS.values())
        assert corpus.splits == [0, 0, 0, 1, 2]
        labels = FOUR if name.endswith("-4") else CLASSES
        if not isinstance(release.classes(), tuple) or "mos" not in name:
            assert corpus.labels == flat(labels)
        start = 0
        for dialogue, length in LENGTHS.items():
            who = corpus.speakers[start : start + length]
            pattern = [who.index(each) for each in who]
            expected = (
                [0] * length
                if name in ("cogmen-mosei", "gcnet-mosi")
                else [WHO[dialogue].index(x) for x in WHO[dialogue]]
            )
            assert pattern == expected
            start += length
        if corpus.texts is not None:
            assert corpus.texts[1] == "café, turn’s 1"
        assert len(set(corpus.utterance_ids)) == sum(LENGTHS.values())
        for modality, measured in corpus.measurements.items():
            assert measured.values.shape == (12, release.summary().widths[modality])
            assert measured.present.all()

    def test_the_values_of_a_modality(self, tmp_path: Path) -> None:
        corpus = corpus_of(read_release(write(tmp_path, ALL["mmgcn-iemocap"])))
        np.testing.assert_array_equal(corpus.measurements["audio"].values, flat(vectors(1582, 1)))
        assert corpus.utterance_ids[:4] == ["a1_u0", "a1_u1", "a1_u2", "a2_u0"]

    @pytest.mark.parametrize("name", ["cosmic-emorynlp", "m3net-iemocap", "graphsmile-iemocap"])
    def test_text_is_the_mean_of_four_layers(self, tmp_path: Path, name: str) -> None:
        text = corpus_of(read_release(write(tmp_path, ALL[name]), name)).measurements["text"].values
        expected = np.mean([flat(layer) for layer in layers()], axis=0, dtype=np.float64)
        np.testing.assert_allclose(text, expected, rtol=1e-6, atol=1e-6)

    def test_sdt_takes_the_first_layer(self, tmp_path: Path) -> None:
        text = corpus_of(read_release(write(tmp_path, [sdt()]), "sdt-iemocap")).measurements["text"].values
        np.testing.assert_array_equal(text, flat(layers()[0]))

    def test_knowledge_stands_side_by_side(self, tmp_path: Path) -> None:
        corpus = corpus_of(read_release(write(tmp_path, ALL["cosmic-iemocap-comet"])))
        expected = np.concatenate([flat(vectors(8, place)) for place in range(9)], axis=1)
        np.testing.assert_array_equal(corpus.measurements["knowledge"].values, expected)

    def test_frames_become_their_mean(self, tmp_path: Path) -> None:
        audio = corpus_of(read_release(write(tmp_path, ALL["cogmen-mosei"]))).measurements["audio"].values
        assert audio[:, 0].tolist() == [turn + 1 for length in LENGTHS.values() for turn in range(length)]

    def test_scores_become_classes(self, tmp_path: Path) -> None:
        # Scores are class - 2.5: -2.5, 2.5, -0.5 | 0.5, 0.5 | -1.5, -2.5, 1.5, -0.5 | -0.5 | 2.5, -2.5
        release = read_release(write(tmp_path, ALL["graphsmile-mosei"]))
        assert corpus_of(release).labels == [0, 6, 2, 4, 4, 1, 0, 5, 2, 2, 6, 0]
        assert corpus_of(release, edges=[0.0]).labels == [0, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0]
        assert release.classes(edges=[1, -1]) == ("under -1", "-1 to 1", "1 and over")
        on_the_edges = {name: [0.0] * length for name, length in LENGTHS.items()}
        on_the_edges["a1"] = [-2.0, -1.0, 1.0]
        on_the_edges["b1"] = [2.0, 0.0, 2.01, -2.01]
        release = read_release(write(tmp_path, [nine((1024, 384, 35), labels=on_the_edges)]))
        assert corpus_of(release).labels[:9] == [1, 2, 4, 3, 3, 5, 3, 6, 0]
        release = read_release(write(tmp_path, ALL["gcnet-mosi"]))
        assert release.classes() == ("negative", "positive")
        avec = read_release(write(tmp_path, ALL["conv-emotion-avec"]))
        with pytest.raises(SettingError, match="give edges"):
            corpus_of(avec)
        assert set(corpus_of(avec, edges=[-1, 1]).labels) == {0, 1, 2}

    def test_padded_arrays(self, tmp_path: Path) -> None:
        release = read_release(mosi_files(tmp_path))
        corpus = release.corpus(dev=["train/1"])
        assert corpus.dialogue_ids == ["train/0", "train/2", "train/1", "test/0", "test/1"]
        assert corpus.lengths == [4, 3, 2, 2, 1]
        assert corpus.labels == [1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1]
        audio = ALL["bc-lstm-mosi"][1]
        np.testing.assert_array_equal(corpus.measurements["audio"].values[4:7], audio[0][2, :3])
        np.testing.assert_array_equal(corpus.measurements["visual"].values[11], ALL["bc-lstm-mosi"][2][2][1, 0])

    def test_which_dialogues_are_dev(self, tmp_path: Path) -> None:
        release = read_release(write(tmp_path, ALL["mmgcn-iemocap"]))
        with pytest.raises(SettingError, match="Say which dialogues are dev"):
            release.corpus()
        assert release.corpus(dev=["a2"]).splits == [0, 0, 0, 1, 2]
        assert release.corpus(dev=["a2"]).dialogue_ids == ["a1", "b1", "c1", "a2", "d1"]
        with pytest.raises(SettingError, match="no dialogue zz"):
            release.corpus(dev=["zz"])
        with pytest.raises(SettingError, match=r"dialogue d1 should be dev, but .* in test"):
            release.corpus(dev=["d1"])
        split = {"a1": 2, "a2": 1, "b1": 0, "c1": 0, "d1": 1}
        assert release.corpus(splits=split).dialogue_ids == ["b1", "c1", "a2", "d1", "a1"]
        with pytest.raises(DataError, match="dialogue d1, which is in no split"):
            release.corpus(splits=dict.fromkeys(MERGED, 0))

    def test_a_row_of_zeros_is_missing(self, tmp_path: Path) -> None:
        value = nine((100, 1582, 342))
        value[5]["b1"][2] = np.zeros(342)
        corpus = corpus_of(read_release(write(tmp_path, [value])))
        assert np.flatnonzero(~corpus.measurements["visual"].present).tolist() == [7]
        assert corpus.notes["visual: rows of zeros, taken as missing"] == 1

    def test_dialogues_in_no_list_are_counted(self, tmp_path: Path) -> None:
        value = nine((100, 1582, 342))
        value[7] = ["a1", "b1", "c1"]
        corpus = corpus_of(read_release(write(tmp_path, [value])))
        assert corpus.dialogue_ids == ["a1", "b1", "c1", "d1"]
        assert corpus.notes["dialogues in no list of the files, left out"] == 1

    def test_two_files_that_disagree(self, tmp_path: Path) -> None:
        other = releases()["cosmic-iemocap"][0]
        other[1] = {**CLASSES, "b1": [1, 0, 4, 3]}
        release = read_release(write(tmp_path, [ALL["mmgcn-iemocap"][0], other]))
        with pytest.raises(DataError, match=r"disagree: the labels \(emotion\) of dialogue 'b1'"):
            corpus_of(release)

    def test_the_summary(self, tmp_path: Path) -> None:
        summary = read_release(write(tmp_path, ALL["conv-emotion-meld"])).summary()
        assert (summary.corpus, summary.dialogues, summary.utterances) == ("meld", 5, 12)
        assert summary.widths == {"text": 600, "audio": 300}
        assert summary.splits == {"train": (4, 10), "test": (1, 2)}
        assert summary.missing == ("a list of dev dialogues", "visual features")
        assert summary.caveats[0] == "Its train list holds train and dev together."
        assert summary.labels["sentiment"] == ("neutral", "positive", "negative")

    def test_labels_that_it_does_not_have(self, tmp_path: Path) -> None:
        release = read_release(write(tmp_path, ALL["cosmic-meld"]))
        assert corpus_of(release, labels="sentiment").labels == [label % 3 for label in flat(CLASSES)]
        with pytest.raises(SettingError, match="has emotion and sentiment alone"):
            corpus_of(release, labels="act")

    @pytest.mark.parametrize(
        ("place", "change", "says"),
        [
            (2, lambda of: of["a1"].__setitem__(0, 6), "dialogue a1, turn 0: the emotion .*0 to 5, but is 6"),
            (1, lambda of: of.pop("a1"), "'a1' is missing"),
            (1, lambda of: of.__setitem__("b1", 3), "'b1' should have a list, but has int"),
            (3, lambda of: of.__setitem__("a2", np.array(3.0)), "'a2' should have a list"),
            (3, lambda of: of["a2"].pop(), "dialogue a2 has 2 labels .* and 1 text"),
            (3, lambda of: of["a2"].__setitem__(0, {}), "dialogue a2, turn 0: text .*but is dict"),
            (4, lambda of: of["a2"].__setitem__(0, np.full(1582, 1e300)), "too large"),
            (6, lambda of: of["b1"].__setitem__(1, None), "dialogue b1, turn 1: there should be a text"),
            (7, lambda of: of.append("zz"), "'zz' is listed"),
            (7, lambda of: of.append("a1"), "holds a dialogue twice"),
            (8, lambda of: of.append("a1"), "'a1' is listed in train and in test"),
        ],
    )  # fmt: skip
    def test_wrong_content_is_placed(self, tmp_path: Path, place: int, change: Any, says: str) -> None:
        value = pickle.loads(pickle.dumps(nine((100, 1582, 342))))
        change(value[place])
        with np.errstate(over="ignore"), pytest.raises(DataError, match=says):
            corpus_of(read_release(write(tmp_path, [value])))

    @pytest.mark.parametrize("name", ["mmgcn-iemocap", "mmgcn-meld", "cosmic-emorynlp", "graphsmile-meld"])
    def test_python_2(self, tmp_path: Path, name: str) -> None:
        written = Python2Pickler().dumps(ALL[name][0])
        assert "SHORT_BINSTRING" in {code.name for code, _, _ in pickletools.genops(written)}
        old, new = tmp_path / "old.pkl", tmp_path / "new.pkl"
        old.write_bytes(written)
        new.write_bytes(pickle.dumps(ALL[name][0]))
        found, expected = (corpus_of(read_release([file])) for file in (old, new))
        assert found.texts == expected.texts
        assert found.labels == expected.labels
        for modality in expected.measurements:
            np.testing.assert_array_equal(found.measurements[modality].values, expected.measurements[modality].values)

    def test_lists_of_floats_and_whole_arrays_are_the_same(self, tmp_path: Path) -> None:
        value = ALL["mmgcn-iemocap"][0]
        changed = list(value)
        changed[3] = {name: [[float(each) for each in row] for row in of] for name, of in value[3].items()}
        changed[4] = {name: np.stack(of) for name, of in value[4].items()}
        changed[5] = {name: tuple([float(each) for each in row] for row in of) for name, of in value[5].items()}
        for protocol in (0, 2, 4):
            found, expected = (corpus_of(read_release(write(tmp_path, [each], protocol))) for each in (changed, value))
            for modality in expected.measurements:
                np.testing.assert_array_equal(
                    found.measurements[modality].values, expected.measurements[modality].values
                )


JUNK: list[Any] = [
    None, 1, -1, 1.5, float("nan"), True, "x", b"x", (), [], {}, set(), {"a1": 1}, [None], np.array(3), np.zeros(0),
    np.zeros((2, 2, 2)), np.array([None, "a"], dtype=object), np.array("a"), {None: 1}, {("a", 1): [1]}, [[1], [2, 3]],
    10**30, np.float32("inf"), {"a1": {}, "b1": set()}, np.array([["a"]]), {1: [1], "a": [2]},
]  # fmt: skip


class TestAnswers:
    """Whatever stands in the fields: a corpus, or one of our own errors."""

    @pytest.mark.parametrize("name", ["mmgcn-meld", "cogmen-mosei", "gcnet-mosi", "mmgcn-dailydialog", "dialoguernn"])
    def test_a_field_of_anything(self, tmp_path: Path, name: str) -> None:
        for place in range(len(ALL[name][0])):
            for junk in JUNK:
                value = list(ALL[name][0])
                value[place] = junk
                self.tried(value, name)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from([name for name in ALL if len(ALL[name]) == 1]),
        place=st.integers(0, 13),
        dialogue=st.sampled_from([*NAMES, 0, 2]),
        turn=st.none() | st.integers(0, 3),
        junk=st.sampled_from(JUNK),
    )
    def test_junk_deep_inside(self, name: str, place: int, dialogue: Any, turn: int | None, junk: Any) -> None:
        value = list(ALL[name][0])
        place %= len(value)
        if isinstance(value[place], dict):
            value[place] = dict(value[place])
            if turn is None or not isinstance(value[place].get(dialogue), list):
                value[place][dialogue] = junk
            else:
                turns = list(value[place][dialogue])
                turns[turn % len(turns)] = junk
                value[place][dialogue] = turns
        self.tried(value, name)

    @pytest.mark.parametrize("place", range(7))
    def test_arrays_of_anything(self, tmp_path: Path, place: int) -> None:
        more = [
            np.zeros((3, 4), "U2"),
            np.full((3, 4), np.nan),
            np.zeros((3, 4, 0)),
            [1.5, 2.0, float("nan")],
            [9, 9, 9],
        ]
        for junk in [*JUNK, *more]:
            value = list(ALL["bc-lstm-mosi"][1])
            value[place] = junk
            self.tried(value, None)

    @pytest.mark.parametrize("name", parts())
    def test_parts_of_anything(self, name: str) -> None:
        value = parts()[name]
        for junk in JUNK:
            if isinstance(value, list):
                for place in range(len(value)):
                    self.tried([*value[:place], junk, *value[place + 1 :]], None)
            else:
                self.tried({**value, next(iter(value)): junk}, None)

    def tried(self, value: Any, name: str | None) -> None:
        with contextlib.suppress(MerBenchError):
            release = recognise(value, Path("x.pkl"), name)
            release.summary()
            corpus_of(release)


class TestArchives:
    def test_arrays_are_read(self, tmp_path: Path) -> None:
        values = {
            "numbers": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
            "text": np.array(["a", "bc"]), "objects": np.array([{"a": 1}, None], dtype=object),
            "empty": np.zeros((0, 2)),
        }  # fmt: skip
        for save in (np.savez, np.savez_compressed):
            save(tmp_path / "x.npz", **values)  # type: ignore[arg-type]
            found = community.read_value(tmp_path / "x.npz")
            assert list(found) == list(values)
            for name, array in values.items():
                np.testing.assert_array_equal(found[name], array)
        np.save(tmp_path / "x.npy", values["fortran"])
        np.testing.assert_array_equal(community.read_value(tmp_path / "x.npy"), values["fortran"])

    def test_a_pickle_inside_is_not_run(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"

        class Hostile:
            def __reduce__(self) -> Any:
                return (open, (str(trace), "w"))

        np.savez(tmp_path / "x.npz", a=np.array([Hostile()], dtype=object))
        with pytest.raises(DataError, match="asks for"):
            community.read_value(tmp_path / "x.npz")
        assert not trace.exists()

    def test_bombs_are_not_unfolded(self, tmp_path: Path) -> None:
        file = tmp_path / "x.npz"
        np.savez_compressed(file, a=np.zeros((100_000_000,), np.uint8))
        assert file.stat().st_size < 200_000
        with pytest.raises(DataError, match="unfolds to"):
            community.read_value(file)

    def test_an_archive_of_something_else(self, tmp_path: Path) -> None:
        import gzip
        import zipfile

        file = tmp_path / "x.pkl"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("features.pkl", pickle.dumps([1]))
        with pytest.raises(DataError, match="unpack it first"):
            community.read_value(file)
        file.write_bytes(gzip.compress(pickle.dumps([1])))
        with pytest.raises(DataError, match="gzip; unpack it first"):
            community.read_value(file)

    def test_damage_anywhere_is_answered(self, tmp_path: Path) -> None:
        file = tmp_path / "x.npz"
        content = io.BytesIO()
        np.savez_compressed(content, a=np.arange(50.0), b=np.array([{"a": 1}], dtype=object))
        whole = content.getvalue()
        random = np.random.default_rng(0)
        for end in range(0, len(whole), 7):
            file.write_bytes(whole[:end])
            with pytest.raises(DataError):
                community.read_value(file)
        for _ in range(400):
            changed = bytearray(whole)
            for place in random.integers(0, len(whole), 2):
                changed[place] = random.integers(0, 256)
            file.write_bytes(bytes(changed))
            with contextlib.suppress(MerBenchError):
                community.read_value(file)

    @pytest.mark.parametrize(
        "header",
        [
            "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000000,), }",
            "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
            "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '|V8', 'fortran_order': False, 'shape': (1,), }",
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "__import__('os').system('true')",
            "(" * 500,
            "{",
        ],
    )
    def test_hostile_headers(self, tmp_path: Path, header: str) -> None:
        text = header.encode() + b"\n"
        file = tmp_path / "x.npy"
        file.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\x80\x02N." + bytes(8))
        with pytest.raises(DataError):
            community.read_value(file)


def test_names_say_what_they_are() -> None:
    """Ids are unique; what the table names exists."""
    assert len(BY_ID) == len(LAYOUTS)
    for layout in LAYOUTS:
        assert bool(layout.fields) != bool(layout.parts)
        assert all(name in BY_ID for names in layout.parts for name in names)
        roles = [field.role for field in layout.fields if field.role != "unused"]
        assert len(set(roles)) == len(roles), layout.id
    assert SPLITS == ("train", "dev", "test")
    assert numbered(["a1", "d1"]) == [0, 4]
