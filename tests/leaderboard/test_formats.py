"""Markdown, CSV, JSON and LaTeX: the same table in each, dashes for what was not measured, text that stays text."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mer_bench.errors import RequestError
from mer_bench.leaderboard.building import build_boards
from mer_bench.leaderboard.cells import COLUMNS, seconds
from mer_bench.leaderboard.gathering import gather
from mer_bench.leaderboard.latex import escaped, latex_of
from mer_bench.leaderboard.markdown import markdown_of, text
from mer_bench.leaderboard.spreadsheet import csv_of
from mer_bench.leaderboard.table import Figure, Published, Table
from mer_bench.leaderboard.writing import files_of, json_of, write_boards

from .runs import write_failure, write_run

HOSTILE = "<script>alert(1)</script> **b** | [x](http://y) `c` & \\ $x_1^2$ {%#~} \u202e\x07\nnext"
MARKDOWN = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Of three models; one without probabilities and with a hostile device, one with a failed seed."""
    folder = tmp_path_factory.mktemp("records")
    machine = {"device": HOSTILE, "threads": 1, "platform": "Linux", "python": "3.11", "versions": {}}
    for seed in range(2):
        write_run(folder, 0.9, seed=seed)
    write_run(folder, 0.4, model="bare", scored=False, machine=machine, settings={"name": HOSTILE})
    write_run(folder, 0.5, model="bare", settings={"name": "=1+1"}, options={"settings": {"name": "=1+1"}})
    write_failure(folder, reason=HOSTILE, seed=5)
    (found,) = build_boards(gather([folder])).tables
    figure = Published(
        model=HOSTILE, metric="weighted F1", value=None, features="x", kind="own", selection="test", source=HOSTILE
    )
    return found.model_copy(update={"published": (figure,)})


def rows_of(document: str) -> list[list[list[str]]]:
    """Every table of a Markdown document, cell by cell, as an independent reader of Markdown sees it."""
    tables: list[list[list[str]]] = []
    for token in MARKDOWN.parse(document):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and tables and token.level == 4:
            tables[-1][-1].append("".join(child.content for child in token.children or []))
    return tables


class TestMarkdown:
    def test_the_first_table_has_every_row_and_column(self, table: Table) -> None:
        first = rows_of(markdown_of(table))[0]
        assert first[0] == [column.title for column in COLUMNS]
        assert len(first) == 1 + len(table.rows)
        assert all(len(row) == len(COLUMNS) for row in first)
        assert first[1][1] == "gru"
        assert (
            first[1][2]
            == f"{100 * table.rows[0].weighted_f1.mean:.2f} ± {100 * (table.rows[0].weighted_f1.sd or 0):.2f}"
        )

    def test_what_was_not_measured_is_a_dash(self, table: Table) -> None:
        first = rows_of(markdown_of(table))[0]
        place = next(index for index, row in enumerate(table.rows) if row.calibration_error is None)
        assert first[1 + place][first[0].index("calibration error")] == "–"
        assert all(row[first[0].index("selection gap")] == "–" for row in first[1:])

    def test_nothing_of_a_record_is_markup(self, table: Table) -> None:
        html = MARKDOWN.render(markdown_of(table))
        assert "<script" not in html
        assert "<strong>" not in html
        assert "<a " not in html
        assert "<code>" not in html
        assert "\u202e" not in html
        assert "&lt;script&gt;alert(1)&lt;/script&gt; **b** | [x](http://y) `c` &amp; \\ $x_1^2$" in html

    def test_published_figures_stand_apart_and_unknown_is_said(self, table: Table) -> None:
        first, *others = rows_of(markdown_of(table))
        assert all("alert" not in row[1] for row in first)
        published = next(rows for rows in others if rows[0][0] == "model" and "source" in rows[0])
        assert published[1][2] == "unknown"

    @given(st.text())
    def test_any_text_is_shown_as_it_is(self, value: str) -> None:
        rendered = MARKDOWN.render(f"| a |\n| --- |\n| x{text(value)}x |\n")
        cells = re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)
        assert len(cells) == 1
        assert "<" not in cells[0]


class TestSpreadsheet:
    def test_it_reads_back(self, table: Table) -> None:
        rows = list(csv.DictReader(io.StringIO(csv_of(table))))
        assert [row["label"] for row in rows] == [row.label for row in table.rows]
        for read, row in zip(rows, table.rows, strict=True):
            assert float(read["weighted_f1"]) == row.weighted_f1.mean
            assert float(read["f1.joy"]) == row.classes["joy"].f1
            assert read["calibration_error"] == (
                "-" if row.calibration_error is None else str(row.calibration_error.mean)
            )
            assert read["seeds"] == " ".join(map(str, row.seeds))

    def test_no_cell_is_a_formula(self, table: Table) -> None:
        for row in csv.reader(io.StringIO(csv_of(table))):
            for cell in row:
                assert cell == "-" or not cell.startswith(("=", "+", "@")), cell

    def test_lines_end_alike_on_every_machine(self, table: Table) -> None:
        assert "\r" not in csv_of(table)


