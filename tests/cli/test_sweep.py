"""`mer-bench sweep` as a user types it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.sweep.loopback import write_slowly

SMALL = ("sweep", "--models", "majority", "--datasets", "meld-synthetic")


@pytest.fixture
def slowly(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_slowly(tmp_path_factory.mktemp("plugins")))


def test_a_dry_run_shows_runs_states_and_times_and_runs_nothing(
    invoke: Invoke, synthetic: Path, tmp_path: Path
) -> None:
    place = ("--data-root", str(synthetic))
    assert invoke(*SMALL, *place, "--seeds", "1").exit_code == 0
    shown = invoke(*SMALL, *place, "--seeds", "3", "--dry-run", "--models", "majority,textonly")
    assert shown.exit_code == 0
    assert "6 runs, 1 recorded already, 5 to do" in shown.output
    states = re.findall(r"^(\w+) +meld-synthetic/default .* (\d) +(recorded|to do) +(.*?)$", shown.output, re.MULTILINE)
    assert [(model, seed, state) for model, seed, state, _ in states] == [
        ("majority", "0", "recorded"),
        ("textonly", "0", "to do"),
        ("majority", "1", "to do"),
        ("textonly", "1", "to do"),
        ("majority", "2", "to do"),
        ("textonly", "2", "to do"),
    ]
    assert all((time == "no estimate") == (model == "textonly") for model, _, _, time in states)
    assert "no earlier record tells how long textonly may take (3 runs)" in shown.output
    assert "nothing was run" in shown.output
    assert len(list((tmp_path / "runs").rglob("*.json"))) == 1


def test_the_dry_run_answers_programs(invoke: Invoke, tmp_path: Path) -> None:
    answer = json.loads(invoke(*SMALL, "--seeds", "2", "--dry-run", "--json").stdout)
    assert [run["state"] for run in answer["runs"]] == ["data not prepared"] * 2
    assert answer["without_estimate"] == 2
    assert not (tmp_path / "data").exists()


def test_estimates_come_from_earlier_records_too(invoke: Invoke, synthetic: Path) -> None:
    records = Path(__file__).resolve().parents[2] / "leaderboards" / "records"
    words = ("sweep", "--models", "bclstm", "--datasets", "meld", "--seeds", "4", "--dry-run", "--json")
    before = json.loads(invoke(*words).stdout)
    after = json.loads(invoke(*words, "--earlier", str(records)).stdout)
    halved = json.loads(invoke(*words, "--earlier", str(records), "--jobs", "2").stdout)
    assert (before["without_estimate"], after["without_estimate"]) == (4, 0)
    assert after["seconds"] == pytest.approx(4 * after["runs"][0]["seconds"])
    assert halved["seconds"] == pytest.approx(after["seconds"] / 2)


def test_without_a_terminal_each_run_is_a_line_and_the_rows_are_at_the_end(invoke: Invoke, synthetic: Path) -> None:
    words = (*SMALL, "--data-root", str(synthetic), "--seeds", "2")
    shown = invoke(*words)
    assert shown.exit_code == 0
    assert re.search(r"1/2 majority on meld-synthetic/default, text \+ audio \+ visual, seed 0: test", shown.output)
    assert re.search(r"majority +2 +\d+\.\d\d +0\.00", shown.output)
    again = invoke(*words, "--json")
    answer = json.loads(again.stdout)
    assert (answer["recorded_before"], answer["done"], answer["failed"]) == (2, 0, 0)
    assert [run["status"] for run in answer["runs"]] == ["done", "done"]


def test_runs_that_failed_are_named_and_the_exit_code_is_1(invoke: Invoke, synthetic: Path, slowly: str) -> None:
    words = ["sweep", "--plugin", slowly, "--models", "majority,slowly", "--datasets", "meld-synthetic"]
    words += ["--data-root", str(synthetic), "--set", "slowly.breaks=true"]
    shown = invoke(*words)
    assert shown.exit_code == 1
    assert "warning: slowly on meld-synthetic/default" in shown.output
    assert "IndexError: no such row" in shown.output
    assert "1 of 2 runs failed; the first of them:" in shown.output
    alone = invoke(*words, "--skip-failed")
    assert alone.exit_code == 0
    assert "2 runs, 1 recorded already, 1 that failed and are left alone, 0 to do" in alone.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "a sweep needs --models and --datasets, or --plan FILE"),
        (["--models", "majorty", "--datasets", "meld"], "no model is called 'majorty'. Did you mean 'majority'?"),
        (["--models", "a,,b", "--datasets", "meld"], "--models takes names with commas between them"),
        (
            ["--models", "majority", "--datasets", "meld", "--seeds", "x"],
            "--seeds takes how many (10) or which (0,3,7)",
        ),
        (["--models", "majority", "--datasets", "meld", "--seeds", "0"], "seeds in the options should be 1 or more"),
        (["--plan", "absent.toml"], "the plan absent.toml cannot be read: No such file"),
        (["--plan", "p.toml", "--seeds", "3"], "the plan p.toml says what is run; write there what --seeds says"),
        ([*SMALL[1:], "--slurm", "--queue", "pbs"], "--slurm and --queue pbs are two queues"),
        ([*SMALL[1:], "--scheduler", "tcp://a:1", "--jobs", "2"], "so that --jobs says nothing to it"),
        ([*SMALL[1:], "--scheduler", "a:1"], "a scheduler is given as tcp://host:port, but 'a:1' was given"),
        ([*SMALL[1:], "--partition", "gpu"], "--partition is for jobs of a queue"),
        ([*SMALL[1:], "--jobs", "2", "--device", "cuda:1"], "each worker takes one GPU, so that none can be named"),
        ([*SMALL[1:], "--queue", "lsf"], "jobs are handed to lsf with bsub, which is not on this machine"),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(invoke: Invoke, words: list[str], sentence: str) -> None:
    shown = invoke("sweep", *words)
    assert shown.exit_code == 2
    assert sentence in shown.output
    assert "Traceback" not in shown.output


def test_more_workers_than_gpus_are_refused(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    shown = invoke(*SMALL, "--jobs", "3")
    assert shown.exit_code == 2
    assert "3 workers were asked for and 2 GPUs are here, one for each worker: give --jobs 2" in shown.output


def test_without_distributed_workers_are_refused(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mer_bench.sweep.places.find_spec", lambda name: None)
    shown = invoke(*SMALL, "--jobs", "2")
    assert shown.exit_code == 2
    assert "pip install 'mer-bench[cluster]'" in shown.output


@pytest.mark.parametrize(
    ("number", "where"), [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGINT, ("--jobs", "1"))]
)
def test_ctrl_c_says_what_is_saved_and_the_same_command_goes_on(
    synthetic: Path, slowly: str, tmp_path: Path, number: signal.Signals, where: tuple[str, ...]
) -> None:
    words = [sys.executable, "-m", "mer_bench", "sweep", "--plugin", slowly, "--models", "slowly"]
    words += ["--datasets", "meld-synthetic", "--seeds", "30", "--set", "seconds=0.05", "--out", str(tmp_path / "out")]
    words += ["--data-root", str(synthetic), "--device", "cpu", "--threads", "1", *where]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,  # noqa: PLW1509 — or a shell's deafness is inherited
    )
    until = time.monotonic() + 240
    while not list((tmp_path / "out").rglob("*.json")):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=240)
    saved = len(list((tmp_path / "out").rglob("*.json")))
    assert process.returncode == 75, told
    assert re.search(rf"stopped; {saved} of 30 runs are saved in .*, and the same command goes on\.", told)
    assert "Traceback" not in told
    assert 0 < saved < 30
    words[words.index("--seeds") + 1] = str(saved)
    again = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240)
    assert f"{saved} recorded already, 0 to do" in again.stdout


def test_on_a_terminal_a_table_is_drawn_and_gone_at_the_end(synthetic: Path, slowly: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mer_bench", "sweep", "--plugin", slowly, "--models", "slowly", "--threads", "1"]
    words += ["--datasets", "meld-synthetic", "--seeds", "3", "--set", "seconds=0.1", "--out", str(tmp_path / "out")]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*words, "--data-root", str(synthetic)],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
    )
    os.close(theirs)
    shown = b""
    until = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < until:
        if select.select([ours], [], [], 0.2)[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:
                break
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode("utf-8", "replace"))
    assert re.search(r"done +running +failed +left +to go +workers", text)
    assert re.search(r"slowly on meld-synthetic/default, text \+ audio \+ visual, seed \d +\d/3", text)
    assert b"\x1b[1A" in shown  # it was drawn again in its place
    assert "1/3" not in text.splitlines()[-1]
