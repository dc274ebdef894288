"""The MMGCN pickle of MELD, in small files written here in its exact layout, by Python 2's and 3's protocols."""

from __future__ import annotations

import copy
import pickle
import pickletools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mer_bench_datasets.meld.reader import Meld

from mer_bench import registry
from mer_bench.api import DatasetCard, PreparationRequest, StoreContent
from mer_bench.cards import SplitCount
from mer_bench.errors import DataError, MissingDataError, SettingError, UnsafePickleError

from ..data.python2 import Python2Pickler  # noqa: TID252 - no folder of tests is a package

SOURCE = "MELD_features_raw1.pkl"

# Train 0, 1, 3 (2 does not exist, as 60 in the real file), dev 4, test 5 and 6.
LENGTHS = {0: 3, 1: 1, 3: 2, 4: 2, 5: 4, 6: 1}
SPEAKERS = {0: [4, 2, 4], 1: [0], 3: [1, 0], 4: [8, 8], 5: [0, 3, 5, 0], 6: [7]}
LABELS = {0: [0, 6, 2], 1: [4], 3: [1, 0], 4: [3, 5], 5: [0, 0, 1, 4], 6: [6]}
COUNTS = {
    "train": SplitCount(dialogues=3, utterances=6),
    "dev": SplitCount(dialogues=1, utterances=2),
    "test": SplitCount(dialogues=2, utterances=5),
}


def one_hot(index: int) -> list[int]:
    return [int(place == index) for place in range(9)]


def vectors(dialogue: int, width: int) -> list[np.ndarray[Any, np.dtype[np.float32]]]:
    random = np.random.default_rng(dialogue * 1000 + width)
    return list(random.normal(3.0, 2.0, (LENGTHS[dialogue], width)).astype(np.float32))


def fields() -> list[Any]:
    return [
        {number: [f"dia{number}_utt{turn}" for turn in range(length)] for number, length in LENGTHS.items()},
        {number: [one_hot(index) for index in who] for number, who in SPEAKERS.items()},
        copy.deepcopy(LABELS),
        *({number: vectors(number, width) for number in LENGTHS} for width in (600, 300, 342)),
        {number: [f"d\xe9j\xe0 vu {turn}" for turn in range(length)] for number, length in LENGTHS.items()},
        [0, 1, 3, 4],
        [5, 6],
        {number: [0] * length for number, length in LENGTHS.items()},
    ]


WRITERS: dict[str, Callable[[Any], bytes]] = {
    "python 2": Python2Pickler().dumps,
    **{f"protocol {protocol}": partial(pickle.dumps, protocol=protocol) for protocol in range(6)},
}


@pytest.fixture
def card() -> DatasetCard:
    real = registry.datasets().find("meld").card
    return real.model_copy(update={"counts": {"official": COUNTS}})


def prepare(card: DatasetCard, folder: Path, data: bytes, labels: str = "emotion") -> StoreContent:
    file = folder / SOURCE
    file.write_bytes(data)
    made: StoreContent = Meld(card).prepare(PreparationRequest("mmgcn", labels, "official", None, {SOURCE: file}))
    return made


def test_the_python_2_writer_is_right() -> None:
    """Python's own unpickler reads its files as the published loaders do."""
    data = WRITERS["python 2"](fields())
    names = {code.name for code, _, _ in pickletools.genops(data)}
    assert {"SHORT_BINSTRING", "BINSTRING", "GLOBAL"} <= names
    assert not {"BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "STACK_GLOBAL"} & names
    back = pickle.loads(data, encoding="latin1")
    assert back[6] == fields()[6]
    np.testing.assert_array_equal(back[3][5][2], vectors(5, 600)[2])


@pytest.mark.parametrize("writer", WRITERS)
def test_everything_is_read(card: DatasetCard, tmp_path: Path, writer: str) -> None:
    content = prepare(card, tmp_path, WRITERS[writer](fields()))
    assert content.classes == ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    assert content.splits.tolist() == [0, 0, 0, 1, 2, 2]
    assert content.offsets.tolist() == [0, 3, 4, 6, 8, 12, 13]
    assert content.labels.tolist() == [0, 6, 2, 4, 1, 0, 3, 5, 0, 0, 1, 4, 6]
    assert content.speakers.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0]
    assert list(content.dialogue_ids) == [
        "train/dia0", "train/dia1", "train/dia3", "dev/dia0", "test/dia0", "test/dia1",
    ]  # fmt: skip
    assert content.utterance_ids[7] == "dev/dia0_turn1"
    for name, width in (("text", 600), ("audio", 300), ("visual", 342)):
        raw = np.concatenate([vectors(number, width) for number in sorted(LENGTHS)]).astype(np.float64)
        expected = (raw - raw[:6].mean(axis=0)) / raw[:6].std(axis=0)
        np.testing.assert_allclose(content.features[name], expected, rtol=1e-4, atol=1e-5)
        assert content.features[name].dtype == np.float32
        assert content.present[name].all()