class TestJson:
    def test_it_reads_back_as_the_same_table(self, table: Table) -> None:
        assert Table.model_validate_json(json_of(table)) == table

    def test_a_row_of_it_is_some_lines_and_a_pair_one(self, table: Table) -> None:
        lines = json_of(table).splitlines()
        assert sum('"adjusted"' in line for line in lines) == len(table.pairs)
        assert json.loads(json_of(table))["rows"][0]["selection_gap"] is None


class TestLatex:
    def test_rows_have_as_many_cells_as_columns(self, table: Table) -> None:
        for block in re.findall(
            r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{tabular\}", latex_of(table), re.DOTALL
        ):
            lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
            assert len(lines) == 1 + len(table.rows)
            assert {len(re.split(r"(?<!\\)&", line)) for line in lines} == {len(block[0])}

    @given(st.text())
    def test_no_text_is_a_command(self, value: str) -> None:
        found = escaped(value)
        words = "backslash|asciicircum|asciitilde|less|greater|bar"
        known = rf"\\text({words})\{{\}}|\\`\{{\}}|\\[{{}}$&#%_]|\$\\(pm|times)\$|\$-\$"
        rest = re.sub(known, "", found)
        assert not set(rest) & set("\\{}$&#%_^~")
        assert "\n" not in found
        found.encode("latin-1")

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not on this machine")
    def test_it_compiles(self, table: Table, tmp_path: Path) -> None:
        (tmp_path / "table.tex").write_text(latex_of(table), encoding="utf-8")
        (tmp_path / "paper.tex").write_text(
            "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\\input{table}\\end{document}\n"
        )
        answer = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stdout[-2000:]
        assert b"Missing character" not in (tmp_path / "paper.log").read_bytes()


class TestWords:
    @pytest.mark.parametrize(
        ("value", "shown"), [(None, "–"), (0.04, "0.0"), (9.94, "9.9"), (9.96, "10"), (1234.0, "1,234")]
    )
    def test_seconds(self, value: float | None, shown: str) -> None:
        assert seconds(value) == shown

    def test_a_gap_has_its_sign(self, table: Table) -> None:
        gap = next(column for column in COLUMNS if column.short == "gap")
        row = table.rows[0].model_copy(update={"selection_gap": Figure(mean=0.0213, sd=None)})
        assert gap.text(row) == "+2.13"


class TestWriting:
    def built(self, folder: Path, **changes: Any) -> Any:
        write_run(folder, **changes)
        return build_boards(gather([folder]))

    def test_every_format_of_every_table_and_an_index(self, tmp_path: Path) -> None:
        boards = self.built(tmp_path / "records")
        files, gone = write_boards(boards, tmp_path / "out")
        name = "talks/talks.emotion.transcripts.official.text-audio"
        assert {str(file.relative_to(tmp_path / "out")) for file in files} >= {
            *(f"{name}.{ending}" for ending in ("html", "md", "csv", "json", "tex")),
            "index.html",
            "index.md",
        }
        assert gone == []
        assert all(
            file.read_bytes() == files_of(boards)[str(file.relative_to(tmp_path / "out"))].encode() for file in files
        )

    def test_links_of_the_index_lead_somewhere(self, tmp_path: Path) -> None:
        write_boards(self.built(tmp_path / "records"), tmp_path / "out")
        links = re.findall(r"\]\(([^)]+)\)", (tmp_path / "out" / "index.md").read_text())
        assert links
        assert all((tmp_path / "out" / link).is_file() for link in links)

    def test_what_is_no_more_goes_and_nothing_else(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        write_boards(self.built(tmp_path / "old", modalities=("text",)), out)
        (out / "talks" / "notes.json").write_text("{}")
        (out / "talks" / "talks.emotion.transcripts.official.text.txt").write_text("mine")
        (out / "mine.md").write_text("mine")
        _, gone = write_boards(self.built(tmp_path / "new"), out)
        assert {file.suffix for file in gone} >= {".html", ".md", ".csv", ".json", ".tex"}
        assert not any(file.exists() for file in gone)
        left = {file.name for file in out.rglob("*") if file.is_file()}
        assert left >= {"notes.json", "talks.emotion.transcripts.official.text.txt", "mine.md"}
        assert not any(
            name.startswith("talks.emotion.transcripts.official.text.")
            for name in left - {"talks.emotion.transcripts.official.text.txt"}
        )

    def test_a_file_that_is_right_is_not_written_again(self, tmp_path: Path) -> None:
        boards = self.built(tmp_path / "records")
        files, _ = write_boards(boards, tmp_path / "out")
        before = {file: file.stat().st_ino for file in files}
        write_boards(boards, tmp_path / "out")
        assert {file: file.stat().st_ino for file in files} == before

    def test_a_folder_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "out" / "index.md").mkdir(parents=True)
        with pytest.raises(RequestError, match=r"index\.md cannot be written: a folder of that name is in the way"):
            write_boards(self.built(tmp_path / "records"), tmp_path / "out")
