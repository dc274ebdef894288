"""Reading csv files: the values come through, and every fault names file, line and column."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer_bench.data.tables import check_counts, read_rows, read_table
from mer_bench.errors import DataError, MissingDataError

HEADER = ["Utterance", "Speaker", "Number"]
shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "train.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refusal(folder: Path, content: str | bytes) -> str:
    file = written(folder, content)
    with pytest.raises(DataError) as caught:
        read_table(file, HEADER)
    message = str(caught.value)
    assert message.startswith(str(file))
    return message.removeprefix(str(file))


cell = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\ufeff"), max_size=12)


@shared_folder
@given(rows=st.lists(st.tuples(cell, cell, cell), max_size=8), ends=st.sampled_from(["\n", "\r\n"]), mark=st.booleans())
def test_what_the_csv_module_writes_is_read_back(
    tmp_path: Path, rows: list[tuple[str, str, str]], ends: str, mark: bool
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=ends, quoting=csv.QUOTE_ALL)
    writer.writerows([HEADER, *rows])
    content = text.getvalue()
    table = read_table(written(tmp_path, ("\ufeff" if mark else "") + content), HEADER)
    assert [tuple(row) for row in table.rows] == rows
    assert table.columns == tuple(HEADER)


# Two cuts can't be told from a whole file, which is what checksums are for: behind the first half of a doubled
# quote, and before the last value, which may be blank.
unquoted = cell.map(lambda text: text.replace('"', "").replace(",", ""))


@shared_folder
@given(rows=st.lists(st.tuples(unquoted, unquoted, unquoted), min_size=1, max_size=5), data=st.data())
def test_a_file_cut_off_is_refused_or_lacks_rows_at_the_end(
    tmp_path: Path, rows: list[tuple[str, str, str]], data: st.DataObject
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([HEADER, *rows])
    content = text.getvalue().encode()
    cut = data.draw(st.integers(0, len(content) - 1).filter(lambda end: content[:end][-1:] != b","))
    try:
        table = read_table(written(tmp_path, content[:cut]), HEADER)
    except DataError:
        return
    assert [tuple(row) for row in table.rows] == rows[: len(table)]


def test_lines_count_line_breaks_inside_quotes(tmp_path: Path) -> None:
    content = 'Utterance,Speaker,Number\n"one\ntwo",A,1\nthree,B,x\n'
    table = read_table(written(tmp_path, content), HEADER)
    assert table.lines == [2, 4]
    with pytest.raises(DataError, match=r"line 4, column Number: should be a whole number, but is 'x'\."):
        table.integers("Number")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=re.escape(f"{tmp_path / 'none.csv'} is not there.")):
        read_table(tmp_path / "none.csv", HEADER)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path, HEADER)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", " is empty."),
        ("\n\n", " is empty."),
        ("Utterance,Speaker\na,b\n", ", line 1: the column Number is missing."),
        ("Utterance,Speakers,Number\na,b,1\n", ", line 1: the column Speaker is missing. Is it called 'Speakers'"),
        ("Utterance,Speaker,Number,Speaker\na,b,1,c\n", ", line 1: the column Speaker occurs twice."),
        ("Utterance,Speaker,Number\na,b,1\nc,d\ne,f,2\n", ", line 3, column Number: the value is missing;"),
        ("Utterance,Speaker,Number\na,b,1\nc,d", "The file may be cut off."),
        ("Utterance,Speaker,Number\na,b,c,1\n", ", line 2: there are 4 values, but the header has 3 columns."),
        ('Utterance,Speaker,Number\na,b,1\n"c,d,2\n', ", line 3: a quoted value begins here or later and never ends"),
        ('Utterance,Speaker,Number\n"a"b,c,1\n', ", line 2: "),
        (b"Utterance,Speaker,Number\na,b,1\nc,\x92,2\n", ", line 3, column Speaker: the byte 0x92 is not UTF-8."),
        (b'Utterance,Speaker,Number\n"x\n\xe9",b,1\n', ", line 3, column Utterance: the byte 0xe9"),
        ("Utterance,Speaker,Number\n".encode("utf-16"), ", line 1: the file is in UTF-16"),
        ("Utterance,Speaker,Number\na,\0,1\n", ", line 2, column Speaker: there is a NUL character."),
        ("Utterance,Speaker,Number\na," + "x" * 200_000 + ",1\n", ", line 2: field larger than field limit"),
    ],
)
def test_faults_are_named(tmp_path: Path, content: str | bytes, expected: str) -> None:
    assert expected in refusal(tmp_path, content)


def test_numbers(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "Utterance,Speaker,Number\na,b,-1.5e2\nc,d, \ne,f,3\n"), HEADER)
    numbers = table.numbers("Number")
    assert numbers[0] == -150
    assert math.isnan(numbers[1])
    assert numbers[2] == 3


@pytest.mark.parametrize("value", ["nan", "inf", "1_000", "1e999", "0x10", "1;5", "٣", "--undefined--"])
def test_what_is_no_number(tmp_path: Path, value: str) -> None:
    table = read_table(written(tmp_path, f"Utterance,Speaker,Number\na,b,1\nc,d,{value}\n"), HEADER)
    with pytest.raises(DataError, match=r"line 3, column Number: should be a finite number or blank"):
        table.numbers("Number")


def test_choices_and_blanks(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "Utterance,Speaker,Number\na,joy,1\n  ,jooy,2\n"), HEADER)
    with pytest.raises(
        DataError, match=r"line 3, column Speaker: should be one of sad, joy, but is 'jooy'. Did you mean 'joy'"
    ):
        table.choices("Speaker", ["sad", "joy"])
    with pytest.raises(DataError, match="line 3, column Utterance: is blank"):
        table.filled("Utterance")
    assert table.choices("Number", ["2", "1"]) == [1, 0]


def test_counts(tmp_path: Path) -> None:
    check_counts(tmp_path, {"dialogues": 2, "utterances": 5}, {"dialogues": 2, "utterances": 5})
    with pytest.raises(DataError, match="holds 4 utterances, but the published file holds 5"):
        check_counts(tmp_path, {"dialogues": 2, "utterances": 4}, {"dialogues": 2, "utterances": 5})


def test_rows_without_a_header(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(b'"1","a, b"\r\n\r\n"2","c"\r\n')
    table = read_rows(file, ("number", "words"))
    assert table.integers("number") == [1, 2]
    assert table.texts("words") == ["a, b", "c"]
    assert str(table.fault(1, "words", "is odd")) == f"{file}, line 3, column words: is odd."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"1,a\n2\n3,c\n", "line 2: there should be 2 values, but there are 1."),
        (b"1,a\n2,b\n3\n", "line 3: there should be 2 values, but there are 1. The file may be cut off."),
        (b"1,a\n2,b,c\n", "line 2: there should be 2 values, but there are 3."),
        (b'1,a\n2,"b\n', "line 2: a quoted value begins here or later and never ends"),
        (b"1,a\n2,\xff\n", "line 2"),
        (b" \n", "is empty."),
    ],
)
def test_faults_of_rows_without_a_header(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(file, ("number", "words"))
    assert str(file) in str(caught.value)
    assert expected in str(caught.value)