def test_vectors_may_be_lists_or_one_array(card: DatasetCard, tmp_path: Path) -> None:
    expected = prepare(card, tmp_path, pickle.dumps(fields()))
    changed = fields()
    changed[3] = {number: [vector.tolist() for vector in of] for number, of in changed[3].items()}
    changed[4] = {number: np.stack(of) for number, of in changed[4].items()}
    found = prepare(card, tmp_path, pickle.dumps(tuple(changed)))
    for name in expected.features:
        np.testing.assert_array_equal(found.features[name], expected.features[name])


def test_a_first_list_without_dev_is_read_as_well(card: DatasetCard, tmp_path: Path) -> None:
    changed = fields()
    changed[7] = {3, 0, 1}
    changed[8] = (6, 5)
    assert prepare(card, tmp_path, pickle.dumps(changed)).splits.tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("ids", [None, [], {0: "x"}])
def test_the_ids_of_utterances_are_not_needed(card: DatasetCard, tmp_path: Path, ids: Any) -> None:
    assert prepare(card, tmp_path, pickle.dumps(replaced(0, ids))).labels.tolist()[:3] == LABELS[0]


def test_the_order_of_the_dicts_does_not_matter(card: DatasetCard, tmp_path: Path) -> None:
    changed = fields()
    for place in range(7):
        changed[place] = dict(reversed(changed[place].items()))
    changed[7].reverse()
    found, expected = (prepare(card, tmp_path, pickle.dumps(value)) for value in (changed, fields()))
    np.testing.assert_array_equal(found.features["visual"], expected.features["visual"])
    assert found.labels.tolist() == expected.labels.tolist()


def test_statistics_come_from_train_alone(card: DatasetCard, tmp_path: Path) -> None:
    changed = fields()
    for number in (4, 5, 6):
        changed[3][number] = [vector * 100 + 7 for vector in changed[3][number]]
    found, expected = (prepare(card, tmp_path, pickle.dumps(value)) for value in (changed, fields()))
    np.testing.assert_array_equal(found.features["text"][:6], expected.features["text"][:6])
    assert found.pipeline.keys() == expected.pipeline.keys()
    for name, array in expected.pipeline.items():
        np.testing.assert_array_equal(found.pipeline[name], array)


def test_a_row_of_zeros_is_missing_not_zero(card: DatasetCard, tmp_path: Path) -> None:
    changed = fields()
    changed[5][0][1] = np.zeros(342, dtype=np.float32)
    content = prepare(card, tmp_path, pickle.dumps(changed))
    assert np.flatnonzero(~content.present["visual"]).tolist() == [1]
    assert not content.features["visual"][1].any()
    assert content.notes["visual: rows of zeros, taken as missing"] == 1


def replaced(place: int, value: Any) -> list[Any]:
    changed = fields()
    changed[place] = value
    return changed


