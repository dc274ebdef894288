"""Files of predictions, from right ones in every format to hostile ones, against a split of a few utterances."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench.errors import DataError, MerBenchError, MissingDataError, RequestError
from mer_bench.external.matching import predictions_of
from mer_bench.external.reading import read_rows
from mer_bench.external.scored_split import ScoredSplit
from mer_bench.external.template import write_blank
from mer_bench.metrics import score
from mer_bench.predictions import Predictions

CLASSES = ("neutral", "joy", "fear")
IDS = ("a1", "a2", "b1", "b2")


def split(ids: Sequence[str] = IDS, classes: tuple[str, ...] = CLASSES) -> ScoredSplit:
    """A split whose dialogue is the first letter of an id; `d1` is of dev, and `t1` has no label."""
    dialogues = [name[0] for name in ids]
    return ScoredSplit(
        name="the test split of talk/official",
        classes=classes,
        ids=ids,
        dialogues=dialogues,
        positions=np.array([dialogues[:row].count(dialogues[row]) for row in range(len(ids))], np.int32),
        speakers=np.zeros(len(ids), np.int16),
        true=(np.arange(len(ids)) % len(classes)).astype(np.int16),
        subsets={},
        not_scored={"d1": "dev", "t1": ""},
    )


def read(content: str | bytes, folder: Path, name: str = "p.csv", of: ScoredSplit | None = None) -> Predictions:
    """The predictions of a file with that content."""
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    of = of or split()
    return predictions_of(read_rows(file, of.classes), of)


def table(rows: Sequence[Sequence[Any]], header: Sequence[str] = ("id", "label")) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


LABELS = "id,label\na1,joy\na2,fear\nb1,neutral\nb2,1\n"
ROWS = [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25], [1.0, 0.0, 0.0]]
SCORES = table([(name, *row) for name, row in zip(IDS, ROWS, strict=True)], ("id", *CLASSES))


def parquet(columns: Mapping[str, Sequence[Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    writer = pytest.importorskip("pyarrow.parquet")
    stream = io.BytesIO()
    writer.write_table(pyarrow.table(dict(columns)), stream)
    return stream.getvalue()


class TestFormats:
    def test_labels_by_name_and_by_number(self, tmp_path: Path) -> None:
        found = read(LABELS, tmp_path)
        assert found.predicted.tolist() == [1, 2, 0, 1]
        assert found.log_probabilities is None
        assert score(found).calibration_error is None

    def test_probabilities(self, tmp_path: Path) -> None:
        found = read(SCORES, tmp_path)
        assert found.predicted.tolist() == [0, 2, 1, 0]
        assert found.log_probabilities is not None
        assert np.exp(found.log_probabilities.astype(float)) == pytest.approx(np.array(ROWS), abs=1e-3)

    def test_log_probabilities(self, tmp_path: Path) -> None:
        with np.errstate(divide="ignore"):
            logs = np.log(ROWS)
        text = table(
            [(name, *map(repr, map(float, row))) for name, row in zip(IDS, logs, strict=True)], ("id", *CLASSES)
        )
        assert "-inf" in text
        assert_same(read(text, tmp_path), read(SCORES, tmp_path))

    @pytest.mark.parametrize(
        "change",
        [
            lambda text: "\ufeff" + text,
            lambda text: text.replace(",", ";"),
            lambda text: text.replace(",", "\t"),
            lambda text: text.replace("\n", "\r\n"),
            lambda text: text.replace("\n", "\n\n"),
            lambda text: text.replace(",", " , "),
            lambda text: text.rstrip("\n"),
            lambda text: "\n".join([text.split("\n")[0], *sorted(text.split("\n")[1:], reverse=True)]),
            lambda text: text.replace(",", ",words,").replace("words", '"a, b\nc"'),
            lambda text: text + "t1,joy\n",
            lambda text: text + "t1,\n",
            lambda text: text.replace("b2,1", "b2,1.0"),
        ],
    )
    def test_ways_to_write_the_same_table(self, change: Callable[[str], str], tmp_path: Path) -> None:
        assert_same(read(change(LABELS), tmp_path), read(LABELS, tmp_path))

    def test_every_format_says_the_same(self, tmp_path: Path) -> None:
        expected = read(SCORES, tmp_path)
        rows = [dict(zip(CLASSES, row, strict=True)) for row in ROWS]
        flat = "\n".join(json.dumps({"id": name, **row}) for name, row in zip(IDS, rows, strict=True))
        nested = "\n\n".join(json.dumps({"scores": row, "id": name}) for name, row in zip(IDS, rows, strict=True))
        assert_same(read(flat, tmp_path, "p.jsonl"), expected)
        assert_same(read("\ufeff" + nested + "\n", tmp_path, "p.NDJSON"), expected)
        columns = {name: [row[name] for row in rows] for name in CLASSES}
        assert_same(read(parquet({"id": IDS, **columns}), tmp_path, "p.parquet"), expected)
        assert_same(read(parquet({"id": IDS, "scores": rows}), tmp_path, "p.pq"), expected)

    def test_labels_in_every_format(self, tmp_path: Path) -> None:
        labels: list[Any] = ["joy", 2, "neutral", 1]
        lines = "\n".join(json.dumps({"id": name, "label": label}) for name, label in zip(IDS, labels, strict=True))
        assert_same(read(lines, tmp_path, "p.jsonl"), read(LABELS, tmp_path))
        assert_same(read(parquet({"id": IDS, "label": [1, 2, 0, 1]}), tmp_path, "p.parquet"), read(LABELS, tmp_path))

    def test_a_name_goes_before_a_number(self, tmp_path: Path) -> None:
        found = read("id,label\na1,2\na2,1\nb1,0\nb2,3\n", tmp_path, of=split(classes=("1", "2", "3")))
        assert found.predicted.tolist() == [1, 0, 0, 2]

    def test_a_label_beside_scores_says_which_of_equal_ones(self, tmp_path: Path) -> None:
        rows = [(name, label, 0.4, 0.4, 0.2) for name, label in zip(IDS, ["joy", "neutral", "joy", "1"], strict=True)]
        assert read(table(rows, ("id", "label", *CLASSES)), tmp_path).predicted.tolist() == [1, 0, 1, 1]
        alone = table([(row[0], "", *row[2:]) for row in rows], ("id", "label", *CLASSES))
        assert read(alone, tmp_path).predicted.tolist() == [0, 0, 0, 0]

    def test_sums_may_be_rounded(self, tmp_path: Path) -> None:
        rows = [(name, 0.33, 0.33, 0.33) for name in IDS]
        assert read(table(rows, ("id", *CLASSES)), tmp_path).predicted.tolist() == [0, 0, 0, 0]

    def test_arithmetic_may_leave_a_little_below_zero(self, tmp_path: Path) -> None:
        rows = [(name, 1.0, -1e-17, 1e-17) for name in IDS]
        assert read(table(rows, ("id", *CLASSES)), tmp_path).predicted.tolist() == [0, 0, 0, 0]


def assert_same(found: Predictions, expected: Predictions) -> None:
    assert list(found.ids) == list(expected.ids) == list(IDS)
    assert found.predicted.tolist() == expected.predicted.tolist()
    assert (found.log_probabilities is None) == (expected.log_probabilities is None)
    if found.log_probabilities is not None and expected.log_probabilities is not None:
        assert np.array_equal(found.log_probabilities, expected.log_probabilities)


class TestFaults:
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("", "p.csv is empty."),
            ("id,label\n", "p.csv has no row."),
            ("utterance_id,label\na1,joy\n", "line 1: the column id is missing. It has: utterance_id, label."),
            ("key,label\na1,joy\n", "the column id is missing. It has: key, label."),
            (
                "id,emotion\na1,joy\n",
                "neither the column label nor one for each class (neutral, joy, fear); it has: id, em",
            ),
            (
                LABELS.replace("b2,1\n", ""),
                "p.csv: 1 of the 4 utterances of the test split of talk/official has no row (b2);",
            ),
            (
                "id,label\nb1,joy\n",
                "3 of the 4 utterances of the test split of talk/official have no row (a1, a2, b2);",
            ),
            (LABELS + "c9,joy\n", "line 6, column id: 'c9' is no utterance of the test split of talk/official."),
            (LABELS.replace("a2", "test/a2"), "line 3, column id: 'test/a2' is no utterance of the test split of talk"),
            (LABELS.replace("a2", "A2"), "Did you mean 'a2'? --template writes"),
            (
                LABELS + "c9,joy\nc8,joy\nd1,joy\n",
                "'c9' is no utterance of the test split of talk/official. The ids of 2 more",
            ),
            (
                LABELS + "d1,joy\n",
                "line 6, column id: 'd1' is of the dev split; only the test split of talk/official is",
            ),
            (
                LABELS + "a2,fear\n",
                "line 6, column id: 'a2' occurs twice, first on line 3; each utterance has one row.",
            ),
            (LABELS + "t1,joy\nt1,joy\n", "line 7, column id: 't1' occurs twice, first on line 6"),
            (LABELS.replace("a2", ""), "line 3, column id: is blank."),
            (
                LABELS.replace("fear", "fears"),
                "line 3, column label: should be one of neutral, joy, fear, or a number from 0",
            ),
            (LABELS.replace("fear", "Fear"), "to 2, but is 'Fear'. Did you mean 'fear'?"),
            (LABELS.replace("fear", "3"), "line 3, column label: should be one of"),
            (LABELS.replace("fear", "-1"), "but is '-1'."),
            (LABELS.replace("fear", "0.5"), "but is '0.5'."),
            (LABELS.replace("fear", ""), "line 3, column label: is blank, but other rows have a label"),
            (
                table([(name, "") for name in IDS]),
                "p.csv predicts nothing: fill the column label, or one column for each",
            ),
            (
                "id,label\na1,joy,fear\n",
                "line 2: there are 3 values, but the header has 2 columns. A value with a comma",
            ),
            ("id;label\na1;joy;fear\n", "A value with a semicolon in it must stand in double quotes."),
            ("id,label\na1\n", "line 2, column label: the value is missing"),
            ("id,label,label\na1,joy,joy\n", "line 1: the column label occurs twice."),
            ('id,label\na1,"joy\n', "line 2: a quoted value begins here or later and never ends"),
            ("id,label\na1,j\0y\n", "line 2, column label: there is a NUL character."),
            (LABELS.encode("utf-16"), "line 1: the file is in UTF-16, but should be in UTF-8. Save it as that."),
            (b"id,label\na1,\xe9\n", "line 2, column label: the byte 0xe9 is not UTF-8."),
            (
                SCORES.replace("fear", "fea"),
                "but the column fear is missing; each class needs one, or none has one. Is it called",
            ),
            (SCORES.replace("fear", "joy"), "the column joy occurs twice."),
            (SCORES.replace("0.8", ""), "line 3, column fear: is blank, but other scores are there"),
            (SCORES.replace("0.8", "nan"), "line 3, column fear: should be a number, but is 'nan'."),
            (SCORES.replace("0.8", "inf"), "line 3, column fear: should be a number, but is 'inf'."),
            (SCORES.replace("0.8", "high"), "line 3, column fear: should be a number, but is 'high'."),
            (SCORES.replace("0.8", "1e999"), "line 3, column fear: should be a number, but is '1e999'."),
            (SCORES.replace("0.8", "0x1"), "should be a number, but is '0x1'."),
            (SCORES.replace(",", ";").replace("0.8", "0,8"), "is '0,8'. Write a point, not a comma."),
            (SCORES.replace("0.8", "0.7"), "line 3: the probabilities should sum to 1, but sum to 0.9; give shares"),
            (
                table([(name, 50, 30, 20) for name in IDS], ("id", *CLASSES)),
                "line 2: the probabilities should sum to 1, but sum to 100 (and those of 3 more lines do not either);",
            ),
            (
                SCORES.replace("0.8", "-0.8"),
                "neither probabilities nor log-probabilities: fear on line 3 is -0.8, and neutral",
            ),
            (
                table([(name, -1, -2, -3) for name in IDS], ("id", *CLASSES)),
                "line 2: the exponentials of the scores should sum to 1, but sum to 0.553",
            ),
            (
                table([(name, "joy", *row) for name, row in zip(IDS, ROWS, strict=True)], ("id", "label", *CLASSES)),
                "line 2, column label: is joy, but neutral has the largest score; leave one of the two out.",
            ),
        ],
    )
    def test_of_csv(self, content: str | bytes, says: str, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            read(content, tmp_path)
        assert says in str(caught.value)
        assert str(caught.value).startswith(f"{tmp_path / 'p.csv'}")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("", "is empty."),
            ("\n \n", "is empty."),
            ("[]", 'line 1: should be one object, such as {"id": "...", "label": "..."}, but is [].'),
            ('{"id": "a1",\n', "line 1: is not JSON"),
            ('\n{"id": "a1", "id": "a2"}', "line 2: is not JSON (the key 'id' occurs twice)"),
            ('{"id": true, "label": 1}', "line 1, column id: should be a text, but is True."),
            ('{"id": 1.5, "label": 1}', "line 1, column id: should be a text, but is 1.5."),
            ('{"id": null, "label": 1}', "line 1, column id: is blank."),
            ('{"label": 1}', "the column id is missing."),
            (
                '{"id": "a1", "scores": [1, 0, 0]}',
                "line 1, column scores: should be an object with a number for each class",
            ),
            ('{"id": "a1", "joy": 1, "scores": {"joy": 1}}', "line 1: 'joy' stands in scores and beside it."),
            ("[" * 100_000, "line 1: is not JSON"),
            ('{"id": "a1", "label": ' + "9" * 5000 + "}", "line 1: is not JSON"),
        ],
    )
    def test_of_jsonl(self, content: str, says: str, tmp_path: Path) -> None:
        with pytest.raises(DataError) as caught:
            read(content, tmp_path, "p.jsonl")
        assert says in str(caught.value)

    @pytest.mark.parametrize("value", ["true", "[1]", "{}", "NaN", "1e400", "Infinity", '"x"'])
    def test_of_values_in_jsonl(self, value: str, tmp_path: Path) -> None:
        lines = [f'{{"id": "{name}", "scores": {{"neutral": {value}, "joy": 0, "fear": 0}}}}' for name in IDS]
        with pytest.raises(DataError, match="line 1, column neutral: should be a number, but is"):
            read("\n".join(lines), tmp_path, "p.jsonl")
        labels = [f'{{"id": "{name}", "label": {value}}}' for name in IDS]
        with pytest.raises(DataError, match="line 1, column label: should be one of"):
            read("\n".join(labels), tmp_path, "p.jsonl")

    def test_of_parquet(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"row 2, column label: should be one of .*, but is 'x'"):
            read(parquet({"id": IDS, "label": ["joy", "x", "joy", "joy"]}), tmp_path, "p.parquet")
        with pytest.raises(DataError, match="row 2, column id: is blank"):
            read(parquet({"id": ["a1", None, "b1", "b2"], "label": ["joy"] * 4}), tmp_path, "p.parquet")
        with pytest.raises(DataError, match="cannot be read as a Parquet file"):
            read("id,label\n", tmp_path, "p.parquet")
        with pytest.raises(DataError, match="has no row"):
            read(parquet({"id": [], "label": []}), tmp_path, "p.parquet")

    def test_of_names_and_places(self, tmp_path: Path) -> None:
        with pytest.raises(MissingDataError, match=r"p\.csv is not there"):
            read_rows(tmp_path / "p.csv", CLASSES)
        with pytest.raises(RequestError, match=r"should end in \.csv, \.tsv"):
            read_rows(tmp_path / "answers", CLASSES)
        with pytest.raises(RequestError, match="csv, jsonl, parquet, but 'xml'"):
            read_rows(tmp_path / "answers", CLASSES, "xml")
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            read_rows(tmp_path, CLASSES, "csv")

    def test_of_size(self, tmp_path: Path) -> None:
        with (tmp_path / "p.csv").open("wb") as stream:
            stream.truncate(65 * 2**20)
        with pytest.raises(
            DataError, match="has 65 MiB, and predictions have at most 64: keep the columns id, label and"
        ):
            read_rows(tmp_path / "p.csv", CLASSES)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_damaged_file_is_refused_in_one_sentence_or_read(self, data: st.DataObject, tmp_path: Path) -> None:
        name, content = data.draw(
            st.sampled_from([("p.csv", LABELS), ("p.csv", SCORES), ("p.jsonl", '{"id": "a1", "label": 1}\n')])
        )
        damaged = bytearray(content.encode())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(damaged) - 1))
            damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
            damaged = damaged or bytearray(b" ")
        said = ""
        try:
            assert list(read(bytes(damaged), tmp_path, name).ids) == list(IDS)
        except MerBenchError as error:
            said = str(error)
        assert "\n" not in said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_order_of_rows_and_columns(data: st.DataObject, tmp_path: Path) -> None:
    """Logits of any size: their softmax, in any order, as probabilities or logarithms, gives what they say."""
    logits = np.array(
        data.draw(st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=len(IDS), max_size=len(IDS))), np.float64
    )
    logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    order = data.draw(st.permutations(range(len(IDS))))
    columns = data.draw(st.permutations(["id", "more", *CLASSES]))
    values = logs if data.draw(st.booleans()) else np.exp(logs)
    rows = [
        {"id": IDS[row], "more": "x", **dict(zip(CLASSES, map(repr, values[row].tolist()), strict=True))}
        for row in order
    ]
    found = read(table([[each[name] for name in columns] for each in rows], columns), tmp_path)
    assert list(found.ids) == list(IDS)
    assert found.predicted.tolist() == values.argmax(axis=1).tolist()
    assert found.log_probabilities is not None
    assert np.exp(found.log_probabilities.astype(float)) == pytest.approx(np.exp(logs), abs=2e-3)


class TestTemplate:
    @pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet"])
    def test_filled_in_it_is_read(self, name: str, tmp_path: Path) -> None:
        if name.endswith("parquet"):
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        of = split(['a,"1"', "ü 2", "a3"])
        write_blank(tmp_path / name, of.ids, CLASSES)
        rows = read_rows(tmp_path / name, CLASSES)
        assert [row["id"] for row in rows.values] == list(of.ids)
        assert set(rows.columns) == {"id", "label", *CLASSES}
        assert not rows.filled(["label", *CLASSES])
        with pytest.raises(DataError, match="predicts nothing"):
            predictions_of(rows, of)
        for row in rows.values:
            assert isinstance(row, dict)
            row["label"] = "joy"
        assert predictions_of(rows, of).predicted.tolist() == [1, 1, 1]

    def test_what_is_there_is_not_written_over(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text("my work", encoding="utf-8")
        with pytest.raises(RequestError, match="is there already, and may have been filled in"):
            write_blank(tmp_path / "t.csv", IDS, CLASSES)
        assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "my work"
