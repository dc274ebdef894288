"""New dialogues as files tell them: every form alike, and one sentence with its line for what is wrong."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench.data.unseen import dialogues as room
from mer_bench.data.unseen.dialogues import UnseenDialogues, read_unseen
from mer_bench.errors import DataError, MerBenchError, MissingDataError

ROWS: list[dict[str, Any]] = [
    {"dialogue": "a", "turn": 2, "speaker": "Ann", "text": 'Why, "you"?'},
    {"dialogue": "b", "turn": 1, "speaker": "Bo", "text": "Oh\nno"},
    {"dialogue": "a", "turn": 1, "speaker": "Bo", "text": "You, me"},
    {"dialogue": "b", "turn": 1.5, "speaker": "Bo", "text": ""},
]


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def told(read: UnseenDialogues) -> tuple[Any, ...]:
    return read.dialogue_ids, read.lengths, read.turns, read.speakers, read.texts, read.rows


@pytest.mark.parametrize("form", room.FORMATS)
def test_every_form_says_the_same_and_turns_are_put_in_order(tmp_path: Path, form: str) -> None:
    read = read_unseen(write(tmp_path / f"talks{form}", ROWS), ["text"])
    speakers, texts = ["Bo", "Ann", "Bo", "Bo"], ["You, me", 'Why, "you"?', "Oh\nno", ""]
    assert told(read) == (["a", "b"], [2, 2], [1, 2, 1, 1.5], speakers, texts, [2, 0, 1, 3])
    assert told(read_unseen(ROWS, ["text"])) == told(read)


def test_a_dialogue_a_line(tmp_path: Path) -> None:
    file = tmp_path / "talks.jsonl"
    said = [{"id": "u1", "speaker": "Ann", "text": "Hi", "audio": [1, None]}, {"id": "u2", "speaker": 7, "text": "Yes"}]
    file.write_text(json.dumps({"id": "a", "split": "test", "utterances": said}) + "\n")
    read = read_unseen(file, ["text", "audio"])
    assert told(read) == (["a"], [2], [1, 2], ["Ann", "7"], ["Hi", "Yes"], [0, 1])
    assert read.utterances == ["u1", "u2"]
    first, second = read.measured["audio"].values.tolist()
    assert first[0] == 1
    assert all(map(math.isnan, [first[1], *second]))


@given(st.randoms(use_true_random=False), st.integers(1, 6), st.integers(1, 5))
def test_any_order_of_rows_with_turns_gives_the_same_dialogues(random: Any, dialogues: int, length: int) -> None:
    rows = [
        {"dialogue": f"d{name}", "turn": turn, "speaker": "A", "text": f"{name} {turn}"}
        for name in range(dialogues)
        for turn in range(length)
    ]
    shuffled = rows[:]
    random.shuffle(shuffled)
    read = read_unseen(shuffled, ["text"])
    assert read.texts is not None
    texts = [read.texts[start : start + length] for start in range(0, len(rows), length)]
    by_dialogue = dict(zip(read.dialogue_ids, texts, strict=True))
    assert by_dialogue == {f"d{name}": [f"{name} {turn}" for turn in range(length)] for name in range(dialogues)}
    assert [shuffled[row]["text"] for row in read.rows] == read.texts


def test_a_mark_at_the_beginning_and_columns_of_others(tmp_path: Path) -> None:
    file = tmp_path / "talks.csv"
    file.write_bytes(b"\xef\xbb\xbfdialogue,speaker,text,Emotion,visual.x\r\n1,Ann,Hi,joy,3\r\n")
    read = read_unseen(file, ["text", "audio"])
    assert read.dialogue_ids == ["1"]
    assert read.notes == ["columns that are not used: Emotion, visual.x."]
    assert read.measured == {}


HEAD = "dialogue,speaker,text\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", "", r"t.csv is empty\.$"),
        ("t.csv", HEAD, r"t.csv holds no utterance\.$"),
        ("t.csv", "dialogue,text\n1,Hi\n", r"t.csv, line 1: the column speaker is missing. It has: dialogue, text\.$"),
        (
            "t.csv",
            "dialog,speaker,text\n1,A,Hi\n",
            r"line 1: the column dialogue is missing. Is it called 'dialog' there",
        ),
        ("t.csv", HEAD + "1,A,Hi\n2,B\n", r"t.csv, line 3, column text: the value is missing"),
        ("t.csv", HEAD + "1,A,Hi\n2,,Hi\n", r"t.csv, line 3, column speaker: is blank"),
        (
            "t.csv",
            HEAD + "1,A,Hi\n2,A,Hi\n1,A,Yes\n",
            r"line 4, column dialogue: '1' goes on here after another began; it",
        ),
        (
            "t.csv",
            "dialogue,turn,speaker,text\n1,1,A,a\n1,1,B,b\n",
            r"line 3, column turn: 1 occurs twice in the dialogue",
        ),
        ("t.csv", "dialogue,turn,speaker,text\n1,1,A,a\n1,,B,b\n", r"line 3, column turn: is given in only some rows"),
        ("t.csv", "dialogue,turn,speaker,text\n1,x,A,a\n", r"line 2, column turn: should be a number, but is 'x'"),
        ("t.csv", "dialogue,turn,speaker,text\n1,nan,A,a\n", r"line 2, column turn: should be a number, but is 'nan'"),
        ("t.csv", "dialogue,utterance,speaker,text\n1,u,A,a\n1,u,A,b\n", r"line 3, column utterance: 'u' occurs twice"),
        ("t.csv", "dialogue,speaker,audio.x\n1,A,inf\n", r"line 2, column audio.x: should be a finite number or blank"),
        (
            "t.csv",
            "dialogue,speaker,audio.x\n1,A,1_0\n",
            r"column audio.x: should be a finite number or blank, but is '1_0'",
        ),
        ("t.csv", "dialogue,speaker,text,text\n1,A,a,b\n", r"line 1: the column text occurs twice"),
        ("t.csv", HEAD.encode() + b"1,A,caf\xe9\n", r"line 2, column text: the byte 0xe9 is not UTF-8"),
        ("t.csv", HEAD.encode("utf-16"), r"line 1: the file is in UTF-16"),
        ("t.csv", HEAD + '1,A,"never ends\n', "line 2: a quoted value begins here or later and never ends"),
        ("t.csv", HEAD + "1,A,a\0b\n", "line 2, column text: there is a NUL character"),
        (
            "t.csv",
            HEAD + f"1,A,{'a' * 20_001}\n",
            r"line 2, column text: has 20001 characters, but an utterance has at most",
        ),
        ("t.jsonl", '{"dialogue": 1, "speaker": "A", "text": NaN}\n', "t.jsonl, line 1: NaN is no JSON value"),
        ("t.jsonl", '{"dialogue": 1, "speaker": "A", "text": 5}\n', "line 1, key text: should be a text, but is 5"),
        ("t.jsonl", '{"dialogue": 1, "speaker": "A"\n', "line 1: this is not one JSON object"),
        ("t.jsonl", "[1]\n", "line 1 should be one JSON object in braces"),
        ("t.jsonl", '{"id": 1, "utterances": []}\n', "line 1, key utterances: the dialogue '1' has no utterance"),
        ("t.jsonl", '{"id": 1, "utterances": [3]}\n', "line 1, utterance 1 should be an object in braces"),
        ("t.jsonl", '{"id": 1, "utterances": [{"speaker": "A"}]}\n' * 2, "line 2, key id: '1' occurs twice"),
        (
            "t.jsonl",
            '{"dialogue": 1, "speaker": "A", "audio": [1, 2]}\n{"dialogue": 1, "speaker": "A", "audio": [1]}\n',
            "line 2, key audio: has 1 numbers, but that of .* line 1 has 2",
        ),
        ("t.jsonl", '{"dialogue": 1, "speaker": "A", "audio": "1,2"}\n', "key audio: should be a list of numbers"),
        ("t.txt", HEAD, "t.txt should be JSONL, CSV or Parquet"),
        ("t.parquet", "no parquet", "t.parquet cannot be read as a Parquet file"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=says) as raised:
        read_unseen(file, ["text", "audio"])
    assert "\n" not in str(raised.value)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for form in room.FORMATS:
        with pytest.raises(MissingDataError, match=f"absent{form} is not there"):
            read_unseen(tmp_path / f"absent{form}", ["text"])
    with pytest.raises(DataError, match="should be JSONL, CSV or Parquet"):
        read_unseen(tmp_path, ["text"])


def test_a_dialogue_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LONGEST_DIALOGUE", 3)
    rows = [{"dialogue": name, "speaker": "A", "text": "a"} for name in "abbbb"]
    with pytest.raises(DataError, match="row 5, column dialogue: 'b' has 4 utterances, but at most 3 are taken"):
        read_unseen(rows, ["text"])


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_a_sentence(content: str) -> None:
    rows = [{"dialogue": content, "speaker": content, "text": content, "turn": content}]
    try:
        texts = read_unseen(rows, ["text"]).texts
    except MerBenchError:
        return
    assert texts == [content]