class TestRefused:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ({"a": 1}, "one list of 10 fields.*dict of 1"),
            ([1, 2], "one list of 10 fields.*list of 2 fields; 0: int; 1: int"),
            (fields()[:9], r"9 fields; .*3: dict of 6 of list of 3 vectors of width 600; .*8: list of 2 numbers"),
            (replaced(2, [1, 2]), r"field 2 \(emotion\) should be a dict"),
            (replaced(6, {}), r"field 6 \(sentences\)"),
            (replaced(3, fields()[4]), r"field 3 \(text\) should hold vectors of width 600.*3: .*width 300"),
            (replaced(5, {number: [[0.0] * 512] * 9 for number in LENGTHS}), r"field 5 \(visual\).*width 512"),
            (replaced(1, {number: ["M"] * length for number, length in LENGTHS.items()}), r"field 1 \(speakers\)"),
            (replaced(6, {number: [0] * length for number, length in LENGTHS.items()}), "should hold strings"),
            (replaced(6, dict.fromkeys(LENGTHS, "text")), "should have a list for each dialogue"),
            (replaced(4, {number: of for number, of in fields()[4].items() if number != 5}), r"field 4 \(audio\)"),
            (replaced(7, 3), r"field 7 \(train\)"),
            (replaced(8, ["5", "6"]), r"field 8 \(test\)"),
            ([{str(k): v for k, v in field.items()} for field in fields()[:7]] + fields()[7:], "should be numbered"),
        ],
    )  # fmt: skip
    def test_another_layout_is_described(self, card: DatasetCard, tmp_path: Path, value: Any, reason: str) -> None:
        with pytest.raises(DataError, match=f"(?s){SOURCE}.*{reason}"):
            prepare(card, tmp_path, pickle.dumps(value))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda f: f[2][5].__setitem__(1, 7), "dialogue 5, turn 1: the emotion .*0 to 6, but is 7"),
            (lambda f: f[2][5].__setitem__(1, -1), "but is -1"),
            (lambda f: f[2][5].__setitem__(1, 1.0), "but is 1.0"),
            (lambda f: f[1][4].__setitem__(1, [0] * 9), "dialogue 4, turn 1: the speaker"),
            (lambda f: f[1][4].__setitem__(1, [1, 1] + [0] * 7), "one-hot"),
            (lambda f: f[1][4].__setitem__(1, [1]), "one-hot"),
            (lambda f: f[4][3].__setitem__(0, np.full(300, np.nan)), "dialogue 3, turn 0: audio is NaN"),
            (lambda f: f[4][3].__setitem__(1, np.zeros(299)), "dialogue 3, turn 1: audio .*width 300"),
            (lambda f: f[4][3].__setitem__(1, ["x"] * 300), "dialogue 3, turn 1: audio .*300 strings"),
            (lambda f: f[4][3].__setitem__(1, [[1.0], [1.0, 2.0]]), "dialogue 3, turn 1: audio .*list of 2"),
            (lambda f: f[4][3].pop(), "dialogue 3 has 2 labels .* and 1 audio"),
            (lambda f: f[6][3].append("more"), "dialogue 3 has 2 labels .* and 3 sentences"),
            (lambda f: [f[place][0].pop() for place in range(7)], "5 train utterances, but .* holds 6"),
            (lambda f: ([f[place].pop(3) for place in range(7)], f[7].remove(3)), "5 dialogues, but .* holds 6"),
            (lambda f: f[8].append(4), "dialogue 4 is listed in train and in test"),
            (lambda f: f[8].append(f[7].pop()), "test dialogues .* lists 3, and dialogue 4 is one of them"),
            (lambda f: [f[place].pop(3) for place in range(7)], "dialogue 3 is listed, but"),
            (lambda f: f[8].pop(), "lists 1, and dialogue 6 is not among them"),
            (lambda f: f[8].append(5), "holds a dialogue twice"),
            (lambda f: f[7].append(5), "dialogue 5 is listed in train and in test"),
            (lambda f: f[7].pop(0), "train dialogues should be the 3"),
        ],
    )
    def test_wrong_content_is_placed(
        self, card: DatasetCard, tmp_path: Path, change: Callable[[list[Any]], Any], reason: str
    ) -> None:
        value = fields()
        change(value)
        with pytest.raises(DataError, match=f"{SOURCE}.*{reason}"):
            prepare(card, tmp_path, pickle.dumps(value))

    def test_the_published_counts_are_what_is_checked(self, tmp_path: Path) -> None:
        real = registry.datasets().find("meld").card
        with pytest.raises(DataError, match="holds 6 dialogues, but the published file holds 1432"):
            prepare(real, tmp_path, pickle.dumps(fields()))

    def test_a_hostile_file(self, card: DatasetCard, tmp_path: Path) -> None:
        with pytest.raises(UnsafePickleError, match=r"'os\.system'"):
            prepare(card, tmp_path, b"cos\nsystem\n(S'true'\ntR.")

    def test_other_labels(self, card: DatasetCard, tmp_path: Path) -> None:
        with pytest.raises(SettingError, match="sentiment"):
            prepare(card, tmp_path, pickle.dumps(fields()), labels="sentiment")

    def test_a_file_that_is_gone(self, card: DatasetCard, tmp_path: Path) -> None:
        request = PreparationRequest("mmgcn", "emotion", "official", None, {SOURCE: tmp_path / SOURCE})
        with pytest.raises(MissingDataError):
            Meld(card).prepare(request)


def test_the_plugin_uses_it(tmp_path: Path) -> None:
    file = tmp_path / SOURCE
    file.write_bytes(pickle.dumps([1]))
    request = PreparationRequest("mmgcn", "emotion", "official", None, {SOURCE: file})
    with pytest.raises(DataError, match="layout mmgcn-meld"):
        registry.load_dataset("meld").prepare(request)
