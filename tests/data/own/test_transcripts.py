"""Rows of dialogues: what is wrong is named with file, line or row, column and value."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench.data.own.dialogues import Dialogues, RandomSplit, assemble
from mer_bench.data.own.transcripts import read_part
from mer_bench.errors import DataError, MerBenchError, MissingDataError

from .writing import write_csv, write_jsonl, write_parquet

HEAD = "dialogue,utterance,speaker,label,text,split\n"
SOUND = "a,1,Ada,x,hello,train\nb,1,Ben,y,oh,train\nc,1,Ada,x,hi,dev\nd,1,Ada,y,ah,test\n"


def read(file: Path, classes: tuple[str, ...] | None = None, split: RandomSplit | None = None) -> Dialogues:
    return assemble([read_part(file, ["label"])], {"label": classes}, split)


def read_csv(tmp_path: Path, text: str, classes: tuple[str, ...] | None = None) -> Dialogues:
    (tmp_path / "talks.csv").write_text(text, encoding="utf-8")
    return read(tmp_path / "talks.csv", classes)


def test_a_sound_table_is_read(tmp_path: Path) -> None:
    found = read_csv(tmp_path, HEAD + SOUND)
    assert (found.dialogue_ids, found.splits, found.lengths) == (["a", "b", "c", "d"], [0, 0, 1, 2], [1, 1, 1, 1])
    assert (found.classes, found.labels) == ({"label": ("x", "y")}, {"label": [0, 1, 0, 1]})
    assert found.texts == ["hello", "oh", "hi", "ah"]
    assert found.utterance_ids == ["a/1", "b/1", "c/1", "d/1"]  # given ids are unique in their dialogue alone
    assert found.given_ids == ["1", "1", "1", "1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD + SOUND + "a,2,Ada,x,hello,train\n", "line 6, column dialogue: 'a' goes on here after another began; it"),
        (
            HEAD + SOUND + "d,1,Ada,x,hello,test\n",
            "line 6, column utterance: '1' occurs twice in its dialogue, first at",
        ),
        (HEAD + SOUND + "e,1, ,x,hello,test\n", "line 6, column speaker: is blank"),
        (HEAD + SOUND + ",1,Ada,x,hello,test\n", "line 6, column dialogue: is blank"),
        (HEAD + SOUND + "e,,Ada,x,hello,test\n", "line 6, column utterance: has no id, but that of"),
        (HEAD + SOUND + "e,1,Ada,x,hello,tset\n", "line 6, column split: should be train, dev or test, but is 'tset'"),
        (HEAD + SOUND + "d,2,Ada,x,hello,dev\n", "line 6, column split: is dev, but the dialogue 'd' began in test"),
        (HEAD + SOUND + "d,2,Ada,x,hello,\n", "line 6, column split: is blank, but that of"),
        (HEAD + SOUND + "e,1,Ada,x,hello,\n", "line 6: the dialogue 'e' has no split. Give every row"),
        (HEAD + SOUND.replace("dev", "train"), "no dialogue is in the split dev."),
        (HEAD + SOUND.replace("y,ah", ",ah"), "no utterance of test has a label"),
        (HEAD + SOUND.replace(",y,", ",,").replace(",x,", ",,"), "no utterance has a label in the column label"),
        (HEAD + SOUND.replace(",y,", ",x,"), "only the class 'x' occurs"),
        (HEAD, "holds no utterance"),
        ("", "is empty"),
        (HEAD.replace("speaker", "speakr") + SOUND, "the column speaker is missing"),
        (HEAD.replace("text", "txt") + SOUND, "line 1: no column is called 'txt'. Should it be 'text'?"),
        (HEAD.replace("text", "StartTime") + SOUND, "line 1: no column is called 'StartTime'. Known: dialogue,"),
        (HEAD.replace("label", "split2") + SOUND, "line 1: no column is called 'split2'. Should it be 'split'?"),
        ("dialogue,speaker,split\na,Ada,train\n", "line 1: the column label is missing, which holds the labels"),
        (HEAD + SOUND + "e,1,Ada,x\n", "line 6, column text: the value is missing"),
        (HEAD.replace(",", ";") + SOUND.replace(",", ";"), "the column dialogue is missing"),
    ],
)
def test_a_faulty_table_names_line_column_and_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_csv(tmp_path, text)
    assert str(tmp_path / "talks.csv") in str(caught.value) or "split" in says or "label" in says or "class" in says
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("joyy", "line 6, column label: should be one of neutral, joy, anger, but is 'joyy'. Did you mean 'joy'?"),
        ("3", "line 6, column label: is 3, but the 3 classes have the numbers 0 to 2"),
        ("-1", "line 6, column label: is -1, but"),
        ("1.5", "but is '1.5'"),
    ],
)
def test_a_label_that_is_no_class_is_named(tmp_path: Path, label: str, says: str) -> None:
    rows = SOUND.replace(",x,", ",joy,").replace(",y,", ",2,") + f"e,1,Ada,{label},oh,train\n"
    with pytest.raises(DataError) as caught:
        read_csv(tmp_path, HEAD + rows, ("neutral", "joy", "anger"))
    assert says in str(caught.value)


def test_names_and_numbers_of_classes_may_stand_side_by_side(tmp_path: Path) -> None:
    rows = SOUND.replace(",x,", ", joy ,").replace(",y,", ",2,") + "e,1,Ada,0,oh,train\nf,1,Ada, ,oh,train\n"
    found = read_csv(tmp_path, HEAD + rows, ("neutral", "joy", "anger"))
    assert found.labels["label"] == [1, 2, 1, 2, 0, -1]
    assert found.notes == ["utterance ids are unique within their dialogue alone; each begins with its dialogue: a/1"]
    # A class whose name is a number goes before the number of a class.
    assert read_csv(tmp_path, HEAD + SOUND.replace("x", "1").replace("y", "0"), ("1", "0")).labels["label"] == [
        0,
        1,
        0,
        1,
    ]


def test_numbers_without_a_card_are_classes_in_their_order(tmp_path: Path) -> None:
    rows = SOUND.replace(",x,", ",10,").replace(",y,", ",9,") + "e,1,Ada,-1,oh,train\n"
    assert read_csv(tmp_path, HEAD + rows).classes["label"] == ("-1", "9", "10")


def test_a_class_that_occurs_nowhere_is_an_error_and_one_outside_train_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no utterance has the class 'z' of label, which the card lists"):
        read_csv(tmp_path, HEAD + SOUND, ("x", "y", "z"))
    found = read_csv(tmp_path, HEAD + SOUND + "e,1,Ada,X,oh,dev\n", ("x", "y", "X"))
    assert found.notes[1:] == [
        "no train utterance has the class 'X' of label; no model can learn it.",
        "the classes 'x' and 'X' of label differ in upper and lower case alone.",
    ]


def test_texts_that_are_missing_are_counted(tmp_path: Path) -> None:
    found = read_csv(tmp_path, HEAD + SOUND.replace("hello", " "))
    assert (found.texts, found.notes[-1]) == ([" ", "oh", "hi", "ah"], "1 of 4 utterances have no text.")
    without = re.sub(r"(hello|oh|hi|ah)", "", HEAD + SOUND)
    assert (read_csv(tmp_path, without).texts, len(read_csv(tmp_path, without).notes)) == (None, 1)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_told(tmp_path: Path, suffix: str, encoding: str) -> None:
    (tmp_path / f"talks.{suffix}").write_bytes((HEAD + SOUND.replace("Ada", "Zoë")).encode(encoding))
    with pytest.raises(DataError, match=r"talks.* line \d.*(UTF-16|is not UTF-8)"):
        read(tmp_path / f"talks.{suffix}")


TURNS = [{"speaker": "Ada", "label": "x"}, {"speaker": "B", "label": "y"}]
NESTED: dict[str, Any] = {"id": "a", "split": "train", "utterances": TURNS}
REST = [{**NESTED, "id": "b", "split": "dev"}, {**NESTED, "id": "c", "split": "test"}]
ROW = {"dialogue": "e", "speaker": "Ada", "label": "x", "split": "train"}


def changed(**values: Any) -> dict[str, Any]:
    return {**NESTED, **values}


def turn(**values: Any) -> dict[str, Any]:
    return changed(utterances=[{"speaker": "Ada", "label": "x"}, {"speaker": "Ada", "label": "y", **values}])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (changed(id="b"), "line 2, key id: 'b' occurs twice; it began at"),
        (changed(id=None), "line 1, key id: is blank"),
        (changed(id=[1]), "line 1, key id: should be a text or a whole number, but is [1]"),
        (changed(id="a\0"), "there is a NUL character"),
        (changed(id="\ud800"), "half a character"),
        (changed(utterances=[]), "line 1, key utterances: the dialogue 'a' has no utterance"),
        (changed(utterances={"speaker": "A"}), "line 1, key utterances: should be a list"),
        (changed(utterances=["hello"]), "line 1, utterance 1 should be an object in braces, but is 'hello'"),
        (changed(uterances=1), "line 1: no key is called 'uterances'. Should it be 'utterances'?"),
        (changed(split=3), "line 1, key split: should be train, dev or test, but is '3'"),
        (changed(subsets=[3]), "line 1, key subsets: should be names of subsets"),
        (turn(speaker=" "), "line 1, utterance 2, key speaker: is blank"),
        (turn(speaker=True), "line 1, utterance 2, key speaker: should be a text or a whole number, but is True"),
        (turn(speaker=1.5), "but is 1.5"),
        (turn(text=7), "line 1, utterance 2, key text: should be a text, but is 7"),
        (turn(label=[0]), "line 1, utterance 2, key label: should be the name or the number of a class, but is [0]"),
        (turn(emotion="x"), "line 1, utterance 2: no key is called 'emotion'"),
        (turn(id="1"), "line 1, utterance 1, key utterance: has no id, but that of"),
        (ROW, "line 2 holds a dialogue, but the lines before it hold an utterance each"),
        ([NESTED], "line 1 should be one JSON object in braces, but is [{"),
    ],
)
def test_a_faulty_line_names_utterance_key_and_value(tmp_path: Path, row: Any, says: str) -> None:
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps(each) + "\n" for each in [row, *REST]))
    with pytest.raises(DataError) as caught:
        read(file)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a", "id": "b", "utterances": []}', "line 1, key 'id': stands twice"),
        ('{"id": "a", "utterances": [{"speaker": "A", "label": NaN}]}', "line 1: NaN is no JSON value"),
        ('{"id": "a", "utterances": [{"spea', "line 1: this is not one JSON object"),
        ("[" * 100_000, "line 1: this is not one JSON object"),
        ('{"id": ' + "9" * 10_000 + "}", "line 1: this is not one JSON object"),
        ("{\n", "line 1: this is not one JSON object"),
        ('[{"id": "a"},', "line 1: this is not one JSON object"),
        ("", "is empty"),
    ],
)
def test_what_is_no_json_is_named(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "talks.jsonl").write_text(line)
    with pytest.raises(DataError) as caught:
        read(tmp_path / "talks.jsonl")
    assert says in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_line_separators_inside_a_text_end_no_line(tmp_path: Path) -> None:
    text = "one\u2028two\x85three\x0cfour"
    rows = [
        {**each, "utterances": [{**NESTED["utterances"][0], "text": text}, NESTED["utterances"][1]]}
        for each in [NESTED, *REST]
    ]
    (tmp_path / "talks.jsonl").write_text("\r\n".join(json.dumps(each, ensure_ascii=False) for each in rows))
    found = read(tmp_path / "talks.jsonl")
    assert found.texts is not None
    assert found.texts[0] == text
    assert found.utterance_ids[:2] == ["a/1", "a/2"]


def test_parquet_columns_may_be_of_several_types(tmp_path: Path) -> None:
    import pyarrow

    write_parquet(
        tmp_path / "talks.parquet",
        {
            "dialogue": pyarrow.array([1, 1, 2, 3]),
            "speaker": pyarrow.array(["A", "B", "A", "A"]).dictionary_encode(),
            "label": pyarrow.array([0.0, float("nan"), 1.0, 1.0]),  # as pandas writes whole numbers with blanks
            "split": ["train", "train", "valid", "test"],
        },
    )
    with pytest.raises(DataError, match="no utterance has the class 'z' of label"):
        read(tmp_path / "talks.parquet", ("x", "y", "z"))
    found = read(tmp_path / "talks.parquet", ("x", "y"))
    assert found.labels["label"] == [0, -1, 1, 1]
    assert found.dialogue_ids == ["1", "2", "3"]
    write_parquet(tmp_path / "talks.parquet", {"dialogue": ["a"], "speaker": [b"A"], "label": ["x"]})
    with pytest.raises(DataError, match=r"talks.parquet, row 1, column speaker: should be a text or a whole number"):
        read(tmp_path / "talks.parquet")
    write_parquet(tmp_path / "talks.parquet", {"dialogue": ["a"], "speaker": ["A"]})
    with pytest.raises(DataError, match=r"talks.parquet: the column label is missing"):
        read(tmp_path / "talks.parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    write_parquet(tmp_path / "talks.parquet", {"dialogue": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingDataError, match=r"talks.parquet is a Parquet file, which needs pyarrow: .*mer-bench\[parq"
    ):
        read(tmp_path / "talks.parquet")


def test_a_damaged_parquet_file_is_named_at_every_cut(tmp_path: Path) -> None:
    file = tmp_path / "talks.parquet"
    write_parquet(file, {"dialogue": ["a"] * 50, "speaker": ["A"] * 50, "label": ["x"] * 50})
    content = file.read_bytes()
    for end in range(0, len(content), 37):
        file.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"talks.parquet cannot be read as a Parquet file"):
            read(file)


def test_each_label_set_has_a_column_of_its_name(tmp_path: Path) -> None:
    rows = [
        {"dialogue": each, "speaker": "A", "emotion": emotion, "sentiment": 1 - index % 2, "split": split}
        for index, (each, emotion, split) in enumerate(
            [
                ("a", "joy", "train"),
                ("b", "anger", "train"),
                ("c", "joy", "dev"),
                ("d", None, "test"),
                ("e", "joy", "test"),
            ]
        )
    ]
    write_csv(tmp_path / "a.csv", rows)
    write_jsonl(tmp_path / "a.jsonl", [{key: value for key, value in row.items() if value is not None} for row in rows])
    for name in ("a.csv", "a.jsonl"):
        part = read_part(tmp_path / name, ["emotion", "sentiment"])
        found = assemble([part], {"emotion": None, "sentiment": ("bad", "good")})
        assert found.labels == {"emotion": [1, 0, 1, -1, 1], "sentiment": [1, 0, 1, 0, 1]}
    with pytest.raises(DataError, match="the column arousal is missing"):
        read_part(tmp_path / "a.csv", ["emotion", "sentiment", "arousal"])
    write_csv(tmp_path / "b.csv", [{**row, "label": "x"} for row in rows])
    with pytest.raises(DataError, match="no column is called 'sentiment'"):
        read_part(tmp_path / "b.csv", ["emotion"])
    write_csv(tmp_path / "c.csv", [{"dialogue": "a", "speaker": "A", "label": "x", "emotion": "y"}])
    with pytest.raises(DataError, match="both emotion and label are there"):
        read_part(tmp_path / "c.csv", ["emotion"])


def without_splits(tmp_path: Path, count: int) -> Path:
    rows = [{"dialogue": f"d{n // 2}", "speaker": "A", "label": "xy"[n % 2]} for n in range(2 * count)]
    write_csv(tmp_path / "talks.csv", rows)
    return tmp_path / "talks.csv"


def test_a_random_split_is_drawn_only_when_asked_for(tmp_path: Path) -> None:
    file = without_splits(tmp_path, 100)
    with pytest.raises(DataError, match=r"has no split.*--split 80/10/10 --seed 0"):
        read(file)
    found = read(file, split=RandomSplit((70, 10, 20)))
    assert np.bincount(found.splits).tolist() == [70, 10, 20]
    assert read(file, split=RandomSplit((70, 10, 20))).splits == found.splits
    assert read(file, split=RandomSplit((70, 10, 20), seed=1)).splits != found.splits
    # Fixed once and for all: the same seed must give the same splits on every machine and version.
    ranked = sorted(range(100), key=lambda index: hashlib.sha256(f"0/d{index}".encode()).digest())
    assert [found.splits[index] for index in ranked] == [1] * 10 + [2] * 20 + [0] * 70
    with pytest.raises(DataError, match="at least 3 dialogues, but there are 2"):
        read(without_splits(tmp_path, 2), split=RandomSplit((80, 10, 10)))
    (tmp_path / "talks.csv").write_text(HEAD + SOUND)
    with pytest.raises(
        DataError, match=r"talks.csv, line 2: a random split was asked for, but there is a split already"
    ):
        read(tmp_path / "talks.csv", split=RandomSplit((80, 10, 10)))


@given(st.integers(3, 60), st.integers(1, 98), st.integers(1, 98))
def test_every_split_gets_a_dialogue_whatever_the_shares(count: int, dev: int, test: int) -> None:
    shares = (max(1, 100 - dev - test), dev, test)
    drawn = RandomSplit(shares).draw([f"d{index}" for index in range(count)])
    assert set(drawn) == {0, 1, 2}
    assert len(drawn) == count


def refusal(file: Path) -> str:
    """What is said of a file that cannot be read; "" where it can."""
    try:
        read(file)
    except MerBenchError as error:
        return str(error)
    return ""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), suffix=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_any_bytes_are_read_or_refused_in_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"talks.{suffix}"
    file.write_bytes(content)
    assert "\n" not in refusal(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["id", "split", "subsets", "utterances", "speaker", "label", "text"]), value=JSON)
def test_any_json_value_is_read_or_refused_in_one_sentence(tmp_path: Path, key: str, value: Any) -> None:
    file = tmp_path / "talks.jsonl"
    row = changed(**{key: value}) if key in NESTED or key == "subsets" else turn(**{key: value})
    file.write_text("".join(json.dumps(each) + "\n" for each in [row, *REST]))
    said = refusal(file)
    assert said == "" or str(file) in said or "split" in said or "label" in said
