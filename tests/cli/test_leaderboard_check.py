"""`mer-bench leaderboard check`: what a person reads, what a program reads, and the exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mer_bench import runner
from mer_bench.cli.leaderboard_check import shown

from .conftest import Invoke

RECORDS = Path(__file__).resolve().parents[2] / "leaderboards" / "records"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Four records of one table."""
    for number in range(4):
        for file in (RECORDS / "meld/mmgcn").glob(f"mmgcn.transcripts.seed{number}.*"):
            (tmp_path / "theirs").mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / "theirs")
    return tmp_path / "theirs"


def change(file: Path, path: str, value: object) -> None:
    values = json.loads(file.read_text())
    *above, last = path.split(".")
    place = values
    for name in above:
        place = place[name]
    place[last] = value
    file.write_text(json.dumps(values))


def test_several_get_a_line_each(invoke: Invoke, desk: Path) -> None:
    result = invoke("leaderboard", "check", str(desk), "--against", str(RECORDS / "meld/cmath"))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum("  fine  " in line for line in lines) == 4
    assert lines[-1] == "4 of 4 records: nothing is wrong with what could be checked"


def test_a_refused_one_ends_with_its_reason(invoke: Invoke, desk: Path) -> None:
    file = sorted(desk.glob("*.json"))[2]
    change(file, "test.weighted_f1", 0.7)
    result = invoke("leaderboard", "check", str(desk))
    assert result.exit_code == 1
    assert "3 of 4 records: nothing is wrong" in result.stdout
    assert (
        f"1 of 4 records are refused; the first: {file} is refused (metrics): test.weighted_f1 is 0.7" in result.stderr
    )
    assert "Traceback" not in result.stderr


def test_one_is_told_of_in_full(invoke: Invoke, desk: Path) -> None:
    file = min(desk.glob("*.json"))
    result = invoke("leaderboard", "check", str(file))
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("sources")]
    assert line.split()[1:3] == ["not", "checked"]
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("metrics")]
    assert line.split()[1] == "passed"


def test_json(invoke: Invoke, desk: Path) -> None:
    change(min(desk.glob("*.json")), "seed", 7)
    result = invoke("leaderboard", "check", str(desk), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert (told["refused"], told["fine"]) == (1, 3)
    first = told["records"][0]
    assert first["verdict"] == "refused"
    assert {each["check"] for each in first["checks"] if each["outcome"] == "refused"} == {"names", "identity"}
    assert all(set(each) == {"check", "outcome", "said"} for each in first["checks"])


def test_wrong_requests(invoke: Invoke, desk: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, says in (
        (["absent"], "absent is not there"),
        ([str(tmp_path / "empty")], "holds no records"),
        ([str(min(desk.glob("*.npz")))], "is no record; give the .json file"),
        ([str(desk), "--against", "absent"], "absent is not there"),
        ([], "missing argument"),
    ):
        result = invoke("leaderboard", "check", *words)
        assert result.exit_code == 2, result.output
        assert says in result.stderr


def test_markup_and_control_characters_are_shown_as_text(invoke: Invoke, desk: Path) -> None:
    file = min(desk.glob("*.json"))
    rule = "[red]best[/red] <b>dev</b> \x1b[31m\x07"
    change(file, "selection.rule", rule)
    result = invoke("leaderboard", "check", str(file))
    assert result.exit_code == 1
    for stream in (result.stdout, result.stderr):
        assert "[red]best[/red] <b>dev</b> \\x1b[31m\\x07" in stream
        assert "\x1b[31m" not in stream
    assert shown("tab\tand \u202e") == "tab\\tand \\u202e"


def test_the_records_here_are_trusted_where_there_are_any(invoke: Invoke, desk: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "leaderboards" / "records"
    shutil.copytree(RECORDS / "meld/cmath", trusted / "meld" / "cmath")
    result = invoke("leaderboard", "check", str(min(desk.glob("*.json"))), "--json")
    told = {each["check"]: each for each in json.loads(result.stdout)["records"][0]["checks"]}
    assert told["sources"]["outcome"] == "passed"
    assert "other records of the table" in told["sources"]["said"]


def test_the_prepared_store_is_asked(invoke: Invoke, synthetic: Path, tmp_path: Path) -> None:
    request = runner.RunRequest("majority", "meld-synthetic", data_root=synthetic, out=tmp_path / "runs")
    record = runner.run(request)
    (file,) = request.out.rglob("*.json")
    words = ["leaderboard", "check", str(file), "--data-root", str(synthetic), "--json"]
    told = {each["check"]: each for each in json.loads(invoke(*words).stdout)["records"][0]["checks"]}
    assert told["sources"]["said"] == "as those of the prepared store on this machine"
    assert told["utterances"]["said"] == "each of the prepared store on this machine once, with its label"
    change(file, "features_detail.sources", "1" * 64)
    told = {each["check"]: each for each in json.loads(invoke(*words).stdout)["records"][0]["checks"]}
    assert told["sources"]["outcome"] == "refused"
    assert record.features_detail is not None


def test_no_torch_is_imported(desk: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from mer_bench.cli import main;"
        f"sys.argv = ['mer-bench', 'leaderboard', 'check', {str(desk)!r}]; main()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=desk, capture_output=True).returncode == 0
