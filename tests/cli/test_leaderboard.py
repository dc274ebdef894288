"""`mer-bench leaderboard`: records in, pages out, and a table on the screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mer_bench.leaderboard.table import Table
from tests.leaderboard.runs import write_failure, write_run

from .conftest import Invoke

NAME = "talks.emotion.transcripts.official.text-audio"


@pytest.fixture
def records(tmp_path: Path) -> Path:
    folder = tmp_path / "leaderboards" / "records"
    for seed in range(2):
        write_run(folder, 0.9, seed=seed)
    write_run(folder, 0.4, model="weak")
    write_run(folder, 0.4, model="weak", modalities=("text",))
    return folder


def test_build_writes_pages_of_the_records_that_lie_here(invoke: Invoke, records: Path, tmp_path: Path) -> None:
    result = invoke("leaderboard", "build", "--out", "pages")
    assert result.exit_code == 0, result.stderr
    assert "2 leaderboards with 3 rows of 4 records" in result.stdout
    assert "index: pages/index.html" in result.stdout
    assert (tmp_path / "pages" / "talks" / f"{NAME}.csv").is_file()


def test_build_answers_programs(invoke: Invoke, records: Path) -> None:
    result = invoke("leaderboard", "build", "--out", "pages", "--json")
    told = json.loads(result.stdout)
    assert f"pages/talks/{NAME}.json" in told["files"]
    assert told["removed"] == []


def test_build_tells_of_failures_and_of_what_it_removed(invoke: Invoke, records: Path) -> None:
    invoke("leaderboard", "build", "--out", "pages")
    write_failure(records, protocol="talks/other")
    (only,) = [file for file in records.rglob("*.json") if '["text"]' in file.read_text()]
    only.unlink()
    result = invoke("leaderboard", "build", "--out", "pages")
    assert "talks.emotion.transcripts.other.text-audio has no page, since every run of it failed" in result.stderr
    assert "of leaderboards that are no more" in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("build",), "where should the pages go?"),
        (("build", "nowhere", "--out", "pages"), "there are no records at nowhere"),
        (("build", "--out", "leaderboards/records/pages"), "where every .json is a record"),
        (("show", "tlks"), "no leaderboard is called 'tlks'"),
        (("show", "--records", "nowhere"), "there are no records at nowhere"),
        (("shwo",), "Did you mean 'show'"),
    ],
)
def test_a_wrong_request_is_one_sentence(
    invoke: Invoke, records: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    result = invoke("leaderboard", *words)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "pages").exists()


def test_damage_writes_nothing(invoke: Invoke, records: Path, tmp_path: Path) -> None:
    file = sorted(records.rglob("*.json"))[0]
    file.write_text("{}")
    result = invoke("leaderboard", "build", "--out", "pages")
    assert result.exit_code == 2
    assert file.name in result.stderr
    assert not (tmp_path / "pages").exists()


def test_show_lists_and_shows(invoke: Invoke, records: Path) -> None:
    listed = invoke("leaderboard", "show")
    assert NAME in listed.stdout
    assert NAME.removesuffix("-audio") in listed.stdout
    shown = invoke("leaderboard", "show", NAME)
    assert shown.exit_code == 0, shown.stderr
    assert "gru leads, and by more than chance" in shown.stdout
    lines = shown.stdout.splitlines()
    (gru,) = [line for line in lines if line.split()[1:2] == ["gru"]]
    assert gru.split()[0] == "1"
    assert "card" in gru
    assert "–" not in gru
    assert invoke("leaderboard", "show", "Text-Audio").stdout == shown.stdout


def test_show_of_a_part_of_several_names_lists_them(invoke: Invoke, records: Path) -> None:
    assert "highest" in invoke("leaderboard", "show", "transcripts").stdout


def test_show_some_rows_and_failures(invoke: Invoke, records: Path) -> None:
    write_failure(records, reason="the loss became NaN", model="unlucky")
    result = invoke("leaderboard", "show", NAME, "--top", "1")
    assert "and 1 row more" in result.stdout
    assert "unlucky, seed 0, failed: DivergedError: the loss became NaN" in result.stderr


def test_show_answers_programs(invoke: Invoke, records: Path) -> None:
    assert json.loads(invoke("leaderboard", "show", "--json").stdout) == [NAME.removesuffix("-audio"), NAME]
    table = Table.model_validate_json(invoke("leaderboard", "show", NAME, "--json").stdout)
    assert [row.label for row in table.rows] == ["gru", "weak"]
