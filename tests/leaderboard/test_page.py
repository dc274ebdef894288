"""The page of a leaderboard, as text: what it says, that it is a pure function, and that names stay text."""

from __future__ import annotations

import hashlib
import json
import re
from base64 import b64encode
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_bench.leaderboard.page import index_of, page_of
from mer_bench.leaderboard.page.links import FORMATS
from mer_bench.leaderboard.page.payload import MOST_POINTS, payload_of
from mer_bench.leaderboard.page.scores import Scale, columns_of, floor_of
from mer_bench.leaderboard.page.sections import pareto_front
from mer_bench.leaderboard.table import Boards, Unscored
from mer_bench.leaderboard.words import MINUS, grouped, listed, percent, points, seconds, short, verdict
from mer_bench.leaderboard.writing import FORMATS as WRITTEN
from mer_bench.leaderboard.writing import place_of
from tests.leaderboard.tables import HOSTILE, make_boards, make_key, make_pair, make_row, make_table

PLOT_SHA256 = "014c4a6835646e5595fb436a505d078851c91259352fdb05bd0a773bced4ed5e"
"""Of what `.ci/plot` builds; a new one is looked at by a person, and written here."""


class Reader(HTMLParser):
    """Text of a page without its scripts, its elements, and its data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(page)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.words.append(data)


def data_of(page: str) -> Any:
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(block)


# --- what it says first ---


def test_a_leader_that_shares_its_rank_is_not_said_to_lead() -> None:
    told = verdict(make_table())
    assert (told.leader, told.score, told.interval) == ("mmdfn", "60.00", "58.00 to 62.00")
    assert (told.margin, told.margin_over) == ("+0.50", "cmath (tuned)")
    assert told.holds is False
    assert told.meaning == "Shares rank 1 with 1 row"
    first, second, third, _ = told.sentences
    assert first == (
        "mmdfn has the highest weighted F1, but no test separates it from cmath (tuned) (−0.50): they share rank 1."
    )
    assert second.startswith("The first row that is separated from it is mmgcn (−3.00 points, p =")
    assert third.startswith("1 row rests on a single seed")


def test_a_leader_alone_in_its_rank_leads_by_more_than_chance() -> None:
    told = verdict(make_table(make_row("a", 0.6, 1), make_row("b", 0.5, 2)))
    assert told.holds is True
    assert told.sentences == (
        "a leads, and by more than chance (p = 0.002 after Holm's correction).".replace("= ", "=\u202f"),
    )


def test_the_pair_counts_in_either_order() -> None:
    first, second = make_row("a", 0.6, 1), make_row("b", 0.5, 2)
    table = make_table(first, second, pairs=(make_pair(second, first),))
    assert "after Holm's correction" in verdict(table).sentences[0]


def test_a_row_that_only_its_neighbour_is_told_apart_from_is_not_said_to_be_separated_from_the_leader() -> None:
    first, second, third = make_row("a", 0.60, 1), make_row("b", 0.595, 1), make_row("c", 0.59, 3)
    unsure = make_pair(first, third).model_copy(update={"p_value": 0.06, "adjusted": 0.06})
    pairs = (make_pair(first, second), unsure, make_pair(second, third))
    told = verdict(make_table(first, second, third, pairs=pairs))
    assert told.sentences[1] == "No row of this table is separated from the leader."
    alone = verdict(make_table(first, second, third))
    assert alone.sentences[1].startswith("The first row that is separated from it is c")


@pytest.mark.parametrize(
    ("rows", "holds", "words"),
    [
        ([("a", None)], None, "a is the only row of this table."),
        ([("a", 1)], None, "a is the only row of this table."),
        ([("a", None), ("b", None)], None, "nothing tested whether that is more than chance"),
        ([("a", 1), ("b", 1), ("c", 1)], False, "No row of this table is separated from the leader."),
        ([("a", 1), *((f"b{n}", 1) for n in range(7))], False, "b3 (−0.40) and 3 more: they share rank 1."),
        ([("a", 1), ("b", None), ("c", 3)], True, "a leads, and by more than chance"),
    ],
)
def test_the_verdict_of_small_and_odd_tables(
    rows: list[tuple[str, int | None]], holds: bool | None, words: str
) -> None:
    made = [make_row(label, 0.6 - 0.001 * place, rank) for place, (label, rank) in enumerate(rows)]
    told = verdict(make_table(*made))
    assert told.holds is holds
    assert words in " ".join(told.sentences)


def test_the_words_stand_at_the_top_of_the_page() -> None:
    text = Reader(page_of(make_table())).text
    assert text.index("no test separates it from cmath") < text.index("Ranking") < text.index("Score against cost")


# --- numbers ---


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (950, "950"), (999, "999"), (1000, "1 k"), (88_841, "88.8 k"), (999_400, "999 k"), (999_700, "1 M"),
     (1_234_567, "1.23 M"), (2_000_000_000, "2 G")],
)  # fmt: skip
def test_counts_in_three_figures(number: int, text: str) -> None:
    assert short(number).replace("\u202f", " ") == text


@given(st.integers(0, 10**11))
def test_short_counts_are_right_within_half_a_percent(number: int) -> None:
    value, _, unit = short(number).partition("\u202f")
    assert float(value) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit] == pytest.approx(number, rel=0.0051)
    assert "e" not in value


def test_numbers_as_a_reader_expects_them() -> None:
    assert percent(0.5824) == "58.24"
    assert percent(None) == "–"
    assert points(-0.012) == f"{MINUS}1.20"
    assert grouped(12345.6, 1) == "12\u202f345.6"
    assert [seconds(value) for value in (0.417, 9.53, 1234.4)] == ["0.42", "9.5", "1\u202f234"]
    assert [listed(list(names)) for names in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]


# --- the table ---


def test_every_column_of_the_specification_is_there() -> None:
    titles = [column.title for column in columns_of(make_table())]
    assert titles[:3] == ["Rank", "Model", "Weighted F1"]
    assert set(titles) >= {"Accuracy", "Macro F1", "UAR", "ECE", "Shift", "Seeds", "Settings", "Parameters", "Train, s",
                           "Memory, MB", "Device", "neutral", "joy", "fear", "Gap"}  # fmt: skip


def test_what_was_not_measured_is_a_dash_and_sorts_as_nothing() -> None:
    table = make_table(make_row("a", 0.6, None, cost=None, calibration_error=None, dev=None))
    cells = {column.key: column.cell(table.rows[0]) for column in columns_of(table)}
    absent = [key for key, cell in cells.items() if cell.value is None]
    assert absent == [
        "rank", "calibration_error", "dev", "selection_gap", "overrides", "parameters", "train_seconds", "memory",
        "device", "threads", "effect_size", "superiority",
    ]  # fmt: skip
    assert all(cells[key].html.startswith('<span class="missing">–') for key in absent)


def test_zero_is_a_number_and_no_dash() -> None:
    table = make_table(make_row("a", 0.0, 1, parameters=0, train_seconds=0.0))
    cells = {column.key: column.cell(table.rows[0]) for column in columns_of(table)}
    assert (cells["parameters"].html, cells["train_seconds"].html) == ("0", "0.00")
    assert "0.00" in cells["weighted_f1"].html
    assert cells["weighted_f1"].value == 0


def test_a_row_far_below_does_not_flatten_the_bars_of_the_others() -> None:
    near = [make_row(f"m{place}", 0.60 - 0.002 * place, 1) for place in range(6)]
    assert floor_of(make_table(*near)) is None
    far = make_table(*near, make_row("majority", 0.31, 7))
    floor = floor_of(far)
    assert floor is not None
    assert 0.31 < floor < 0.59
    assert Scale.of(far).low > 0.5
    assert floor_of(make_table(near[0], make_row("majority", 0.31, 2))) is None


def test_the_front_holds_what_none_beats_in_both() -> None:
    rows = [make_row("a", 0.6, 1, cost=9), make_row("b", 0.5, 2, cost=3), make_row("c", 0.4, 3, cost=4),
            make_row("d", 0.5, 2, cost=5), make_row("e", 0.3, 5, cost=1), make_row("f", 0.9, 1, cost=None)]  # fmt: skip
    for cost in ("parameters", "train_seconds"):
        assert [row.label for row in pareto_front(rows, cost)] == ["e", "b", "a"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_against_its_definition(found: list[tuple[int, int]]) -> None:
    rows = [make_row(str(place), score / 10, 1, seeds=1, epochs=0, parameters=cost)
            for place, (cost, score) in enumerate(found)]  # fmt: skip
    expected = {
        (cost, score)
        for cost, score in found
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in found)
    }
    front = [(row.parameters, round(10 * row.weighted_f1.mean)) for row in pareto_front(rows, "parameters")]
    assert set(front) == expected
    assert front == sorted(expected)


# --- its parts ---


def test_published_figures_stand_apart_with_all_that_is_known_of_them() -> None:
    page = page_of(make_table())
    section = page.partition('<section id="published"')[2].partition("</section>")[0]
    text = Reader(section).text
    assert "never ranked with the rows above" in text
    assert section.count('class="unknown"') == 4  # CMATH: value, features, kind and selection
    assert "CMATHweighted F1unknownunknownunknownunknownno public code" in text
    assert "MMGCNweighted F158.31GloVereprinttestM3Net, Table 2, https://example.org/m3net?a=1&b=2." in text
    assert '<a href="https://example.org/m3net?a=1&amp;b=2" rel="noreferrer">' in section
    assert "CMATH" not in page.partition('<table id="scores"')[2].partition("</table>")[0]


@pytest.mark.parametrize("source", ["javascript:alert(1)", "http://insecure.example", "data:text/html,x"])
def test_only_https_becomes_a_link(source: str) -> None:
    figure = make_table().published[0].model_copy(update={"source": source})
    page = page_of(make_table(published=(figure,)))
    assert source in Reader(page).text
    assert f'href="{source}' not in page


def test_where_no_run_was_audited_the_page_says_how_to() -> None:
    page = page_of(make_table(make_row("a", 0.6, 1)))
    assert "mer-bench run --audit-selection" in Reader(page).text
    assert "draw-gap" not in page.partition('<script>\n"use strict"')[0]
    audited = Reader(page_of(make_table())).text
    assert "Of 3 audited runs, choosing the epoch on test would add +1.10 to +1.90 points" in audited


def test_reasons_of_failed_runs_are_shown() -> None:
    text = Reader(page_of(make_table())).text
    assert "1 failed run" in text
    assert "logistic3the loss became nan in epoch 2" in text


def test_every_run_is_named_by_its_record() -> None:
    table = make_table()
    text = Reader(page_of(table)).text
    assert [run.run for row in table.rows for run in row.runs if run.run not in text] == []


def test_drawings_have_words_for_whoever_cannot_see_them() -> None:
    for page in (page_of(make_table()), index_of(make_boards())):
        drawn = [found for _, found in Reader(page).elements if "drawing" in (found.get("class") or "")]
        assert drawn
        assert [found for found in drawn if found.get("role") != "img" or len(found.get("aria-label") or "") < 30] == []
    labels = [found.get("aria-label") for _, found in Reader(page_of(make_table())).elements]
    assert any(label and label.endswith("majority (31.00 % with 0), logistic (56.00 % with 1), "
                                        "cmath (tuned) (59.50 % with 80\u202fk) and mmdfn (60.00 % with 200\u202fk).")
               for label in labels)  # fmt: skip


def test_made_up_data_are_called_so() -> None:
    page = page_of(make_table(make_row("a", 0.6, 1), key=make_key("meld-synthetic", synthetic=True)))
    assert "Made-up data." in Reader(page).text
    assert "Made-up data." not in Reader(page_of(make_table())).text


def test_very_long_curves_are_thinned_and_the_page_says_so() -> None:
    rows = [make_row(f"m{place}", 0.5, 1, seeds=5, epochs=1000) for place in range(12)]
    drawn = payload_of(make_table(*rows))["rows"]
    assert 0 < sum(len(run["epochs"]) for row in drawn for run in row["runs"]) <= MOST_POINTS + 60
    assert all(run["epoch"] in run["epochs"] for row in drawn for run in row["runs"])
    assert "Every 2th epoch" not in page_of(make_table(*rows))
    assert "Every second epoch is drawn." in page_of(make_table(*rows))


def test_a_table_of_two_hundred_rows_is_no_giant() -> None:
    rows = [make_row(f"model-{place}", 0.6 - 0.001 * place, place + 1, seeds=5, epochs=60) for place in range(200)]
    assert len(page_of(make_table(*rows)).encode()) < 2_000_000
    assert len(page_of(make_table()).encode()) < 400_000


# --- links ---


def test_links_lead_where_the_files_are_written() -> None:
    boards = make_boards()
    found = re.findall(r'href="([^"#][^"]*)"', index_of(boards))
    assert found == [f"{place_of(table)}.html" for table in boards.tables]
    page = page_of(boards.tables[1], boards.tables)
    assert re.findall(r'href="([^"#h][^"]*)"', page) == ["../index.html", "meld.text.html",
                                                         *(f"meld.emotion.{each}" for each in FORMATS)]  # fmt: skip
    assert tuple(WRITTEN) == FORMATS


def test_a_strange_name_is_a_file_name_in_a_link() -> None:
    strange = make_table(make_row("a", 0.5, 1), name='a b#c?"<d>%', key=make_key("my data"))
    page = index_of(Boards(tables=(strange,), across=None))
    assert 'href="my%20data/a%20b%23c%3F%22%3Cd%3E%25.html"' in page


# --- the index ---


def test_the_index_says_which_leads_are_more_than_chance() -> None:
    text = Reader(index_of(make_boards())).text
    assert "3 leaderboards from 25 runs of 7 models on iemocap and meld." in text
    assert "Of the 2 leaderboards with more than one row, 1 has a leader whose lead is more than chance." in text
    assert "Not separated from each other: mmdfn, cmath and mmgcn; mmgcn and majority." in index_of(make_boards())


def test_an_index_without_tables_or_with_failures_alone_is_a_page() -> None:
    failed = make_boards().model_copy(
        update={
            "tables": (),
            "across": None,
            "unscored": (
                Unscored.model_validate(
                    {
                        "name": "meld.x",
                        "key": make_key().model_dump(),
                        "failed": [{"label": "a", "model": "a", "failed": {0: "out of <memory>"}}],
                    }
                ),
            ),
        }
    )
    text = Reader(index_of(failed)).text
    assert "No record has a score yet." in text
    assert "meld.xa0out of <memory>" in text


# --- pure, closed, and safe ---


def test_the_same_table_gives_the_same_bytes_whatever_way_it_came() -> None:
    boards = make_boards()
    again = Boards.model_validate_json(boards.model_dump_json())
    assert index_of(again) == index_of(boards)
    for table, other in zip(boards.tables, again.tables, strict=True):
        assert page_of(other, again.tables) == page_of(table, boards.tables)


def test_the_page_allows_its_own_scripts_and_nothing_else() -> None:
    page = page_of(make_table())
    policy = next(found["content"] for tag, found in Reader(page).elements if "content-security-policy" in
                  (found.get("http-equiv") or "").lower())  # fmt: skip
    assert policy
    rules = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [f"'sha256-{b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in scripts]
    assert rules["script-src"].split() == hashes
    assert len(hashes) == 4


def test_names_are_text_wherever_they_stand() -> None:
    row = make_row(HOSTILE, 0.6, 1, audited=True, overrides=(HOSTILE,), failed={7: HOSTILE}, device=HOSTILE,
                   selection_rule=HOSTILE)  # fmt: skip
    other = make_row("b", 0.5, 1)
    figure = make_table().published[0].model_copy(update={"model": HOSTILE, "source": HOSTILE, "note": HOSTILE})
    missing = make_table().missing[0].model_copy(update={"label": HOSTILE})
    table = make_table(row, other, published=(figure,), missing=(missing,))
    plain = Reader(page_of(make_table(row.model_copy(update={"label": "a"}), other)))
    for page in (page_of(table, (table,)), index_of(Boards(tables=(table,), across=None))):
        read = Reader(page)
        tags = {tag for tag, _ in read.elements}
        assert "img" not in tags
        assert not any(name.startswith("on") for _, found in read.elements for name in found)
        assert re.sub(r"\s+", " ", HOSTILE) in read.text
    assert len(Reader(page_of(table)).scripts) == len(plain.scripts)
    assert data_of(page_of(table))["rows"][0]["label"] == HOSTILE


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=30))
def test_any_name_survives_the_page_unchanged(label: str) -> None:
    table = make_table(make_row(label, 0.5, 1, seeds=1, epochs=0))
    page = page_of(table)
    assert data_of(page)["rows"][0]["label"] == label
    inner = re.findall(r"<bdi>(.*?)</bdi>", page, re.DOTALL)
    assert any(Reader(f"<p>{each}</p>").words == [label] or "".join(Reader(each).words) == label for each in inner)


def test_the_library_is_the_one_that_was_looked_at() -> None:
    content = files("mer_bench.leaderboard.page").joinpath("plot.min.js").read_bytes()
    assert hashlib.sha256(content).hexdigest() == PLOT_SHA256
    text = content.decode()
    for package in ("@observablehq/plot 0.6.17 (ISC)", "d3-scale 4.0.3 (ISC)", "isoformat 0.2.1 (ISC)"):
        assert package in text
    assert text.count("Permission to use, copy, modify, and/or distribute") >= 4
    assert "eval(" not in text
    assert "new Function" not in text
